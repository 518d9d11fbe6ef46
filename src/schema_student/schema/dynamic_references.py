"""Replace $dynamicRef and $recursiveRef by the $ref that they come to, where that does not depend on the way there.

A dynamic reference names the outermost of the schema resources that were entered on the way to it, of those that have
the anchor. The whole schema is always entered first: where it has the anchor, or only one resource has, the target is
known. What is left depends on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from schema_student.schema.structure import json_pointer, place_nodes

DYNAMIC = ("$dynamicRef", "$recursiveRef")

Node = dict[str, Any]


class Placed(NamedTuple):
    """An object of a schema, where it stands, and the object that begins its schema resource: one with an $id."""

    pointer: str
    node: Node
    resource: Node


def settle_dynamic_references(schema: Node) -> None:
    """Write the dynamic references of a schema as plain ones, in place, where their target is known.

    >>> tree = {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}}
    >>> settle_dynamic_references(tree)
    >>> tree
    {'$dynamicAnchor': 'node', 'items': {'$ref': '#node'}}
    """
    if not find_dynamic_keyword(schema):
        return
    placed = list(place_in_resources(schema))
    for each in placed:
        for keyword in DYNAMIC:
            if isinstance(each.node.get(keyword), str):
                target = _find_target(each, keyword, schema, placed)
                if target is not None:
                    _refer(each.node, keyword, target)


def find_dynamic_keyword(schema: Any) -> str:
    """Name the keyword of a dynamic reference in a schema, "" where there is none."""
    nodes = (node for _, node in place_nodes(schema))
    return next((keyword for node in nodes for keyword in DYNAMIC if isinstance(node.get(keyword), str)), "")


def _find_target(each: Placed, keyword: str, root: Node, placed: list[Placed]) -> str | None:
    """Find the plain reference that a dynamic one comes to, None where that depends on the way to it."""
    ref = each.node[keyword]
    base, _, name = ref.partition("#")
    owners = [other for other in placed if _has_anchor(other, keyword, name)]
    if len(owners) <= 1 or (not base and not any(owner.resource is each.resource for owner in owners)):
        return str(ref)
    outermost = next((owner for owner in owners if owner.resource is root), None)
    address = "" if each.resource is root else root.get("$id")
    may_be_plain = bool(base) and any(other.node.get("$anchor") == name for other in placed)
    if may_be_plain or outermost is None or address is None:
        return None
    return f"{address.rstrip('#')}#{quote(outermost.pointer)}"


def _has_anchor(placed: Placed, keyword: str, name: str) -> bool:
    if keyword == "$recursiveRef":
        return placed.node is placed.resource and placed.node.get("$recursiveAnchor") is True
    return placed.node.get("$dynamicAnchor") == name


def _refer(node: Node, keyword: str, target: str) -> None:
    """Put a plain reference in the place of a dynamic one."""
    del node[keyword]
    if "$ref" in node:
        node["allOf"] = [*node.get("allOf", ()), {"$ref": target}]
    else:
        node["$ref"] = target


def place_in_resources(schema: Node) -> Iterator[Placed]:
    """List the objects of a schema, those around before those inside."""
    resources: dict[tuple[str | int, ...], Node] = {(): schema}
    for path, node in place_nodes(schema):
        if isinstance(node.get("$id"), str):
            resources[path] = node
        around = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in resources)
        yield Placed(json_pointer(path), node, resources[around])
