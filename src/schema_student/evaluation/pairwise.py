"""Have two adapters' answers compared, prompt by prompt -> win, tie and loss of the first, with intervals.

Both answer the test prompts (evaluation, which is done already where it was done before); then the teacher compares the
two answers to each prompt twice, with their places swapped. An answer wins where it is better in both places; where the
two verdicts disagree, the teacher followed the place (position bias) and not the answer, and it is a tie. Answers that
are the same text are a tie without a question. With --judge reward a reward model (--reward-model) compares by its
scores instead: scores that differ by no more than --reward-tie are a tie, and an answer that was cut off loses to one
that was not. Its scores are kept, so that no answer is scored twice. Writes duels/A-vs-B/ (A-vs-B-by-reward/):
duel_results.jsonl, duel_summary.json.

    judge_adapters(settings)   # settings.pairwise.adapters, e.g. [".../student-dpo/checkpoint-final", "base"]
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import Artifact, open_artifact
from schema_student.core.errors import UserError
from schema_student.core.files import refuse_link
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated, paths
from schema_student.core.places import shown_place
from schema_student.core.records import DatasetRow, EvaluationRow, prompt_key, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.core.statistics import sign_test, wilson
from schema_student.evaluation.evaluate import evaluate_student, read_requests
from schema_student.preference.reward_scores import open_reward_scores
from schema_student.preference.scoring import question
from schema_student.student.choice import base_digest, choose_student, revision_facts
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherFailure

DECIDING = ()  # groups of settings: none but what evaluation reads; its rows are inputs
CHUNK = 32  # prompts whose verdicts are written at once
OUTCOMES = ("win", "tie", "loss")
AnswerPair = tuple[EvaluationRow, EvaluationRow]
POINTS = {"first": 1, "tie": 0, "second": -1}


def name_students(settings: AnySettings) -> tuple[AnySettings, list[tuple[str, str]]]:
    """Name the two students (name, adapter), adapter "" for the base; and set the run whose prompts they answer.

    Raises UserError where --adapters does not name two different students.
    """
    if len(settings.pairwise.adapters) != 2:
        raise UserError("give --adapters two adapter folders, or base and one, with a comma between them")
    settings = settings.changed(decoding="free", eval_data="")  # of an evaluation alone, which a shared file may hold
    known = [adapter for adapter in settings.pairwise.adapters if adapter != "base"]
    run = settings.run.run or resolve_run(settings.changed(adapter=(known or [""])[0]))
    students = []
    for adapter in settings.pairwise.adapters:
        folder = "" if adapter == "base" else adapter
        own = settings.changed(run="" if folder else run, adapter=folder, eval_student="auto" if folder else "base")
        students.append((evaluated(own)[0], folder))
    if students[0][0] == students[1][0]:
        raise UserError(f"--adapters names {students[0][0]} twice; give two different folders")
    return settings.changed(run=run, adapter=""), students


def pairwise_dir(settings: AnySettings) -> Path:
    """Locate the folder of the comparison of two students."""
    (first, _), (second, _) = name_students(settings)[1]
    ending = "-by-reward" if settings.pairwise.judge == "reward" else ""
    folder = paths(settings).pairwise / f"{first}-vs-{second}{ending}"
    refuse_link(folder)
    return folder


def judge_adapters(settings: AnySettings) -> Path:
    """Evaluate both students where that is not done, and let the judge compare; returns duel_summary.json."""
    folder = pairwise_dir(settings)
    settings, students = name_students(settings)
    names, files = [name for name, _ in students], []
    for name, adapter in students:
        files.append(evaluate_student(settings, name, adapter).with_name("evaluation_results.jsonl"))
    judged_by, facts = _name_judge(settings)
    results, summary = folder / "duel_results.jsonl", folder / "duel_summary.json"
    stamp = make_stamp(
        settings,
        *DECIDING,
        **facts,
        students=names,
        base_digest=base_digest(choose_student(settings).base),
    )
    with open_artifact(results, stamp, files, settings.run.overwrite) as artifact:
        if not artifact.done:
            first, second = (read_rows(file, EvaluationRow) for file in files)
            _compare_all(artifact, pair_answers(first, second), settings)
            artifact.finish()
    found = {"first": names[0], "second": names[1], "judged_by": judged_by}
    found |= summarize(read_jsonl(results))
    write_json(summary, found)
    print_summary(found)
    return summary


def _name_judge(settings: AnySettings) -> tuple[str, Row]:
    """The judge's name, and what a stamp says of it; raises UserError where no reward model is named."""
    if settings.pairwise.judge == "teacher":
        teacher = resolve_teacher(settings)
        return teacher.display_name, {"teacher": teacher.stamp}
    name = settings.scoring.reward_model
    if not name:
        raise UserError("--judge reward needs --reward-model, a folder or hub id (train-reward makes one)")
    facts = {"reward": base_digest(name), "reward_tie": settings.pairwise.reward_tie, **revision_facts(name)}
    return f"the reward model {shown_place(name)}", facts


Compare = Callable[[Sequence[AnswerPair]], list[Row]]


