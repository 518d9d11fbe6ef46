"""Find in a schema numbers that a double cannot hold, references that only name each other, and repeated anchors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from schema_student.schema.dynamic_references import place_in_resources
from schema_student.schema.structure import References, json_pointer, place_nodes, references_of

SIZES = tuple(f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items", "Properties", "Contains"))
NUMERIC = ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", *SIZES)
GREATEST = sys.float_info.max
LEAST_STEP = 1e-300  # a number of people divided by a smaller one is beyond a double
ALWAYS_ASKED = ("allOf", "not", "if")  # what is asked of a value whatever the value is, beside $ref


def find_bad_number(schema: dict[str, Any]) -> str:
    """Find a keyword whose number a double cannot hold: "/properties/n/maximum: a number of ...", or ""."""
    found = (
        f"{json_pointer(path)}/{keyword}: {fault}"
        for path, node in place_nodes(schema)
        for keyword in NUMERIC
        if (fault := _describe_number(keyword, node.get(keyword)))
    )
    return next(found, "")


def _describe_number(keyword: str, number: Any) -> str:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return ""
    if abs(number) > GREATEST:
        return f"a number of {len(str(abs(number)))} digits is beyond a double, whose greatest is {GREATEST:.2g}"
    if keyword == "multipleOf" and number < LEAST_STEP:
        return f"{number} is below {LEAST_STEP}: what is a multiple of it cannot be told with doubles"
    return ""


def find_repeated_anchor(schema: dict[str, Any]) -> str:
    """Find an anchor that two parts of one schema resource have, so that a reference to it is ambiguous, or ""."""
    found: dict[tuple[int, str], str] = {}
    for pointer, node, resource in place_in_resources(schema):
        for keyword in ("$anchor", "$dynamicAnchor"):
            name = node.get(keyword)
            if isinstance(name, str) and found.setdefault((id(resource), name), pointer) != pointer:
                other = found[id(resource), name] or "/"
                return f'{pointer}/{keyword}: "{name}" is the anchor of {other} as well: a reference to it is ambiguous'
    return ""


def settle_counts(schema: dict[str, Any]) -> None:
    """Write counts as whole numbers, in place, where they have a point: {"minItems": 2.0}."""
    for _, node in place_nodes(schema):
        counts = {key: node[key] for key in SIZES if isinstance(node.get(key), float) and node[key] < 2**53}
        node |= {key: int(count) for key, count in counts.items()}


def find_cycle(schema: dict[str, Any]) -> str:
    """Find references that only name each other: '/$defs/a/$ref: "#/$defs/b" comes back ...', or "".

    That is, a part that asks for itself of the same value, by references, allOf, not and if alone.
    """
    placed = {id(node): (path, node) for path, node in place_nodes(schema)}
    if not any("$ref" in node for _, node in placed.values()):
        return ""
    references = references_of(schema)
    graph = {key: [id(other) for other in _asked_with(node, references)] for key, (_, node) in placed.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1]
        return next(
            _describe_reference(*placed[key])
            for key in cycle
            if references.names_something(placed[key][1]) and id(references.target(placed[key][1])) in cycle
        )
    return ""


def _describe_reference(path: tuple[str | int, ...], node: dict[str, Any]) -> str:
    said = "comes back to itself without a keyword between, so that it says nothing"
    return f'{json_pointer(path)}/$ref: "{node["$ref"]}" {said}'


def _asked_with(node: dict[str, Any], references: References) -> Iterator[dict[str, Any]]:
    """List the parts that are asked of each value that a part is asked of."""
    if references.names_something(node):
        yield from _objects([references.target(node)])
        node = references.siblings(node)
    for keyword in ALWAYS_ASKED:
        part = node.get(keyword)
        yield from _objects(part if isinstance(part, list) else [part])


def _objects(parts: Iterable[Any]) -> Iterator[dict[str, Any]]:
    return (part for part in parts if isinstance(part, dict))
