"""Find the JSON Schema in what people have at hand: a tool definition, a response format, an OpenAPI document.

An envelope is opened where one schema in it is meant without doubt, else refused by its name. Of several tools one
schema is made: a call of one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schema_student.schema.compact.drafts import KNOWN
from schema_student.schema.compiling import SchemaError
from schema_student.schema.structure import ANNOTATIONS, CONSTANTS, NAMING, REFERRING, list_nodes, references_of
from schema_student.schema.tool_choice import NO_ARGUMENTS, Tool, choose_among

TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
ENVELOPE_TYPES = ("function", "json_schema")
INSIDE = {  # key of the schema -> what holds it
    "parameters": "an OpenAI function",
    "inputSchema": "an MCP tool",
    "input_schema": "an Anthropic tool",
    "parametersJsonSchema": "a Gemini function",
    "schema": "an OpenAI response format",
}
AROUND = {  # key of an envelope in an envelope -> what holds it
    "function": "an OpenAI tool",
    "json_schema": "an OpenAI response format",
    "response_format": "an OpenAI request",
}
TOOL_KEYS = ("parameters", "inputSchema", "input_schema", "parametersJsonSchema")
SEVERAL = ("tools", "functions", "functionDeclarations", "function_declarations")
COLLECTIONS = (("components", "schemas"), ("definitions",), ("$defs",))  # of OpenAPI 3, of Swagger 2, of files of parts
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
FOREIGN = {"dict": "object", "float": "number", "tuple": "array"} | {name.upper(): name for name in TYPES}


@dataclass(frozen=True)
class Opened:
    """A schema, and what it was taken out of ("" where it is the document itself)."""

    schema: Any
    envelope: str = ""
    has_nullable: bool = False  # whether `nullable` means null there, as in OpenAPI 3.0


def open_envelope(document: Any, name: str) -> Opened:
    """Find the schema that is meant by a document; raises SchemaError, naming `name`, where none or several are.

    >>> open_envelope({"name": "f", "parameters": {"type": "object"}}, "f.json")
    Opened(schema={'title': 'f', 'type': 'object'}, envelope='an OpenAI function', has_nullable=False)
    """
    if isinstance(document, list) and document and all(isinstance(part, dict) and _is_tool(part) for part in document):
        return _open_tools(document, "the list", name)
    if not isinstance(document, dict) or not document:
        return Opened(document)
    if "openapi" in document or "swagger" in document:
        return _open_openapi(document, name)
    if _is_schema(document):
        return Opened(document)
    if isinstance(document.get("result"), dict) and isinstance(document["result"].get("tools"), list):
        return open_envelope(document["result"], name)  # of MCP's tools/list
    for key in SEVERAL:
        if isinstance(document.get(key), list):
            return _open_tools(document[key], f'"{key}"', name)
    for key, envelope in AROUND.items():
        if isinstance(document.get(key), dict):
            inner = open_envelope(document[key], name)
            return Opened(inner.schema, envelope)
    for key, envelope in INSIDE.items():
        if key in document and ("name" in document or document.get("type") in ("json_schema", "function")):
            return Opened(_titled(_inner_schema(document[key], envelope, name), document), envelope)
    if "function" in str(document.get("type", "")) or (document.keys() <= {"name", "description", "strict", "type"}):
        raise SchemaError(f"{name}: {_describe_nothing(document)}")
    return _open_collection(document, name)


def _is_schema(document: dict[str, Any]) -> bool:
    """Whether a document says something that JSON Schema knows; one of annotations alone accepts anything."""
    named = document.get("type")
    if named in ENVELOPE_TYPES or (isinstance(named, str) and named not in TYPES and document.keys() & INSIDE.keys()):
        return False
    own = document.keys() - {"$defs", "definitions"}
    return bool(own & (KNOWN | set(REFERRING) | {"$dynamicAnchor"})) or _says_nothing(document)


def is_collection(document: Any) -> bool:
    """Return whether a document holds definitions and says nothing itself."""
    holds = isinstance(document, dict) and any(isinstance(document.get(key), dict) for key in ("$defs", "definitions"))
    return holds and not document.keys() & (KNOWN | set(REFERRING))


def _says_nothing(document: dict[str, Any]) -> bool:
    allowed = ANNOTATIONS - {"$defs", "definitions", "id"}
    return all(key in allowed or key.startswith("x-") for key in document)


def _describe_nothing(document: dict[str, Any]) -> str:
    if document.get("type") == "function":
        return 'a tool without "parameters", so there is nothing to answer with'
    return f"no keyword of JSON Schema among {_listed(document)}: as a schema it would accept anything"


def _is_tool(part: dict[str, Any]) -> bool:
    function = _function_of(part)
    holds = bool(function.keys() & TOOL_KEYS) or part.get("type") == "function"
    return holds and isinstance(function.get("name"), str)


def _function_of(part: dict[str, Any]) -> dict[str, Any]:
    """What an OpenAI tool holds; other tools are such themselves."""
    return part["function"] if isinstance(part.get("function"), dict) else part


def list_tools(document: Any, name: str) -> list[Tool]:
    """List the tools of a document: a tool, a list of them, or what holds such a list (an MCP answer, a request).

    [] where it holds none. Raises SchemaError for a tool without a name, or whose schema is none.
    """
    if isinstance(document, dict) and isinstance(document.get("result"), dict):
        return list_tools(document["result"], name)
    held = _held_tools(document)
    if held is None:
        held = document if isinstance(document, list) else [document]
        if not all(isinstance(part, dict) and (_is_tool(part) or _held_tools(part)) for part in held):
            return []
    places = ((part, f"{name}: tool {i}") for i, part in enumerate(held, 1))
    return [
        tool
        for part, place in places
        for tool in (list_tools(part, place) if _held_tools(part) else [_read_tool(part, place)])
    ]


def _held_tools(document: Any) -> list[Any] | None:
    held = (
        [document[key] for key in SEVERAL if isinstance(document.get(key), list)] if isinstance(document, dict) else []
    )
    return held[0] if held else None


def _open_tools(parts: list[Any], where: str, name: str) -> Opened:
    """Open the one tool of a list, or make one schema of several: a call of one of them."""
    if len(parts) == 1:
        return open_envelope(parts[0], name)
    if not parts:
        raise SchemaError(f"{name}: {where} holds no tools")
    tools = [_read_tool(part, f"{name}: {where}, {i}") for i, part in enumerate(parts, 1)]
    try:
        schema = choose_among(tools)
    except SchemaError as error:
        raise SchemaError(f"{name}: {where}: {error}") from error
    called = _listed(tool.name for tool in tools)
    return Opened(schema, f"{len(tools)} tools ({called}), of which an answer calls one: {{name, arguments}}")


def _read_tool(part: Any, name: str) -> Tool:
    function = _function_of(part) if isinstance(part, dict) else {}
    if not isinstance(function.get("name"), str):
        raise SchemaError(f"{name}: a tool without a name")
    keys = [key for key in TOOL_KEYS if function.get(key) is not None]
    schema = _inner_schema(function[keys[0]], INSIDE[keys[0]], name) if keys else NO_ARGUMENTS
    described = function.get("description")
    return Tool(function["name"], described if isinstance(described, str) else "", _translate_types(schema))


def _translate_types(schema: dict[str, Any]) -> dict[str, Any]:
    """Write the types of BFCL (dict, float, tuple, any) and Gemini (OBJECT, with nullable) as JSON Schema does."""
    if not any(isinstance(node.get("type"), str) and node["type"] in (*FOREIGN, "any") for node in list_nodes(schema)):
        return schema
    plain: dict[str, Any] = copy.deepcopy(schema)
    is_gemini = False
    for node in list_nodes(plain):
        written = node.get("type")
        is_gemini |= isinstance(written, str) and written.isupper()
        if isinstance(written, str) and written in FOREIGN:
            node["type"] = FOREIGN[written]
        elif written == "any":
            del node["type"]
    return translate_nullable(plain) if is_gemini else plain


def _inner_schema(schema: Any, envelope: str, name: str) -> dict[str, Any]:
    if not isinstance(schema, dict) or not _is_schema(schema):
        raise SchemaError(f"{name}: {envelope} whose schema is none")
    return schema


def _titled(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Give a schema the name and description of its envelope, where it has none."""
    notes = {"title": document.get("name"), "description": document.get("description")}
    return {key: value for key, value in notes.items() if isinstance(value, str) and key not in schema} | schema