def _compare_all(artifact: Artifact, pairs: Sequence[AnswerPair], settings: AnySettings) -> None:
    """Write a row for each pair of answers after those that are there."""
    with _open_judge(settings) as compared:
        for start in range(len(artifact.rows), len(pairs), CHUNK):
            some = pairs[start : start + CHUNK]
            for row in compared(some):
                artifact.append(row)
            log.info(f"  compared {start + len(some)}/{len(pairs)} prompts")


@contextmanager
def _open_judge(settings: AnySettings) -> Iterator[Compare]:
    """Open what compares some pairs of answers."""
    if settings.pairwise.judge == "reward":
        tie = settings.pairwise.reward_tie
        with open_reward_scores(settings.scoring.reward_model, paths(settings).reward_scores) as reward:
            yield lambda some: compare_by_scores(some, reward.score, tie)
        return
    rows = read_requests(paths(settings).dataset, settings.eval.eval_splits)
    requests = {prompt_key(row): row for row in rows}  # with the schema, which evaluation_results does not repeat
    with open_teacher(settings, resolve_teacher(settings)) as asked:
        yield lambda some: compare(some, asked.ask_many, requests)


def pair_answers(first: Sequence[EvaluationRow], second: Sequence[EvaluationRow]) -> list[AnswerPair]:
    """Pair the two students' answers to each prompt; raises UserError where they share none."""
    others = {prompt_key(row): row for row in second}
    found = [(row, others[prompt_key(row)]) for row in first if prompt_key(row) in others]
    if not found:
        raise UserError("the two students answered no prompt in common; evaluate both on the same data set")
    return found


def compare(pairs: Sequence[AnswerPair], ask_many: Any, requests: dict[Any, DatasetRow]) -> list[Row]:
    """Compare each pair: a row with both answers, both verdicts, and the outcome for the first student."""
    asks, rows = [], []
    for ours, theirs in pairs:
        texts = ours.raw_output, theirs.raw_output
        rows.append(_describe_pair(ours, theirs))
        if texts[0] != texts[1]:
            known = _known(requests[prompt_key(ours)], ours)
            asks += [("compare", question(known, *places)) for places in (texts, texts[::-1])]
    verdicts = iter(ask_many(asks))
    return [{**row, **(_tie() if row["same"] else decide(next(verdicts), next(verdicts)))} for row in rows]


def compare_by_scores(
    pairs: Sequence[AnswerPair], score: Callable[[list[Any], list[str]], list[float]], tie: float
) -> list[Row]:
    """Compare each pair by the scores of a reward model: a row as of `compare`, with both scores."""
    answers = [answer for pair in pairs for answer in pair]
    scores = score([answer.prompt_text for answer in answers], [answer.raw_output for answer in answers])
    whole = [None if answer.truncated else found for answer, found in zip(answers, scores, strict=True)]
    rows = []
    for (ours, theirs), first, second in zip(pairs, whole[::2], whole[1::2], strict=True):
        row = _describe_pair(ours, theirs)
        outcome = "tie" if row["same"] else decide_by_scores(first, second, tie)
        rows.append({**row, **_tie(), "outcome": outcome, "scores": [first, second]})
    return rows


def decide_by_scores(first: float | None, second: float | None, tie: float) -> str:
    """Decide the outcome for the first of two scores; None is that of an answer that was cut off.

    >>> decide_by_scores(1.0, 0.5, tie=0.1), decide_by_scores(1.0, 0.95, tie=0.1), decide_by_scores(None, 0.5, tie=0.1)
    ('win', 'tie', 'loss')
    """
    if first is None or second is None:
        return "tie" if first is second else "loss" if first is None else "win"
    return "tie" if abs(first - second) <= tie else "win" if first > second else "loss"


def _describe_pair(ours: EvaluationRow, theirs: EvaluationRow) -> Row:
    told = {key: getattr(ours, key) for key in ("split", "schema_id", "query", "current_date", "kind", "language")}
    told |= {"valid": [ours.schema_valid, theirs.schema_valid], "right": [ours.semantic_pass, theirs.semantic_pass]}
    texts = ours.raw_output, theirs.raw_output
    return {**told, "first": texts[0], "second": texts[1], "same": texts[0] == texts[1]}


def _known(request: DatasetRow, row: EvaluationRow) -> Row:
    told = {key: getattr(request, key) for key in ("query", "current_date", "accepted")}
    return {**told, "schema": request.schema, "target": row.target}


def _tie() -> Row:
    """The verdict on answers of the same text, which the teacher is not asked about."""
    return {"verdicts": [], "reasons": [], "outcome": "tie", "swayed": False, "error": None}


