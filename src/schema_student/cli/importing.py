"""Define the verb that imports traces, OpenAPI files and MCP tool lists as one's own schemas."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from schema_student.core.artifacts import dry_run
from schema_student.core.errors import UserError
from schema_student.core.flags import Own, parse_command, path_of
from schema_student.core.jsonl import write_jsonl
from schema_student.core.log import log

IMPORT: Own = {
    "source": {"metavar": "FILE|FOLDER", "type": path_of, "help": "a .json, .jsonl or .yaml file, or a folder of them"},
    "--output": {"metavar": "ROWS", "type": path_of, "required": True, "help": "JSONL file of rows to write"},
    "--kind": {
        "dest": "imported",
        "choices": ("traces", "openapi", "mcp"),
        "default": "",
        "help": "what is imported (default: each document is recognized)",
    },
    "--choice": {"action": "store_true", "help": "one schema with a choice of the tools, not one a tool"},
}


def import_schemas(argv: Sequence[str]) -> None:
    """Import traces of tool calls, OpenAPI files and MCP tool lists as rows that --schemas takes.

    schema-student import traces.jsonl --output rows.jsonl
    schema-student import openapi.yaml --output api.jsonl
    schema-student import tools_list.json --output tools.jsonl --choice
    schema-student import exported/ --output rows.jsonl      # traces, with their tool lists beside them

    traces   a JSON object a line: the request and the call that was made, as logs and data sets of OpenAI (messages,
             tools, tool_calls), Anthropic (tool_use), Gemini (functionCall) and BFCL (question, function, ground_truth)
             have them, or plainly: {"request": "...", "call": {"name": "...", "arguments": {...}}, "tools": [...]}
    openapi  3.0 and 3.1: each operation is a schema of its parameters and its JSON body
    mcp      what tools/list answers, or any list of tools

    A call that is not valid against its tool is kept out; what is kept out is counted and named.
    """
    settings, arguments = parse_command(argv, import_schemas.__doc__, "import", IMPORT)

    from schema_student.data.importing import import_rows, say_left_out

    output = arguments.output
    only_said = dry_run(settings, reads=[arguments.source], writes=[output])
    if output.exists() and not settings.run.overwrite:
        raise UserError(f"{output} is there already; name another --output, or give --overwrite")
    found = import_rows(arguments.source, arguments.imported, arguments.choice)
    answered = sum("answer" in row for row in found.rows)
    schemas = len({row["schema_id"] for row in found.rows})
    if not only_said:
        write_jsonl(output, found.rows)
    log.info(f"{output}: {len(found.rows)} rows of {schemas} schemas, {answered} with a request and its call")
    if found.unread_turns:
        log.info(f"of {found.unread_turns} traces the first request and its call alone are read, not what follows")
    for line in say_left_out(found):
        log.warning(line)
    log.info(f"next: ./runAll.sh --schemas {shlex.quote(str(output))}")