def _open_openapi(document: dict[str, Any], name: str) -> Opened:
    version = str(document.get("openapi", document.get("swagger")))
    is_old = not version.startswith("3.1")
    opened = _open_collection(document, name)
    schema = {"$schema": DRAFT_4} | opened.schema if is_old else opened.schema
    return Opened(schema, f"an OpenAPI {version} document", has_nullable=is_old)


def _open_collection(document: dict[str, Any], name: str) -> Opened:
    """Take the one schema of a collection that no other one refers to; the others stay beside it."""
    for path in COLLECTIONS:
        parts: Any = document
        for key in path:
            parts = parts.get(key) if isinstance(parts, dict) else None
        if isinstance(parts, dict) and parts:
            chosen = _choose(parts, document, path, name)
            kept = {key: document[key] for key in (path[0], "$schema", "$id") if key in document}
            titled = parts[chosen] if "title" in parts[chosen] else {"title": chosen} | parts[chosen]
            return Opened({**kept, **titled}, f"a document of definitions, {chosen} of them")
    raise SchemaError(f"{name}: {_describe_nothing(document)}")


def _choose(parts: dict[str, Any], document: dict[str, Any], path: tuple[str, ...], name: str) -> str:
    where = "/".join(("#", *path))
    referred = {id(target) for part in parts.values() for target in _targets(part, document, parts)}
    candidates = [key for key, part in parts.items() if isinstance(part, dict) and id(part) not in referred]
    if len(candidates) != 1:
        which = _listed(candidates or parts)
        raise SchemaError(
            f"{name}: {len(candidates) or len(parts)} schemas under {where} could be meant ({which}): "
            f'give a file of its own to each, or name one in the document by "$ref": "{where}/..."'
        )
    return candidates[0]


