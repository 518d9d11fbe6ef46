"""Read the template and the operator catalog that schemas of the query DSL are built of: shipped, or the user's own.

dialect = read_dialect(settings.operators)                  # raises UserError with the file, the place, what is wrong
operators = dialect.operators_of(spec, random.Random(1))    # the spec's own, or drawn from the catalog
schema = dialect.build(spec, operators)
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json
from schema_student.core.resources import DATA_DIR
from schema_student.core.setting_groups import OperatorsSettings
from schema_student.core.settings import default_settings
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.judging import find_violations
from schema_student.schema.query_dsl import (
    JsonSchema,
    Operator,
    Spec,
    build_schema,
    draw_operators,
    is_query_dsl,
    name_operator,
    operator_catalog,
)

TEMPLATE, CATALOG = DATA_DIR / "schema_template.json", DATA_DIR / "operators.json"
TYPES = ("string", "number", "integer", "boolean", "date", "enum")  # of fields
DEFAULTS: dict[str, Any] = {"list": False, "types": list(TYPES)}
TEXT = {"type": "string", "minLength": 1}
ENTRY: JsonSchema = {
    "type": "object",
    "properties": {
        "const": {**TEXT, "pattern": r"^\S+$"},
        "description": TEXT,
        "list": {"type": "boolean"},
        "types": {"type": "array", "items": {"enum": list(TYPES)}, "minItems": 1, "uniqueItems": True},
    },
    "required": ["const", "description"],
    "additionalProperties": False,
}
SYNONYMS = {"synonyms": {"type": "array", "items": ENTRY["properties"]["const"], "minItems": 1, "uniqueItems": True}}
CATALOG_FORM: JsonSchema = {
    "type": "array",
    "minItems": 1,
    "items": ENTRY | {"properties": ENTRY["properties"] | SYNONYMS},
}
OWN_FORM: JsonSchema = {  # operators of a spec: what an entry leaves out is as in the catalog
    "type": "array",
    "minItems": 1,
    "items": ENTRY | {"properties": ENTRY["properties"] | {"canonical": TEXT}, "required": ["const"]},
}
CONDITIONS = ("properties", "steps", "items", "properties", "conditions", "items", "properties")
SAMPLE: Spec = {
    "domain": "sample",
    "description": "A sample.",
    "noun": {"en": "samples", "fr": "exemples"},
    "fields": [
        {"const": f"a_{kind}", "description": kind, "type": kind, "enum": [{"const": "one", "description": "one"}]}
        for kind in TYPES
    ],
}


@dataclass(frozen=True)
class Dialect:
    """What schemas of the query DSL are built of, and how many operators of the catalog each is given."""

    template: JsonSchema
    catalog: tuple[dict[str, Any], ...]
    least: int
    most: int

    def operators_of(self, spec: Spec, rng: random.Random) -> list[Operator]:
        """List the operators that a spec brings along, else draw some; raises SchemaError."""
        if spec.get("operators"):
            return _own_operators(spec, self.catalog)
        return draw_operators(self.catalog, spec, rng, self.least, self.most)

    def build(self, spec: Spec, operators: list[Operator]) -> JsonSchema:
        """Build the schema of a spec; raises SchemaError where it cannot be used."""
        schema = build_schema(spec, operators, self.template)
        compile_schema(schema, str(spec.get("schema_id", "schema")))
        return schema


@cache
def shipped_dialect() -> Dialect:
    """Read the shipped template and catalog."""
    return read_dialect(default_settings().operators)


def dialect_files(settings: OperatorsSettings) -> list[Path]:
    """List the template and the catalog of a run: inputs of what is built of them."""
    return [Path(settings.operators or CATALOG), Path(settings.schema_template or TEMPLATE)]


def read_dialect(settings: OperatorsSettings) -> Dialect:
    """Read and check template and catalog; raises UserError with the file, the place in it, and what is wrong."""
    operators, template = dialect_files(settings)
    catalog = read_catalog(operators)
    for name, value in (("least", settings.least_operators), ("most", settings.most_operators)):
        if value > len(catalog):
            raise UserError(
                f"--{name}-operators {value}: {operators} holds {len(catalog)}; "
                f"give --{name}-operators {len(catalog)} or less"
            )
    return Dialect(read_template(template, catalog), catalog, settings.least_operators, settings.most_operators)


def read_catalog(path: Path) -> tuple[dict[str, Any], ...]:
    """Read a catalog: a JSON list of {const, description, synonyms?, list?, types?}; raises UserError."""
    entries = read_json(path)
    _check_form(entries, CATALOG_FORM, str(path), "a list of {const, description, synonyms?, list?, types?}")
    full = tuple({**DEFAULTS, "synonyms": [entry["const"]], **entry} for entry in entries)
    seen: dict[tuple[str, str], str] = {}
    for place, what, word in _names(full):
        if (earlier := seen.setdefault((what, word), place)) != place:
            raise UserError(f'{path}: {place}: the {what} "{word}" stands at {earlier} already')
    if missing := _types_missing(full, TYPES):
        raise UserError(f"{path}: no operator takes values of type {missing}, which a field may have")
    return full


def _names(entries: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, str, str]]:
    """What must tell operators apart: (place, what it is, word)."""
    for i, entry in enumerate(entries):
        yield f"/{i}/const", "const", entry["const"]
        yield f"/{i}/description", "description", entry["description"]
        yield from ((f"/{i}/synonyms/{j}", "synonym", name) for j, name in enumerate(entry["synonyms"]))


def read_template(path: Path, catalog: tuple[dict[str, Any], ...]) -> JsonSchema:
    """Read a template and build a sample of it; raises UserError where fields or an answer find no place in it."""
    template = part = read_json(path)
    for depth, key in enumerate((*CONDITIONS, "field")):
        if not isinstance(part, dict) or key not in part:
            place = "/".join(("", *CONDITIONS, "field")[: depth + 2])
            raise UserError(f"{path}: {place} is missing; fields and operators are put beside it, as in {TEMPLATE}")
        part = part[key]
    operators = [{**entry, "canonical": entry["const"]} for entry in catalog]
    try:
        schema = build_schema(SAMPLE, operators, template)
        compiled = compile_schema(schema, str(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: /{'/'.join(CONDITIONS)} is not as in {TEMPLATE} ({error!r})") from None
    for answer in _sample_answers(catalog) if is_query_dsl(schema) else ():
        if violations := find_violations(answer, compiled):
            first = violations[0]
            raise UserError(
                f'{path}: with "x-dsl": "query" answers are {{prompt, steps, timeframe?}} or {{prompt, refusal}}, but '
                f"{answer} is not valid: {first.path or '/'}: {first.message}. Without x-dsl any answers are as good"
            )
    return template


def _sample_answers(catalog: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    entry = next(entry for entry in catalog if "string" in entry["types"])
    value: Any = ["b"] if entry["list"] else "b"
    condition = {"field": "a_string", "operator": entry["const"], "value": value}
    step = {"name": "step_1", "conditions": [condition], "description": "a"}
    return [{"prompt": "a", "steps": [step]}, {"prompt": "a", "refusal": {"reason": "a", "suggestion": "b"}}]


def _own_operators(spec: Spec, catalog: tuple[dict[str, Any], ...]) -> list[Operator]:
    """The operators of a spec, each filled up by the catalog's of its canonical name; raises SchemaError."""
    name = f"{spec.get('schema_id', 'spec')}: operators"
    _check_form(spec["operators"], OWN_FORM, name, "a list of {const, canonical?, description?, list?, types?}")
    known = {entry["const"]: entry for entry in (*operator_catalog(), *catalog)}
    entries, operators = [], []
    for i, given in enumerate(spec["operators"]):
        canonical = given.get("canonical", given["const"])
        entry = {**DEFAULTS, **known.get(canonical, {}), **given, "const": canonical}
        if "description" not in entry:
            raise SchemaError(f"{name}: /{i}: {canonical} is not in the catalog, and has no description")
        entries.append({key: entry[key] for key in ("const", "description", *DEFAULTS)})
        operators.append(name_operator(entries[-1], given["const"]))
    for key in ("const", "canonical", "description"):
        if len({each[key] for each in operators}) < len(operators):
            raise SchemaError(f"{name}: two have the same {key}")
    if missing := _types_missing(entries, [field["type"] for field in spec["fields"]]):
        raise SchemaError(f"{name}: none takes values of type {missing}, of which a field is")
    return operators


def _types_missing(entries: Iterable[dict[str, Any]], types: Iterable[str]) -> str:
    taken = {kind for entry in entries for kind in entry["types"]}
    return ", ".join(dict.fromkeys(kind for kind in types if kind not in taken))


def _check_form(value: Any, form: JsonSchema, name: str, words: str) -> None:
    if violations := find_violations(value, compile_schema(form)):
        first = violations[0]
        raise SchemaError(f"{name}: {first.path or '/'}: {first.message}; it is {words}")
