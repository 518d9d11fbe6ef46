"""A second reader of the compact rendering: it knows the language alone, and rebuilds a JSON Schema from it."""

import json
import re
from typing import Any

from schema_student.schema.compact.query_frame import DATE_ORDER, NAMES
from schema_student.schema.query_dsl import build_schema, operator_catalog

FORMATS = (
    "date-time date time duration idn-email email idn-hostname hostname ipv4 ipv6 uri-reference uri-template uri "
    "iri-reference iri uuid regex relative-json-pointer json-pointer"
).split()
WORDS = ("string", "integer", "number", "boolean", "null", "any", "never", "object", "list", *FORMATS)
WORD = re.compile(rf"({'|'.join(map(re.escape, sorted(WORDS, key=len, reverse=True)))})(?=[ |)]|$)")
NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
SPAN = re.compile(rf" (>?{NUMBER})?\.\.(<?{NUMBER})?( chars)?(?=[ |)]|$)")
UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
CLAUSES = ("if", "then", "else", "not")
GROUPS = {"one of": "oneOf", "any of": "anyOf", "all of": "allOf"}
BARE_END = re.compile(r"[|)]| [={#]|$")
SCALAR = re.compile(rf"({NUMBER}|true|false|null)(?=[|)]| [={{#]|$)")
STARTS = re.compile(
    rf"@\S+: |(option|part) 1( |$)|(one|any|all) of$|\"|[*/]|"
    rf"\S+\?? (({'|'.join(map(re.escape, WORDS))}|one of|any of|all of|true|false)\b|[@{{(\"\d-])"
)


