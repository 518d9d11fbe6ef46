"""Flatten a schema: one plain schema without $ref, allOf, oneOf and anyOf, its if/then/else beside it."""

from __future__ import annotations

import random
from typing import Any

from schema_student.schema.instances.dead_ends import Budget, DeadEnd
from schema_student.schema.instances.merging import merge
from schema_student.schema.structure import resolve

COMBINING = ("allOf", "oneOf", "anyOf", "if", "then", "else", "const")

Flat = dict[str, Any]
Condition = dict[str, Any]  # if, then?, else?


def flatten(
    schema: Any, root: dict[str, Any], rng: random.Random, budget: Budget, said: set[str] | None = None
) -> tuple[Flat, list[Condition]]:
    """Flatten a schema to (one plain schema, its conditions); of oneOf and anyOf an alternative is drawn.

    `said` are the references whose targets stand in the conjunction already. Raises DeadEnd where nothing can be valid.
    """
    budget.spend_step()
    said = set() if said is None else said
    schema = resolve(schema, root)
    if schema is False:
        raise DeadEnd
    if not isinstance(schema, dict):
        return {}, []
    flat = {key: child for key, child in schema.items() if key not in COMBINING}
    if "const" in schema:
        flat = merge(flat, {"enum": [schema["const"]]})
    conditions = [{key: schema[key] for key in ("if", "then", "else") if key in schema}] if "if" in schema else []
    parts = list(schema.get("allOf", ()))
    parts += [rng.choice(schema[key]) for key in ("oneOf", "anyOf") if schema.get(key)]
    for part in parts:
        if isinstance(part, dict) and part.keys() == {"$ref"}:
            if part["$ref"] in said:
                continue
            said.add(part["$ref"])
        more, more_conditions = flatten(part, root, rng, budget, said)
        flat, conditions = merge(flat, more), conditions + more_conditions
    return flat, conditions


def take_branch(flat: Flat, condition: Condition, root: dict[str, Any], rng: random.Random, budget: Budget) -> Flat:
    """Assume that a condition holds, or that it does not; the check of the level decides."""
    holds = rng.random() < 0.5
    for part in [condition["if"], condition.get("then", True)] if holds else [condition.get("else", True)]:
        more, conditions = flatten(part, root, rng, budget)
        flat = merge(flat, more)
        for inner in conditions:
            flat = take_branch(flat, inner, root, rng, budget)
    return flat


def tested_properties(test: Any) -> set[str]:
    """List the properties that an `if` asks about, also under its own allOf, anyOf, oneOf, not."""
    if not isinstance(test, dict):
        return set()
    names = set(test.get("properties", {})) | set(test.get("required", ()))
    for key in ("allOf", "anyOf", "oneOf", "not"):
        parts = test.get(key, [])
        for part in parts if isinstance(parts, list) else [parts]:
            names |= tested_properties(part)
    return names


def fix_properties(flat: Flat, value: dict[str, Any], names: set[str]) -> Flat:
    """Narrow a schema to instances that have these properties as the value has them: the same content, or absent."""
    properties = dict(flat.get("properties", {}))
    for name in sorted(names):
        if name in value:
            properties[name] = {"allOf": [properties.get(name, True), {"enum": [value[name]]}]}
        elif name not in flat.get("required", ()):
            properties[name] = False
    present = [name for name in value if name in names]
    return flat | {"properties": properties, "required": list(dict.fromkeys([*flat.get("required", ()), *present]))}
