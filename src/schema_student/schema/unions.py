"""Explain why a value obeys no alternative of a union: by the alternative that came nearest to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schema_student.schema.structure import json_pointer
from schema_student.schema.subschemas import Subschema, Subschemas
from schema_student.schema.violations import Fault, list_options, make_fault, show_value

Branch = tuple[Subschema, tuple[Fault, ...]]  # an alternative and what is wrong with the value by it
CONSTANTS = ("const", "enum")
MAX_DEPTH = 8  # of allOf and unions inside an alternative


def explain_union(parts: Subschemas, keyword: str, branches: list[Branch], value: Any, path: str) -> Iterator[Fault]:
    """Find the faults that tell best why a value obeys no alternative.

    All constants or all types are told as one list, and so are the constants of a tag, a property that has other ones
    in each alternative; else the nearest alternative tells: the cheapest to repair, then the one that knows most names.
    """
    if all(_is_constant(parts, branch, path) for branch in branches):
        options = [option for part, _ in branches for option in _constants(parts, part)]
        yield make_fault(path, keyword, list_options(value, options))
        return
    typed = [branch for branch in branches if not _is_mistyped(branch, path)]
    if not typed:
        names = ", ".join(dict.fromkeys(name for part, _ in branches for name in _types(parts, part)))
        message = f"{show_value(value)} is not of any of the types {names}"
        yield make_fault(path, "type", message, min(cost(branch) for branch in branches))
        return
    yield from _explain_typed(parts, typed, value, path)


def _explain_typed(parts: Subschemas, branches: list[Branch], value: Any, path: str) -> Iterator[Fault]:
    known = [_properties(parts, part) if isinstance(value, dict) else {} for part, _ in branches]
    tags = _tags(parts, known, value)
    wrong = [[tag for tag in tags if tag in names and not parts.is_valid(names[tag], value[tag])] for names in known]

    def nearness(i: int) -> tuple[int, int, int]:
        return len(wrong[i]), cost(branches[i]), -len(known[i].keys() & value.keys()) if known[i] else 0

    nearest = min(range(len(branches)), key=nearness)
    if not wrong[nearest]:
        yield from branches[nearest][1]
        return
    places = [f"{path}{json_pointer([tag])}" for tag in wrong[nearest]]
    for tag, place in zip(wrong[nearest], places, strict=True):
        options = [option for names in known if tag in names for option in _constants(parts, names[tag])]
        yield make_fault(place, "enum", list_options(value[tag], options))
    everywhere = set.intersection(*({fault.violation for fault in faults} for _, faults in branches))
    for fault in branches[nearest][1]:
        said = fault.violation
        if said.path not in places and (said.path != path or said in everywhere):
            yield fault


def cost(branch: Branch) -> int:
    """Add up what it costs to make the value obey an alternative."""
    return sum(fault.cost for fault in branch[1])


def _tags(parts: Subschemas, known: list[dict[str, Subschema]], value: Any) -> list[str]:
    """The properties of a value for which alternatives have constants, not the same in all of them."""
    tags = []
    for name in value if isinstance(value, dict) else ():
        constants = [repr(found) for names in known if name in names and (found := _constants(parts, names[name]))]
        if len(set(constants)) > 1:
            tags.append(name)
    return tags


def _is_mistyped(branch: Branch, path: str) -> bool:
    return any(fault.violation.path == path and fault.violation.keyword == "type" for fault in branch[1])


def _is_constant(parts: Subschemas, branch: Branch, path: str) -> bool:
    """Return whether an alternative is a list of constants, and the value only none of them."""
    part, faults = branch
    violations = [fault.violation for fault in faults]
    here = all(v.path == path and v.keyword in (*CONSTANTS, "oneOf", "anyOf", "type") for v in violations)
    return here and bool(_constants(parts, part))


def _constants(parts: Subschemas, part: Subschema, depth: int = 0) -> list[Any]:
    """The constants that a part allows, [] where it allows others."""
    part = parts.resolve(part)
    if not isinstance(part.schema, dict) or depth > MAX_DEPTH:
        return []
    if "const" in part.schema:
        return [part.schema["const"]]
    if "enum" in part.schema:
        return list(part.schema["enum"])
    inner = [_constants(parts, each, depth + 1) for key in ("anyOf", "oneOf") for each in part.children(key)]
    return [constant for constants in inner for constant in constants] if all(inner) else []


def _types(parts: Subschemas, part: Subschema, depth: int = 0) -> list[str]:
    part = parts.resolve(part)
    if not isinstance(part.schema, dict) or depth > MAX_DEPTH:
        return []
    if "type" in part.schema:
        types = part.schema["type"]
        return [types] if isinstance(types, str) else sorted(types)
    inner = [each for key in ("anyOf", "oneOf", "allOf") for each in part.children(key)]
    return [name for each in inner for name in _types(parts, each, depth + 1)]


def _properties(parts: Subschemas, part: Subschema, depth: int = 0) -> dict[str, Subschema]:
    """The properties that an alternative lists, also by what it refers to and under allOf."""
    part = parts.resolve(part)
    if not isinstance(part.schema, dict) or depth > MAX_DEPTH:
        return {}
    target = parts.target(part)
    found: dict[str, Subschema] = {}
    for inner in [*part.children("allOf"), *([target] if target else [])]:
        found |= _properties(parts, inner, depth + 1)
    return found | {name: part.child("properties", name) for name in part.schema.get("properties", {})}
