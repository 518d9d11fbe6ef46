"""Define the verb that talks with a student: at a terminal by prompt_toolkit, through a pipe by plain lines."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from schema_student.cli.asked_student import read_asked_student
from schema_student.core.artifacts import dry_run
from schema_student.core.errors import UserError
from schema_student.core.flags import Own
from schema_student.core.log import messages_beside_data
from schema_student.core.paths import paths
from schema_student.core.settings import Settings

CHAT: Own = {
    "--schema": {"metavar": "SCHEMA", "default": "", "help": "the JSON Schema: a file, or the JSON itself"},
    "--schema-id": {"metavar": "ID", "default": "", "help": "the schema of this id of the run (--run)"},
    "--date": {"metavar": "DAY", "default": "", "help": "the day that requests are asked on (default: today)"},
    "--constrained": {"action": "store_true", "help": "write only what the schema allows (/constrained changes it)"},
}


def chat(argv: Sequence[str]) -> None:
    """Talk with a student over a schema: requests, answers, the verdict on each; corrected answers are saved.

    schema-student chat --run mine --schema-id flights
    schema-student chat --schema my_schema.json
    printf '%s\\n' "to Oslo" "/save" | schema-student chat --schema my_schema.json

    /help lists the commands: another schema or adapter, two adapters side by side, constrained decoding, saving. What
    is saved (chat/RUN.jsonl) is what --schemas takes. Asked is the adapter that the run ends with, as by `ask`.
    At a terminal it needs prompt_toolkit (the extra `chat`); the lines that were typed stand in chat/history.
    """
    settings, arguments = read_asked_student(argv, chat.__doc__, "chat", CHAT)

    from schema_student.data.questions import is_inline

    named = [settings.student.adapter, "" if is_inline(arguments.schema) else arguments.schema]
    if dry_run(settings, reads=[Path(path) for path in named if path], writes=[paths(settings).chat]):
        return
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if at_terminal and not importlib.util.find_spec("prompt_toolkit"):
        raise UserError("chat needs prompt_toolkit at a terminal: pip install 'schema-student[chat]'; or pipe lines in")
    with messages_beside_data():
        _talk(settings, arguments, at_terminal)


def _talk(settings: Settings, arguments: argparse.Namespace, at_terminal: bool) -> None:
    from schema_student.data.questions import QuestionReader, read_day
    from schema_student.operate.chat import Session, converse
    from schema_student.student.loading import load_student

    day, reader = read_day(arguments.date), QuestionReader(settings, arguments.schema, arguments.schema_id)
    session = Session(settings, reader, load_student, day, arguments.constrained)
    if not at_terminal:
        converse(session, sys.stdin.buffer, lambda text: print(text, flush=True))
        return

    from schema_student.operate.chat_terminal import chat_at_terminal

    chat_at_terminal(session, paths(settings).chat.with_name("history"))
