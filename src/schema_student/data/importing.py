"""Import traces, OpenAPI files and MCP tool lists as rows of --schemas: {schema_id, schema, query?, answer?}.

Each tool becomes a schema of its arguments; or, with `choice`, the tools of a document or a trace become one schema, of
a call of one of them. What cannot be used is kept out, and told with its place and reason.

    found = import_rows(Path("traces.jsonl"))
    found.rows, found.left_out      # [{...}], {"not valid against its tool": ["traces.jsonl:3: get_weather: ..."]}
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, parse_row, read_json, read_text
from schema_student.core.splits import read_split
from schema_student.data.traces import EXPECTED, Call, Trace, Unread, is_trace, read_trace
from schema_student.schema.compiling import SchemaError
from schema_student.schema.envelopes import list_tools
from schema_student.schema.openapi import is_openapi, list_operations
from schema_student.schema.tool_choice import Tool, choose_among, schema_of
from schema_student.schema.user_schemas import SchemaRow, check_row
from schema_student.schema.yaml_files import read_yaml

Kind = Literal["", "traces", "openapi", "mcp"]
READ_FROM = (".json", ".jsonl", ".yaml", ".yml")
MEANT = {
    "traces": EXPECTED,
    "openapi": "an OpenAPI document (openapi, paths)",
    "mcp": "a tools/list result, {tools: [{name, inputSchema}]}",
}


@dataclass
class Import:
    """What came of an import: rows, and what was left out, by reason with its places."""

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unread_turns: int = 0  # traces that go on after their first call
    parts: set[Path] = field(default_factory=set)  # files that OpenAPI documents refer to
    _ids: dict[str, str] = field(default_factory=dict)  # text of a schema -> its id
    _usable: dict[str, bool] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set)

    def add(self, name: str, schema: dict[str, Any], where: str, **known: Any) -> None:
        """Add a row where its schema can be used and its answer is valid; else note why not."""
        text = repr(schema)
        if text not in self._usable:
            self._usable[text] = self._check(
                SchemaRow(name, schema, None, None, None, where), "schemas that cannot be used"
            )
        if not self._usable[text]:
            if known:
                self.left_out["requests to tools that cannot be used"].append(f"{where}: {name}")
            return
        row = SchemaRow(name, schema, None, known.get("answer"), None, f"{where}: {name}")
        if row.answer is not None and not self._check(row, "calls that are not valid against their tool"):
            return
        if text not in self._ids:
            self._ids[text] = _free_name(_safe_name(name), {*self._ids.values()})
        self.rows.append({"schema_id": self._ids[text], "schema": schema, **known})

    def leave_out(self, reason: str, where: str, schema: dict[str, Any]) -> None:
        """Note that nothing comes of a schema."""
        self.left_out[reason].append(where)
        self._usable[repr(schema)] = False

    def has(self, schema: dict[str, Any]) -> bool:
        """Return whether rows of a schema are there, or it is known to be of no use."""
        return repr(schema) in self._ids or self._usable.get(repr(schema)) is False

    def _check(self, row: SchemaRow, reason: str) -> bool:
        try:
            check_row(row, self._checked)
        except UserError as error:
            self.left_out[reason].append(str(error))
            return False
        return True


def _safe_name(name: str) -> str:
    """Write a tool's name so that it can name files.

    >>> _safe_name("shop/find item?")
    'shop_find_item'
    """
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._-")[:80] or "tool"


def _free_name(name: str, taken: set[str]) -> str:
    return next(each for each in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if each not in taken)


def import_rows(path: Path, kind: Kind = "", choice: bool = False) -> Import:
    """Import a file, or all files of a folder together: traces find their tools there too.

    `kind` is what the documents are meant to be; "" recognizes each. Raises UserError that names file and line of a
    document that is none of them, and where nothing comes of it.
    """
    found = Import()
    tools: list[tuple[str, list[Tool]]] = []  # of tool lists and OpenAPI documents, by the place of each
    traces: list[tuple[str, Row]] = []
    beside: list[tuple[str, list[Tool]]] = []  # of traces
    unknown: list[tuple[str, UserError]] = []
    for where, document in _read_documents(path):
        try:
            recognized = _recognize(document, where, "" if kind == "traces" and path.is_dir() else kind)
        except UserError as error:
            unknown.append((where, error))
            continue
        if recognized == "traces":
            traces.append((where, document))
        else:
            tools.append((where, _tools_of(document, where, path, found)))
    for where, problem in unknown:
        if Path(where).resolve() not in found.parts:
            raise problem
    for where, row in _join_answers(traces):
        try:
            trace = read_trace(row, where)
        except Unread as reason:
            what, _, detail = str(reason).partition(": ")
            found.left_out[what].append(f"{where}: {detail}" if detail else where)
            continue
        _add_trace(found, trace, [tool for _, shared in tools for tool in shared], row, where, choice)
        beside += [(where, trace.tools)] if not choice else []
    for where, listed in [*tools, *beside]:
        _add_tools(found, listed, where, choice)
    if not found.rows:
        raise UserError("; ".join([f"{path}: no row comes of it", *say_left_out(found)]))
    return found


def say_left_out(found: Import, shown: int = 3) -> list[str]:
    """Say what was left out, how often and why, with the first places: a line a reason."""
    return [
        f"left out {len(places)} ({reason}): {'; '.join(places[:shown])}{'; ...' if len(places) > shown else ''}"
        for reason, places in found.left_out.items()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Documents


def _read_documents(path: Path) -> Iterator[tuple[str, Any]]:
    """(file or file:line, document) of a file, or of all files of a folder that are read."""
    if not path.exists():
        raise UserError(f"{path} is not there")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in READ_FROM and file.is_file())
        if not files:
            raise UserError(f"{path}: no {', '.join(READ_FROM)} file in it")
    for file in files:
        yield from _read_file(file)


def _read_file(file: Path) -> Iterator[tuple[str, Any]]:
    if file.suffix.lower() in (".yaml", ".yml"):
        yield str(file), read_yaml(file)
        return
    lines = [(number, line.strip()) for number, line in enumerate(read_text(file).split("\n"), 1) if line.strip()]
    are_rows = len(lines) > 1 and all(line[0] == "{" and line[-1] == "}" for _, line in lines)
    if file.suffix.lower() != ".jsonl" and not are_rows:  # BFCL calls files of rows .json
        yield from _items_of(read_json(file), str(file))
        return
    for number, line in lines:
        yield f"{file}:{number}", parse_row(line, f"{file}:{number}")


def _items_of(document: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The traces of a list; any other document as a whole."""
    if isinstance(document, list) and any(map(is_trace, document)):
        yield from ((f"{where}: item {i}", part) for i, part in enumerate(document, 1))
    else:
        yield where, document


