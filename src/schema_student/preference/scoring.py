"""Score the answers of rollouts: by the schema's rank, by a reward model, or by the teacher's comparisons.

Greater is better; an answer that was cut off, or that the teacher failed to judge, has no score (None).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.paths import paths
from schema_student.core.settings import ResolvedSettings
from schema_student.core.stamps import digest
from schema_student.preference.reward_scores import RewardScores, open_reward_scores
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherFailure


def distinct_answers(row: Row) -> Row:
    """Keep each answer of a row once, with how often it was drawn."""
    drawn = Counter((answer["text"], answer["finished"]) for answer in row["answers"])
    answers = [{"text": text, "finished": finished, "count": n, "score": None} for (text, finished), n in drawn.items()]
    return {**row, "answers": answers, "ties": [], "errors": []}


@contextmanager
def open_scorer(settings: ResolvedSettings) -> Iterator[Callable[[list[Row]], None]]:
    """Open what gives the answers of some rows their scores."""
    if settings.scoring.rollout_scorer == "schema":
        yield lambda rows: score_by_schema(rows, settings)
    elif settings.scoring.rollout_scorer == "reward":
        with open_reward_scores(settings.scoring.reward_model, paths(settings).reward_scores) as reward:
            yield lambda rows: score_by_reward(rows, reward)
    else:
        with open_teacher(settings) as teacher:
            yield lambda rows: score_by_teacher(rows, teacher.ask_many, settings)


def score_by_schema(rows: Sequence[Row], settings: ResolvedSettings) -> None:
    """Score = rank: 5 where the answer is valid and what was asked, as far as that is known, 4 where it is valid."""
    for row, answer in _finished(rows):
        compiled = compile_schema(row["schema"], row["schema_id"])
        strip = settings.verdict.strip_fences
        graded = grade(answer["text"], compiled, row.get("target"), row.get("accepted"), strip)
        answer |= {"score": graded.rank, "rank": graded.rank, "why": graded.why}


def score_by_reward(rows: Sequence[Row], reward: RewardScores) -> None:
    """Score = the reward model's logit for prompt and answer."""
    answers = list(_finished(rows))
    scores = reward.score([row["prompt"] for row, _ in answers], [answer["text"] for _, answer in answers])
    for (_, answer), score in zip(answers, scores, strict=True):
        answer["score"] = score


def score_by_teacher(
    rows: Sequence[Row], ask_many: Callable[[list[Any]], list[Any]], settings: ResolvedSettings
) -> None:
    """Have every two answers of a prompt compared once; score = the share of comparisons won, a tie counting half."""
    pairs = []
    for row in rows:
        finished = [i for i, answer in enumerate(row["answers"]) if answer["finished"]]
        for i, j in combinations(finished, 2):
            texts = [row["answers"][k]["text"] for k in (i, j)]
            swapped = bool(draw_seed(settings, row["prompt"], *texts) % 2)
            pairs.append((row, *((j, i) if swapped else (i, j))))
    asks = [("compare", question(row, *(row["answers"][k]["text"] for k in (i, j)))) for row, i, j in pairs]
    points: dict[tuple[int, int], list[float]] = {}
    for (row, i, j), verdict in zip(pairs, ask_many(asks), strict=True):
        if isinstance(verdict, TeacherFailure):
            row["errors"].append(verdict.reason)
            continue
        won = {"first": 1.0, "tie": 0.5, "second": 0.0}[verdict["better"]]
        points.setdefault((id(row), i), []).append(won)
        points.setdefault((id(row), j), []).append(1 - won)
        if won == 0.5:
            row["ties"].append(sorted((i, j)))
    for row in rows:
        for i, answer in enumerate(row["answers"]):
            won_by = points.get((id(row), i))
            answer["score"] = round(sum(won_by) / len(won_by), 4) if won_by else None


def question(row: Row, first: str, second: str) -> Row:
    """Make the question which of two answers is better, with the schema and the target where they are known."""
    known = ("schema", "query", "current_date", "accepted")
    told = {key: row[key] for key in known if row.get(key) is not None} | (
        {"reference": row["target"]} if row.get("target") is not None else {}
    )
    return {**(told if "query" in told else {**told, "prompt": row["prompt"]}), "first": first, "second": second}


def _finished(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Each answer that can have a score, after its row."""
    return ((row, answer) for row in rows for answer in row["answers"] if answer["finished"])


def as_messages(prompt: Any) -> list[dict[str, str]]:
    """Write a prompt as messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def draw_seed(settings: ResolvedSettings, *what: Any) -> int:
    """Draw a seed that the run's seed and a value decide."""
    return int(digest([settings.run.seed, *what])[:8], 16) % 2**31
