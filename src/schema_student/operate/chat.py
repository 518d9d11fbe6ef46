"""Hold a conversation over a schema: requests are answered and judged, commands switch what is asked.

A terminal, a pipe or a test gives lines and shows what comes back.

    session = Session(settings, QuestionReader(settings, "my_schema.json"), load_student)
    session.reply("a table for two on Friday")      # lines of the answer and its verdict
    session.reply("/save")                          # request and answer -> outputs/chat/RUN.jsonl
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.files import refuse_link, write_bytes
from schema_student.core.jsonl import dump_row
from schema_student.core.log import log
from schema_student.core.paths import final_adapter, paths
from schema_student.core.settings import Settings
from schema_student.data.questions import QuestionReader, is_inline
from schema_student.operate.chat_lines import Line, plain, say, side_by_side, write_answer, write_violations
from schema_student.schema.judging import judge
from schema_student.schema.rendering import render_schema
from schema_student.student.ask import Answer, Asking, Question, ask_student
from schema_student.student.loading import Student, settings_of_adapter

BASE = "base"  # what /adapter and /compare call the student without an adapter
SWITCH = {"": None, "on": True, "off": False}


@dataclass(frozen=True)
class Asked:
    """A request, the name of its schema, and its answer."""

    schema_id: str
    question: Question
    answer: Answer


class Session:
    """A conversation: its schema, its students, and what was asked last.

    `edit` lets the person correct an answer's text before it is saved (None: they give it up); `width` says how many
    columns there are.
    """

    def __init__(
        self,
        settings: Settings,
        reader: QuestionReader,
        load: Callable[..., Student],
        day: str | None = None,
        constrained: bool = False,
    ) -> None:
        self.settings, self.day, self.constrained = settings, day, constrained
        self.ended, self.saved = False, paths(settings).chat
        self.edit: Callable[[str], str | None] = lambda text: text
        self.width: Callable[[], int] = lambda: 80
        self._load, self._schema, self._schema_id = load, reader.schema(), reader.name
        self._students: dict[str, Student] = {}
        self._asked: Asked | None = None
        self._open([settings.student.adapter])

    def reply(self, text: str) -> list[Line]:
        """Answer a request, or do what a command says; what cannot be done is said, and the conversation goes on."""
        try:
            if text.startswith("/"):
                return self._obey(text)
            return self._answer(text.strip()) if text.strip() else []
        except (UserError, OSError) as error:
            return say(str(error), "bad")

    # The students

    def _open(self, adapters: list[str]) -> None:
        """Load these students, where they are not loaded, and drop the others; raises UserError and changes nothing."""
        self._students = {adapter: self._students.get(adapter) or self._load_one(adapter) for adapter in adapters}

    def _load_one(self, adapter: str) -> Student:
        settings = self.settings
        if adapter != settings.student.adapter:
            decided = settings_of_adapter(Path(adapter)) if adapter else {}
            settings = settings.changed(adapter=adapter, **decided)
        student = self._load(settings, adapter=adapter or None)
        log.info(f"student: {student.choice.name}, {adapter or 'no adapter: the base alone'}")
        return student

    def _find_adapter(self, named: str) -> str:
        """Find an adapter by its folder or its run's name; raises UserError where there is none."""
        if named == BASE:
            return ""
        if (Path(named).expanduser() / "adapter_config.json").is_file():
            return str(Path(named).expanduser())
        if found := final_adapter(self.settings.changed(run=named, adapter="")) if "/" not in named else "":
            return found
        raise UserError(f"no adapter {named}: give its folder, the name of a run that has one, or {BASE!r}")

    # Requests

    def _answer(self, request: str) -> list[Line]:
        question = Question(self._schema, request, self.day)
        asking = Asking(constrained=self.constrained)
        answers = {
            adapter: ask_student(student, [question], student.settings, asking)[0]
            for adapter, student in self._students.items()
        }
        self._asked = Asked(self._schema_id, question, next(iter(answers.values())))
        shown = [[*self._title(adapter, len(answers)), *write_answer(each)] for adapter, each in answers.items()]
        return shown[0] if len(shown) == 1 else side_by_side(shown[0], shown[1], self.width())

    def _title(self, adapter: str, count: int) -> list[Line]:
        return say(adapter or BASE, "dim") if count > 1 else []

    # Commands

    def _obey(self, text: str) -> list[Line]:
        name, _, rest = text[1:].strip().partition(" ")
        if name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            advice = f"did you mean /{close[0]}?" if close else "/help lists them"
            raise UserError(f"unknown command /{name}; {advice} A request that begins with / is asked after a space.")
        return COMMANDS[name][0](self, rest.strip())

    def show_help(self, _: str) -> list[Line]:
        """List the commands."""
        rows = [(f"/{name} {usage}".rstrip(), words) for name, (_, usage, words) in COMMANDS.items()]
        return [[("key", f"{usage:<26}"), ("", words)] for usage, words in rows]

    def switch_schema(self, named: str) -> list[Line]:
        """Ask by another schema from now on, or show the one that is asked by."""
        if named:
            is_file = is_inline(named) or Path(named).expanduser().is_file()
            reader = QuestionReader(self.settings, *((named, "") if is_file else ("", named)))
            self._schema, self._schema_id = reader.schema(), reader.name
        return [*say(f"schema {self._schema_id}:", "dim"), *say(render_schema(self._schema.schema))]

    def switch_adapter(self, named: str) -> list[Line]:
        """Ask another student from now on, or say who is asked."""
        if named:
            self._open([self._find_adapter(named)])
        return say(f"asking {' and '.join(adapter or BASE for adapter in self._students)}", "dim")

    def compare(self, named: str) -> list[Line]:
        """Ask two students side by side from now on; the last request is asked again."""
        adapters = [self._find_adapter(name) for name in named.split()]
        if len(adapters) != 2 or adapters[0] == adapters[1]:
            raise UserError("give two different adapters: /compare A B; /adapter A ends it")
        self._open(adapters)
        return self._answer(self._asked.question.request) if self._asked else self.switch_adapter("")

    def constrain(self, state: str) -> list[Line]:
        """Hold answers to what the schema allows while they are written, or no longer."""
        if state not in SWITCH:
            raise UserError("/constrained takes on, off, or nothing, which changes it")
        wanted = SWITCH[state]
        self.constrained = not self.constrained if wanted is None else wanted
        return say(f"constrained decoding is {'on' if self.constrained else 'off'}", "dim")

    def save(self, text: str) -> list[Line]:
        """Save the last request with its answer, as the person corrects it: a row of --schemas."""
        if self._asked is None:
            raise UserError("nothing was asked yet")
        text = text or self.edit(self._asked.answer.text) or ""
        if not text.strip():
            return say("not saved", "dim")
        schema = self._asked.question.schema
        assert not isinstance(schema, dict)
        verdict = judge(text, schema, self.settings.verdict.strip_fences)
        if not verdict.schema_valid:
            why = [] if verdict.parsed else say(f"  not JSON: {verdict.parse_error}", "bad")
            return [*say("not saved: it is not valid", "bad"), *why, *write_violations(verdict.violations)]
        return self._append(schema.schema, verdict.value)

    def _append(self, schema: dict[str, Any], answer: Any) -> list[Line]:
        assert self._asked is not None
        question = self._asked.question
        row = {"schema_id": self._asked.schema_id, "schema": schema, "query": question.request, "answer": answer}
        refuse_link(self.saved)
        rows = self.saved.read_bytes() if self.saved.exists() else b""
        write_bytes(self.saved, rows + dump_row({**row, "current_date": question.day}).encode() + b"\n")
        return say(f"saved: {self.saved} (train on it by --schemas {self.saved})", "good")

    def end(self, _: str) -> list[Line]:
        """End the conversation."""
        self.ended = True
        return []


Command = Callable[[Session, str], list[Line]]
COMMANDS: dict[str, tuple[Command, str, str]] = {
    "schema": (Session.switch_schema, "[FILE|ID|JSON]", "ask by another schema; alone: show it"),
    "adapter": (Session.switch_adapter, "[FOLDER|RUN|base]", "ask another student; alone: say which"),
    "compare": (Session.compare, "A B", "ask two students side by side, until /adapter"),
    "constrained": (Session.constrain, "[on|off]", "write only what the schema allows"),
    "save": (Session.save, "[JSON]", "save the last request with its answer, as you correct it"),
    "help": (Session.show_help, "", "these commands"),
    "quit": (Session.end, "", "end (also Ctrl-D)"),
}


def converse(session: Session, lines: Iterable[bytes], write: Callable[[str], None]) -> None:
    """Answer the lines of a pipe, in plain text."""
    for line in lines:
        for each in session.reply(line.decode("utf-8", "surrogateescape").rstrip("\r\n")):
            write(plain(each))
        if session.ended:
            return
