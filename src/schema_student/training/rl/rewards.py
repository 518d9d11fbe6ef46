"""Reward an answer by its grade: the schema's verdict, and what of the request became of it where that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schema_student.schema.accepted import Accepted
from schema_student.schema.compiling import CompiledSchema
from schema_student.schema.grading import Grade, grade


@dataclass(frozen=True)
class RewardScale:
    """Rewards of valid answers that are not as asked: one for being valid, a further one for the share of right parts.

    An answer as asked has 1, one that is not valid or was cut off 0. Where no right answer is known, a valid one has 1.
    """

    valid: float
    parts: float


@dataclass(frozen=True)
class Task:
    """What decides the reward of an answer to a prompt; no right answer is known where target and accepted are None."""

    schema: CompiledSchema
    target: Any = None
    accepted: Accepted | None = None

    @property
    def is_known(self) -> bool:
        """Return whether a right answer is known."""
        return self.target is not None or self.accepted is not None


@dataclass(frozen=True)
class Reward:
    """What an answer is worth (0 to 1), and why: whether it is valid, and as asked.

    `best` where nothing better is known: as asked, or valid where no right answer is known.
    """

    value: float
    valid: bool
    right: bool
    best: bool


def reward_text(text: str, finished: bool, task: Task, scale: RewardScale, strip_fences: bool = False) -> Reward:
    """Reward a model's raw output.

    >>> from schema_student.schema.compiling import compile_schema
    >>> task = Task(compile_schema({"properties": {"n": {"type": "integer"}}}), {"n": 2, "unit": "km"})
    >>> texts = ['{"n": 2, "unit": "km"}', '{"n": 2, "unit": "m"}', '{"n": "2", "unit": "km"}']
    >>> [reward_text(text, True, task, RewardScale(valid=0.2, parts=0.4)).value for text in texts]
    [1.0, 0.4, 0.0]
    """
    graded = grade(text, task.schema, task.target, task.accepted, strip_fences)
    valid = graded.verdict.schema_valid and finished
    right = graded.right and finished
    best = right if task.is_known else valid
    return Reward(_value(graded, task, scale) if valid else 0.0, valid, right, best)


def _value(graded: Grade, task: Task, scale: RewardScale) -> float:
    """The reward of a valid answer."""
    if graded.right or not task.is_known:
        return 1.0
    share = sum(part.right for part in graded.parts) / len(graded.parts) if graded.parts else 0.0
    return scale.valid + scale.parts * share
