"""Read the operations of an OpenAPI document (3.0, 3.1) as tools: parameters and JSON body are their arguments.

tools, left_out = list_operations(document, "api.json", lambda path: read_other_file(path))
"""

from __future__ import annotations

import copy
import posixpath
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import unquote

from schema_student.schema.compiling import SchemaError
from schema_student.schema.envelopes import translate_nullable
from schema_student.schema.structure import list_nodes, unescape_pointer
from schema_student.schema.tool_choice import Tool

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
NO_ARGUMENTS = ("accept", "content-type", "authorization")  # headers that OpenAPI passes over
SAYS_NOTHING = ("discriminator", "xml", "externalDocs", "deprecated", "writeOnly", "readOnly")
NOTES = {"title", "description", "default", "example", "examples"}
MAX_STEPS = 50  # $refs followed one after the other
Reader = Callable[[str], Any]  # name of another file -> the document in it


def is_openapi(document: Any) -> bool:
    """Return whether a document is one of OpenAPI or Swagger."""
    return isinstance(document, dict) and ("openapi" in document or "swagger" in document)


def list_operations(document: dict[str, Any], name: str, read: Reader) -> tuple[list[Tool], dict[str, str]]:
    """List the operations of a document as tools, and those that are left out with the reason.

    A schema that is referred to stands under $defs; `nullable` and boolean bounds of 3.0 are said as in draft 2020-12,
    what is readOnly is left out. Raises SchemaError for another version, and for a $ref to nothing.
    """
    version = str(document.get("openapi", document.get("swagger")))
    if not version.startswith(("3.0", "3.1")):
        raise SchemaError(f"{name}: OpenAPI {version} is not read, 3.0 and 3.1 are; converters make one of the other")
    if not isinstance(document.get("paths"), dict):
        raise SchemaError(f"{name}: /paths is missing, so there is no operation in it")
    tools, left_out = [], {}
    for path, method, operation, shared in _operations(document, name, read):
        place = f"{method.upper()} {path}"
        bundle = _Bundle(document, f"{name}: {place}", read, is_old=version.startswith("3.0"))
        arguments, problem = _arguments(operation, shared, bundle)
        if problem:
            left_out[place] = problem
        else:
            called = operation.get("operationId") or re.sub(r"\W+", "_", f"{method} {path}").strip("_")
            described = operation.get("summary") or operation.get("description") or ""
            tools.append(Tool(str(called), str(described), bundle.close(arguments)))
    return tools, left_out


def _operations(document: Any, name: str, read: Reader) -> Iterator[tuple[str, str, dict[str, Any], list[Any]]]:
    """(path, method, operation, parameters of the path) of each operation."""
    for path, item in document["paths"].items():
        item = _Bundle(document, f"{name}: {path}", read).follow(item)
        for method in METHODS:
            if isinstance(item.get(method), dict):
                yield path, method, item[method], item.get("parameters") or []


def _arguments(operation: dict[str, Any], shared: list[Any], bundle: _Bundle) -> tuple[dict[str, Any], str]:
    """The schema of an operation's arguments; or why there is none."""
    properties: dict[str, Any] = {}
    required = []
    for parameter in _parameters([*shared, *(operation.get("parameters") or [])], bundle):
        called = parameter["name"]
        called = f"{called}_{parameter['in']}" if called in properties else called
        properties[called] = _schema_of_parameter(parameter, bundle)
        required += [called] if parameter.get("required") else []
    body, kinds, is_needed = _body_of(operation, bundle)
    if body is None and not properties:
        return {}, f"its body is no JSON ({', '.join(kinds)})" if kinds else "it takes no parameters and no body"
    if body is None and is_needed:
        return {}, f"it needs a body that is no JSON ({', '.join(kinds)})"
    if body is not None and not properties:
        return body, ""
    if body is not None:
        called = "request_body" if "body" in properties else "body"
        properties[called] = body
        required += [called] if is_needed else []
    needed = {"required": required} if required else {}
    return {"type": "object", "properties": properties, **needed, "additionalProperties": False}, ""


