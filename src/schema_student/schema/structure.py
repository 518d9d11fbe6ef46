"""Resolve $refs, compare the shapes of schemas, order properties."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from referencing import Registry, Resource, Specification
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT4, DRAFT201909, DRAFT202012, specification_with

REFERRING = ("$ref", "$dynamicRef", "$recursiveRef")
CONSTANTS = ("const", "enum", "default", "examples")  # keywords whose values are no schemas
NAMING = ("properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions", "schemas")
# Keywords that decide no verdict.
ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "example"),
    *("$schema", "$id", "id", "$anchor", "$defs", "definitions", "$vocabulary", "nullable"),
}
SPEAKING_TOGETHER = (
    {"properties", "patternProperties", "additionalProperties", "unevaluatedProperties"},
    {"items", "prefixItems", "additionalItems", "unevaluatedItems", "contains", "minContains", "maxContains"},
    {"if", "then", "else"},
)
MAX_INDEXED = 64
# By id of the schema, which is held so that its id stays its own.
_INDEXED: dict[int, tuple[dict[str, Any], References]] = {}


def unescape_pointer(part: str) -> str:
    """Unescape one part of a JSON Pointer (RFC 6901)."""
    return part.replace("~1", "/").replace("~0", "~")


def json_pointer(parts: Any) -> str:
    """Write the JSON Pointer of a path of keys and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def general_pointer(path: str) -> str:
    """Replace every index of a JSON Pointer: /steps/0/conditions/12/field -> /steps/*/conditions/*/field."""
    return re.sub(r"/\d+(?=/|$)", "/*", path)


def list_values(value: Any) -> Iterator[Any]:
    """List the values in a JSON value, without the names of its properties."""
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from list_values(child)
    else:
        yield value


def resolve(schema: Any, root: dict[str, Any]) -> Any:
    """Follow $refs to what they name: True, which allows anything, where that is nothing.

    Keywords beside a $ref stay as far as the draft reads them; where one of them and one of the target's speak of the
    same thing, the target stands in an allOf.
    """
    followed: set[int] = set()
    while isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        if id(schema) in followed:
            return True
        followed.add(id(schema))
        references = references_of(root)
        schema = _beside(references.target(schema), references.siblings(schema))
    return schema


def _beside(target: Any, siblings: dict[str, Any]) -> Any:
    """The conjunction of a $ref's target and the keywords beside it."""
    if not siblings or not isinstance(target, dict):
        return target if target is False or not siblings else siblings
    if siblings.keys() <= ANNOTATIONS:
        return {**target, **siblings}
    own, others = (part.keys() - ANNOTATIONS for part in (siblings, target))
    if own & others or any(own & group and others & group for group in SPEAKING_TOGETHER):
        return {**siblings, "allOf": [*siblings.get("allOf", ()), target]}
    return {**target, **siblings}