def decide(straight: Any, swapped: Any) -> Row:
    """Decide the outcome of two verdicts, the second with the places swapped; null where the teacher failed to judge.

    >>> decide({"better": "first", "reason": ""}, {"better": "second", "reason": ""})["outcome"]
    'win'
    """
    failed = [verdict for verdict in (straight, swapped) if isinstance(verdict, TeacherFailure)]
    if failed:
        return {**_tie(), "outcome": None, "error": failed[0].reason}
    points = POINTS[straight["better"]], -POINTS[swapped["better"]]
    agreed = points[0] if points[0] == points[1] else 0
    return {
        "verdicts": [straight["better"], swapped["better"]],
        "reasons": [straight["reason"], swapped["reason"]],
        "outcome": {1: "win", 0: "tie", -1: "loss"}[agreed],
        "swayed": points[0] != points[1],  # position bias: the place decided
        "error": None,
    }


def summarize(rows: Sequence[Row]) -> Row:
    """Compute the shares of win, tie and loss with Wilson intervals, over all and by split; p is the sign test's.

    Beside them by kind of request and by length; the judge's preference for a place; outcomes against validity.
    """
    by_split = _shares_by(rows, [row["split"] for row in rows])
    kinds = _shares_by(rows, [row.get("kind") for row in rows])
    longer = [max(len(row.get("first", "")), len(row.get("second", ""))) for row in rows]
    lengths = _shares_by(*_in_order(rows, longer))
    found = {"overall": shares(rows), "splits": by_split, "kinds": kinds, "lengths": lengths}
    return {**found, "places": count_places(rows), "validity": tabulate_validity(rows)}


def _shares_by(rows: Sequence[Row], names: Sequence[str | None]) -> dict[str, Row]:
    """The shares of the rows of each name."""
    grouped: dict[str, list[Row]] = {}
    for name, row in zip(names, rows, strict=True):
        if name:
            grouped.setdefault(name, []).append(row)
    return {name: shares(some) for name, some in grouped.items()}


def _in_order(rows: Sequence[Row], lengths: Sequence[int]) -> tuple[list[Row], list[str]]:
    """The rows by their lengths, the shortest first, and the names of these."""
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    return [rows[i] for i in order], name_lengths([lengths[i] for i in order])


def name_lengths(lengths: Sequence[int]) -> list[str]:
    """Name for each of some lengths the quarter of all that it lies in.

    >>> name_lengths([10, 20, 30, 40])
    ['0 to 10 characters', '11 to 20 characters', '21 to 30 characters', '31 to 40 characters']
    """
    ordered = sorted(lengths)
    ends = sorted({ordered[max(0, len(ordered) * k // 4 - 1)] for k in (1, 2, 3, 4)}) if ordered else []
    begins = [0, *(end + 1 for end in ends)]
    places = [bisect_left(ends, length) for length in lengths]
    return [f"{begins[place]} to {ends[place]} characters" for place in places]


def count_places(rows: Sequence[Row]) -> Row:
    """Count how often a judge that saw both orders preferred a place; p: would a judge without a preference do so?

    `first` and `second` are prompts whose two verdicts together favor that place, `answer` those decided by the answer.
    """
    points = [sum(POINTS[verdict] for verdict in row["verdicts"]) for row in rows if row.get("verdicts")]
    first, second = sum(point > 0 for point in points), sum(point < 0 for point in points)
    found = {"asked": len(points), "first": first, "second": second, "answer": len(points) - first - second}
    return {**found, "p": sign_test(first, second)}


def tabulate_validity(rows: Sequence[Row]) -> list[Row]:
    """Tabulate outcomes by which of the two answers is valid: {first, second, win, tie, loss, unknown}."""
    known = [row for row in rows if isinstance(row.get("valid"), list) and len(row["valid"]) == 2]
    found = []
    for first, second in ((True, True), (True, False), (False, True), (False, False)):
        some = [row["outcome"] for row in known if row["valid"] == [first, second]]
        counts = {outcome: some.count(outcome) for outcome in OUTCOMES}
        found.append({"first": first, "second": second, **counts, "unknown": some.count(None)})
    return found


def shares(rows: Sequence[Row]) -> Row:
    """Compute the shares of win, tie and loss of some rows, and what is odd among them."""
    known = [row["outcome"] for row in rows if row["outcome"]]
    found = {outcome: wilson(known.count(outcome), len(known)) for outcome in OUTCOMES}
    counts = {
        "prompts": len(rows),
        "same": sum(row["same"] for row in rows),
        "swayed": sum(row["swayed"] for row in rows),
        "errors": sum(row["outcome"] is None for row in rows),
    }
    return {**counts, **found, "p": sign_test(known.count("win"), known.count("loss"))}


def print_summary(summary: Row) -> None:
    """Log the shares, split by split."""
    log.info(f"{summary['first']} against {summary['second']}, judged by {summary['judged_by']}")
    for split, found in {**summary["splits"], "overall": summary["overall"]}.items():
        cells = [
            f"{name} {found[name]['rate']:.1%} ({found[name]['low']:.1%} to {found[name]['high']:.1%})"
            for name in OUTCOMES
            if found[name]["rate"] is not None
        ]
        odd = ", ".join(f"{found[name]} {name}" for name in ("same", "swayed", "errors") if found[name])
        log.info(
            f"{split:<14}{found['prompts']:>6}  {'  '.join(cells)}  p {found['p']:.3f}" + (f"  ({odd})" if odd else "")
        )
