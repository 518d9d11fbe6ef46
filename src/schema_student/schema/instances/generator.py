"""Draw an instance of a schema: value by value, each checked where its own level can be seen to fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from schema_student.schema.canonical import canonical_text
from schema_student.schema.compiling import CompiledSchema, SchemaError, compile_schema
from schema_student.schema.instances.checking import PartChecker, needs_check
from schema_student.schema.instances.dead_ends import (
    Budget,
    DeadEnd,
    OutOfBudget,
    OutOfTime,
    TooDeep,
    check_size,
)
from schema_student.schema.instances.flattening import fix_properties, flatten, take_branch, tested_properties
from schema_student.schema.instances.merging import merge, property_schema
from schema_student.schema.instances.names import choose_names
from schema_student.schema.instances.numbers import allows, draw_number
from schema_student.schema.instances.patterns import draw_from_pattern
from schema_student.schema.instances.strings import draw_string
from schema_student.schema.instances.words import WORDS
from schema_student.schema.judging import is_valid
from schema_student.schema.sizes import MAX_VALUES
from schema_student.schema.subschemas import Subschemas

Word = Callable[[dict[str, Any], str], str]
Number = Callable[[dict[str, Any], str, str], int | float | None]  # (schema, path, "integer" or "number")
NESTINGS = (24, 100)  # levels of arrays and objects; the second one where tries with the first got too deep
SPARSE_NESTING = 6  # from here on only what is required is made, so that recursive schemas end
DRAWS = 8  # of one value, before the level above it draws again
ITEM_DRAWS = 12  # of an item that must differ from those before it
LIKED_DRAWS = 3  # of one that need not, as people repeat nothing
INFERRED_TYPES = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "minProperties"), "object"),
    **dict.fromkeys(("patternProperties", "propertyNames"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
}


def example_instance(
    schema: dict[str, Any] | CompiledSchema,
    rng: random.Random,
    tries: int = 100,
    word: Word | None = None,
    number: Number | None = None,
) -> Any:
    """Draw a random valid instance: optional properties by coin, free strings from `word(schema, path)`.

    Numbers are those of `number(schema, path, kind)` where it gives one within the bounds.

    Deterministic in `rng`. Raises SchemaError where no try gives a valid instance within the budget, which says nothing
    of whether there is one.

    >>> example_instance({"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}, random.Random(0))
    {'n': 7}
    """
    compiled = schema if isinstance(schema, CompiledSchema) else compile_schema(schema)
    word = word or (lambda part, _path: draw_word(part, rng))
    generator = InstanceGenerator(compiled.parts, rng, word, number)
    reasons: dict[type[OutOfBudget], str] = {}
    for nesting in NESTINGS:
        for _ in range(tries if nesting == NESTINGS[0] or TooDeep in reasons else 0):
            generator.begin(nesting)
            try:
                value = generator.draw(compiled.schema, "")
            except OutOfBudget as error:
                reasons[type(error)] = str(error)
                if isinstance(error, OutOfTime):
                    break
            except (DeadEnd, RecursionError):
                continue
            else:
                if is_valid(value, compiled):
                    return value
    why = "".join(f"; {reason}" for reason in reasons.values())
    raise SchemaError(f"no valid instance found in {tries} tries{why}")


def draw_word(schema: dict[str, Any], rng: random.Random) -> str:
    """Draw a free string: now and then an example of the schema, else a word."""
    examples = [example for example in schema.get("examples", []) if isinstance(example, str)]
    return rng.choice(examples) if examples and rng.random() < 0.5 else rng.choice(WORDS)


class InstanceGenerator:
    """Tries at an instance of a schema: `generator.begin(24)`, then `generator.draw(schema, "")`."""

    def __init__(self, parts: Subschemas, rng: random.Random, word: Word, number: Number | None = None) -> None:
        self.root, self.rng, self.word, self.number = parts.root.schema, rng, word, number
        self.checker = PartChecker(parts)
        self.budget = Budget()
        self.nesting = 0

    def begin(self, max_nesting: int) -> None:
        """Begin a try whose values nest at most so deep."""
        self.budget.renew(max_nesting)
        self.nesting = 0

    def draw(self, schema: Any, path: str) -> Any:
        """Draw a value for a schema, again where this very level can be seen to fail."""
        self.budget.spend_node(self.nesting)
        nesting = self.nesting
        for _ in range(DRAWS):
            try:
                value = self._draw_once(schema, path)
            except OutOfBudget:
                raise
            except DeadEnd:
                self.nesting = nesting
                continue
            if not needs_check(schema) or self.checker.is_valid(schema, value):
                return value
        raise DeadEnd

    def _draw_once(self, schema: Any, path: str) -> Any:
        flat, conditions = flatten(schema, self.root, self.rng, self.budget)
        if conditions and choose_type(flat, self.rng) != "object":
            for condition in conditions:
                flat = take_branch(flat, condition, self.root, self.rng, self.budget)
            conditions = []
        if flat.get("enum") == []:
            raise DeadEnd
        if "enum" in flat:
            return self.rng.choice(flat["enum"])
        kind = choose_type(flat, self.rng)
        if kind == "object":
            return self._draw_object(flat, conditions, path)
        if kind == "array":
            return self._draw_array(flat, path)
        if kind == "string":
            return draw_string(flat, self.rng, lambda: self.word(flat, path))
        if kind in ("integer", "number"):
            liked = self.number(flat, path, kind) if self.number else None
            return liked if liked is not None and allows(flat, liked) else draw_number(flat, kind, self.rng)
        return self.rng.choice((True, False)) if kind == "boolean" else None

    def _draw_object(self, flat: dict[str, Any], conditions: list[dict[str, Any]], path: str) -> dict[str, Any]:
        """Draw, see which conditions hold, and draw what they touch again, holding fast what they ask about."""
        value = self._draw_properties(flat, path)
        for _ in range(3 if conditions else 0):
            active = self._activate(flat, conditions, value)
            if self.checker.is_valid(active, value):
                return value
            tested = set().union(*(tested_properties(condition["if"]) for condition in conditions))
            value = self._draw_properties(fix_properties(active, value, tested), path)
        return value

    def _activate(self, flat: dict[str, Any], conditions: list[dict[str, Any]], value: Any) -> dict[str, Any]:
        """Merge into a flat schema what its conditions demand of a value."""
        for condition in conditions:
            branch = "then" if self.checker.is_valid(condition["if"], value) else "else"
            more, inner = flatten(condition.get(branch, True), self.root, self.rng, self.budget)
            flat = merge(flat, more)
            for nested in inner:
                flat = take_branch(flat, nested, self.root, self.rng, self.budget)
        return flat

    def _draw_properties(self, flat: dict[str, Any], path: str) -> dict[str, Any]:
        check_size("minProperties", flat.get("minProperties", 0), MAX_VALUES)
        names = choose_names(flat, self.rng, self.nesting >= SPARSE_NESTING)
        names += self._invent_names(flat, flat.get("minProperties", 0) - len(names), path)
        self.nesting += 1
        value = {name: self.draw(property_schema(flat, name), f"{path}/{name}") for name in names}
        self.nesting -= 1
        return value

    def _invent_names(self, flat: dict[str, Any], count: int, path: str) -> list[str]:
        """Invent names of additional properties, only where a minimum demands them."""
        patterns = list(flat.get("patternProperties", {}))
        names: list[str] = []
        for i in range(max(0, count) * 3):
            if flat.get("propertyNames", True) is not True:
                names.append(str(self.draw({"allOf": [{"type": "string"}, flat["propertyNames"]]}, path)))
            elif flat.get("additionalProperties", True) is not False:
                names.append(f"{self.rng.choice(WORDS)}_{i}")
            elif patterns:
                names.append(draw_from_pattern(self.rng.choice(patterns), self.rng))
        return list(dict.fromkeys(name for name in names if name not in flat.get("properties", {})))[: max(0, count)]

    def _draw_array(self, flat: dict[str, Any], path: str) -> list[Any]:
        prefix, rest = split_items(flat)
        wanted = flat.get("minContains", 1) if "contains" in flat else 0
        count = self._choose_length(flat, wanted, len(prefix) if rest is False else None)
        self.nesting += 1
        values: list[Any] = []
        for i in range(count):
            schema = prefix[i] if i < len(prefix) else rest
            schema = {"allOf": [schema, flat["contains"]]} if i >= count - wanted else schema
            values.append(self._draw_item(schema, f"{path}/{i}", values, bool(flat.get("uniqueItems"))))
        self.nesting -= 1
        return values

    def _choose_length(self, flat: dict[str, Any], wanted: int, room: int | None) -> int:
        """Choose how many items: at least those that `contains` wants, at most `room`."""
        low = max(flat.get("minItems", 0), wanted)
        high = min(flat.get("maxItems", low + 3), low + 3 if room is None else room)
        if high < low:
            raise DeadEnd
        check_size("minItems", low, MAX_VALUES)
        return low if self.nesting >= SPARSE_NESTING else self.rng.randint(min(max(low, 1), high), high)

    def _draw_item(self, schema: Any, path: str, others: list[Any], must_differ: bool) -> Any:
        """Draw an item that equals none of the others; where it need not, a few tries at one."""
        seen = {canonical_text(other) for other in others}
        for _ in range(ITEM_DRAWS if must_differ else LIKED_DRAWS):
            value = self.draw(schema, path)
            if not seen or canonical_text(value) not in seen:
                return value
        if must_differ:
            raise DeadEnd
        return value


def choose_type(flat: dict[str, Any], rng: random.Random) -> str:
    """Choose one of a flat schema's types; where it names none, that of the values that its keywords speak of."""
    types = flat.get("type") or next((INFERRED_TYPES[key] for key in flat if key in INFERRED_TYPES), None)
    if types is None:
        return rng.choice(("string", "integer", "boolean"))
    if isinstance(types, str):
        return types
    named = [name for name in types if name != "null"] or ["null"]
    return "null" if "null" in types and rng.random() < 0.1 else rng.choice(named)


def split_items(flat: dict[str, Any]) -> tuple[list[Any], Any]:
    """Split into schemas of the first items and that of the others; before 2020-12 `items` said both."""
    items = flat.get("items", True)
    if isinstance(items, list):
        return items, flat.get("additionalItems", True)
    return flat.get("prefixItems", []), items
