"""Validate an alignment by reading right answers: the likelihood of each, and its paired change since the start.

The likelihood of the whole right answer, P(truth), is the expected share of samples at temperature 1 that are right. As
a paired measure it is ten times as sharp as greedy verdicts, and a hundred times as cheap.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.statistics import paired_change, sign_test
from schema_student.student.reading import Reading, read_answers
from schema_student.training.batches import Batches
from schema_student.training.distributed import gather, own_share

READ_AT_ONCE = 32  # requests in a batch
CHANCE = 0.1  # above it a change of a few requests may as well be none
FEWEST = next(n for n in itertools.count(1) if sign_test(n, 0) <= CHANCE)  # 5: all of them the one way, none the other


class Validation:
    """Readings of validation requests; it remembers those of the start, and of the last time."""

    def __init__(self, batches: Batches, rows: Sequence[Row], stop: float) -> None:
        self.batches, self.rows, self.stop = batches, sorted(rows, key=lambda row: str(row["key"])), stop
        self.start: list[tuple[float, bool]] = []  # P(truth) of each request, and whether greedy decoding writes it
        self.fallen = ""

    def read(self) -> dict[str, Any]:
        """Compute the metrics of validation; {} where there is no request.

        eval_p_truth and eval_greedy (share of requests), their change since the start with its standard error, and how
        many requests greedy decoding has fixed and broken.
        """
        if not self.rows:
            return {}
        now = [(reading.p_truth, reading.greedy) for reading in read_rows_of(self.rows, self.batches)]
        self.start = self.start or now
        change, error = paired_change([p for p, _ in now], [p for p, _ in self.start])
        both = list(zip((greedy for _, greedy in now), (greedy for _, greedy in self.start), strict=True))
        fallen = len(now) >= FEWEST and change < -self.stop * error
        self.fallen = f"P(truth) of validation requests fell by {-change:.4f} +- {error:.4f}" if fallen else ""
        return {
            "eval_requests": len(now),
            "eval_p_truth": sum(p for p, _ in now) / len(now),
            "eval_p_truth_change": change,
            "eval_p_truth_error": error,
            "eval_greedy": sum(greedy for _, greedy in now) / len(now),
            "eval_fixed": both.count((True, False)),
            "eval_broken": both.count((False, True)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"start": self.start, "fallen": self.fallen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.start, self.fallen = [(p, greedy) for p, greedy in state["start"]], state["fallen"]


def read_rows_of(rows: Sequence[Row], batches: Batches) -> list[Reading]:
    """Read the right answers of rows, each process its share of them."""
    own = own_share(list(range(len(rows))))
    how = READ_AT_ONCE, batches.batch_tokens, batches.trees, batches.autocast
    readings = read_answers(batches.student, [rows[i]["answers"] for i in own], *how)
    read = [(i, each.p_truth, each.least_logp, each.best) for i, each in zip(own, readings, strict=True)]
    return [Reading(*each[1:]) for each in sorted(gather(read))]
