"""Load the files of a folder together, where they refer to each other by name; nothing is fetched."""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import urljoin

from schema_student.schema.structure import list_nodes

PLACE = "file:///"  # where the files of a folder lie that do not say where they do
PARTS = "x-files"  # annotation of a bundled schema: the other files in it


def bundle(schemas: dict[str, Any]) -> dict[str, Any]:
    """Put into each schema, by file name, those of the others that it refers to, directly or not.

    A reference is read relative to the schema's $id, or to the file's place in the folder. What is referred to stands
    under $defs (definitions before 2019-09) with its own $id, as JSON Schema bundles documents.

    >>> bundle({"a.json": {"$ref": "b.json"}, "b.json": {"const": 1}})["a.json"]["$defs"]
    {'b.json': {'$id': 'file:///b.json', 'const': 1}}
    """
    folder = {name: copy.deepcopy(schema) for name, schema in schemas.items() if isinstance(schema, dict)}
    named = {urljoin(PLACE, _id_of(schema)).rstrip("#"): name for name, schema in folder.items() if _id_of(schema)}
    placed = {urljoin(PLACE, name): name for name in folder}
    ids = {name: _id_of(schema) or urljoin(PLACE, name) for name, schema in folder.items()}
    direct = {name: _link(name, schema, named, placed, ids) for name, schema in folder.items()}
    return {name: _with_parts(name, folder, direct, ids) if direct.get(name) else schemas[name] for name in schemas}


def _link(
    name: str, schema: dict[str, Any], named: dict[str, str], placed: dict[str, str], ids: dict[str, str]
) -> list[str]:
    """List the files that a schema refers to; what names a file by its place is made to name its $id."""
    base, found = urljoin(PLACE, _id_of(schema) or name), []
    for node in list_nodes(schema):
        ref = node.get("$ref")
        if not isinstance(ref, str) or ref.startswith("#"):
            continue
        address, _, fragment = ref.partition("#")
        by_id, by_place = named.get(urljoin(base, address)), placed.get(urljoin(urljoin(PLACE, name), address))
        target = by_id or by_place
        if target and target != name:
            found.append(target)
            node["$ref"] = f"{ids[target]}#{fragment}" if fragment else ids[target]
    return list(dict.fromkeys(found))


def _with_parts(name: str, folder: dict[str, Any], direct: dict[str, list[str]], ids: dict[str, str]) -> dict[str, Any]:
    wanted, waiting = [name], list(direct[name])
    while waiting:
        other = waiting.pop(0)
        if other not in wanted:
            wanted.append(other)
            waiting += direct[other]
    schema, *parts = ({_id_key(folder[each]): ids[each]} | folder[each] for each in wanted)
    is_old = any(draft in str(schema.get("$schema", "")) for draft in ("draft-04", "draft-06", "draft-07"))
    key = "definitions" if is_old else "$defs"
    return {**schema, key: {**schema.get(key, {}), **dict(zip(wanted[1:], parts, strict=True))}, PARTS: wanted[1:]}


def list_parts(schema: Any) -> list[str]:
    """List the files that `bundle` put into a schema."""
    return list(schema.get(PARTS, ())) if isinstance(schema, dict) else []


def _id_key(schema: dict[str, Any]) -> str:
    return "id" if "draft-04" in str(schema.get("$schema", "")) else "$id"


def _id_of(schema: dict[str, Any]) -> str:
    found = schema.get(_id_key(schema), "")
    return found if isinstance(found, str) else ""
