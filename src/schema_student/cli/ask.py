"""Define the verb that asks a student, its teacher, or both: one request, or many from standard input."""

from __future__ import annotations

import argparse
import codecs
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schema_student.cli.asked_student import DEFER, read_asked_student, read_deferral, read_named_model
from schema_student.core.artifacts import dry_run
from schema_student.core.cleaning import escape_unprintable
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.flags import Own, path_of
from schema_student.core.jsonl import Row, dump_row
from schema_student.core.log import log, messages_beside_data
from schema_student.core.settings import Settings

if TYPE_CHECKING:
    from schema_student.evaluation.deferral import Deferral
    from schema_student.student.ask import Answer, Asking, Question

Asker = Callable[[Sequence["Question"]], list["Answer"]]
Models = Mapping[str, Settings]  # those that --adapters names, with the settings that each is asked by
KEPT_AT_0 = "confidence"  # which says something where it is 0
CHUNK = 256  # requests of standard input that are asked together; their answers are written before the next are read

ASK: Own = {
    "request": {
        "metavar": "REQUEST",
        "nargs": "?",
        "default": "-",
        "help": "the request; - or none: JSONL rows {query, schema? or schema_id?, current_date?} of standard input",
    },
    "--prompts": {
        "metavar": "FILE",
        "type": path_of,
        "default": None,
        "help": "ask what stands in a file: a request a line, or rows of JSONL as on standard input",
    },
    "--schema": {"metavar": "SCHEMA", "default": "", "help": "the JSON Schema: a file, or the JSON itself"},
    "--schema-id": {"metavar": "ID", "default": "", "help": "the schema of this id of the run (--run)"},
    "--date": {"metavar": "DAY", "default": "", "help": "the day that the request is asked on (default: today)"},
    "--repair": {"metavar": "N", "type": int, "default": 0, "help": "times that an invalid answer is shown its faults"},
    "--samples": {"metavar": "K", "type": int, "default": 0, "help": "draw K answers, take the first valid one"},
    "--vote": {"action": "store_true", "help": "of --samples, take the meaning that most valid ones agree on"},
    "--constrained": {
        "action": "store_true",
        "help": "write only what the schema allows; what of it no grammar holds is named, and judged as ever",
    },
    "--explain": {
        "action": "store_true",
        "help": "on standard error: verdict, log p of the answer, and the tokens that the student was least sure of",
    },
    "--both": {
        "action": "store_true",
        "help": 'ask the teacher as well: {"student": ..., "teacher": ..., "agree": ...}',
    },
    **DEFER,
    "--load": {
        "action": "store_true",
        "help": "load the student even where `schema-student serve` runs, which would answer at once",
    },
}


def ask(argv: Sequence[str]) -> None:
    """Answer a request by a run's student: one JSON object on standard output, and nothing else there.

    schema-student ask --schema my_schema.json "a table for two on Friday"
    schema-student ask --run mine --schema-id flights "to Oslo after 3 May" --explain
    schema-student ask --schema '{"properties": {"city": {"type": "string"}}}' "to Oslo" --samples 8 --vote
    schema-student ask --schema my_schema.json "a table for two" --constrained --repair 1
    schema-student ask --run mine --both "to Oslo"                   # what would the teacher say?
    schema-student ask --run mine --defer-to gpt-oss:120b --below 0.7 "to Oslo"    # who answers what it is not sure of
    schema-student ask --run mine --prompts requests.txt --adapters base,mine      # two models side by side
    schema-student ask --run mine < requests.jsonl > answers.jsonl   # {"query": ..., "schema_id": ...} a line

    Asked is the adapter that the run ends with: DPO's, else SFT's; --adapter names another, --base-model without --run
    a base alone. It reads prompts as its run did. Where `schema-student serve` serves it here, it is asked there
    instead of being loaded (--load loads it). --teacher-model MODEL asks that teacher instead.

    Ends with 0 where the answer is valid; with 1 where it is not, and then what is wrong stands on standard error as
    one JSON object. Of many requests each has a line with its verdict, in their order.
    """
    settings, arguments = read_asked_student(argv, ask.__doc__, "ask", ASK, _needs_no_student)
    models = {name: read_named_model(argv, ask.__doc__, "ask", ASK, name) for name in settings.pairwise.adapters}
    _check_request(settings, arguments)
    adapters = [model.student.adapter for model in models.values()] or [settings.student.adapter]
    reads = [Path(path) for path in (*adapters, _schema_file(arguments.schema), arguments.prompts) if path]
    if dry_run(settings, reads=reads, writes=[]):
        return
    with messages_beside_data():
        ask_all = _ask_many if arguments.request == "-" else _ask_one
        all_valid = ask_all(settings, arguments, models)
    if not all_valid:
        raise SystemExit(1)


