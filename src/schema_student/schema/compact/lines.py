"""Write a document as lines: a line a property, an alternative or a definition, what is inside indented."""

from __future__ import annotations

from typing import Any

from schema_student.schema.compact.drafts import Document, Schema, draft_year, read_document
from schema_student.schema.compact.phrases import (
    CLAUSES,
    Alternatives,
    Block,
    Choices,
    Clauses,
    Members,
    Phrase,
    phrase,
)
from schema_student.schema.compact.query_frame import NAMES, has_frame, labelled, leave_out_frame
from schema_student.schema.compact.words import (
    GROUPS,
    constant,
    default,
    json_text,
    one_line,
    opens_structure,
    property_name,
)
from schema_student.schema.dynamic_references import find_dynamic_keyword, settle_dynamic_references

INDENT = " "
MAX_NESTING = 100  # levels of JSON
ALLOWANCE = 64  # characters by which lines may be longer than JSON


def write_lines(schema: dict[str, Any]) -> str:
    """Write a schema that compiles as lines, or as JSON on one line where lines would be longer or cannot tell it.

    Its dynamic references are settled in place.
    """
    settle_dynamic_references(schema)
    json_form = _json_form(schema)
    if _is_beyond_lines(schema):
        return json_form
    document = read_document(schema)
    framed = has_frame(schema)
    if framed:
        document.root = leave_out_frame(document.root, schema)
    elif schema.get("x-rules") and isinstance(document.root, dict):
        document.root["x-rules"] = schema["x-rules"]
    text = "\n".join(_Writer(document).write(_heading(schema), framed))
    return text if len(text) <= len(json_text(schema)) + ALLOWANCE else json_form


def _json_form(schema: dict[str, Any]) -> str:
    dropped = {"$schema"} if draft_year(schema) == 2020 else set()
    return json_text({k: v for k, v in schema.items() if k not in dropped and (k == "x-rules" or k[:2] != "x-")})


def _is_beyond_lines(schema: dict[str, Any]) -> bool:
    """Whether a schema nests too deep, or refers to what depends on the way to it."""
    return bool(find_dynamic_keyword(schema)) or _is_deep(schema)


def _is_deep(schema: dict[str, Any]) -> bool:
    level: list[Any] = [schema]
    for _ in range(MAX_NESTING):
        children = [node.values() if isinstance(node, dict) else node for node in level]
        level = [child for several in children for child in several if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _heading(schema: dict[str, Any]) -> str:
    return " # ".join(one_line(str(schema[key])) for key in ("title", "description") if schema.get(key))


class _Writer:
    """Writes one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.sizes: dict[int, int] = {}  # of JSON texts, by id of the part

    def write(self, heading: str, framed: bool) -> list[str]:
        lines = self._root(framed)
        for name, schema in self.document.definitions.items():
            lines += self._entry(f"@{name}:", schema, 0)
        if opens_structure(heading) or heading.startswith("#") or (not heading and not opens_structure(lines[0])):
            return [f"# {heading}".rstrip(), *lines]
        return [heading, *lines] if heading else lines

    def _root(self, framed: bool) -> list[str]:
        """Write the schema itself, without a line of its own where it is an object with properties or alternatives."""
        root = self.document.root
        said = phrase(root, self.document.definitions)
        first = said.inside[0] if said.inside else None
        is_object = said.text == "object" and isinstance(first, Members) and not self._is_framelike(first, framed)
        is_union = said.text == GROUPS["oneOf"] and isinstance(first, Alternatives)
        if (is_object or is_union) and not said.rest:
            return self._inside(said.inside, 0)
        return self._entry("@root:", _without_notes(root), 0)

    def _is_framelike(self, members: Members, framed: bool) -> bool:
        return not framed and list(members.schema.get("properties", {})) == NAMES

    def _entry(self, head: str, schema: Schema, depth: int) -> list[str]:
        """Write a line and what is inside, or all of it as JSON where that is shorter."""
        said = phrase(schema, self.document.definitions)
        lines = [INDENT * depth + self._line(head, said, schema), *self._inside(said.inside, depth + 1)]
        size = sum(map(len, lines)) + len(lines) - 1
        if size > depth + len(head) + 1 + self._size(schema) and said != Phrase("any"):
            return [f"{INDENT * depth}{head} {json_text(schema)}"]
        return lines

    def _line(self, head: str, said: Phrase, schema: Schema) -> str:
        notes = schema if isinstance(schema, dict) else {}
        opens = head.startswith(("option ", "part ")) and said.text == "object" and not said.rest
        text = "" if opens and said.inside and isinstance(said.inside[0], Members) else said.text
        rest = json_text(said.rest) if said.rest else ""
        words = [head, text] if text or rest or said.inside else [head, "any"]
        words += ["=", default(notes["default"])] if "default" in notes else []
        words += [rest]
        words += [f"# {one_line(str(notes['description']))}"] if notes.get("description") else []
        return " ".join(word for word in words if word)

    def _inside(self, blocks: tuple[Block, ...], depth: int) -> list[str]:
        return [line for block in blocks for line in self._block(block, depth)]

    def _block(self, block: Block, depth: int) -> list[str]:
        if isinstance(block, Choices):
            return [self._choice(option, depth) for option in block.options]
        if isinstance(block, Members):
            return self._members(block.schema, depth)
        if isinstance(block, Clauses):
            return [line for word, part in block.parts.items() for line in self._entry(word, part, depth)]
        header = [INDENT * depth + GROUPS[block.keyword]] if block.has_header else []
        word, depth = "part" if block.keyword == "allOf" else "option", depth + len(header)
        entries = [self._entry(f"{word} {i}", option, depth) for i, option in enumerate(block.options, 1)]
        return header + [line for entry in entries for line in entry]

    def _choice(self, option: dict[str, Any], depth: int) -> str:
        says = f" {option['says']}" if option["says"] else ""
        return f"{INDENT * depth}{labelled(option, constant(option['const']))}{says}"

    def _members(self, schema: dict[str, Any], depth: int) -> list[str]:
        lines: list[str] = []
        for name, child in schema.get("properties", {}).items():
            lines += self._entry(_name(name, schema["required"]), child, depth)
        for pattern, child in schema.get("patternProperties", {}).items():
            lines += self._entry(f"/{pattern}/", child, depth)
        additional = schema.get("additionalProperties", True)
        return lines + (self._entry("*", additional, depth) if additional is not False or not lines else [])

    def _size(self, value: Any) -> int:
        """Count the characters of a part's JSON text, once a part."""
        if not isinstance(value, (dict, list)):
            return len(json_text(value))
        if id(value) not in self.sizes:
            keys = sum(len(json_text(key)) + 1 for key in value) if isinstance(value, dict) else 0
            children = value.values() if isinstance(value, dict) else value
            self.sizes[id(value)] = 2 + keys + sum(map(self._size, children)) + max(0, len(value) - 1)
        return self.sizes[id(value)]


def _name(name: str, required: list[str]) -> str:
    """Write a property's name, quoted where its line would read like another one."""
    if name not in required:
        return f"{property_name(name)}?"
    return json_text(name) if name in ("option", "part", *CLAUSES) else property_name(name)


def _without_notes(schema: Schema) -> Schema:
    """Drop the description, which the heading has."""
    return {k: v for k, v in schema.items() if k != "description"} if isinstance(schema, dict) else schema
