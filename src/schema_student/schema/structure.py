"""Resolve $refs, compare the shapes of schemas, order properties."""

from __future__ import annotations

from typing import Any


def unescape_pointer(part: str) -> str:
    """Unescape one part of a JSON Pointer (RFC 6901)."""
    return part.replace("~1", "/").replace("~0", "~")


def json_pointer(parts: Any) -> str:
    """Write the JSON Pointer of a path of keys and indices."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def resolve(schema: Any, root: dict[str, Any]) -> Any:
    """Follow local $refs ("#", "#/$defs/x", "#anchor") to what they name; keywords beside a $ref stay."""
    for _ in range(32):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        target = look_up(schema["$ref"], root)
        siblings = {key: child for key, child in schema.items() if key != "$ref"}
        schema = {**target, **siblings} if isinstance(target, dict) else target
    return True


def look_up(ref: str, root: dict[str, Any]) -> Any:
    """Find what a local reference names: True, which allows anything, where that is nothing."""
    pointer = ref.removeprefix(root.get("$id", "")) if not ref.startswith("#") else ref
    if pointer.startswith("#") and not pointer.startswith("#/") and pointer != "#":
        definitions = (part for part in root.get("$defs", {}).values() if isinstance(part, dict))
        return next((part for part in definitions if part.get("$anchor") == pointer[1:]), True)
    node: Any = root
    for part in filter(None, pointer.lstrip("#").split("/")):
        part = unescape_pointer(part)
        node = node.get(part, True) if isinstance(node, dict) else node[int(part)] if isinstance(node, list) else True
    return node


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

    >>> in_schema_order({"b": 1, "a": 2}, {"properties": {"a": {}, "b": {}}})
    {'a': 2, 'b': 1}
    """
    root = root if root is not None else schema
    schema = resolve(schema, root)
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, list):
        items = schema.get("items", {})
        return [in_schema_order(child, items, root) for child in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    names = [name for name in properties if name in value] + [name for name in value if name not in properties]
    return {name: in_schema_order(value[name], properties.get(name, {}), root) for name in names}