def _parameters(given: list[Any], bundle: _Bundle) -> list[dict[str, Any]]:
    """The parameters of an operation: its own before those of its path."""
    found = {}
    for parameter in map(bundle.follow, given):
        if not isinstance(parameter.get("name"), str) or not isinstance(parameter.get("in"), str):
            raise SchemaError(f"{bundle.name}: a parameter without name or in")
        if parameter["in"] != "header" or parameter["name"].lower() not in NO_ARGUMENTS:
            found[parameter["name"], parameter["in"]] = parameter
    return list(found.values())


def _schema_of_parameter(parameter: dict[str, Any], bundle: _Bundle) -> dict[str, Any]:
    contents = [part.get("schema") for part in (parameter.get("content") or {}).values() if isinstance(part, dict)]
    schema = bundle.take(parameter.get("schema") or next(iter(contents), None) or {}, parameter)
    described = {"description": parameter["description"]} if parameter.get("description") else {}
    return described | schema


def _body_of(operation: dict[str, Any], bundle: _Bundle) -> tuple[dict[str, Any] | None, list[str], bool]:
    """(the schema of a JSON body, the kinds of content that there are, whether it is needed)."""
    body = bundle.follow(operation.get("requestBody") or {})
    contents = body.get("content") or {}
    for kind, content in contents.items():
        plain = kind.partition(";")[0].strip().lower()
        if (plain in ("application/json", "*/*", "application/*") or plain.endswith("+json")) and "schema" in content:
            return bundle.take(content["schema"], body), list(contents), bool(body.get("required"))
    return None, list(contents), bool(body.get("required"))


