"""Put a schema into words: what its line says, what stands beside it as JSON, what is inside.

All three hold: the words of the line, the JSON and the lines inside. `definitions` are those of the document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from schema_student.schema.compact.drafts import UNEVALUATED, Schema
from schema_student.schema.compact.kinds import SPEAKS_OF, Kinds, are_disjoint, is_of_type, kinds_of, type_names
from schema_student.schema.compact.words import GROUPS, constant, json_text
from schema_student.schema.structure import ANNOTATIONS

INSIDE_OBJECT = ("properties", "patternProperties", "additionalProperties")
CLAUSES = ("if", "then", "else", "not")
HOLDER = re.compile(r"\b(object|any|one of|all of)\b")  # words that lines inside can belong to
MAX_UNITED = 64  # alternatives on one line


@dataclass(frozen=True)
class Choices:
    """Named constants, each on a line with what people call it."""

    options: list[dict[str, Any]]


@dataclass(frozen=True)
class Members:
    """The properties of an object, each on a line."""

    schema: dict[str, Any]


@dataclass(frozen=True)
class Alternatives:
    """The schemas of a oneOf, anyOf or allOf; with a header where they stand beside other lines."""

    keyword: str
    options: list[Schema]
    has_header: bool


@dataclass(frozen=True)
class Clauses:
    """A condition and what follows from it, or what must not be: if, then, else, not."""

    parts: dict[str, Schema]


Block = Choices | Members | Alternatives | Clauses


@dataclass(frozen=True)
class Phrase:
    """What a schema's line says ("" where there are no words), what holds as well, and what is inside."""

    text: str
    rest: dict[str, Any] = field(default_factory=dict)
    inside: tuple[Block, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the words say it all."""
        return bool(self.text) and not self.rest and not self.inside


def phrase(schema: Schema, definitions: dict[str, Schema]) -> Phrase:
    """Put a schema into words.

    >>> phrase({"type": "array", "items": {"type": "string", "pattern": "^a"}, "minItems": 1}, {})
    Phrase(text='list 1.. of string', rest={'items': {'pattern': '^a'}}, inside=())
    """
    if not isinstance(schema, dict):
        return Phrase("any" if schema else "never")
    said = {key: part for key, part in schema.items() if key not in ANNOTATIONS}
    if not said:
        return Phrase("any")
    if said.get("$ref") == "#" or str(said.get("$ref", "")).startswith("@"):
        name = said.pop("$ref")
        return Phrase("@root" if name == "#" else name, said)
    if "enum" in said or "const" in said:
        return _constants(said)
    groups = {key: said.pop(key) for key in (*GROUPS, *CLAUSES) if key in said}
    if not groups:
        return _typed(said, definitions)
    if len(groups) == 1 and not groups.keys() & set(CLAUSES) and not said.keys() - {"type"}:
        return _alternatives(*next(iter(groups.items())), said, definitions)
    return _with_groups(_typed(said, definitions), groups)


def _constants(said: dict[str, Any]) -> Phrase:
    key = "enum" if "enum" in said else "const"
    values = said.pop(key) if key == "enum" else [said.pop(key)]
    if any(isinstance(value, (dict, list)) for value in values):
        return Phrase("", {**said, key: values if key == "enum" else values[0]})
    types = said.pop("type", None)
    fitting = [value for value in values if types is None or is_of_type(value, types)]
    return Phrase("|".join(map(constant, fitting)) if fitting else "never", said)


def _alternatives(key: str, options: list[Schema], said: dict[str, Any], definitions: dict[str, Schema]) -> Phrase:
    """Say a schema that is nothing but alternatives."""
    if key != "allOf" and _are_choices(key, options, said.get("type")):
        return Phrase("one of", {}, (Choices([_as_constant(option) for option in options]),))
    if said and not _are_of(options, said["type"], definitions):
        return _with_groups(_typed(said, definitions), {key: options})
    united = _unite(key, options, definitions) if key != "allOf" else None
    return united or Phrase(GROUPS[key], {}, (Alternatives(key, options, False),))


def _are_of(options: list[Schema], types: Any, definitions: dict[str, Schema]) -> bool:
    """Whether the alternatives are of these types anyway."""
    names = set(type_names(types))
    return "integer" not in names and all(kinds_of(option, definitions).types <= names for option in options)


def _as_constant(option: dict[str, Any]) -> dict[str, Any]:
    value = option["const"] if "const" in option else option["enum"][0]
    return {"const": value, "description": option.get("description"), "says": option.get("says", "")}


def _are_choices(key: str, options: list[Schema], types: Any) -> bool:
    """Whether the alternatives are different constants that can stand on a line each."""
    values = []
    for option in options:
        if not isinstance(option, dict) or not option.keys() - ANNOTATIONS - {"type", "says"} <= {"const", "enum"}:
            return False
        if ("const" in option) == ("enum" in option) or len(option.get("enum", [1])) != 1:
            return False
        value = _as_constant(option)["const"]
        if isinstance(value, (dict, list)) or ": " in constant(value):
            return False
        if not all(is_of_type(value, named) for named in (types, option.get("type")) if named is not None):
            return False
        values.append(option)
    kinds = [kinds_of(option, {}) for option in values]
    return len(values) > 0 and (key == "anyOf" or _all_different(kinds))


def _all_different(kinds: list[Kinds]) -> bool:
    values = [value for kind in kinds for value in kind.values or ()]
    return len(set(values)) == len(values)


def _unite(key: str, options: list[Schema], definitions: dict[str, Schema]) -> Phrase | None:
    """Say alternatives on one line, as a|b, where their words, what stands beside them and what is inside allow it."""
    if len(options) > MAX_UNITED:
        return None
    parts = [phrase(option, definitions) for option in options]
    kinds = [kinds_of(option, definitions) for option in options]
    if not all(part.text and part.text not in GROUPS.values() for part in parts):
        return None
    is_simple = all(part.is_plain for part in parts)
    if (key == "oneOf" or not is_simple) and not are_disjoint(kinds):
        return None
    for part, kind in zip(parts, kinds, strict=True):
        if part.rest and not _speaks_only_of(part.rest, kind):
            return None
    inside = [block for part in parts for block in part.inside]
    if inside and (len(inside) > 1 or sum(len(HOLDER.findall(part.text)) for part in parts) > 1):
        return None
    parts.sort(key=lambda part: "list" in part.text)  # a list's items are all that follows
    texts = [f"({part.text})" if " of " in part.text and part is not parts[-1] else part.text for part in parts]
    return Phrase("|".join(texts), _merge([part.rest for part in parts]), tuple(inside))


def _speaks_only_of(rest: dict[str, Any], kind: Kinds) -> bool:
    """Whether keywords say nothing about values of other types."""
    return len(kind.types) == 1 and all(SPEAKS_OF.get(key) in kind.types for key in rest)


def _merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


def _with_groups(base: Phrase, groups: dict[str, Any]) -> Phrase:
    """Add alternatives and conditions to what an object's lines say, or to the JSON beside them."""
    inside, rest = list(base.inside), dict(base.rest)
    clauses = {key: part for key, part in groups.items() if key in CLAUSES}
    holds_lines = base.text in ("object", "any", "") and not any(isinstance(b, Choices) for b in inside)
    for key, options in groups.items():
        if key not in clauses:
            is_worth = holds_lines and any(map(_has_lines, options))
            rest |= {} if is_worth else {key: options}
            inside += [Alternatives(key, options, True)] if is_worth else []
    if clauses:
        is_worth = holds_lines and any(map(_has_lines, clauses.values()))
        rest |= {} if is_worth else clauses
        inside += [Clauses(clauses)] if is_worth else []
    return Phrase(base.text or ("any" if inside else ""), rest, tuple(inside))


def _has_lines(schema: Schema) -> bool:
    """Whether a part has something to put on lines."""
    if not isinstance(schema, dict):
        return False
    own = any(key in schema for key in ("properties", "$ref", *GROUPS))
    return own or any(_has_lines(schema[key]) for key in CLAUSES if key in schema)


# Types

Said = tuple[str, tuple[Block, ...]]


def _typed(said: dict[str, Any], definitions: dict[str, Schema]) -> Phrase:
    """Say a schema without constants and alternatives; keywords that find no words are left over."""
    if "type" not in said:
        inside = _say_members(said)
        return Phrase("any" if inside else "", said, inside)
    names = list(dict.fromkeys(type_names(said.pop("type"))))
    if "number" in names and "integer" in names:
        names.remove("integer")
    texts: list[str] = []
    blocks: list[Block] = []
    for name in sorted(names, key=lambda name: name == "array"):  # a list's items are all that follows
        text, inside = _say_type(name, said, definitions, may_hold="object" not in names)
        texts.append(text)
        blocks += inside
    return Phrase("|".join(texts) or "never", said, tuple(blocks))


def _say_type(name: str, said: dict[str, Any], definitions: dict[str, Schema], may_hold: bool) -> Said:
    """Say one type, taking the keywords that are said out of the others."""
    if name == "string":
        span = _span(said.pop("minLength", None), said.pop("maxLength", None))
        return said.pop("format", "string") + (f" {span} chars" if span else ""), ()
    if name in ("integer", "number"):
        span = _number_span(said)
        return name + (f" {span}" if span else ""), ()
    if name == "array":
        return _say_list(said, definitions, may_hold)
    return name, _say_members(said) if name == "object" else ()


def _span(low: Any, high: Any) -> str:
    texts = ["" if bound is None else json_text(bound) for bound in (low, high)]
    return "..".join(texts) if any(texts) else ""


def _number_span(said: dict[str, Any]) -> str:
    low = _bound(said, "minimum", "exclusiveMinimum", ">")
    high = _bound(said, "maximum", "exclusiveMaximum", "<")
    return f"{low}..{high}" if low or high else ""


def _bound(said: dict[str, Any], inclusive: str, exclusive: str, sign: str) -> str:
    if inclusive in said:
        return json_text(said.pop(inclusive))
    return sign + json_text(said.pop(exclusive)) if exclusive in said else ""


def _say_list(said: dict[str, Any], definitions: dict[str, Schema], may_hold: bool) -> Said:
    span = _span(said.pop("minItems", None), said.pop("maxItems", None))
    unique = "unique" if said.pop("uniqueItems", False) else ""
    text = " ".join(filter(None, ("list", span, unique)))
    if "items" not in said or "prefixItems" in said:  # `items` speaks of those after the first ones
        return text, ()
    items = said.pop("items")
    inner = phrase(items, definitions)
    if not inner.text or (inner.inside and not may_hold) or any(key in inner.rest for key in UNEVALUATED):
        said["items"] = items
        return text, ()
    if inner.rest:
        said["items"] = inner.rest
    return f"{text} of {inner.text}", inner.inside


def _say_members(said: dict[str, Any]) -> tuple[Block, ...]:
    """Take what lines can say of an object's properties out of its keywords."""
    patterns = said.get("patternProperties", {})
    if not all(re.fullmatch(r"\S+", pattern) for pattern in patterns):
        return ()
    taken = {key: said.pop(key) for key in INSIDE_OBJECT if key in said and said[key] is not True}
    names = taken.get("properties", {})
    if not names and not patterns and taken.get("additionalProperties", True) is True:
        return ()
    required = said.pop("required", [])
    elsewhere = [name for name in required if name not in names]
    if elsewhere:
        said["required"] = elsewhere
    return (Members({**taken, "required": required}),)
