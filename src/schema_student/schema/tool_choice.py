"""Make one schema of several tools, of which an answer calls one: {name, arguments}."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, NamedTuple
from urllib.parse import quote

from schema_student.schema.compiling import SchemaError
from schema_student.schema.dynamic_references import settle_dynamic_references
from schema_student.schema.structure import json_pointer, place_nodes

TITLE, DESCRIPTION = "tool call", "Call the one function that answers the request."
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


class Tool(NamedTuple):
    """A tool: its name, what it is for, and the schema of its arguments."""

    name: str
    description: str
    arguments: dict[str, Any]


def schema_of(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's arguments, under its name and description where it has none of its own."""
    notes = {"title": tool.name} | ({"description": tool.description} if tool.description else {})
    return {key: note for key, note in notes.items() if key not in tool.arguments} | tool.arguments


def choose_among(tools: list[Tool]) -> dict[str, Any]:
    """Make the schema of a call of one of several tools; raises SchemaError where names or drafts do not go together.

    >>> calls = choose_among([Tool("a", "", NO_ARGUMENTS), Tool("b", "", NO_ARGUMENTS)])
    >>> [option["properties"]["name"] for option in calls["oneOf"]]
    [{'const': 'a'}, {'const': 'b'}]
    """
    twice = [name for name, count in Counter(tool.name for tool in tools).items() if count > 1]
    if twice:
        raise SchemaError(f'several tools are called "{twice[0]}"')
    named = [tool.arguments["$schema"] for tool in tools if "$schema" in tool.arguments]
    drafts = {str(draft).rstrip("#"): draft for draft in named}
    if len(drafts) > 1:
        raise SchemaError(f"the tools are of different drafts ({', '.join(drafts)}): put each into a file of its own")
    dialect = {"$schema": named[0]} if named else {}
    calls = [_make_call(tool, i) for i, tool in enumerate(tools)]
    return {**dialect, "title": TITLE, "description": DESCRIPTION, "type": "object", "oneOf": calls}


def _make_call(tool: Tool, number: int) -> dict[str, Any]:
    arguments = _move_references(tool.arguments, json_pointer(("oneOf", number, "properties", "arguments")))
    return {
        "type": "object",
        "title": tool.name,
        **({"description": tool.description} if tool.description else {}),
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _move_references(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """Copy a schema with its pointers into itself as they read from another place; a part with an $id keeps its own."""
    moved = {key: copy.deepcopy(part) for key, part in schema.items() if key != "$schema"}
    settle_dynamic_references(moved)
    placed = list(place_nodes(moved))
    owners = {path for path, node in placed if any(isinstance(node.get(key), str) for key in ("$id", "id"))}
    for path, node in placed:
        ref = node.get("$ref")
        is_own = any(path[:length] in owners for length in range(len(path) + 1))
        if isinstance(ref, str) and (ref == "#" or ref.startswith("#/")) and not is_own:
            node["$ref"] = f"#{quote(place)}{ref[1:]}"
    return moved