class Reader:
    """Reads one text: `Reader(text).schema`, and `json_characters`, how many of the text's stand in JSON."""

    def __init__(self, text: str) -> None:
        self.json_characters = 0
        if text.startswith("{"):
            self.json_characters, self.schema = len(text), json.loads(text)
            return
        lines = text.split("\n")
        if lines[0].startswith("#") or not STARTS.match(lines[0]):
            lines = lines[1:]
        tree = _nest(lines)
        definitions = {line.split(": ")[0]: node for node in tree if re.match(r"@\S+: ", line := node[0])}
        implied = [node for node in tree if not re.match(r"@\S+: ", node[0])]
        if implied:
            is_union = re.match(r"option 1( |$)", implied[0][0])
            self.schema = self.inside({}, implied, "oneOf") if is_union else self.members(implied, {"type": "object"})
        else:
            self.schema = self.entry(definitions["@root"][0].partition(": ")[2], definitions["@root"][1])
        if implied and list(self.schema.get("properties", {})) == NAMES:
            self.schema = _query_schema(implied)
        others = {name: node for name, node in definitions.items() if name != "@root"}
        parts = {name[1:]: self.entry(line.partition(": ")[2], inner) for name, (line, inner) in others.items()}
        rules = _take_rules(self.schema)
        self.schema = _point({**self.schema, "$defs": parts} if parts else self.schema)
        if rules:
            self.schema["x-rules"] = rules

    def entry(self, text: str, inner: list) -> Any:
        """What a line says behind its name, and what is inside."""
        schema, holder, at = self.type(text, 0) if not text.startswith(("{", "#", "= ")) and text else ({}, None, 0)
        rest, at = {}, at + (text[at : at + 1] == " ")
        while at < len(text):
            if text[at] == "#":
                break
            if text[at] == "{":
                rest, end = json.JSONDecoder().raw_decode(text, at)
                self.json_characters += end - at
            else:
                assert text[at] == "=", text[at:]
                end = self.skip_default(text, at + 2)
            at = end + 1
        if inner and holder is None:
            schema = holder = {"type": "object"}
            assert not text or text[0] in "#=", text
        if inner:
            self.hold(holder, inner)
        wider = {key: rest.pop(key) for key in UNEVALUATED if key in rest}  # they take in all that the line says
        schema = {"allOf": [schema, rest]} if rest and schema != {} else rest or schema
        return {"allOf": [schema], **wider} if wider else schema

    def skip_default(self, text: str, at: int) -> int:
        try:
            end = json.JSONDecoder().raw_decode(text, at)[1]
            if re.compile(r" [{#]|$").match(text, end):
                return end
        except ValueError:
            pass
        return re.compile(r" [{#]|$").search(text, at).start()

    def type(self, text: str, at: int) -> tuple[Any, Any, int]:
        """Read a type: (schema, the part of it that lines inside belong to, where it ends)."""
        members, holder = [], None
        while True:
            schema, found, at = self.member(text, at)
            members.append(schema)
            holder = found if found is not None else holder
            if text[at : at + 1] != "|":
                return members[0] if len(members) == 1 else {"anyOf": members}, holder, at
            at += 1

    def member(self, text: str, at: int) -> tuple[Any, Any, int]:
        for words, keyword in GROUPS.items():
            if re.compile(rf"{words}(?=[ |)]|$)").match(text, at):
                schema = {"group": keyword}
                return schema, schema, at + len(words)
        if text[at] == "(":
            schema, holder, at = self.type(text, at + 1)
            assert text[at] == ")"
            return schema, holder, at + 1
        if text[at] == "@":
            end = re.compile(r"[ |)]|$").search(text, at).start()
            return {"$ref": "#" if text[at:end] == "@root" else text[at:end]}, None, end
        if text[at] == '"' or SCALAR.match(text, at):
            value, end = json.JSONDecoder().raw_decode(text, at)
            return {"const": value}, None, end
        if word := WORD.match(text, at):
            return self.word(word[1], text, word.end())
        end = BARE_END.search(text, at).start()
        return {"const": text[at:end]}, None, end

    def word(self, word: str, text: str, at: int) -> tuple[Any, Any, int]:
        span = SPAN.match(text, at)
        at = span.end() if span else at
        if word == "list":
            return self.list(span, text, at)
        if word in ("any", "never"):
            schema = {} if word == "any" else False
            return schema, schema if word == "any" else None, at
        schema = {"type": word} if word not in FORMATS else {"type": "string", "format": word}
        names = ("minLength", "maxLength") if span and span[3] else ("minimum", "maximum")
        schema |= _bounds(span, *names)
        return schema, schema if word == "object" else None, at

    def list(self, span: Any, text: str, at: int) -> tuple[Any, Any, int]:
        schema = {"type": "array", **_bounds(span, "minItems", "maxItems")}
        if re.compile(r" unique(?=[ |)]|$)").match(text, at):
            schema["uniqueItems"], at = True, at + 7
        holder = None
        if text[at : at + 4] == " of ":
            schema["items"], holder, at = self.type(text, at + 4)
        return schema, holder, at

    def hold(self, holder: dict, inner: list) -> None:
        if "group" not in holder:
            self.members(inner, holder)
            return
        keyword = holder.pop("group")
        if re.match(r"(option|part) 1( |$)", inner[0][0]):
            self.inside(holder, inner, keyword)
        else:
            holder["enum"] = [_constant(line) for line, _ in inner]

    def inside(self, holder: dict, inner: list, keyword: str) -> dict:
        """The options or parts of a group."""
        holder[keyword] = [self.entry(re.sub(r"^(option|part) \d+ ?", "", line), below) for line, below in inner]
        return holder

    def members(self, inner: list, schema: dict) -> dict:
        """The properties of an object, and its groups of alternatives."""
        clauses = [(*line.partition(" "), below) for line, below in inner]
        schema |= {word: self.entry(text, below) for word, _, text, below in clauses if word in CLAUSES}
        plain = [node for node in inner if node[0] not in GROUPS and node[0].split(" ")[0] not in CLAUSES]
        for header, below in (node for node in inner if node[0] in GROUPS):
            self.inside(schema, below, GROUPS[header])
        if not plain:
            return schema
        schema |= {"properties": {}, "required": [], "patternProperties": {}, "additionalProperties": False}
        for line, below in plain:
            if line.startswith("* "):
                schema["additionalProperties"] = self.entry(line[2:], below)
                if schema["additionalProperties"] == {}:
                    del schema["additionalProperties"]  # anything, as where nothing is said
            elif line.startswith("/"):
                pattern, _, rest = line[1:].partition("/ ")
                schema["patternProperties"][pattern] = self.entry(rest, below)
            else:
                name, is_optional, rest = _name(line)
                assert name not in schema["properties"], line
                schema["properties"][name] = self.entry(rest, below)
                schema["required"] += [] if is_optional else [name]
        return schema