class References:
    """What each $ref of a schema names, as its draft reads $id, anchors and pointers; nothing is ever fetched."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.specification = _specification(root)
        resource = self.specification.create_resource(root)
        self.targets: dict[int, Any] = {}  # by id of the object that holds the $ref
        self.resolver: Any = Registry().resolver()
        self.is_addressed = True  # whether each $id is a URI
        try:
            base = resource.id() or ""
            self.resolver = Registry().with_resource("", resource).crawl().resolver(base)
            self._index(resource)
        except ValueError:  # an $id that is no URI, which the compiler refuses
            self.is_addressed = False

    def _index(self, resource: Resource[Any]) -> None:
        """Walk all that the draft reads as schemas, and what their references name, each with its base URI."""
        waiting: list[tuple[Resource[Any], Any]] = [(resource, self.resolver)]
        seen = set()
        while waiting:
            resource, resolver = waiting.pop()
            node = resource.contents
            if not isinstance(node, dict) or id(node) in seen:
                continue
            seen.add(id(node))
            found = _look_up(node["$ref"], resolver) if isinstance(node.get("$ref"), str) else None
            if found is not None:
                self.targets[id(node)] = found.contents
                waiting.append((self.specification.create_resource(found.contents), found.resolver))
            waiting += [(sub, resolver.in_subresource(sub)) for sub in resource.subresources()]

    def target(self, node: dict[str, Any]) -> Any:
        """Find what the $ref of an object names: True where that is nothing."""
        if id(node) in self.targets:
            return self.targets[id(node)]
        found = _look_up(node["$ref"], self.resolver)  # of an object that a caller has put together
        return True if found is None else found.contents

    def names_something(self, node: dict[str, Any]) -> bool:
        """Return whether the $ref of an object of the schema names a part of the schema."""
        return id(node) in self.targets

    def siblings(self, node: dict[str, Any]) -> dict[str, Any]:
        """List the keywords beside a $ref that count: before 2019-09 those that decide nothing."""
        counts = self.specification in (DRAFT201909, DRAFT202012)
        return {key: child for key, child in node.items() if key != "$ref" and (counts or key in ANNOTATIONS)}


def _look_up(ref: str, resolver: Any) -> Any:
    """Find what a reference names, with the base URI there, or None."""
    base, _, fragment = encode_reference(ref).partition("#")
    anchor = fragment if fragment.startswith("/") else unquote(fragment)
    try:
        return resolver.lookup(f"{base}#{anchor}" if anchor else base or "#")
    except (Unresolvable, LookupError, ValueError, TypeError):
        return None


def references_of(root: dict[str, Any]) -> References:
    """Index the references of a schema, once for each of the last schemas; a schema that was indexed is not changed."""
    held = _INDEXED.get(id(root))
    if held is None:
        while len(_INDEXED) >= MAX_INDEXED:
            _INDEXED.pop(next(iter(_INDEXED)), None)
        held = _INDEXED[id(root)] = root, References(root)
    return held[1]


def _specification(root: dict[str, Any]) -> Specification[Any]:
    named = root.get("$schema")
    found = specification_with(named, default=DRAFT202012) if isinstance(named, str) else DRAFT202012
    return _LENIENT_DRAFT_4 if found == DRAFT4 else found


# The validator takes booleans for schemas in draft 4 as well.
_LENIENT_DRAFT_4: Specification[Any] = Specification(  # type: ignore[call-arg]  # its fields are made by attrs
    name=DRAFT4.name,
    id_of=DRAFT4.id_of,
    subresources_of=lambda node: (part for part in DRAFT4.subresources_of(node) if isinstance(part, dict)),
    anchors_in=lambda _, node: DRAFT4.anchors_in(node),
    maybe_in_subresource=DRAFT4.maybe_in_subresource,
)


def encode_reference(ref: str) -> str:
    """Percent-encode what a URI reference may not hold, as generators write it: "#/$defs/Page<Order>".

    >>> encode_reference("#/$defs/Page<Order>")
    '#/$defs/Page%3COrder%3E'
    """
    base, hash_sign, fragment = ref.partition("#")
    return "".join((_encode(base), hash_sign, _encode(fragment)))


def _encode(text: str) -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe="/?:@!$&'()*+,;=%-._~")


def encode_references(schema: dict[str, Any]) -> None:
    """Percent-encode the references of a schema, in place, where they are not encoded."""
    for node in list_nodes(schema):
        node |= {key: encode_reference(node[key]) for key in REFERRING if isinstance(node.get(key), str)}


def list_nodes(schema: Any) -> list[dict[str, Any]]:
    """List the JSON objects in a schema, but for those that hold names, and those inside constants and examples."""
    return [node for _, node in place_nodes(schema)]


def place_nodes(schema: Any) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """List the objects of `list_nodes`, each with the keys that lead to it."""
    waiting: list[tuple[tuple[str | int, ...], Any, bool]] = [((), schema, False)]
    while waiting:
        path, node, holds_names = waiting.pop()
        if isinstance(node, list):
            waiting += [((*path, i), child, False) for i, child in enumerate(node)]
        elif isinstance(node, dict):
            if not holds_names:
                yield path, node
            kept = ((key, child) for key, child in node.items() if holds_names or key not in CONSTANTS)
            waiting += [((*path, key), child, not holds_names and key in NAMING) for key, child in kept]


def shape(schema: Any) -> Any:
    """Drop a schema's annotations: two schemas of one shape accept the same documents."""
    if isinstance(schema, list):
        return [shape(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    said = ("$schema", "$id", "$comment", "title", "description", "examples", "default")
    kept = {key: value for key, value in schema.items() if key not in said or isinstance(value, dict)}
    return {key: shape(value) for key, value in kept.items() if not key.startswith("x-")}


def in_schema_order(value: Any, schema: Any, root: dict[str, Any] | None = None) -> Any:
    """Order a value's keys as the schema orders its properties, as a student reads them.

    Of several alternatives the one is followed whose consts and properties the value has.

    >>> in_schema_order({"b": 1, "a": 2}, {"properties": {"a": {}, "b": {}}})
    {'a': 2, 'b': 1}
    """
    root = root if root is not None else schema
    parts = parts_of(value, schema, root)
    if isinstance(value, list):
        first: Any = next((part["prefixItems"] for part in parts if "prefixItems" in part), [])
        rest: Any = next((part["items"] for part in parts if "items" in part), {})
        first, rest = (rest, {}) if isinstance(rest, list) else (first, rest)
        return [in_schema_order(v, first[i] if i < len(first) else rest, root) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    properties = merge_parts(part.get("properties", {}) for part in parts)
    order = dict.fromkeys(name for each in parts for name in each.get("properties", {}))
    other: Any = next((part["additionalProperties"] for part in parts if "additionalProperties" in part), {})
    names = [name for name in order if name in value] + [name for name in value if name not in order]
    return {name: in_schema_order(value[name], properties.get(name, other), root) for name in names}


def parts_of(value: Any, schema: Any, root: dict[str, Any], seen: frozenset[int] = frozenset()) -> list[dict[str, Any]]:
    """List the schema of a value, those that its allOf adds, and the alternatives that the value goes by.

    An alternative is gone by where the value has its consts and no property that it does not name.
    """
    schema = resolve(schema, root)
    if not isinstance(schema, dict) or id(schema) in seen:
        return []
    seen = seen | {id(schema)}
    found = [schema, *(part for each in schema.get("allOf", ()) for part in parts_of(value, each, root, seen))]
    for key in ("oneOf", "anyOf"):
        branches = (resolve(branch, root) for branch in schema.get(key, ()))
        chosen = next((branch for branch in branches if _goes_by(value, branch)), None)
        found += [] if chosen is None else parts_of(value, chosen, root, seen)
    return found


def merge_parts(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge what several schemas of one value say by key: the first that says it counts.

    >>> merge_parts([{"a": 1}, {"a": 2, "b": 3}])
    {'a': 1, 'b': 3}
    """
    merged: dict[str, Any] = {}
    for part in parts:
        for key, said in part.items():
            merged.setdefault(key, said)
    return merged


def _goes_by(value: Any, branch: Any) -> bool:
    if not isinstance(branch, dict):
        return False
    if not isinstance(value, dict):
        return "properties" not in branch and isinstance(value, list) == ("items" in branch or "prefixItems" in branch)
    properties = branch.get("properties", {})
    consts = {name: part["const"] for name, part in properties.items() if isinstance(part, dict) and "const" in part}
    return value.keys() <= properties.keys() and all(value.get(name) == const for name, const in consts.items())