class _Bundle:
    """Copies schemas out of a document, together with what they refer to, also in other files."""

    def __init__(self, document: Any, name: str, read: Reader, is_old: bool = False) -> None:
        self.document, self.name, self._read, self._is_old = document, name, read, is_old
        self._names: dict[tuple[str, str], str] = {}  # (file, pointer) -> name under $defs
        self._definitions: dict[str, Any] = {}
        self._waiting: list[tuple[str, str, str]] = []  # definitions that are not copied yet
        self._files: dict[int, str] = {}  # id of a part that was followed into another file -> that file

    def follow(self, part: Any) -> dict[str, Any]:
        """Return what a part of the document is, or refers to."""
        file = ""
        for _ in range(MAX_STEPS):
            if not isinstance(part, dict):
                raise SchemaError(f"{self.name}: an object is expected, not {part!r}")
            if not isinstance(part.get("$ref"), str):
                self._files[id(part)] = file
                return part
            file, pointer = self._address(part["$ref"], file)
            part = self._look_up(file, pointer)
        raise SchemaError(f"{self.name}: $refs that only name each other")

    def take(self, schema: Any, part: Any = None) -> dict[str, Any]:
        """Copy a schema of a part that was followed: what it is, or refers to; deeper references name $defs."""
        file = self._files.get(id(part), "")
        for _ in range(MAX_STEPS):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                return self._copy(schema, file)
            beside = {} if self._is_old else {key: value for key, value in schema.items() if key != "$ref"}
            if beside.keys() - NOTES:  # both hold: the reference stays
                return self._copy(schema, file)
            file, pointer = self._address(schema["$ref"], file)
            schema = {**self._look_up(file, pointer), **beside}
        raise SchemaError(f"{self.name}: $refs that only name each other")

    def close(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Put what the copied schemas refer to beside them, without what only a server writes."""
        while self._waiting:  # no recursion: a chain of references may be longer than the stack
            name, file, pointer = self._waiting.pop()
            self._definitions[name] = self._copy(self._look_up(file, pointer), file)
        whole = {**schema, "$defs": self._definitions}
        nodes = list_nodes(whole)
        for node, names in [(node, self._read_only_names(node, frozenset())) for node in nodes]:
            for part in (node, *(part for part in node.get("allOf", ()) if isinstance(part, dict))):
                _leave_out(part, names)
        for node in nodes:
            _modernize(node)
        used: set[str] = set()
        waiting = [schema]
        while waiting:
            named = {node["$ref"].rpartition("/")[2] for node in list_nodes(waiting.pop()) if "$ref" in node} - used
            used |= named
            waiting += [self._definitions[name] for name in named]
        kept = {name: part for name, part in self._definitions.items() if name in used}
        return {**schema, "$defs": kept} if kept else schema

    def _copy(self, schema: Any, file: str) -> dict[str, Any]:
        copied = copy.deepcopy(schema) if isinstance(schema, dict) else {"not": {}} if schema is False else {}
        for node in list_nodes(copied):
            if "example" in node:
                node.setdefault("examples", [node.pop("example")])
        for node in list_nodes(copied):
            if isinstance(node.get("$ref"), str):
                node["$ref"] = f"#/$defs/{self._define(*self._address(node['$ref'], file))}"
        return dict(translate_nullable(copied) if self._is_old else copied)

    def _define(self, file: str, pointer: str) -> str:
        if (file, pointer) not in self._names:
            last = (
                re.sub(r"\W+", "_", unquote(pointer or file).rpartition("/")[2], flags=re.ASCII).strip("_") or "schema"
            )
            taken = {*self._names.values()}
            others = (f"{last}_{n}" for n in range(2, len(taken) + 3))
            name = next(each for each in chain((last,), others) if each not in taken)
            self._names[file, pointer] = name
            self._waiting.append((name, file, pointer))
        return self._names[file, pointer]

    def _address(self, ref: str, file: str) -> tuple[str, str]:
        other, _, pointer = ref.partition("#")
        if "://" in other:
            raise SchemaError(f"{self.name}: {ref} would have to be fetched, and nothing is; put it beside this file")
        return posixpath.normpath(posixpath.join(posixpath.dirname(file), unquote(other))) if other else file, pointer

    def _look_up(self, file: str, pointer: str) -> dict[str, Any]:
        found = self._read(file) if file else self.document
        for key in map(unescape_pointer, unquote(pointer).split("/")[1:]):
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise SchemaError(f"{self.name}: $ref {file}#{pointer} names nothing")
        return found

    def _read_only_names(self, node: dict[str, Any], seen: frozenset[str]) -> set[str]:
        """The properties of an object that only a server writes, its own and those of what it is made of."""
        properties = node.get("properties")
        own = properties.items() if isinstance(properties, dict) else ()
        names = {name for name, part in own if isinstance(part, dict) and self._is_read_only(part)}
        target = self._target(node)
        if target and node["$ref"] not in seen:
            names |= self._read_only_names(target, seen | {node["$ref"]})
        for part in node.get("allOf", ()):
            names |= self._read_only_names(part, seen) if isinstance(part, dict) else set()
        return names

    def _is_read_only(self, part: dict[str, Any]) -> bool:
        return part.get("readOnly") is True or self._target(part).get("readOnly") is True

    def _target(self, node: dict[str, Any]) -> dict[str, Any]:
        return dict(self._definitions.get(str(node.get("$ref")).rpartition("/")[2], {}))


def _leave_out(part: dict[str, Any], names: set[str]) -> None:
    for name in names & {*(part.get("properties") or {})}:
        del part["properties"][name]
    if names and isinstance(part.get("required"), list):
        part["required"] = [name for name in part["required"] if name not in names]


def _modernize(node: dict[str, Any]) -> None:
    """Say in draft 2020-12 what 3.0 says by booleans; drop what says nothing of a value."""
    for key in SAYS_NOTHING:
        node.pop(key, None)
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(node.get(strict), bool) and node.pop(strict) and bound in node:
            node[strict] = node.pop(bound)
