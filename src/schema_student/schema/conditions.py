"""Rewrite a schema's conditions as alternatives, for engines that know anyOf but not if/then/else.

The rewritten schema allows the same objects. What has no such form stays as it is:

    allOf: [{if: {properties: {kind: {const: "a"}}, required: [kind]}, then: A}]      with kind one of "a", "b"
    anyOf: [{properties: {kind: {enum: ["a"]}}, allOf: [A]}, {properties: {kind: {enum: ["b"]}}}]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schema_student.schema.structure import ANNOTATIONS, CONSTANTS, NAMING

Schema = dict[str, Any]
TYPES = ("null", "boolean", "object", "array", "number", "string")
CONDITION = ("if", "then", "else")
DEPENDENT = ("dependentRequired", "dependentSchemas", "dependencies")


@dataclass(frozen=True)
class Condition:
    """if / then / else of a schema, and the keywords that it was written with."""

    test: Any
    then: Any
    otherwise: Any
    source: Schema


def rewrite_conditions(schema: Any) -> Any:
    """Rewrite if/then/else, dependentRequired and dependentSchemas as anyOf, in every part of a schema that has such.

    >>> rewrite_conditions({"if": {"type": "array"}, "then": {"minItems": 1}})["allOf"][0]["anyOf"][0]
    {'type': ['array'], 'allOf': [{'minItems': 1}]}
    """
    if isinstance(schema, list):
        return [rewrite_conditions(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return _rewrite_node({key: _rewrite_child(key, child) for key, child in schema.items()})


def _rewrite_child(key: str, child: Any) -> Any:
    if key in CONSTANTS or key.startswith("x-"):
        return child
    if key in NAMING and isinstance(child, dict):
        return {name: rewrite_conditions(part) for name, part in child.items()}
    return rewrite_conditions(child)


def _rewrite_node(node: Schema) -> Schema:
    """The node with its own conditions, and those that stand alone in its allOf, as anyOf in its allOf."""
    conditions, rest = _take_conditions(node)
    grouped: dict[str, list[Condition]] = {}
    for i, condition in enumerate(conditions):
        grouped.setdefault(_tested_property(condition.test) or f"/{i}", []).append(condition)
    rewritten, left = [], []
    for group in grouped.values():
        if branches := _branch(group, rest):
            rewritten.append({"anyOf": branches})
        else:
            left += [condition.source for condition in group]
    return {**rest, "allOf": [*rest.get("allOf", []), *rewritten, *left]} if rewritten else node


def _take_conditions(node: Schema) -> tuple[list[Condition], Schema]:
    """The conditions of a node, and the node without them."""
    rest = {key: value for key, value in node.items() if key not in (*CONDITION, *DEPENDENT)}
    found = _conditions_of(node)
    if isinstance(node.get("allOf"), list):
        alone = [part for part in node["allOf"] if isinstance(part, dict) and _is_condition(part)]
        found += [condition for part in alone for condition in _conditions_of(part)]
        rest["allOf"] = [part for part in node["allOf"] if not any(part is each for each in alone)]
        if not rest["allOf"]:
            del rest["allOf"]
    return found, rest


def _is_condition(part: Schema) -> bool:
    return "if" in part and not part.keys() - {*CONDITION, *ANNOTATIONS}


def _conditions_of(node: Schema) -> list[Condition]:
    found = []
    if "if" in node:
        source = {key: node[key] for key in CONDITION if key in node}
        found.append(Condition(node["if"], node.get("then", True), node.get("else", True), source))
    for keyword in DEPENDENT:
        for name, needed in node.get(keyword, {}).items():
            then = {"required": needed} if isinstance(needed, list) else needed
            found.append(Condition({"required": [name]}, then, True, {keyword: {name: needed}}))
    return found


def _tested_property(test: Any) -> str | None:
    """The property whose value alone decides a test, None where there is none."""
    if not isinstance(test, dict) or test.keys() - {"properties", "required", "type"} - ANNOTATIONS:
        return None
    names = list(test.get("properties", {}))
    if len(names) != 1 or test.get("required", names) != names or test.get("type", "object") != "object":
        return None
    return names[0] if _constants(test["properties"][names[0]]) is not None else None


def _branch(group: Sequence[Condition], node: Schema) -> list[Schema] | None:
    """The alternatives that say what a group of conditions says; None where that has no such form."""
    name, test = _tested_property(group[0].test), group[0].test
    if name is not None:
        return _by_value(name, group, node)
    if test is True or test == {}:
        return [_with({}, group[0].then)]
    if isinstance(test, dict) and test.keys() == {"type"}:
        return _by_type(group[0])
    if isinstance(test, dict) and test.keys() == {"required"} and node.get("type") == "object":
        absent = [_with({"properties": {each: False}}, group[0].otherwise) for each in test["required"]]
        return [_with({"required": test["required"]}, group[0].then), *absent]
    return None


def _by_value(name: str, group: Sequence[Condition], node: Schema) -> list[Schema] | None:
    """An alternative for the values of a property for which the same conditions hold, and one for its absence."""
    known = _constants(node.get("properties", {}).get(name))
    if known is None or node.get("type") != "object":
        return None
    tested = [{_key(value) for value in _constants(each.test["properties"][name]) or ()} for each in group]
    cells: dict[tuple[bool, ...], list[Any]] = {}
    for value in known:
        cells.setdefault(tuple(_key(value) in values for values in tested), []).append(value)
    optional = name not in node.get("required", ())
    needed: Schema = {"required": [name]} if optional else {}
    branches = [
        _with({**needed, "properties": {name: {"enum": values}}}, *_consequences(group, holds))
        for holds, values in cells.items()
    ]
    if optional:  # a test that does not require the property holds where it is absent
        holds = tuple("required" not in each.test for each in group)
        branches.append(_with({"properties": {name: False}}, *_consequences(group, holds)))
    return branches


def _by_type(condition: Condition) -> list[Schema] | None:
    tested = condition.test["type"]
    tested = [tested] if isinstance(tested, str) else tested
    if "integer" in tested and "number" not in tested:
        return None  # no type is that of the numbers that are not whole
    others = [name for name in TYPES if name not in tested]
    return [_with({"type": tested}, condition.then), _with({"type": others}, condition.otherwise)]


def _consequences(group: Sequence[Condition], holds: Sequence[bool]) -> list[Any]:
    return [each.then if held else each.otherwise for each, held in zip(group, holds, strict=True)]


def _with(branch: Schema, *further: Any) -> Schema:
    """A branch in which further schemas hold as well."""
    needed = [each for each in further if each is not True and each != {}]
    return {**branch, "allOf": needed} if needed else branch


def _constants(part: Any) -> list[Any] | None:
    """The values that a schema allows, as far as const, enum, or alternatives of such say; None for any."""
    if not isinstance(part, dict):
        return None
    if "const" in part:
        return [part["const"]]
    if isinstance(part.get("enum"), list):
        return list(part["enum"])
    for keyword in ("oneOf", "anyOf"):
        found = [_constants(option) for option in part.get(keyword, ())]
        if found and None not in found:
            return [value for values in found for value in values or ()]
    return None


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