def _nest(lines: list[str]) -> list:
    """Lines -> (line, lines inside), by indentation."""
    root: list = []
    open_lists = [root]
    for line in lines:
        depth = len(line) - len(line.lstrip(" "))
        assert depth < len(open_lists), line
        node = (line[depth:], [])
        open_lists[depth].append(node)
        open_lists[depth + 1 :] = [node[1]]
    return root


def _name(line: str) -> tuple[str, bool, str]:
    if line.startswith('"'):
        name, end = json.JSONDecoder().raw_decode(line)
    else:
        end = line.index(" ")
        end -= line[end - 1] == "?"
        name = line[:end]
    is_optional = line[end] == "?"
    return name, is_optional, line[end + 1 + is_optional :]


def _constant(line: str) -> Any:
    text = line.rpartition(": ")[2]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _bounds(span: Any, low: str, high: str) -> dict[str, Any]:
    found = {}
    for text, name, sign in ((span and span[1], low, ">"), (span and span[2], high, "<")):
        if text:
            exclusive = f"exclusive{name[0].upper()}{name[1:]}"
            found[exclusive if text[0] == sign else name] = json.loads(text.lstrip("<>"))
    return found


def _point(schema: Any, are_names: bool = False) -> Any:
    """Turn @names into pointers."""
    if isinstance(schema, list):
        return [_point(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, part in schema.items():
        if key == "$ref" and isinstance(part, str) and part.startswith("@"):
            found[key] = f"#/$defs/{part[1:].replace('~', '~0').replace('/', '~1')}"
        elif not are_names and key in ("const", "enum", "default"):
            found[key] = part
        else:
            found[key] = _point(part, not are_names and key in ("properties", "patternProperties", "$defs"))
    return found


def _take_rules(schema: Any) -> list:
    parts = [schema, *schema.get("allOf", ())] if isinstance(schema, dict) else []
    return next((part.pop("x-rules") for part in parts if isinstance(part, dict) and "x-rules" in part), [])


def _query_schema(implied: list) -> dict[str, Any]:
    """The query DSL: what the frame demands is known, fields and operators are read."""
    condition = dict(
        dict(dict(implied)["steps list of object # applied in order"])["conditions list of object # all must hold"]
    )
    meaning = {entry["description"]: entry["const"] for entry in operator_catalog()}
    operators = []
    for line, _ in condition["operator one of"]:
        const = line.rpartition(": ")[2]
        description = " / ".join(part.removesuffix(f": {const}") for part in line.split(" / "))
        operators.append({"const": const, "description": description, "canonical": meaning[description]})
    fields = [_field(line) for line, _ in condition["field one of"]]
    schema = build_schema({"domain": "", "description": "", "noun": {}, "fields": fields}, operators)
    return schema | {"x-rules": DATE_ORDER}


def _field(line: str) -> dict[str, Any]:
    head, _, choices = line.partition(" (") if line.endswith(")") else (line, "", "")
    const, _, kind = head.rpartition(": ")[2].partition(" ")
    enum = [{"const": choice.rpartition(": ")[2], "description": ""} for choice in choices[:-1].split("|")]
    return (
        {"const": const, "description": "", "type": "enum", "enum": enum}
        if choices
        else {"const": const, "description": "", "type": kind}
    )
