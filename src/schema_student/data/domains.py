"""Build schemas: domain specification + operators + template -> the JSON Schema of a query DSL.

First stage of the flow. A specification (d_01) says what a domain's records are; each schema (d_02) draws 4 to 7 of
the catalog's operators and gives each a name of its own, so that a student must read instead of learning names; a
specification that brings operators along keeps them.

    write_domain_specs(settings)    # the teacher's domains -> d_01_domain_specs.jsonl
    write_schemas(settings)         # -> d_02_final_schemas.jsonl
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.cleaning import one_line
from schema_student.core.errors import UserError
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import BuiltSchema, DomainSpec, read_rows
from schema_student.core.settings import AnySettings, resolve_auto
from schema_student.core.splits import say_part, smaller_limit, take_part
from schema_student.core.stamps import make_stamp
from schema_student.data.domain_prompts import DomainPrompt, prompts_file, read_domain_prompts
from schema_student.schema.compiling import SchemaError
from schema_student.schema.dialect import Dialect, dialect_files, read_dialect, shipped_dialect
from schema_student.schema.query_dsl import Spec
from schema_student.schema.rendering import completion_text
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.client import Teacher, open_teacher
from schema_student.teacher.faults import TeacherFailure

DECIDING = ("answers", "operators")  # groups of settings of d_01; "domains" comes resolved
FILES = ("operators", "schema_template")  # settings that are inputs, stamped by what they hold
ASKED_AT_ONCE = 12  # specifications asked for between two writes


# ---------------------------------------------------------------------------------------------------------------------
# d_01: the teacher's domain specifications


def write_domain_specs(settings: AnySettings) -> None:
    """Ask the teacher for domain specifications; writes d_01 with those that a schema can be built of.

    Raises UserError where none is usable, or where the embedded teacher does not know that many domains.
    """
    dialect = read_dialect(settings.operators)
    given = read_domain_prompts(prompts_file(settings.domains))
    choice = resolve_teacher(settings)
    count, most = domain_count(settings, choice), settings.part.max_samples
    prompts = seed_prompts(given, smaller_limit(count, most))
    stamp = _stamp(settings, *DECIDING, teacher=choice.stamp, domains=count)
    inputs = [prompts_file(settings.domains), *dialect_files(settings.operators)]
    with open_artifact(paths(settings).domain_specs, stamp, inputs, settings.run.overwrite) as artifact:
        if artifact.done:
            return
        say_part(count, most, "domains")
        ids = {row["schema_id"] for row in artifact.rows}
        # Rows stand in the order of their prompts, so all prompts up to the last row's are settled.
        texts = [prompt.text for prompt in prompts]
        start = texts.index(artifact.rows[-1]["source_prompt"]) + 1 if artifact.rows else 0
        rejected: dict[str, str] = {}
        with open_teacher(settings, choice) as teacher:
            for prompt, answer in _ask_specs(teacher, prompts, start):
                if problem := spec_problem(answer, dialect):
                    rejected[prompt.text] = one_line(problem)
                    log.info(f"rejected: {prompt.text}: {problem}")
                else:
                    row = _spec_row(answer, prompt, ids)
                    ids.add(row.schema_id)
                    artifact.append(row.as_json())
        if not ids:
            reasons = "; ".join(dict.fromkeys(rejected.values()))[:400]
            raise UserError(f"no valid domain specification came from {choice.display_name}: {reasons}")
        artifact.finish({"rows": len(ids), "rejected": rejected, "teacher_info": teacher.info})


def _stamp(settings: AnySettings, *groups: str, **facts: Any) -> dict[str, Any]:
    stamp = make_stamp(settings, *groups, **facts)
    stamp["settings"] = {name: value for name, value in stamp["settings"].items() if name not in FILES}
    return stamp


def domain_count(settings: AnySettings, choice: TeacherChoice) -> int:
    """Resolve how many domains are asked for; "auto" depends on who writes them, and on whose the prompts are."""
    known = len(read_domain_prompts(prompts_file(settings.domains)))
    if settings.domains.domain_prompts and settings.domains.domains == "auto":
        return known
    count = resolve_auto(settings, "embedded" if choice.embedded else "gemma").domains.domains
    if choice.embedded and int(count) > known:
        raise UserError(f"--domains {count}: the {choice.display_name} knows {known}; give --domains {known} or less")
    return int(count)


def seed_prompts(prompts: list[DomainPrompt], count: int) -> list[DomainPrompt]:
    """Make a different prompt for each of `count` domains: the given ones, then these with another focus."""
    rounds = [i // len(prompts) + 1 for i in range(count)]
    variants = [f" (variant {n}: another focus, other fields)" if n > 1 else "" for n in rounds]
    given = [prompts[i % len(prompts)] for i in range(count)]
    return [prompt._replace(text=prompt.text + variant) for prompt, variant in zip(given, variants, strict=True)]


def _ask_specs(teacher: Teacher, prompts: list[DomainPrompt], start: int) -> Iterator[tuple[DomainPrompt, Any]]:
    for first in range(start, len(prompts), ASKED_AT_ONCE):
        some = list(enumerate(prompts))[first : first + ASKED_AT_ONCE]
        asks = [("domain_spec", {"index": i, "seed_prompt": prompt.text}) for i, prompt in some]
        answers = teacher.ask_many(asks, progress=f"domain specs {first + 1}-{first + len(some)} of {len(prompts)}")
        yield from zip((prompt for _, prompt in some), answers, strict=True)


def spec_problem(spec: Any, dialect: Dialect | None = None) -> str:
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
        dialect = dialect or shipped_dialect()
        dialect.build(spec, dialect.operators_of(spec, random.Random(0)))
    except SchemaError as error:
        return str(error)
    return ""


def _repeated(names: list[str]) -> list[str]:
    return [name for i, name in enumerate(names) if name in names[:i]]


def _spec_row(spec: Spec, prompt: DomainPrompt, ids: set[str]) -> DomainSpec:
    """A row of d_01; a schema_id that is taken gets a number, a domain that the user named its name."""
    taken = sum(name == spec["schema_id"] or name.startswith(f"{spec['schema_id']}_v") for name in ids)
    schema_id = f"{spec['schema_id']}_v{taken + 1}" if taken else spec["schema_id"]
    own = {key: spec[key] for key in ("noun", "description", "fields", "example_queries")}
    return DomainSpec(schema_id=schema_id, domain=prompt.domain or spec["domain"], **own, source_prompt=prompt.text)


# ---------------------------------------------------------------------------------------------------------------------
# d_02: their schemas


def write_schemas(settings: AnySettings) -> None:
    """Build the JSON Schema of every domain specification; writes d_02."""
    where, dialect = paths(settings), read_dialect(settings.operators)
    inputs = [where.domain_specs, *dialect_files(settings.operators)]
    with open_artifact(where.schemas, _stamp(settings, "operators"), inputs, settings.run.overwrite) as artifact:
        if artifact.done:
            return
        specs = take_part(read_rows(where.domain_specs, DomainSpec), settings.part.max_samples, "domain specs")
        for spec in specs[len(artifact.rows) :]:
            artifact.append(schema_row(spec.as_json(), settings.run.seed, dialect).as_json())
        artifact.finish()


def schema_row(spec: Spec, seed: int, dialect: Dialect | None = None) -> BuiltSchema:
    """Make a row of d_02: the specification, its operators or those drawn for it, and its schema."""
    dialect = dialect or shipped_dialect()
    operators = dialect.operators_of(spec, random.Random(f"{seed} operators {spec['schema_id']}"))
    schema = dialect.build(spec, operators)
    own = {key: spec[key] for key in ("schema_id", "domain", "noun", "description", "fields", "example_queries")}
    return BuiltSchema(**own, operators=operators, schema=schema, schema_json=completion_text(schema))