def _check_request(settings: Settings, arguments: argparse.Namespace) -> None:
    """Refuse a call without a request, and flags that exclude each other."""
    if arguments.prompts and arguments.request != "-":
        raise SettingsError("--prompts holds the requests: leave REQUEST out")
    if arguments.request == "-" and not arguments.prompts and not settings.run.dry_run and sys.stdin.isatty():
        raise SettingsError("no request: give one, or rows of JSONL on standard input (see --help)")
    if settings.pairwise.adapters and (arguments.both or arguments.defer_to or _asks_only_teacher(settings, arguments)):
        raise SettingsError("--adapters asks these students alone: leave --both, --defer-to and --teacher-model out")


def _needs_no_student(settings: Settings, arguments: argparse.Namespace) -> bool:
    """Whether the adapter that the run ends with is not asked."""
    return bool(settings.pairwise.adapters) or _asks_only_teacher(settings, arguments)


def _schema_file(schema: str) -> str:
    return "" if schema.lstrip()[:1] in ("{", "[") else schema


def _asks_only_teacher(settings: Settings, arguments: argparse.Namespace) -> bool:
    return settings.teacher.teacher_model != "auto" and not arguments.both


def _ask_one(settings: Settings, arguments: argparse.Namespace, models: Models) -> bool:
    """Print the answer's value, or what is wrong with it; returns whether it is valid."""
    from schema_student.data.questions import QuestionReader, read_day
    from schema_student.student.ask import Question

    schema = QuestionReader(settings, arguments.schema, arguments.schema_id).schema()
    question = Question(schema, arguments.request, read_day(arguments.date))
    answers = {name: asker([question])[0] for name, asker in _open_askers(settings, arguments, models).items()}
    for name, answer in answers.items():
        error = {} if answer.valid else {"error": answer.problem or "not valid against its schema"}
        if error or (arguments.explain and answer.sureness) or answer.by:
            _write(sys.stderr, {**error, "by": name, **_describe(answer)})
    if arguments.both or models:
        _write(sys.stdout, _side_by_side(question, answers))
    elif all(answer.valid for answer in answers.values()):
        _write(sys.stdout, *(answer.value for answer in answers.values()))
    return all(answer.valid for answer in answers.values())


def _ask_many(settings: Settings, arguments: argparse.Namespace, models: Models) -> bool:
    """Print a row for each request of many, in their order, and keep none; returns whether all answers are valid."""
    from schema_student.data.questions import QuestionReader

    reader = QuestionReader(settings, arguments.schema, arguments.schema_id)
    lines = _read_lines(arguments.prompts)
    askers, counts = _open_askers(settings, arguments, models), Counter[str]()
    while chunk := list(islice(lines, CHUNK)):
        for row in _answer_chunk([_read(reader, number, line) for number, line in chunk], askers, models):
            counts.update(_count(row, models))
            _write(sys.stdout, row)
    for line in _sum_up(counts, models):
        log.info(line)
    return counts["valid"] == counts["rows"]


def _answer_chunk(read: Sequence[Question | Row], askers: Mapping[str, Asker], models: Models) -> Iterator[Row]:
    """The rows of some requests; of what is no request the row that says why stands there already."""
    questions = [each for each in read if not isinstance(each, dict)]
    answered = {name: iter(asker(questions)) for name, asker in askers.items()}
    write_row = partial(_compare, list(models)) if models else _row
    for each in read:
        if isinstance(each, dict):
            yield each
        else:
            yield write_row(each, {name: next(some) for name, some in answered.items()})


