"""Hold an evaluation against what it must reach, for a person's own CI: a rate, and another evaluation.

    evaluate --run new --eval-student sft --fail-under 80 --not-worse-than old

The other evaluation answered the same prompts. This one is worse where fewer of its answers are right (exact McNemar
test) or right answers are less likely to it (P(truth), a z test of paired differences): p below 0.05, two-sided, by
Holm's correction for the two tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.links import split_link
from schema_student.core.markdown import shorten
from schema_student.core.names import resolve_run
from schema_student.core.paths import evaluated, final_adapter, paths
from schema_student.core.records import EvaluationRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.statistics import holm, normal_test, paired_change, sign_test, wilson, z_of

RESULTS = "evaluation_results.jsonl"
SIGNIFICANT = 0.05
COUNTED = {"as_asked": "as asked", "valid": "valid"}
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Gate:
    """Whether an evaluation passes a gate, and the numbers in one line."""

    passed: bool
    said: str


def check_gates(settings: AnySettings, name: str) -> list[Gate]:
    """Check an evaluation against --fail-under and --not-worse-than; [] where neither is given.

    Raises UserError where the other evaluation is not there, or is of other prompts.
    """
    gate, folder = settings.gate, paths(settings).evals
    if not (gate.fail_under or gate.not_worse_than):
        return []
    rows = read_rows(folder / name / RESULTS, EvaluationRow)
    found = [check_rate(name, rows, gate.fail_under, gate.fail_on)] if gate.fail_under else []
    if gate.not_worse_than:
        other = find_reference(settings, name)
        before = read_rows(folder / other / RESULTS, EvaluationRow)
        found.append(check_against(name, rows, other, before, gate.fail_on))
    return found


def check_rate(name: str, rows: Sequence[EvaluationRow], least: float, counted: str) -> Gate:
    """Check the share of right answers, of those whose verdict is known, against the least one, in percent."""
    known = [right for row in rows if (right := _is_right(row, counted)) is not None]
    share = wilson(sum(known), len(known))
    if not known:
        return Gate(False, f"gate FAILED: {name}: of no answer is it known whether it is {COUNTED[counted]}")
    passed = 100 * sum(known) >= least * len(known)
    word = "passed" if passed else "FAILED"
    bounds = f"95% interval {share['low']:.1%} to {share['high']:.1%}"
    held = f"{'at least' if passed else 'below'} {least:g}%"
    said = f"{share['rate']:.1%} {COUNTED[counted]} ({sum(known)} of {len(known)}, {bounds})"
    return Gate(passed, f"gate {word}: {name}: {said}, {held}")


def check_against(
    name: str, rows: Sequence[EvaluationRow], other: str, before: Sequence[EvaluationRow], counted: str
) -> Gate:
    """Check that an evaluation is not worse than another one of the same prompts, beyond chance."""
    pairs = pair_rows(name, rows, other, before)
    verdicts = [(_is_right(then, counted), _is_right(now, counted)) for then, now in pairs]
    known = [(then, now) for then, now in verdicts if then is not None and now is not None]
    if not known:
        return Gate(False, f"gate FAILED: {name} against {other}: no prompt has a verdict of both")
    fixed, broken = (sum(pair == change for pair in known) for change in ((False, True), (True, False)))
    p = sign_test(fixed, broken)
    was, now = (sum(each) / len(known) for each in zip(*known, strict=True))
    said = (
        f"{now:.1%} {COUNTED[counted]} against {was:.1%}, fixed {fixed}, broken {broken} (exact McNemar test p {p:.2g})"
    )
    tests = [(p, broken > fixed)]
    if counted == "as_asked" and (reading := _compare_p_truth(pairs)):
        tests.append((normal_test(reading.z), reading.z < 0))
        said += f"; P(truth) {reading.now:.1%} against {reading.then:.1%} (z {reading.z:+.1f})"
    corrected = holm([chance for chance, _ in tests])
    worse = any(each and chance < SIGNIFICANT for chance, (_, each) in zip(corrected, tests, strict=True))
    held = "FAILED: {} is worse than {}" if worse else "passed: {} is not worse than {} beyond chance"
    return Gate(not worse, f"gate {held.format(name, other)} on the same {len(known)} prompts: {said}")


def _is_right(row: EvaluationRow, counted: str) -> bool | None:
    return row.schema_valid if counted == "valid" else row.semantic_pass


@dataclass(frozen=True)
class PTruth:
    """The mean likelihood of right answers to two students, and the z test of their difference."""

    then: float
    now: float
    z: float


def _compare_p_truth(pairs: Sequence[tuple[EvaluationRow, EvaluationRow]]) -> PTruth | None:
    """The readings of both; None where one of them was not read, as of a served student."""
    known = [(then.p_truth, now.p_truth) for then, now in pairs if then.p_truth is not None and now.p_truth is not None]
    if len(known) < 2:
        return None
    before, after = ([pair[side] for pair in known] for side in (0, 1))
    z = z_of(*paired_change(after, before))
    return PTruth(math.fsum(before) / len(known), math.fsum(after) / len(known), z)


def pair_rows(
    name: str, rows: Sequence[EvaluationRow], other: str, before: Sequence[EvaluationRow]
) -> list[tuple[EvaluationRow, EvaluationRow]]:
    """Pair the rows of two evaluations of the same requests, (of the other, of this one).

    Raises UserError that names a request which only one of them answered, or whose right answer is another one there.
    """
    ours, theirs = ({_key(row): row for row in some} for some in (rows, before))
    for who, some, others in ((name, ours, theirs), (other, theirs, ours)):
        if alone := [key for key in some if key not in others]:
            raise UserError(
                f"--not-worse-than: {name} and {other} are not of the same prompts: {len(alone)} of {len(some)} of "
                f"{who} are its own, such as {shorten(alone[0][2], 80)!r} ({alone[0][0]}, {alone[0][1]}); evaluate "
                "both with the same --eval-splits and --eval-limit, on the same --data-dir or --eval-data"
            )
    for key, row in ours.items():
        if row.target_canonical != theirs[key].target_canonical:
            raise UserError(
                f"--not-worse-than: the right answer to {shorten(key[2], 80)!r} is another one in {other}: evaluate "
                "both on the same requests"
            )
    return [(theirs[key], row) for key, row in ours.items()]


def _key(row: EvaluationRow) -> Key:
    return row.schema_id, row.current_date, row.query


def find_reference(settings: AnySettings, name: str) -> str:
    """Find the evaluation that --not-worse-than names: that itself, the run's of the same student, or of its last one.

    Raises UserError where none of them is finished.
    """
    given, evals = settings.gate.not_worse_than, paths(settings).evals
    candidates = [given, *_evaluations_of_run(settings, name)]
    found = next((each for each in candidates if _is_finished(evals / each / RESULTS)), None)
    if found is None:
        wanted = " or ".join(dict.fromkeys(candidates))
        raise UserError(f"--not-worse-than {given}: {evals} has no finished evaluation {wanted}; evaluate it first")
    if found == name:
        raise UserError(f"--not-worse-than {given} names this evaluation itself: name another one")
    return found


def _evaluations_of_run(settings: AnySettings, name: str) -> list[str]:
    """Names of the evaluations of the other run: of the student that is named alike, then of the one it ends with."""
    given = settings.gate.not_worse_than
    if split_link(given)[1]:
        return []  # which names no run
    alike = name.replace(resolve_run(settings), given, 1)
    there = settings.changed(run=given, adapter="", endpoint="", eval_student="base")
    if adapter := final_adapter(there):
        link = split_link(Path(adapter).parent.name)[1] or "sft"
        there = there.changed(eval_student=link)
    return [alike, evaluated(there)[0]]


def _is_finished(results: Path) -> bool:
    return results.is_file() and read_meta(results) is not None
