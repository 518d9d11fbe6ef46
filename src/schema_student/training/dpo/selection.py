"""Choose DPO's checkpoint by greedy answers to validation requests; step 0, the student that it began with, is one too.

A low DPO loss does not mean better answers. Where there are too few requests the held-out pairs decide, and where these
are too few as well, nothing does: the last checkpoint is taken, and that is said. Too few are those that could not show
a gain beyond chance whichever way they fell.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.jsonl import Row, read_jsonl
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import ResolvedSettings
from schema_student.core.statistics import sign_test
from schema_student.preference.held_out import is_held_out
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.schema.prompts import render_row_prompt
from schema_student.student.generation import generate
from schema_student.student.loading import Student
from schema_student.training.distributed import gather, own_share
from schema_student.training.metrics_log import METRICS

CHANCE = 0.1  # above it DPO's gain on validation requests may as well be none
ENOUGH = next(n for n in itertools.count(1) if sign_test(n, 0) <= CHANCE)  # 5: all of them fixed, none broken
ANSWERS = {"eval_semantic": "right answers", "eval_valid": "valid ones"}


def read_requests(dataset: Path, limit: int, rendering: str) -> list[Row]:
    """Read up to `limit` valid rows of d_03 that choose the checkpoint: {prompt, schema, target, accepted}.

    Half are of validation schemas, half those requests for pairs on training schemas that are held out of them: the
    tests have both kinds of schemas too, and DPO may help on one and harm on the other. Each evenly spread.
    """
    kinds: dict[str, list[Row]] = {"validation": [], "alignment": []}
    for row in read_rows(dataset, DatasetRow):
        if row.split not in kinds or not row.is_valid:
            continue
        prompt = render_row_prompt(row, rendering)
        if row.split == "validation" or is_held_out(prompt):
            answer = {"target": row.target, "accepted": row.accepted}
            kinds[row.split].append({"prompt": prompt, "schema": row.schema, **answer})
    return [row for rows in kinds.values() for row in rows[:: max(1, -(-len(rows) // (limit // 2)))]]


def grade_answers(student: Student, requests: Sequence[Row], settings: ResolvedSettings) -> list[tuple[bool, bool]]:
    """Grade the greedy answer to each request: whether it is valid, and whether it is right."""
    prompts = [request["prompt"] for request in requests]
    answers = generate(student, prompts, settings.generation.max_new_tokens, settings.decoding.eval_batch_size)
    found = []
    for request, (answer,) in zip(requests, answers, strict=True):
        known = compile_schema(request["schema"]), request["target"], request["accepted"]
        graded = grade(answer.text, *known, settings.verdict.strip_fences)
        found.append((graded.verdict.schema_valid, graded.right))
    return found


def validate_answers(student: Student, requests: Sequence[Row], settings: ResolvedSettings) -> dict[str, Any]:
    """Compute the shares of valid and of right answers; eval_right has a character a request, 1 where it was right."""
    verdicts = gather(grade_answers(student, own_share(list(requests)), settings))
    valid, right = zip(*verdicts, strict=True)
    shares = {"eval_valid": sum(valid) / len(valid), "eval_semantic": sum(right) / len(right)}
    return {**shares, "eval_right": "".join(str(int(answer)) for answer in right)}


def describe_few(requests: int, pairs: int) -> str:
    """Say that neither requests nor held-out pairs are enough to choose a checkpoint by; "" where one of them is."""
    if max(requests, pairs) >= ENOUGH:
        return ""
    if not requests and not pairs:
        return "there are no validation requests, nor held-out pairs"
    few = f"{_count(requests, 'validation request')} and {_count(pairs, 'held-out pair')} are too few to choose by"
    return f"{few} ({ENOUGH} of one kind are needed)"


def choose_checkpoint(run_dir: Path, saved: Sequence[int]) -> dict[str, Any]:
    """Choose of the saved steps the final one; step 0 is SFT itself, which "sft_was_better" names.

    By ENOUGH validation requests or more: see _choose_by_answers; else by as many held-out pairs: see _choose_by_pairs;
    else the last one is taken.
    """
    steps = {0, *saved}
    rows = [row for row in read_jsonl(run_dir / METRICS) if "eval_runtime" in row and row["step"] in steps]
    requests, pairs = (len(rows[0].get("eval_right", "")), rows[0].get("eval_pairs", 0)) if rows else (0, 0)
    if few := describe_few(requests, pairs):
        return _chosen(max(saved), f"the last one: {few}", by="nothing")
    if requests >= ENOUGH:
        return _choose_by_answers(rows)
    return _choose_by_pairs(rows, f", as {_count(requests, 'validation request')} are too few" if requests else "")


def _choose_by_answers(rows: Sequence[Row]) -> dict[str, Any]:
    """Choose the step with the most right answers, then valid ones, then held-out pairs in order.

    A tie in answers goes to SFT: at step 0 every margin is 0, so that pairs say nothing there. So does a gain that
    chance explains (a two-sided sign test over the requests that were fixed and broken, p above CHANCE): some tens of
    requests let the best of several checkpoints look better than it is.
    """
    start, by = rows[0], "validation requests"
    best = max(rows, key=_merit)
    trained = max((row for row in rows if row["step"]), key=_merit)
    scores = _describe_scores(trained, start)
    if best is start:
        return _chosen(0, f"no DPO checkpoint was better than SFT: {scores}", by)
    fixed, broken = _count_changes(best["eval_right"], start["eval_right"])
    p, why = sign_test(fixed, broken), f"{scores}; {fixed} fixed, {broken} broken"
    if p > CHANCE:
        return _chosen(0, f"no DPO checkpoint was better than SFT beyond chance: {why}, p = {p:.2f}", by)
    return _chosen(best["step"], why, by)


def _choose_by_pairs(rows: Sequence[Row], because: str) -> dict[str, Any]:
    """Choose the step with the most held-out pairs in order, then the least loss.

    SFT orders none, as every margin is 0 there; it is kept where the best step orders them wrongly beyond chance.
    """
    best, by = max((row for row in rows if row["step"]), key=_merit), "held-out pairs"
    pairs, share = best["eval_pairs"], best["eval_rewards/accuracies"]
    right = round(share * pairs)
    why = f"{share:.1%} of {_count(pairs, 'held-out pair')} in order{because}"
    if right < pairs - right and sign_test(right, pairs - right) <= CHANCE:
        return _chosen(0, f"no DPO checkpoint was better than SFT: {why}", by)
    return _chosen(best["step"], why, by)


def _chosen(step: int, why: str, by: str) -> dict[str, Any]:
    return {"checkpoint": f"checkpoint-{step}", "why": why, "chosen_by": by, "sft_was_better": step == 0}


def _merit(row: Row) -> tuple[float, ...]:
    """What checkpoints are ordered by, most important first."""
    answers, is_start = [row.get(name, 0.0) for name in ANSWERS], "eval_semantic" in row and row["step"] == 0
    return (*answers, is_start, row.get("eval_rewards/accuracies", 0.0), -row.get("eval_loss", -row["step"]))


def _describe_scores(trained: Row, start: Row) -> str:
    """The answers that decided: those of the best trained checkpoint, and of SFT."""
    shown = ANSWERS if trained["eval_semantic"] == start["eval_semantic"] else {"eval_semantic": "right answers"}
    return ", ".join(f"{name} {trained[key]:.1%} on validation (SFT {start[key]:.1%})" for key, name in shown.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _count_changes(now: str, then: str) -> tuple[int, int]:
    """How many requests are right now and were not, and the other way round."""
    now_then = list(zip(now, then, strict=True))
    return now_then.count(("1", "0")), now_then.count(("0", "1"))
