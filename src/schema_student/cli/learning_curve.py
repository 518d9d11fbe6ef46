"""Define the verb learning-curve: would more data help?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from schema_student.cli.training import SFT_STEP
from schema_student.core.artifacts import dry_run
from schema_student.core.flags import Own, parse_command
from schema_student.core.jsonl import read_object
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated, paths
from schema_student.core.settings import ResolvedSettings, Settings
from schema_student.training.local_workers import run_apart, train_in_workers


def read_percents(text: str) -> list[int]:
    """Read the shares of the rows, whole percents above 0, 100 at most and always with them."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 100 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not whole percents from 1 to 100 with commas between them")
    return sorted({*map(int, parts), 100})


LEARNING_CURVE: Own = {
    "--percents": {
        "metavar": "P[,P]",
        "type": read_percents,
        "default": [25, 50, 100],
        "help": "shares of the training rows, percent; 100, the run itself, is always one (default: 25,50,100)",
    },
}


def learning_curve(argv: Sequence[str]) -> None:
    """Train a run on nested shares of its rows and evaluate each -> reports/RUN/learning_curve.json.

    schema-student learning-curve
    schema-student learning-curve --run mine --percents 12,25,50

    Each share is drawn by the seed and holds the smaller ones; it is trained with the same settings, for as many
    passes, as a run of its own, RUN-25, and answers the same tests. The run itself is the 100%. What is done is passed
    over, and what was stopped goes on. `report` draws the curve.
    """
    settings, arguments = parse_command(argv, learning_curve.__doc__, "learning-curve", LEARNING_CURVE)

    from schema_student.evaluation.learning_curve import list_lines, list_parts, write_curve

    where, parts = paths(settings), list_parts(settings, arguments.percents)
    writes = [paths(part).run_dir for part in parts.values()]
    writes += [paths(part).eval_dir(evaluated(part)[0]) for part in parts.values()]
    if dry_run(settings, reads=[where.corpus, where.dataset], writes=writes):
        return
    for percent, part in parts.items():
        log.info(f"{percent}% of the rows: run {resolve_run(part)}")
        run_apart(_train, part)
        run_apart(_evaluate, part)
    curve = write_curve(settings, arguments.percents)
    for line in list_lines(read_object(curve)):
        log.info(line)
    log.info(f"learning curve: {curve}")


def _train(settings: Settings) -> None:
    train_in_workers(_train_sft, settings, paths(settings).run_dir, *SFT_STEP)


def _train_sft(settings: ResolvedSettings) -> None:
    from schema_student.training.sft import train_sft

    train_sft(settings)


def _evaluate(settings: Settings) -> None:
    from schema_student.evaluation.evaluate import evaluate_student

    evaluate_student(settings, *evaluated(settings))
