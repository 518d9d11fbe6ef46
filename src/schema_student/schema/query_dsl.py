"""Build schemas of the query DSL (one template, many vocabularies) from domain specifications; read them back."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from schema_student.core.resources import DATA_DIR

JsonSchema = dict[str, Any]
Spec = dict[str, Any]
Operator = dict[str, str]  # const: its name in the schema; canonical: in the catalog; description

SCALAR = {"type": ["string", "number", "boolean"]}
LIST = {"type": "array", "minItems": 1}

# Where another operator of the schema could stand in for one, its absence is no clear reason to refuse.
STAND_INS: dict[str, tuple[str, ...]] = {
    "in": (),
    "not_in": ("not_equals",),
    "not_equals": ("not_in",),
    "like": ("contains", "equals"),
    "contains": ("like",),
    "starts_with": ("like",),
    "ends_with": ("like",),
    "gt": (),
    "lt": (),
}


@dataclass(frozen=True)
class Field:
    """A field of a DSL schema: what it is called in each language, and what its values look like."""

    const: str
    type: str
    labels: dict[str, tuple[str, ...]]
    choices: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = ()
    examples: tuple[Any, ...] = ()  # of a string; of a number its least and greatest value


@dataclass(frozen=True)
class DslSpec:
    """What a request can be about, read back from the JSON Schema alone."""

    noun: dict[str, str]
    fields: tuple[Field, ...]
    operators: dict[str, str]  # canonical -> the schema's own name


def is_query_dsl(schema: dict[str, Any] | bool) -> bool:
    """Return whether a schema is one of the query DSL, by its root annotation `"x-dsl": "query"`."""
    return not isinstance(schema, bool) and schema.get("x-dsl") == "query"


def is_refusal(answer: Any) -> bool:
    """Return whether an answer of the query DSL refuses the request."""
    return isinstance(answer, dict) and isinstance(answer.get("refusal"), dict)


@cache
def operator_catalog() -> tuple[dict[str, Any], ...]:
    """Read data/operators.json: {const, synonyms, description, list, types} of each canonical operator."""
    return tuple(json.loads((DATA_DIR / "operators.json").read_text(encoding="utf-8")))


# Read a schema back


def labels_of(const: str, description: str) -> dict[str, tuple[str, ...]]:
    """List what people call a constant: its words, and its description, "english / french" where bilingual."""
    words = const.replace("_", " ")
    english, _, french = (part.strip() for part in description.partition(" / "))
    short = english if 0 < len(english.split()) <= 4 else words
    return {"en": tuple(dict.fromkeys((words, short))), "fr": (french or words,)}


def read_dsl(schema: dict[str, Any], catalog: tuple[dict[str, Any], ...] | None = None) -> DslSpec:
    """Read fields and operators of a query-DSL schema; an operator's canonical name is found by its description."""
    condition = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    guards = {
        rule["if"]["properties"]["field"]["const"]: rule["then"]["properties"]["value"]
        for rule in condition.get("allOf", ())
        if "const" in rule["if"].get("properties", {}).get("field", {})
    }
    fields = tuple(
        _read_field(option, guards.get(option["const"], {})) for option in condition["properties"]["field"]["oneOf"]
    )
    meaning = {entry["description"]: entry["const"] for entry in catalog or operator_catalog()}
    operators = {
        meaning[o["description"]]: o["const"]
        for o in condition["properties"]["operator"]["oneOf"]
        if o["description"] in meaning
    }
    return DslSpec(schema.get("x-noun", {"en": "records", "fr": "fiches"}), fields, operators)


def _read_field(option: dict[str, Any], guard: dict[str, Any]) -> Field:
    choices = guard.get("else", {}).get("oneOf", ())
    types = guard.get("items", {})
    kind = "enum" if choices else types.get("format", types.get("type", "string"))
    return Field(
        option["const"],
        kind,
        labels_of(option["const"], option.get("description", "")),
        tuple((c["const"], labels_of(c["const"], c.get("description", ""))) for c in choices),
        tuple(guard.get("examples", ())),
    )


def operators_for(field: Field, operators: dict[str, str]) -> list[str]:
    """List the canonical operators of the schema that make sense for a field's type."""
    types = {entry["const"]: entry["types"] for entry in operator_catalog()}
    return [canonical for canonical in operators if field.type in types[canonical]]


@lru_cache(maxsize=512)
def read_dsl_text(schema_text: str) -> DslSpec:
    """Read fields and operators of a schema's JSON text, once a text."""
    return read_dsl(json.loads(schema_text))


