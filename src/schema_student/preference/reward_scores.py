"""Keep a reward model's scores on disk, so that no answer is scored twice: rollouts and comparisons share them.

One SQLite file that several processes may use; a score is found by the digest of model, prompt and answer. The model is
loaded when the first answer is new.

    with open_reward_scores(settings.scoring.reward_model, paths(settings).reward_scores) as reward:
        reward.score(prompts, answers)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.files import refuse_link
from schema_student.core.stamps import digest
from schema_student.student.choice import base_digest
from schema_student.student.reward_model import RewardModel, load_reward_model
from schema_student.student.tokens import Turns

DIGITS = 6  # that are kept of a score: what shares a batch moves those behind


class RewardScores:
    """Scores of one reward model, known ones from the file."""

    def __init__(self, name: str, file: sqlite3.Connection) -> None:
        self.name, self.file, self.digest = name, file, base_digest(name)
        file.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL) WITHOUT ROWID")

    @cached_property
    def model(self) -> RewardModel:
        """The model itself."""
        return load_reward_model(self.name)

    def score(self, prompts: Sequence[str | Turns], answers: Sequence[str]) -> list[float]:
        """Score each answer to its prompt, those that are not known by the model."""
        asked = list(zip(prompts, answers, strict=True))
        keys = [digest([self.digest, *pair]) for pair in asked]
        known = {key: self._find(key) for key in keys}
        new = {key: pair for key, pair in zip(keys, asked, strict=True) if known[key] is None}
        if new:
            scores = self.model.score([prompt for prompt, _ in new.values()], [answer for _, answer in new.values()])
            known |= {key: round(score, DIGITS) for key, score in zip(new, scores, strict=True)}
            with self.file:
                self.file.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", [(key, known[key]) for key in new])
        return [float(known[key] or 0.0) for key in keys]

    def _find(self, key: str) -> float | None:
        row = self.file.execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
        return float(row[0]) if row else None


@contextmanager
def open_reward_scores(name: str, path: Path) -> Iterator[RewardScores]:
    """Open the scores of a reward model; raises UserError where the file cannot be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("", "-journal"):
        refuse_link(path.with_name(path.name + ending))
    try:
        with closing(sqlite3.connect(path, timeout=30)) as file:
            yield RewardScores(name, file)
    except sqlite3.Error as error:
        raise UserError(f"{path}: the scores of reward models cannot be used ({error}); move the file away") from None