def _read_lines(prompts: Path | None) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of requests, or of standard input, with their numbers; a line of words is a request."""
    if prompts is None:
        return ((number, line) for number, line in enumerate(sys.stdin.buffer, 1) if line.strip())
    try:
        lines = prompts.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except OSError as error:
        raise UserError(f"--prompts {prompts} cannot be read ({error.strerror}); give an existing file") from None
    named = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    return ((number, line if line[:1] == b"{" else _as_row(line)) for number, line in named)


def _as_row(words: bytes) -> bytes:
    return dump_row({"query": words.decode(errors="replace")}).encode()


def _count(row: Row, models: Models) -> dict[str, int]:
    """What a row adds to the counts: of all rows, of valid ones, and of each of several models."""
    valid = {f"valid by {name}": int(row[name]["valid"]) for name in models if name in row}
    return {"rows": 1, "valid": int(row["valid"]), "agree": int(row.get("agree", False)), **valid}


def _sum_up(counts: Mapping[str, int], models: Models) -> Iterator[str]:
    """How many answers of each of several models are valid, and how many requests they agree on."""
    for name in models:
        yield f"{name}: {counts[f'valid by {name}']} of {counts['rows']} answers are valid"
    if models:
        yield f"they agree on {counts['agree']} of {counts['rows']}"


def _read(reader: Any, number: int, line: bytes) -> Question | Row:
    """The question of a line, or the row that says why there is none."""
    try:
        return reader.read_line(line, f"line {number}")
    except UserError as error:
        return {"query": None, "value": None, "valid": False, "problem": str(error)}


def _open_askers(settings: Settings, arguments: argparse.Namespace, models: Models) -> dict[str, Asker]:
    """Who is asked, by name: the student, the teacher, both, or the models that --adapters names."""
    from schema_student.data.questions import ask_teacher
    from schema_student.student.ask import Asking

    if (arguments.defer_to or arguments.below) and (arguments.both or _asks_only_teacher(settings, arguments)):
        raise SettingsError("--defer-to asks the teacher only where it must: leave --both and --teacher-model out")
    deferral = read_deferral(settings, arguments)
    explain = arguments.explain or deferral is not None
    asking = Asking(arguments.repair, arguments.samples, arguments.vote, arguments.constrained, explain)
    if models:
        return {name: _open_loaded(model, asking) for name, model in models.items()}
    teacher = partial(ask_teacher, settings=settings)
    if _asks_only_teacher(settings, arguments):
        return {"teacher": teacher}
    own = (None if arguments.load else _open_served(settings, asking)) or _open_loaded(settings, asking)
    if deferral:
        return {"student": partial(_defer, own, deferral, arguments.explain)}
    return {"student": own, "teacher": teacher} if arguments.both else {"student": own}


def _open_served(settings: Settings, asking: Asking) -> Asker | None:
    """The student of a server that runs here, where there is one; which that is, is said."""
    from schema_student.deploy.serving.client import ask_served, find_obstacle
    from schema_student.deploy.serving.running import find_running

    running = find_running(settings, asking.constrained)
    if running is None:
        return None
    if obstacle := find_obstacle(asking, settings):
        log.info(f"{running.url} is passed over: {obstacle}")
        return None
    log.info(f"student: served at {running.url} as {running.model} (process {running.pid})")
    return partial(ask_served, running, settings=settings, asking=asking)


def _open_loaded(settings: Settings, asking: Asking) -> Asker:
    """The student, which is loaded here; which that is, is said."""
    from schema_student.student.ask import ask_student
    from schema_student.student.loading import load_student

    student = load_student(settings, adapter=settings.student.adapter or None)
    log.info(
        f"student: {student.choice.name} ({student.choice.reason}), {student.adapter or 'no adapter: the base alone'}"
    )
    return partial(ask_student, student, settings=student.settings, asking=asking)


def _defer(own: Asker, deferral: Deferral, explain: bool, questions: Sequence[Question]) -> list[Answer]:
    """The student's answers, and a teacher's where it is not sure; its least sure tokens only where asked for."""
    settled = deferral.settle(questions, own(questions))
    return settled if explain else [replace(each, sureness=None) for each in settled]


def _row(question: Question, answers: dict[str, Answer]) -> Row:
    """The line of an answer; of two, the student's with the teacher's in it."""
    first, *others = [{"value": answer.value, **_describe(answer)} for answer in answers.values()]
    return {"query": question.request, **first} | dict(zip(list(answers)[1:], others, strict=True))


def _compare(names: Sequence[str], question: Question, answers: dict[str, Answer]) -> Row:
    """The line of several models' answers to a request; valid where all are."""
    told = {name: {"value": answers[name].value, **_describe(answers[name])} for name in names}
    agree = _side_by_side(question, answers)["agree"]
    return {"query": question.request, **told, "agree": agree, "valid": all(each.valid for each in answers.values())}


def _describe(answer: Answer) -> Row:
    """What is known of an answer beside its value: the verdict, and what of the rest there is."""
    verdict = {"valid": answer.valid, "violations": [asdict(each) for each in answer.violations]}
    known = asdict(answer).items()
    rest = {name: value for name, value in known if name not in ("value", *verdict) and (value or name == KEPT_AT_0)}
    return verdict | {name: value for name, value in rest.items() if value is not None}


def _side_by_side(question: Question, answers: dict[str, Answer]) -> Row:
    from schema_student.schema.canonical import canonical
    from schema_student.schema.compiling import CompiledSchema

    assert isinstance(question.schema, CompiledSchema)
    said = {canonical(answer.value, question.schema.schema) if answer.valid else None for answer in answers.values()}
    return {name: answer.value for name, answer in answers.items()} | {"agree": len(said) == 1 and None not in said}


def _write(stream: Any, value: Any) -> None:
    """Write a value as one line of JSON in which nothing steers a terminal."""
    print(escape_unprintable(dump_row(value)), file=stream, flush=True)
