"""Replace $dynamicRef and $recursiveRef by the $ref that they come to, where that does not depend on the way there.

A dynamic reference names the outermost of the schema resources that were entered on the way to it, of those that have
the anchor. The whole schema is always entered first: where it has the anchor, or only one resource has, the target is
known. What is left depends on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schema_student.schema.structure import CONSTANTS, NAMING

DYNAMIC = ("$dynamicRef", "$recursiveRef")

Node = dict[str, Any]


def settle_dynamic_references(schema: Node) -> None:
    """Write the dynamic references of a schema as plain ones, in place, where their target is known.

    >>> tree = {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}}
    >>> settle_dynamic_references(tree)
    >>> tree
    {'$dynamicAnchor': 'node', 'items': {'$ref': '#node'}}
    """
    placed = list(_place_nodes(schema))
    for node, resource in placed:
        for keyword in DYNAMIC:
            if isinstance(node.get(keyword), str):
                target = _find_target(node[keyword], keyword, resource, schema, placed)
                if target is not None:
                    _refer(node, keyword, target)


def find_dynamic_keyword(schema: Any) -> str:
    """Name the keyword of a dynamic reference in a schema, "" where there is none."""
    nodes = (node for node, _ in _place_nodes(schema))
    return next((keyword for node in nodes for keyword in DYNAMIC if isinstance(node.get(keyword), str)), "")


def _find_target(ref: str, keyword: str, resource: Node, root: Node, placed: list[tuple[Node, Node]]) -> str | None:
    """Find the plain reference that a dynamic one of a resource comes to, None where that depends on the way to it."""
    base, _, name = ref.partition("#")
    if keyword == "$recursiveRef":
        owners = [owner for node, owner in placed if node is owner and node.get("$recursiveAnchor") is True]
    else:
        owners = [owner for node, owner in placed if node.get("$dynamicAnchor") == name]
    owns = any(owner is resource for owner in owners)
    if len(owners) <= 1 or (not base and not owns):
        return ref
    if base or not any(owner is root for owner in owners):
        return None
    address = "" if resource is root else root.get("$id")
    return None if address is None else f"{address.rstrip('#')}#{name}"


def _refer(node: Node, keyword: str, target: str) -> None:
    """Put a plain reference in the place of a dynamic one."""
    del node[keyword]
    if "$ref" in node:
        node["allOf"] = [*node.get("allOf", ()), {"$ref": target}]
    else:
        node["$ref"] = target


def _place_nodes(schema: Any) -> Iterator[tuple[Node, Node]]:
    """List the objects of a schema, each with the object that begins its schema resource: one with an $id."""
    waiting: list[tuple[Any, Node, bool]] = [(schema, schema, False)]
    while waiting:
        node, resource, holds_names = waiting.pop()
        if isinstance(node, list):
            waiting += [(child, resource, False) for child in node]
        elif isinstance(node, dict) and holds_names:
            waiting += [(child, resource, False) for child in node.values()]
        elif isinstance(node, dict):
            resource = node if isinstance(node.get("$id"), str) else resource
            yield node, resource
            waiting += [(child, resource, key in NAMING) for key, child in node.items() if key not in CONSTANTS]
