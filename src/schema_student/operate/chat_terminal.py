"""Hold a conversation at a terminal, by prompt_toolkit (extra `chat`): history, completion of commands, colours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory
from prompt_toolkit.styles import Style

from schema_student.core.files import make_folder, refuse_link
from schema_student.operate.chat import COMMANDS, Session
from schema_student.operate.chat_lines import Line

STYLE = Style.from_dict(
    {
        "key": "ansicyan",
        "string": "ansigreen",
        "number": "ansiyellow",
        "word": "ansiyellow",
        "good": "ansigreen bold",
        "bad": "ansired",
        "dim": "ansibrightblack",
        "prompt": "bold",
    }
)


def chat_at_terminal(session: Session, history: Path, **streams: Any) -> None:
    """Read requests and commands until /quit or Ctrl-D; Ctrl-C gives up a line, or an answer that is being written.

    `streams` are prompt_toolkit's input and output, where they are not the terminal's.
    """
    refuse_link(history)
    make_folder(history.parent)
    completer = WordCompleter([f"/{name}" for name in COMMANDS], sentence=True)
    lines: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)), completer=completer, complete_while_typing=False, style=STYLE, **streams
    )
    corrections: PromptSession[str] = PromptSession(style=STYLE, **streams)
    session.edit = lambda text: _edit(corrections, text)
    session.width = lambda: shutil.get_terminal_size().columns
    while not session.ended:
        try:
            text = lines.prompt([("class:prompt", "> ")])
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        _show(_reply(session, text), streams.get("output"))


def _reply(session: Session, text: str) -> list[Line]:
    try:
        return session.reply(text)
    except KeyboardInterrupt:
        return [[("bad", "stopped")]]


def _edit(corrections: PromptSession[str], text: str) -> str | None:
    """Let the person correct an answer; None where they give it up."""
    try:
        return corrections.prompt("corrected answer (Enter saves, Ctrl-C does not): ", default=text)
    except (KeyboardInterrupt, EOFError):
        return None


def _show(lines: list[Line], output: Any) -> None:
    for line in lines:
        pieces = FormattedText((f"class:{style}" if style else "", text) for style, text in line)
        print_formatted_text(pieces, style=STYLE, output=output)
