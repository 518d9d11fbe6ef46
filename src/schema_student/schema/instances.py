"""A random valid instance of any schema: what the embedded teacher words, and the test that a schema can be satisfied.

It draws freely, keyword by keyword, and schemas.py decides what is valid: a draw may fail, a wrong one is never given.
"""

from __future__ import annotations

import datetime
import json
import math
import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from re import _parser as regex_parser  # type: ignore[attr-defined]  # the standard library's own reader
from typing import Any

import jsonschema_rs

from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import CompiledSchema, SchemaError, compile_schema
from schema_student.schema.judging import find_violations
from schema_student.schema.structure import resolve

Word = Callable[[dict[str, Any], str], str]
WORDS = (
    *("amber", "basil", "cedar", "delta", "ember", "fern", "grove", "harbor", "indigo"),
    *("jasper", "kiosk", "lemon", "maple", "north", "olive", "pearl", "quartz", "river"),
)
MAX_NESTING = 24  # levels of arrays and objects
SPARSE_NESTING = 6  # from here on only what is required is made, so that recursive schemas end
MAX_NODES = 3000  # values a try
INFERRED_TYPES = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "minProperties"), "object"),
    **dict.fromkeys(("patternProperties", "propertyNames"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}


TYPES: dict[type, tuple[str, ...]] = {
    **{bool: ("boolean",), int: ("integer", "number"), str: ("string",)},
    **{list: ("array",), dict: ("object",), type(None): ("null",)},
}
COMBINING = ("allOf", "oneOf", "anyOf", "if", "then", "else", "const")
CHECKED = {
    *("not", "oneOf", "allOf", "if", "$ref", "enum", "format", "multipleOf", "pattern", "minLength"),
    *("uniqueItems", "contains", "propertyNames", "minProperties", "maxProperties", "dependentSchemas"),
}  # what a draw can miss
UNCHECKED = {
    *("$schema", "$id", "$anchor", "$defs", "definitions", "default", "examples"),
    *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"),
}  # what says nothing about a value, or only in its place in the whole schema
NAMED_PARTS = ("properties", "patternProperties", "dependentSchemas")  # keywords whose keys are names, not keywords


class _Dead(Exception):
    """This draw cannot become valid; another may."""


class _OutOfBudget(_Dead):
    """The try has made too many values."""


def example_instance(
    schema: dict[str, Any] | CompiledSchema, rng: random.Random, tries: int = 100, word: Word | None = None
) -> Any:
    """A random valid instance: optional properties by coin, free strings from `word(schema, path)`.

    Deterministic in `rng`. Raises SchemaError where no try gives a valid instance.

    >>> example_instance({"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}, random.Random(0))
    {'n': 7}
    """
    compiled = schema if isinstance(schema, CompiledSchema) else compile_schema(schema)
    for _ in range(tries):
        maker = _Maker(compiled.schema, rng, word or (lambda _schema, _path: _default_word(_schema, rng)))
        try:
            value = maker.make(compiled.schema, "")
        except _Dead:
            continue
        if not find_violations(value, compiled):
            return value
    raise SchemaError(f"no valid instance found in {tries} tries: the schema seems to contradict itself")


def _default_word(schema: dict[str, Any], rng: random.Random) -> str:
    examples = [example for example in schema.get("examples", []) if isinstance(example, str)]
    return rng.choice(examples) if examples and rng.random() < 0.5 else rng.choice(WORDS)


@lru_cache(maxsize=4096)
def _validator(text: str) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(json.loads(text), validate_formats=True, offline=True)
    except ValueError:  # inlined references may nest deeper than the compiler goes; the end result is judged anyway
        return jsonschema_rs.validator_for({})


@dataclass
class _Maker:
    """One try at an instance of `root`."""

    root: dict[str, Any]
    rng: random.Random
    word: Word
    nodes: int = 0
    nesting: int = 0
    # Validators of parts by id of the part, which is held beside it so that the id stays its own.
    compiled: dict[int, tuple[Any, jsonschema_rs.Validator]] = field(default_factory=dict)

    def make(self, schema: Any, path: str) -> Any:
        """A value for a schema; draws again where this very level can be seen to fail."""
        self.nodes += 1
        if self.nodes > MAX_NODES or self.nesting > MAX_NESTING:
            raise _OutOfBudget
        nesting = self.nesting
        for _ in range(8):
            try:
                value = self._draw(schema, path)
            except _OutOfBudget:
                raise
            except _Dead:
                self.nesting = nesting
                continue
            if not _needs_check(schema) or self.is_valid(schema, value):
                return value
        raise _Dead

    def is_valid(self, schema: Any, value: Any) -> bool:
        """Whether a value obeys a part of the schema, where recursive references count as obeyed."""
        if id(schema) not in self.compiled:
            inlined = _inline(schema, self.root, frozenset())
            draft = {"$schema": self.root["$schema"]} if "$schema" in self.root else {}
            text = json.dumps(draft | inlined if isinstance(inlined, dict) else inlined)
            self.compiled[id(schema)] = schema, _validator(text)
        return self.compiled[id(schema)][1].is_valid(value)

    def _draw(self, schema: Any, path: str) -> Any:
        flat, conditions = self.flatten(schema)
        if conditions and _type_of(flat, self.rng) != "object":
            for condition in conditions:
                flat = self.take_branch(flat, condition)
            conditions = []
        if "enum" in flat:
            return self.rng.choice(flat["enum"])
        kind = _type_of(flat, self.rng)
        if kind == "object":
            return self._draw_object(flat, conditions, path)
        if kind == "array":
            return self._draw_array(flat, path)
        if kind == "string":
            return self._draw_string(flat, path)
        if kind in ("integer", "number"):
            return _draw_number(flat, kind, self.rng)
        return self.rng.choice((True, False)) if kind == "boolean" else None

    # Flatten: one plain schema without $ref, allOf, oneOf and anyOf; its if/then/else are returned beside it.

    def flatten(self, schema: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        schema = resolve(schema, self.root)
        if schema is False:
            raise _Dead
        if not isinstance(schema, dict):
            return {}, []
        flat = {key: child for key, child in schema.items() if key not in COMBINING}
        if "const" in schema:
            flat = merge(flat, {"enum": [schema["const"]]})
        conditions = [{key: schema[key] for key in ("if", "then", "else") if key in schema}] if "if" in schema else []
        parts = list(schema.get("allOf", ()))
        parts += [self.rng.choice(schema[key]) for key in ("oneOf", "anyOf") if schema.get(key)]
        for part in parts:
            more, more_conditions = self.flatten(part)
            flat, conditions = merge(flat, more), conditions + more_conditions
        return flat, conditions

    def take_branch(self, flat: dict[str, Any], condition: dict[str, Any]) -> dict[str, Any]:
        """Assume that a condition holds, or that it does not; the check of the level finds out."""
        holds = self.rng.random() < 0.5
        for part in [condition["if"], condition.get("then", True)] if holds else [condition.get("else", True)]:
            more, conditions = self.flatten(part)
            flat = merge(flat, more)
            for inner in conditions:
                flat = self.take_branch(flat, inner)
        return flat

    # Objects

    def _draw_object(self, flat: dict[str, Any], conditions: list[dict[str, Any]], path: str) -> dict[str, Any]:
        """Draw, see which conditions hold, and draw what they touch again, holding fast what they ask about."""
        value = self._draw_properties(flat, path)
        for _ in range(3 if conditions else 0):
            active, asked = flat, set[str]()
            for condition in conditions:
                branch = "then" if self.is_valid(condition["if"], value) else "else"
                more, inner = self.flatten(condition.get(branch, True))
                active = merge(active, more)
                for nested in inner:
                    active = self.take_branch(active, nested)
                asked |= _asked(condition["if"])
            if self.is_valid(active, value):
                return value
            value = self._draw_properties(_hold(active, value, asked), path)
        return value

    def _draw_properties(self, flat: dict[str, Any], path: str) -> dict[str, Any]:
        names = self._choose_names(flat)
        names += self._invent_names(flat, flat.get("minProperties", 0) - len(names), path)
        self.nesting += 1
        value = {name: self.make(_property_schema(flat, name), f"{path}/{name}") for name in names}
        self.nesting -= 1
        return value

    def _choose_names(self, flat: dict[str, Any]) -> list[str]:
        """All that is required, some that is optional, in the order of the schema."""
        possible = [name for name, part in flat.get("properties", {}).items() if part is not False]
        required = list(dict.fromkeys(flat.get("required", ())))
        optional = [name for name in possible if name not in required]
        share = 0.0 if self.nesting >= SPARSE_NESTING else self.rng.choice((0.0, 0.5, 0.5, 1.0))
        chosen = required + [name for name in optional if self.rng.random() < share]
        chosen = chosen[: max(flat.get("maxProperties", len(chosen)), len(required))]
        lacking = max(0, flat.get("minProperties", 0) - len(chosen))
        chosen += [name for name in optional if name not in chosen][:lacking]
        for trigger, names in flat.get("dependentRequired", {}).items():
            chosen += [name for name in names if trigger in chosen and name not in chosen]
        return [name for name in possible if name in chosen] + [name for name in chosen if name not in possible]

    def _invent_names(self, flat: dict[str, Any], count: int, path: str) -> list[str]:
        """Names for additional properties, only where a minimum demands them."""
        patterns = list(flat.get("patternProperties", {}))
        names: list[str] = []
        for i in range(max(0, count) * 3):
            if "propertyNames" in flat:
                names.append(str(self.make({"type": "string", **flat["propertyNames"]}, path)))
            elif flat.get("additionalProperties", True) is not False:
                names.append(f"{self.rng.choice(WORDS)}_{i}")
            elif patterns:
                names.append(_from_pattern(self.rng.choice(patterns), self.rng))
        return list(dict.fromkeys(name for name in names if name not in flat.get("properties", {})))[: max(0, count)]

    # Arrays

    def _draw_array(self, flat: dict[str, Any], path: str) -> list[Any]:
        prefix, rest = _split_items(flat)
        wanted = flat.get("minContains", 1) if "contains" in flat else 0
        low = max(flat.get("minItems", 0), wanted)
        high = min(flat.get("maxItems", low + 3), len(prefix) if rest is False else low + 3)
        if high < low:
            raise _Dead
        usual = low if self.nesting >= SPARSE_NESTING else min(max(low, 1), high)
        count = usual if self.nesting >= SPARSE_NESTING else self.rng.randint(usual, high)
        self.nesting += 1
        values: list[Any] = []
        for i in range(count):
            schema = prefix[i] if i < len(prefix) else rest
            schema = {"allOf": [schema, flat["contains"]]} if i >= count - wanted else schema
            values.append(self._draw_item(schema, f"{path}/{i}", values if flat.get("uniqueItems") else []))
        self.nesting -= 1
        return values

    def _draw_item(self, schema: Any, path: str, others: list[Any]) -> Any:
        seen = {_key(other) for other in others}
        for _ in range(12):
            value = self.make(schema, path)
            if not seen or _key(value) not in seen:
                return value
        raise _Dead

    # Strings

    def _draw_string(self, flat: dict[str, Any], path: str) -> str:
        low, high = flat.get("minLength", 0), flat.get("maxLength", math.inf)
        if "pattern" in flat:
            return _from_pattern(flat["pattern"], self.rng)
        if flat.get("format") in FORMATS:
            return FORMATS[flat["format"]](self.rng)
        text = self.word(flat, path)
        while len(text) < low:
            text = f"{text} {self.rng.choice(WORDS)}"[: int(min(high, len(text) + 7))]
        return text if len(text) <= high else text[: int(high)].rstrip().ljust(low, "a")


def _needs_check(schema: Any) -> bool:
    return isinstance(schema, dict) and not schema.keys().isdisjoint(CHECKED)


def _split_items(flat: dict[str, Any]) -> tuple[list[Any], Any]:
    """Schemas of the first items and that of the others; before 2020-12 both were said by `items`."""
    items = flat.get("items", True)
    if isinstance(items, list):
        return items, flat.get("additionalItems", True)
    return flat.get("prefixItems", []), items


def _inline(schema: Any, root: dict[str, Any], seen: frozenset[str]) -> Any:
    """The schema with its references replaced by what they name; a reference inside itself allows anything."""
    if isinstance(schema, list):
        return [_inline(child, root, seen) for child in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        ref = schema["$ref"]
        return True if ref in seen else _inline(resolve(schema, root), root, seen | {ref})
    inlined = {}
    for key, child in schema.items():
        if key in ("const", "enum"):
            inlined[key] = child
        elif key in NAMED_PARTS:
            inlined[key] = {name: _inline(part, root, seen) for name, part in child.items()}
        elif key not in UNCHECKED:
            inlined[key] = _inline(child, root, seen)
    return inlined


def _type_of(flat: dict[str, Any], rng: random.Random) -> str:
    types = flat.get("type") or next((INFERRED_TYPES[key] for key in flat if key in INFERRED_TYPES), None)
    if types is None:
        return rng.choice(("string", "integer", "boolean"))
    if isinstance(types, str):
        return types
    named = [name for name in types if name != "null"] or ["null"]
    return "null" if "null" in types and rng.random() < 0.1 else rng.choice(named)


def _key(value: Any) -> str:
    return canonical(value, {})


def _asked(test: Any) -> set[str]:
    """Properties that an `if` asks about, also under its own allOf, anyOf, not."""
    if not isinstance(test, dict):
        return set()
    names = set(test.get("properties", {})) | set(test.get("required", ()))
    for key in ("allOf", "anyOf", "oneOf", "not"):
        parts = test.get(key, [])
        for part in parts if isinstance(parts, list) else [parts]:
            names |= _asked(part)
    return names


def _hold(flat: dict[str, Any], value: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """A schema whose instances have these names as the value has them: the same content, or absent."""
    properties = dict(flat.get("properties", {}))
    for name in sorted(names):
        if name in value:
            properties[name] = {"allOf": [properties.get(name, True), {"enum": [value[name]]}]}
        elif name not in flat.get("required", ()):
            properties[name] = False
    present = [name for name in value if name in names]
    return flat | {"properties": properties, "required": list(dict.fromkeys([*flat.get("required", ()), *present]))}


def _property_schema(flat: dict[str, Any], name: str) -> Any:
    if name in flat.get("properties", {}):
        return flat["properties"][name]
    fitting = [part for pattern, part in flat.get("patternProperties", {}).items() if _is_found(pattern, name)]
    return {"allOf": fitting} if fitting else flat.get("additionalProperties", True)


# Merge: a schema that allows what both allow.


def merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The conjunction of two flat schemas, keyword by keyword; _Dead where nothing is left."""
    merged = {**b, **a}
    for key in a.keys() & b.keys():
        if key in _CONJUNCTIONS:
            merged[key] = _CONJUNCTIONS[key](a[key], b[key])
    if "properties" in a or "properties" in b:
        names = dict.fromkeys([*a.get("properties", {}), *b.get("properties", {})])
        merged["properties"] = {name: _both(_property_schema(a, name), _property_schema(b, name)) for name in names}
    if "type" in merged and merged["type"] == []:
        raise _Dead
    if "enum" in merged:
        merged["enum"] = [value for value in merged["enum"] if _fits_type(value, merged.get("type"))]
        if not merged["enum"]:
            raise _Dead
    return merged


def _both(a: Any, b: Any) -> Any:
    if a is False or b is False:
        return False
    if a is True or a == b:
        return b
    return a if b is True else {"allOf": [a, b]}


def _both_types(a: str | list[str], b: str | list[str]) -> list[str]:
    left, right = ([kind] if isinstance(kind, str) else kind for kind in (a, b))
    common = [kind for kind in left if kind in right or (kind == "integer" and "number" in right)]
    return common + (["integer"] if "integer" in right and "number" in left and "integer" not in common else [])


def _both_enums(a: list[Any], b: list[Any]) -> list[Any]:
    keys = {_key(value) for value in b}
    return [value for value in a if _key(value) in keys]


def _both_items(a: Any, b: Any) -> Any:
    both_lists = isinstance(a, list) and isinstance(b, list)
    return [_both(x, y) for x, y in zip(a, b, strict=False)] if both_lists else _both(a, b)


def _both_multiples(a: float, b: float) -> float:
    return math.lcm(a, b) if isinstance(a, int) and isinstance(b, int) else max(a, b)


_CONJUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "type": _both_types,
    "enum": _both_enums,
    "required": lambda a, b: list(dict.fromkeys([*a, *b])),
    "items": _both_items,
    "additionalProperties": _both,
    "patternProperties": lambda a, b: {**a, **b},
    "multipleOf": _both_multiples,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "uniqueItems"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def _fits_type(value: Any, types: Any) -> bool:
    if types is None:
        return True
    own = TYPES.get(type(value), ("number",))
    if isinstance(value, float) and value.is_integer():
        own = ("number", "integer")
    return any(name in ([types] if isinstance(types, str) else types) for name in own)


# Leaves


def _draw_number(flat: dict[str, Any], kind: str, rng: random.Random) -> int | float:
    low, high = flat.get("minimum", -math.inf), flat.get("maximum", math.inf)
    open_low, open_high = flat.get("exclusiveMinimum", -math.inf), flat.get("exclusiveMaximum", math.inf)
    if isinstance(open_low, bool):  # draft 4
        open_low = low if open_low else -math.inf
    if isinstance(open_high, bool):
        open_high = high if open_high else math.inf
    low, high = max(low, open_low), min(high, open_high)
    if low == -math.inf:
        low = min(1, high - 100) if high != math.inf else 1
    if high == math.inf:
        high = max(100, low + 100)
    step = flat.get("multipleOf", 1 if kind == "integer" else None)
    if step is None:
        return _draw_real(low, high, open_low, open_high, rng)
    if kind == "integer" and not float(step).is_integer():
        step = 1 if float(1 / step).is_integer() else step
    first, last = math.ceil(low / step), math.floor(high / step)
    choices = [n for n in (first, first + 1, last, last - 1) if first <= n <= last and open_low < n * step < open_high]
    if first > last or not choices:
        raise _Dead
    n = rng.randint(first, last)
    number = (n if open_low < n * step < open_high else rng.choice(choices)) * step
    return int(number) if kind == "integer" else round(number, 10) if isinstance(number, float) else number


def _draw_real(low: float, high: float, open_low: float, open_high: float, rng: random.Random) -> float:
    """Two decimals where the bounds leave room, as people write numbers."""
    drawn = rng.uniform(low, high)
    for number in (round(drawn, 2), drawn, low, high):
        if low <= number <= high and open_low < number < open_high:
            return float(number)
    raise _Dead


def _draw_date(rng: random.Random) -> str:
    return (datetime.date(2024, 1, 1) + datetime.timedelta(days=rng.randrange(1000))).isoformat()


def _draw_time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02}:{rng.randrange(0, 60, 5):02}:00Z"


FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date": _draw_date,
    "time": _draw_time,
    "date-time": lambda rng: f"{_draw_date(rng)}T{_draw_time(rng)}",
    "duration": lambda rng: f"P{rng.randint(1, 30)}D",
    "email": lambda rng: f"{rng.choice(WORDS)}@example.com",
    "idn-email": lambda rng: f"{rng.choice(WORDS)}@example.com",
    "hostname": lambda rng: f"{rng.choice(WORDS)}.example.com",
    "idn-hostname": lambda rng: f"{rng.choice(WORDS)}.example.com",
    "uri": lambda rng: f"https://example.com/{rng.choice(WORDS)}",
    "iri": lambda rng: f"https://example.com/{rng.choice(WORDS)}",
    "uri-reference": lambda rng: f"/{rng.choice(WORDS)}",
    "iri-reference": lambda rng: f"/{rng.choice(WORDS)}",
    "uri-template": lambda rng: f"https://example.com/{{{rng.choice(WORDS)}}}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 9999)}",
    "json-pointer": lambda rng: f"/{rng.choice(WORDS)}",
    "relative-json-pointer": lambda rng: f"{rng.randrange(3)}/{rng.choice(WORDS)}",
    "regex": lambda rng: f"^{rng.choice(WORDS)}$",
}

# Patterns: walk Python's parse of the pattern and draw one text of it; lookarounds are left to the final judgment.

_CATEGORIES = {
    **{"CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": "abcdefghijklmnopqrstuvwxyz0123456789_", "CATEGORY_SPACE": " "},
    **{"CATEGORY_NOT_DIGIT": "abcxyz-", "CATEGORY_NOT_WORD": " -.", "CATEGORY_NOT_SPACE": "abcxyz019"},
}
_PRINTABLE = [chr(code) for code in range(32, 127)]


def _from_pattern(pattern: str, rng: random.Random) -> str:
    """A text in which the pattern is found; _Dead where Python cannot read it (ECMA 262 differs a little)."""
    tail = rng.choice(WORDS) if not pattern.endswith("$") and rng.random() < 0.7 else ""
    try:
        return _draw_pieces(regex_parser.parse(_readable(pattern)), rng) + tail
    except (re.error, OverflowError) as error:
        raise _Dead from error


def _is_found(pattern: str, text: str) -> bool:
    return _validator(json.dumps({"pattern": pattern})).is_valid(text)


def _readable(pattern: str) -> str:
    """Unicode classes, which Python does not know, by members of theirs."""
    return re.sub(r"\\p\{L[a-z]?\}", "[A-Za-z]", re.sub(r"\\p\{N[a-z]?\}", "[0-9]", pattern))


def _draw_pieces(pieces: Any, rng: random.Random) -> str:
    return "".join(_draw_piece(op, arg, rng) for op, arg in pieces)


def _draw_piece(op: Any, arg: Any, rng: random.Random) -> str:
    name = str(op)
    if name == "LITERAL":
        return chr(arg)
    if name == "NOT_LITERAL":
        return rng.choice([c for c in _PRINTABLE if c != chr(arg) and c.isalnum()])
    if name == "ANY":
        return rng.choice("abcdefghij")
    if name == "IN":
        return rng.choice(_class_members(arg))
    if name == "BRANCH":
        return _draw_pieces(rng.choice(arg[1]), rng)
    if name == "SUBPATTERN":
        return _draw_pieces(arg[3], rng)
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high, pieces = arg
        return "".join(_draw_pieces(pieces, rng) for _ in range(rng.randint(low, min(int(high), low + 4))))
    if name in ("AT", "ASSERT", "ASSERT_NOT"):
        return ""
    raise _Dead


def _class_members(parts: list[Any]) -> list[str]:
    members: list[str] = []
    for op, arg in parts:
        name = str(op)
        if name == "LITERAL":
            members.append(chr(arg))
        elif name == "RANGE":
            members += [chr(code) for code in range(arg[0], min(arg[1], arg[0] + 200) + 1)]
        elif name == "CATEGORY":
            members += _CATEGORIES[str(arg)]
    if str(parts[0][0]) == "NEGATE":
        allowed = [c for c in _PRINTABLE if c not in members]
        members = [c for c in allowed if c.isalnum()] or allowed
    if not members:
        raise _Dead
    return members
