"""Advise what to do next with a run, as commands: at most three, the most useful first."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import islice

from schema_student.core.jsonl import Row
from schema_student.core.places import shown_place

MOST = 3
ENOUGH_VALID = 0.97
GOOD = 0.8  # right answers of a student that is worth exporting
COMMAND = "schema-student"


def advise(students: Sequence[Row], links: Sequence[str], run: str, settings: Row) -> list[Row]:
    """Advise the next commands: {text, command}; `settings` are those that the run was trained with."""
    output_dir = shown_place(settings.get("output_dir", "outputs"))
    flags = f"--run {shlex.quote(run)}"
    if output_dir != "outputs":
        flags += f" --output-dir {shlex.quote(output_dir)}"
    return [
        {"text": text, "command": f"{COMMAND} {command.format(run=flags)}"}
        for text, command in islice(_list_steps(students, links, run, settings), MOST)
    ]


def _list_steps(students: Sequence[Row], links: Sequence[str], run: str, settings: Row) -> Iterator[tuple[str, str]]:
    """(why, command with {run}) in order of use."""
    known = {key for student in students for key in student["keys"]}
    trained = [student for student in students if student["stage"] and student["key"] != "base"]
    if not trained:
        yield "Train and evaluate the student", "run {run} --from sft"
        return
    last = trained[-1]
    overall = last["summary"]["overall"]
    valid, right = overall["schema_valid_rate"]["rate"], overall["semantic_pass_rate"]["rate"]
    if right is None:
        yield "Let a teacher judge the answers", "evaluate {run} --eval-student sft --judge-valid --overwrite"
        return
    if right >= GOOD:
        yield "It is good enough to try elsewhere: export it", "export {run}"
    again = f"evaluate {{run}} --eval-student {last['key']}"
    if overall["truncated"] > overall["total"] / 20:
        room = 2 * int(settings.get("max_new_tokens", 320))
        why = f"{overall['truncated']} answers were cut off: give them room"
        yield why, f"{again} --max-new-tokens {room} --overwrite"
    if valid < ENOUGH_VALID and f"{last['key']}-constrained" not in known:
        invalid = round((1 - valid) * overall["total"])
        why = f"{invalid} answers are not valid: hold them to their schemas and see what that costs"
        yield why, f"{again} --decoding constrained"
    if not links:
        yield "Align it on pairs of better and worse answers", "run {run} --from pairs"
    if right < GOOD and isinstance(settings.get("train_queries"), int):
        yield "Teach it more: twice the requests, as a run beside this one", _train_more(run, settings)
    yield "Ask it", 'ask {run} "..."'


def _train_more(run: str, settings: Row) -> str:
    schemas = f" --schemas {shlex.quote(shown_place(settings['schemas']))}" if settings.get("schemas") else ""
    return f"run --run {shlex.quote(f'{run}-2')}{schemas} --train-queries {2 * settings['train_queries']}"
