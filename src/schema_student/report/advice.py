"""Advise what to do next with a run, as commands: at most three, the most useful first.

A command repeats the flags that the run was made with, as far as its verb reads them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from schema_student.core.flags import flags_for, flags_of, without_settings
from schema_student.core.jsonl import Row
from schema_student.core.places import shown_place
from schema_student.core.settings import GROUP_OF

MOST = 3
ENOUGH_VALID = 0.97
GOOD = 0.8  # right answers of a student that is worth exporting
COMMAND = "schema-student"
PLACES = ("output_dir", "data_dir")  # all that verbs need which ask a student as its run did
BY_RUN = ("ask", "export")  # these verbs
OF_ONE = ("evaluated", "gate", "endpoint")  # groups of settings that are those of one evaluation
NAMED = ("run", "adapter", "overwrite", "dry_run")  # of one command


class Step(NamedTuple):
    """Something to do next: why, by which verb, and with which words after the run's own flags."""

    text: str
    verb: str
    words: str
    run: str = ""  # another run, which has data of its own


def advise(students: Sequence[Row], links: Sequence[str], run: str, settings: Row, given: Row) -> list[Row]:
    """Advise the next commands: {text, command}.

    `settings` are those that the run was trained with, `given` those of them that a person gave.
    """
    place = shown_place(settings.get("output_dir", "outputs"))
    given = {"output_dir": place, "schemas": shown_place(settings.get("schemas", ""))} | given
    steps = islice(_list_steps(students, links, run, settings), MOST)
    return [{"text": step.text, "command": _write_command(step, run, given)} for step in steps]


def _write_command(step: Step, run: str, given: Mapping[str, Any]) -> str:
    """Write a step's command: the run, the flags that it was made with, and what is new."""
    new = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in step.words.split() if word.startswith("--")}
    kept = {name: value for name, value in given.items() if _is_repeated(name, step)}
    flags = without_settings(new, flags_for(step.verb, flags_of(kept)))
    words = [COMMAND, step.verb, "--run", shlex.quote(step.run or run), *map(shlex.quote, flags), step.words]
    return " ".join(word for word in words if word)


def _is_repeated(name: str, step: Step) -> bool:
    """Whether a setting of the run is one of a step's command as well."""
    if name not in GROUP_OF or name in NAMED or GROUP_OF[name] in OF_ONE:
        return False
    return name in PLACES if step.verb in BY_RUN else not (step.run and name == "data_dir")


def _list_steps(students: Sequence[Row], links: Sequence[str], run: str, settings: Row) -> Iterator[Step]:
    """The steps in order of use."""
    known = {key for student in students for key in student["keys"]}
    trained = [student for student in students if student["stage"] and student["key"] != "base"]
    if not trained:
        yield Step("Train and evaluate the student", "run", "--from sft")
        return
    last = trained[-1]
    overall = last["summary"]["overall"]
    valid, right = overall["schema_valid_rate"]["rate"], overall["semantic_pass_rate"]["rate"]
    if right is None:
        words = "--eval-student sft --judge-valid --overwrite"
        yield Step("Let a teacher judge the answers", "evaluate", words)
        return
    if right >= GOOD:
        yield Step("It is good enough to try elsewhere: export it", "export", "")
    again = f"--eval-student {last['key']}"
    if overall["truncated"] > overall["total"] / 20:
        room = 2 * int(settings.get("max_new_tokens", 320))
        why = f"{overall['truncated']} answers were cut off: give them room"
        yield Step(why, "evaluate", f"{again} --max-new-tokens {room} --overwrite")
    if valid < ENOUGH_VALID and f"{last['key']}-constrained" not in known:
        invalid = round((1 - valid) * overall["total"])
        why = f"{invalid} answers are not valid: hold them to their schemas and see what that costs"
        yield Step(why, "evaluate", f"{again} --decoding constrained")
    if not links:
        yield Step("Align it on pairs of better and worse answers", "run", "--from align")
    if right < GOOD and isinstance(settings.get("train_queries"), int):
        more = f"--train-queries {2 * settings['train_queries']}"
        yield Step("Teach it more: twice the requests, as a run beside this one", "run", more, f"{run}-2")
    yield Step("Ask it", "ask", '"..."')