def _targets(part: Any, document: dict[str, Any], parts: dict[str, Any]) -> Iterator[Any]:
    """What a part of the collection refers to, but for itself."""
    references = references_of(document)
    for node in list_nodes(part):
        if isinstance(node.get("$ref"), str):
            target = references.target(node)
            if target is not part:
                yield target


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


# nullable


def count_nullable(schema: Any) -> int:
    """Count the parts that say `nullable`, which OpenAPI 3.0 knows and JSON Schema does not."""
    return sum(node.get("nullable") is True for node in list_nodes(schema))


def translate_nullable(schema: Any, holds_names: bool = False) -> Any:
    """Say in JSON Schema what `nullable` says in OpenAPI 3.0: null is valid as well."""
    if isinstance(schema, list):
        return [translate_nullable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if holds_names:
        return {name: translate_nullable(part) for name, part in schema.items()}
    translated = {
        key: child if key in (*CONSTANTS, "example") else translate_nullable(child, key in NAMING)
        for key, child in schema.items()
    }
    if translated.get("nullable") is not True:
        return translated
    del translated["nullable"]
    if isinstance(translated.get("type"), str) and not translated.keys() & {"enum", "const", "allOf", "anyOf", "oneOf"}:
        return translated | {"type": [translated["type"], "null"]}
    notes = {key: part for key, part in translated.items() if key in ("title", "description", "default")}
    return notes | {"anyOf": [{k: v for k, v in translated.items() if k not in notes}, {"type": "null"}]}
