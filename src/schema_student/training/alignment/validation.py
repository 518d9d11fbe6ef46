"""Validate an alignment by reading right answers: the likelihood of each, and its paired change since the start.

The likelihood of the whole right answer, P(truth), is the expected share of samples at temperature 1 that are right. As
a paired measure it is ten times as sharp as greedy verdicts, and a hundred times as cheap. It says nothing of what is
written instead of right answers: so the requests that greedy decoding is not known to answer right are answered as
well, and the share of valid answers is compared with the start's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from schema_student.core.jsonl import Row
from schema_student.core.settings import ResolvedSettings
from schema_student.core.statistics import paired_change, sign_test
from schema_student.student.reading import Reading, read_answers
from schema_student.training.batches import Batches
from schema_student.training.distributed import gather, own_share
from schema_student.training.validation_answers import grade_answers

READ_AT_ONCE = 32  # requests in a batch
CHANCE = 0.1  # above it a change of a few requests may as well be none
FEWEST = next(n for n in itertools.count(1) if sign_test(n, 0) <= CHANCE)  # 5: all of them the one way, none the other


class Standing(NamedTuple):
    """How a student stands to a request: P(truth), whether greedy decoding writes it, whether its answer is valid."""

    p_truth: float
    greedy: bool
    valid: bool


class Validation:
    """Readings of validation requests, and whether answers to them are valid; it remembers those of the start.

    Either may fall by `align_stop` standard errors.
    """

    def __init__(self, batches: Batches, rows: Sequence[Row], settings: ResolvedSettings) -> None:
        self.batches, self.rows, self.settings = batches, sorted(rows, key=lambda row: str(row["key"])), settings
        self.start: list[Standing] = []
        self.fallen = ""

    def read(self) -> dict[str, Any]:
        """Compute the metrics of validation; {} where there is no request.

        eval_p_truth and eval_valid with their changes since the start and the standard errors of these, eval_greedy,
        all of them shares of requests, and how many requests greedy decoding has fixed and broken.
        """
        if not self.rows:
            return {}
        now = self._stand()
        self.start = self.start or now
        p_truth, valid = (self._compare(now, name) for name in ("p_truth", "valid"))
        self.fallen = self._say_fall("P(truth) of", p_truth) or self._say_fall("the share of valid answers to", valid)
        both = list(zip((each.greedy for each in now), (each.greedy for each in self.start), strict=True))
        return {
            "eval_requests": len(now),
            **{f"eval_p_truth{what}": number for what, number in p_truth.items()},
            **{f"eval_valid{what}": number for what, number in valid.items()},
            "eval_greedy": sum(each.greedy for each in now) / len(now),
            "eval_fixed": both.count((True, False)),
            "eval_broken": both.count((False, True)),
        }

    def _stand(self) -> list[Standing]:
        """Read the right answers; answer where greedy decoding is not known to write one of them."""
        readings, limit = read_rows_of(self.rows, self.batches), self.settings.generation.max_new_tokens
        left = [i for i, reading in enumerate(readings) if not reading.greedy]
        graded = grade_answers(self.batches.student, [self.rows[i]["request"] for i in left], limit)
        valid = {i: each for i, (each, _) in zip(left, graded, strict=True)}
        return [Standing(each.p_truth, each.greedy, valid.get(i, True)) for i, each in enumerate(readings)]

    def _compare(self, now: Sequence[Standing], name: str) -> dict[str, float]:
        """The mean, its paired change since the start, and the standard error of that."""
        then = [float(getattr(each, name)) for each in self.start]
        values = [float(getattr(each, name)) for each in now]
        change, error = paired_change(values, then)
        return {"": sum(values) / len(values), "_change": change, "_error": error}

    def _say_fall(self, what: str, found: dict[str, float]) -> str:
        """Say that something fell by more than `align_stop` standard errors; "" where it did not."""
        change, error = found["_change"], found["_error"]
        fallen = len(self.start) >= FEWEST and change < -self.settings.validation.align_stop * error
        return f"{what} validation requests fell by {-change:.4f} +- {error:.4f}" if fallen else ""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"start": self.start, "fallen": self.fallen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.start, self.fallen = [Standing(*each) for each in state["start"]], state["fallen"]


def read_rows_of(rows: Sequence[Row], batches: Batches) -> list[Reading]:
    """Read the right answers of rows, each process its share of them."""
    own = own_share(list(range(len(rows))))
    how = READ_AT_ONCE, batches.batch_tokens, batches.trees, batches.autocast
    readings = read_answers(batches.student, [rows[i]["answers"] for i in own], *how)
    read = [(i, each.p_truth, each.least_logp, each.best) for i, each in zip(own, readings, strict=True)]
    return [Reading(*each[1:]) for each in sorted(gather(read))]