def suggests_a_field(answer: dict[str, Any], schema: dict[str, Any]) -> bool | None:
    """Return whether a refusal suggests what can be answered: a field, by its name or in its description's words.

    None where the schema lists no fields as the DSL's template does.
    """
    said = f" {' '.join(_words(str(answer['refusal'].get('suggestion'))))} "
    try:
        fields = read_dsl_text(json.dumps(schema, ensure_ascii=False, sort_keys=True)).fields
    except (KeyError, TypeError):
        return None
    names = [name for field in fields for name in (field.const, *sum(field.labels.values(), ()))]
    return any(f" {' '.join(_words(name))} " in said for name in names)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word]


# Build a schema


@cache
def _template() -> str:
    return (DATA_DIR / "schema_template.json").read_text(encoding="utf-8")


def draw_operators(catalog: Sequence[dict[str, Any]], spec: Spec, rng: random.Random) -> list[Operator]:
    """Draw 4 to 7 operators, each under one of its synonyms, in random order.

    Every field has an operator, equals or like is there, and at least one comparison that a person could ask of these
    fields is left out with none to stand in for it, so that there is something to refuse.
    """
    while True:
        drawn = rng.sample(list(catalog), rng.randint(4, 7))
        if _covers(drawn, catalog, {field["type"] for field in spec["fields"]}):
            return [_named(entry, rng.choice(entry["synonyms"])) for entry in drawn]


def _covers(drawn: list[dict[str, Any]], catalog: Sequence[dict[str, Any]], types: set[str]) -> bool:
    names = {entry["const"] for entry in drawn}
    absent = [entry for entry in catalog if entry["const"] in STAND_INS.keys() - names]
    refusable = [
        entry
        for entry in absent
        if names.isdisjoint(STAND_INS[entry["const"]]) and not types.isdisjoint(entry["types"])
    ]
    covered = types <= {kind for entry in drawn for kind in entry["types"]}
    return covered and bool(names & {"equals", "like"}) and bool(refusable)


def _named(entry: dict[str, Any], name: str) -> Operator:
    return {"const": name, "canonical": entry["const"], "description": entry["description"]}


def build_schema(spec: Spec, operators: list[Operator]) -> JsonSchema:
    """Build the JSON Schema (2020-12) of a domain's queries: {prompt, steps, timeframe} or {prompt, refusal}.

    A condition's value obeys its field (type, format, enum) and its operator (a list for list operators only), each by
    an if/then of its own, so that a violation is reported at the value and not as one opaque oneOf.
    """
    schema: JsonSchema = json.loads(_template())
    schema |= {"title": spec["domain"], "description": spec["description"], "x-noun": copy.deepcopy(spec["noun"])}
    condition = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    condition["properties"]["field"]["oneOf"] = [_tagged(field) for field in spec["fields"]]
    condition["properties"]["operator"]["oneOf"] = [_tagged(operator) for operator in operators]
    condition["allOf"] = [_guard("field", {"const": field["const"]}, value_schema(field)) for field in spec["fields"]]
    lists = {entry["const"] for entry in operator_catalog() if entry["list"]}
    for shape, wanted in ((LIST, True), (SCALAR, False)):
        names = [operator["const"] for operator in operators if (operator["canonical"] in lists) is wanted]
        if names:
            condition["allOf"].append(_guard("operator", {"enum": names}, dict(shape)))
    return schema


def _tagged(entry: dict[str, Any]) -> dict[str, Any]:
    return {"const": entry["const"], "description": entry["description"]}


def _guard(name: str, test: JsonSchema, value: JsonSchema) -> JsonSchema:
    """if the property `name` passes the test, then `value` obeys its schema."""
    return {"if": {"properties": {name: test}, "required": [name]}, "then": {"properties": {"value": value}}}


def value_schema(field: dict[str, Any]) -> JsonSchema:
    """Build the schema of a field's value: one of its type, or a list of them.

    >>> value_schema({"const": "born", "description": "birthday", "type": "date"})
    {'type': ['string', 'array'], 'format': 'date', 'items': {'type': 'string', 'format': 'date'}}
    """
    if field["type"] == "enum":
        options = {"oneOf": [_tagged(option) for option in field["enum"]]}
        return {"if": {"type": "array"}, "then": {"items": options}, "else": options}
    kind = "string" if field["type"] == "date" else field["type"]
    form = {"format": "date"} if field["type"] == "date" else {}
    examples = {"examples": field["examples"]} if field.get("examples") else {}
    return {"type": [kind, "array"], **form, "items": {"type": kind, **form}, **examples}
