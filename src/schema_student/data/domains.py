"""Build schemas: domain specification + operators + template -> the JSON Schema of a query DSL.

First stage of the flow. A specification (d_01) says what a domain's records are; each schema (d_02) draws 4 to 7 of
the catalog's operators and gives each a name of its own, so that a student must read instead of learning names.

    write_domain_specs(settings)    # the teacher's domains -> d_01_domain_specs.jsonl
    write_schemas(settings)         # -> d_02_final_schemas.jsonl
    schema = build_schema(spec, draw_operators(operator_catalog(), spec, random.Random(1)))
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.cleaning import one_line
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import BuiltSchema, DomainSpec, read_rows
from schema_student.core.resources import DATA_DIR
from schema_student.core.settings import AnySettings, resolve_auto
from schema_student.core.stamps import make_stamp
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.query_dsl import Spec, build_schema, draw_operators, operator_catalog
from schema_student.schema.rendering import completion_text
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import Teacher, open_teacher
from schema_student.teacher.faults import TeacherFailure

DOMAIN_PROMPTS = DATA_DIR / "domain_prompts.json"
DECIDING = ("answers",)  # groups of settings of d_01; "domains" comes resolved
ASKED_AT_ONCE = 12  # specifications asked for between two writes


# ---------------------------------------------------------------------------------------------------------------------
# d_01: the teacher's domain specifications


def write_domain_specs(settings: AnySettings) -> None:
    """Ask the teacher for domain specifications; writes d_01 with those that a schema can be built of.

    Raises UserError where none is usable, or where the embedded teacher does not know that many domains.
    """
    choice = resolve_teacher(settings)
    prompts = seed_prompts(domain_count(settings, choice))
    stamp = make_stamp(settings, *DECIDING, teacher=choice.stamp, domains=len(prompts))
    target = paths(settings).domain_specs
    with open_artifact(target, stamp, [DOMAIN_PROMPTS], settings.run.overwrite) as artifact:
        if artifact.done:
            return
        ids = {row["schema_id"] for row in artifact.rows}
        # Rows stand in the order of their prompts, so all prompts up to the last row's are settled.
        start = prompts.index(artifact.rows[-1]["source_prompt"]) + 1 if artifact.rows else 0
        rejected: dict[str, str] = {}
        with open_teacher(settings, choice) as teacher:
            for prompt, answer in _ask_specs(teacher, prompts, start):
                if problem := spec_problem(answer):
                    rejected[prompt] = one_line(problem)
                    log.info(f"rejected: {prompt}: {problem}")
                else:
                    row = _spec_row(answer, prompt, ids)
                    ids.add(row.schema_id)
                    artifact.append(row.as_json())
        if not ids:
            reasons = "; ".join(dict.fromkeys(rejected.values()))[:400]
            raise UserError(f"no valid domain specification came from {choice.display_name}: {reasons}")
        artifact.finish({"rows": len(ids), "rejected": rejected, "teacher_info": teacher.info})


def domain_count(settings: AnySettings, choice: TeacherChoice) -> int:
    """Resolve how many domains are asked for; "auto" depends on who writes them."""
    count = resolve_auto(settings, "embedded" if choice.embedded else "gemma").domains.domains
    known = len(read_json(DOMAIN_PROMPTS))
    if choice.embedded and int(count) > known:
        raise UserError(f"--domains {count}: the {choice.display_name} knows {known}; give --domains {known} or less")
    return int(count)


def seed_prompts(count: int) -> list[str]:
    """Make a different seed prompt for each of `count` domains: the shipped ones, then these with another focus."""
    seeds: list[str] = read_json(DOMAIN_PROMPTS)
    rounds = [i // len(seeds) + 1 for i in range(count)]
    variants = [f" (variant {n}: another focus, other fields)" if n > 1 else "" for n in rounds]
    return [seeds[i % len(seeds)] + variant for i, variant in enumerate(variants)]


def _ask_specs(teacher: Teacher, prompts: list[str], start: int) -> Iterator[tuple[str, Any]]:
    for first in range(start, len(prompts), ASKED_AT_ONCE):
        some = list(enumerate(prompts))[first : first + ASKED_AT_ONCE]
        asks = [("domain_spec", {"index": i, "seed_prompt": prompt}) for i, prompt in some]
        answers = teacher.ask_many(asks, progress=f"domain specs {first + 1}-{first + len(some)} of {len(prompts)}")
        yield from zip((prompt for _, prompt in some), answers, strict=True)


def spec_problem(spec: Any) -> str:
    """Say why no usable schema can be built of the teacher's answer; "" where one can."""
    if isinstance(spec, TeacherFailure):
        return spec.reason
    for name in _repeated([field["const"] for field in spec["fields"]]):
        return f"the field {name} is there twice"
    for field in spec["fields"]:
        if (field["type"] == "enum") != bool(field.get("enum")):
            return f"the field {field['const']} has type {field['type']} but its enum is {field.get('enum', 'missing')}"
        for name in _repeated([option["const"] for option in field.get("enum", ())]):
            return f"the value {name} of the field {field['const']} is there twice"
    try:
        compile_schema(build_schema(spec, draw_operators(operator_catalog(), spec, random.Random(0))))
    except SchemaError as error:
        return str(error)
    return ""


def _repeated(names: list[str]) -> list[str]:
    return [name for i, name in enumerate(names) if name in names[:i]]


def _spec_row(spec: Spec, prompt: str, ids: set[str]) -> DomainSpec:
    """A row of d_01; a schema_id that is taken gets a number."""
    taken = sum(name == spec["schema_id"] or name.startswith(f"{spec['schema_id']}_v") for name in ids)
    schema_id = f"{spec['schema_id']}_v{taken + 1}" if taken else spec["schema_id"]
    own = {key: spec[key] for key in ("domain", "noun", "description", "fields", "example_queries")}
    return DomainSpec(schema_id=schema_id, **own, source_prompt=prompt)


# ---------------------------------------------------------------------------------------------------------------------
# d_02: their schemas


def write_schemas(settings: AnySettings) -> None:
    """Build the JSON Schema of every domain specification; writes d_02."""
    where = paths(settings)
    data = [DATA_DIR / name for name in ("operators.json", "schema_template.json")]
    with open_artifact(
        where.schemas, make_stamp(settings), [where.domain_specs, *data], settings.run.overwrite
    ) as artifact:
        if artifact.done:
            return
        for spec in read_rows(where.domain_specs, DomainSpec)[len(artifact.rows) :]:
            artifact.append(schema_row(spec.as_json(), settings.run.seed).as_json())
        artifact.finish()


def schema_row(spec: Spec, seed: int) -> BuiltSchema:
    """Make a row of d_02: the specification, the operators drawn for it, and its schema."""
    rng = random.Random(f"{seed} operators {spec['schema_id']}")
    operators = draw_operators(operator_catalog(), spec, rng)
    schema = build_schema(spec, operators)
    compile_schema(schema, spec["schema_id"])
    own = {key: spec[key] for key in ("schema_id", "domain", "noun", "description", "fields", "example_queries")}
    return BuiltSchema(**own, operators=operators, schema=schema, schema_json=completion_text(schema))