def _recognize(document: Any, where: str, kind: Kind) -> str:
    """What a document is; raises UserError where it is nothing that is known, or not what it is meant to be."""
    recognized = "openapi" if is_openapi(document) else ""
    if not recognized and (is_trace(document) or _is_truth(document)):
        recognized = "traces"
    if not recognized and list_tools(document, where):
        recognized = "mcp"
    if not recognized or (kind and recognized != kind):
        expected = MEANT[kind] if kind else "; or ".join(MEANT.values())
        held = (
            f"it is {MEANT[recognized]}" if recognized else "a JSON Schema itself needs no import: --schemas takes it"
        )
        raise UserError(f"{where}: expected: {expected}; {held}")
    return recognized


def _is_truth(document: Any) -> bool:
    return isinstance(document, dict) and {"id", "ground_truth"} <= document.keys()


def _join_answers(traces: list[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """The traces, those of BFCL with the answers that stand in another file under the same id."""
    truths = {row["id"]: row["ground_truth"] for _, row in traces if _is_truth(row) and not is_trace(row)}
    for where, row in traces:
        if is_trace(row):
            yield where, {"ground_truth": truths[row["id"]]} | row if row.get("id") in truths else row


def _tools_of(document: Any, where: str, path: Path, found: Import) -> list[Tool]:
    if not is_openapi(document):
        return list_tools(document, where)
    folder = Path(where).parent
    tools, left_out = list_operations(document, where, lambda name: _read_beside(folder, name, path, found))
    for place, reason in left_out.items():
        found.left_out["operations that are no schema"].append(f"{where}: {place}: {reason}")
    return tools


def _read_beside(folder: Path, name: str, path: Path, found: Import) -> Any:
    """The document of another file that one refers to: of the same folder, or of that which is imported."""
    file = (folder / name).resolve()
    root = (path if path.is_dir() else path.parent).resolve()
    if not file.is_relative_to(root):
        raise SchemaError(f"{folder / name} lies outside {root}, and is not read")
    found.parts.add(file)
    return read_yaml(file) if file.suffix.lower() in (".yaml", ".yml") else read_json(file)


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def _add_trace(found: Import, trace: Trace, shared: list[Tool], row: Row, where: str, choice: bool) -> None:
    tools, call = trace.tools or shared, trace.call
    asked = {"query": trace.query, **_kept(row)}
    named = [tool for tool in tools if call is None or tool.name == call.name]
    found.unread_turns += trace.has_more
    if not named:
        called, known = call.name if call else "none", ", ".join(tool.name for tool in tools[:8]) or "none"
        advice = "put its description into the trace, or a tool list beside it"
        found.left_out["tools that are not described"].append(f"{where}: {called} (known are: {known}); {advice}")
    elif choice:
        _add_choice(found, tools, where, **asked, **(_choice_of(call) if call else {}))
    elif call is None and len(tools) > 1:
        found.left_out["requests without a call, of several tools"].append(where)
    else:
        given = {"answer": call.arguments} if call else {}
        accepted = {"accepted": call.accepted} if call and call.accepted else {}
        _add_tool(found, named[0], where, **asked, **given, **accepted)


def _kept(row: Row) -> Row:
    """What a trace says of itself as --schemas takes it: its day and its split, where they are such."""
    day, split = row.get("current_date"), row.get("split")
    is_day = isinstance(day, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", day)
    is_split = isinstance(split, str) and read_split(split)
    return ({"current_date": day} if is_day else {}) | ({"split": split} if is_split else {})


def _choice_of(call: Call) -> dict[str, Any]:
    answer = {"answer": {"name": call.name, "arguments": call.arguments}}
    return answer | ({"accepted": {"name": [call.name], "arguments": [call.accepted]}} if call.accepted else {})


def _add_tools(found: Import, tools: list[Tool], where: str, choice: bool) -> None:
    """Add the schemas of tools that no trace has called."""
    if choice and tools:
        _add_choice(found, tools, where)
    elif not choice:
        for tool in tools:
            if not found.has(schema_of(tool)):
                _add_tool(found, tool, where)


def _add_tool(found: Import, tool: Tool, where: str, **known: Any) -> None:
    schema = schema_of(tool)
    if schema.get("type") == "object" and not schema.get("properties") and not known.get("answer"):
        found.leave_out("tools without arguments, which --choice takes", f"{where}: {tool.name}", schema)
    else:
        found.add(tool.name, schema, where, **known)


def _add_choice(found: Import, tools: list[Tool], where: str, **known: Any) -> None:
    try:
        schema = choose_among(tools)
    except SchemaError as error:
        found.left_out["tools that make no choice"].append(f"{where}: {error}")
        return
    if known or not found.has(schema):
        found.add("tools" if known else Path(where).stem, schema, where, **known)
