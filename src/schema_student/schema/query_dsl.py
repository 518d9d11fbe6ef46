"""Build schemas of the query DSL (one template, many vocabularies) from domain specifications; read them back."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from schema_student.core.resources import DATA_DIR
from schema_student.schema.compiling import SchemaError

JsonSchema = dict[str, Any]
Spec = dict[str, Any]
Operator = dict[str, Any]  # const: its name in the schema; canonical: in the catalog; description; see name_operator

SCALAR = {"type": ["string", "number", "boolean"]}
LIST = {"type": "array", "minItems": 1}
OWN = ("list", "types")  # keys of an operator that the shipped catalog does not have
DRAWS = 2000  # of operators, after which no combination is held for one that serves

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
    own: dict[str, Operator]  # canonical -> what an operator is that the shipped catalog does not have
    has_timeframe: bool


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


def read_dsl(schema: dict[str, Any]) -> DslSpec:
    """Read fields and operators of a query-DSL schema.

    An operator's canonical name is found by its description, or in the root annotation `x-operators`.
    """
    condition = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    guards = {
        rule["if"]["properties"]["field"]["const"]: rule["then"]["properties"]["value"]
        for rule in condition.get("allOf", ())
        if "const" in rule["if"].get("properties", {}).get("field", {})
    }
    fields = tuple(
        _read_field(option, guards.get(option["const"], {})) for option in condition["properties"]["field"]["oneOf"]
    )
    known = {entry["description"]: entry["const"] for entry in operator_catalog()}
    annotated = schema.get("x-operators", {})
    operators, own = {}, {}
    for option in condition["properties"]["operator"]["oneOf"]:
        note = annotated.get(option["const"])
        if note:
            own[note["canonical"]] = option | note
        if canonical := note["canonical"] if note else known.get(option["description"]):
            operators[canonical] = option["const"]
    noun = schema.get("x-noun", {"en": "records", "fr": "fiches"})
    return DslSpec(noun, fields, operators, own, "timeframe" in schema["properties"])


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


def operators_for(field: Field, operators: dict[str, str], own: Mapping[str, Operator] | None = None) -> list[str]:
    """List the canonical operators of the schema that make sense for a field's type."""
    entries = {entry["const"]: entry for entry in operator_catalog()} | dict(own or {})
    types = {canonical: entry["types"] for canonical, entry in entries.items()}
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
        fields = read_dsl_text(json.dumps(schema, sort_keys=True)).fields
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


def draw_operators(
    catalog: Sequence[dict[str, Any]], spec: Spec, rng: random.Random, least: int = 4, most: int = 7
) -> list[Operator]:
    """Draw operators, each under one of its synonyms, in random order.

    Every field has an operator, equals or like is there where the catalog has it, and at least one comparison that a
    person could ask of these fields is left out with none to stand in for it, so that there is something to refuse,
    where enough can be left out.

    Raises SchemaError where no draw takes all types of the fields.
    """
    types = {field["type"] for field in spec["fields"]}
    for demand in (_covers_and_leaves_out, _covers):
        for _ in range(DRAWS):
            drawn = rng.sample(list(catalog), rng.randint(least, most))
            if demand(drawn, catalog, types):
                return [name_operator(entry, rng.choice(entry["synonyms"])) for entry in drawn]
    shown = ", ".join(sorted(types))
    raise SchemaError(f"no {least} to {most} operators of the catalog take all types of these fields ({shown})")


def _covers_and_leaves_out(drawn: list[dict[str, Any]], catalog: Sequence[dict[str, Any]], types: set[str]) -> bool:
    names = {entry["const"] for entry in drawn}
    absent = [entry for entry in operator_catalog() if entry["const"] in STAND_INS.keys() - names]
    refusable = [
        entry
        for entry in absent
        if names.isdisjoint(STAND_INS[entry["const"]]) and not types.isdisjoint(entry["types"])
    ]
    return bool(refusable) and _covers(drawn, catalog, types)


def _covers(drawn: list[dict[str, Any]], catalog: Sequence[dict[str, Any]], types: set[str]) -> bool:
    names, plain = {entry["const"] for entry in drawn}, {"equals", "like"}
    is_plain = bool(names & plain) or plain.isdisjoint(entry["const"] for entry in catalog)
    return is_plain and types <= {kind for entry in drawn for kind in entry["types"]}


def name_operator(entry: dict[str, Any], name: str) -> Operator:
    """Name an operator of a catalog; one that is not shipped says whether it takes a list, and of which types."""
    named = {"const": name, "canonical": entry["const"], "description": entry["description"]}
    return named if _is_shipped(entry) else named | {key: entry[key] for key in OWN}


def _is_shipped(entry: dict[str, Any]) -> bool:
    said = {key: part for key, part in entry.items() if key != "synonyms"}
    return any(said == {key: part for key, part in each.items() if key != "synonyms"} for each in operator_catalog())


def build_schema(spec: Spec, operators: list[Operator], template: JsonSchema | None = None) -> JsonSchema:
    """Build the JSON Schema (2020-12) of a domain's queries: {prompt, steps, timeframe} or {prompt, refusal}.

    A condition's value obeys its field (type, format, enum) and its operator (a list for list operators only), each by
    an if/then of its own, so that a violation is reported at the value and not as one opaque oneOf.
    """
    schema: JsonSchema = copy.deepcopy(template) if template else json.loads(_template())
    schema |= {"title": spec["domain"], "description": spec["description"], "x-noun": copy.deepcopy(spec["noun"])}
    condition = schema["properties"]["steps"]["items"]["properties"]["conditions"]["items"]
    condition["properties"]["field"]["oneOf"] = [_tagged(field) for field in spec["fields"]]
    condition["properties"]["operator"]["oneOf"] = [_tagged(operator) for operator in operators]
    guards = [_guard("field", {"const": field["const"]}, value_schema(field)) for field in spec["fields"]]
    condition["allOf"] = [*condition.get("allOf", ()), *guards]
    lists = {entry["const"] for entry in operator_catalog() if entry["list"]}
    for shape, wanted in ((LIST, True), (SCALAR, False)):
        names = [each["const"] for each in operators if each.get("list", each["canonical"] in lists) is wanted]
        if names:
            condition["allOf"].append(_guard("operator", {"enum": names}, dict(shape)))
    own = {each["const"]: {key: each[key] for key in ("canonical", *OWN)} for each in operators if "types" in each}
    return schema | ({"x-operators": own} if own else {})


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
