"""Draw a learning curve: a run trained on nested shares of its rows, each student evaluated on the same tests.

The part of 100% is the run itself; the others are runs of their own, RUN-25 and RUN-50, on the same data. Each is an
artifact as any other, so that what is done is passed over and what was stopped goes on.

    for percent, part in list_parts(settings, [25, 50, 100]).items():
        ...                             # train it, evaluate it
    write_curve(settings, [25, 50, 100])    # reports/RUN/learning_curve.json
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from schema_student.core.errors import SettingsError
from schema_student.core.files import make_folder
from schema_student.core.jsonl import Row, read_object, write_json
from schema_student.core.names import resolve_run
from schema_student.core.paths import Paths, evaluated, paths
from schema_student.core.records import EvaluationRow, prompt_key, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.statistics import sign_test

FILE = "learning_curve.json"  # beside the report
WHOLE = 100
RATES = {"valid": "schema_valid_rate", "as_asked": "semantic_pass_rate"}
S = TypeVar("S", bound=AnySettings)
Right = dict[tuple[str, str, str, str], bool]  # of each prompt, by its key


def list_parts(settings: S, percents: Sequence[int]) -> dict[int, S]:
    """List the settings of each part; raises SettingsError where the run itself is of a share of its rows."""
    if settings.sft.sft_share != 1:
        raise SettingsError("--sft-share: a learning curve takes its own shares of the rows; leave it at 1")
    run, data = resolve_run(settings), str(paths(settings).dataset.parent)
    return {
        percent: settings.changed(
            eval_student="sft",
            **({} if percent == WHOLE else {"run": f"{run}-{percent}", "data_dir": data, "sft_share": percent / WHOLE}),
        )
        for percent in sorted(percents)
    }


def write_curve(settings: AnySettings, percents: Sequence[int]) -> Path:
    """Write learning_curve.json of evaluated parts: {points, gains}; returns where it is."""
    parts = list_parts(settings, percents)
    points = [_describe_part(percent, part) for percent, part in parts.items()]
    path = make_folder(paths(settings).report_dir) / FILE
    write_json(path, {"run": resolve_run(settings), "points": points, "gains": list_gains(parts)})
    return path


def read_curve(where: Paths) -> Row | None:
    """Read the learning curve of a run, None where none was drawn; raises UserError where it holds no points."""
    path = where.report_dir / FILE
    return read_object(path, points=list, gains=list) if path.exists() else None


def _describe_part(percent: int, part: AnySettings) -> Row:
    """What a part was trained on, and its rates over all tests."""
    config = read_object(paths(part).run_dir / "run_config.json")
    overall = read_object(_results_of(part).with_name("evaluation_summary.json"))["overall"]
    return {
        "percent": percent,
        "run": resolve_run(part),
        "rows": config["rows"],
        "steps": config["steps"],
        **{name: overall[rate] for name, rate in RATES.items()},
        "p_truth": overall["p_truth"],
    }


def _results_of(part: AnySettings) -> Path:
    return paths(part).eval_dir(evaluated(part)[0]) / "evaluation_results.jsonl"


def list_gains(parts: dict[int, AnySettings]) -> list[Row]:
    """What each part has right that the one before has wrong, and the reverse, by an exact test on the same prompts.

    Unknown verdicts do not count.
    """
    right = {percent: _read_verdicts(_results_of(part)) for percent, part in parts.items()}
    steps = list(parts)
    return [_compare(first, then, right[first], right[then]) for first, then in itertools.pairwise(steps)]


def _read_verdicts(results: Path) -> Right:
    known = [(row, row.semantic_pass) for row in read_rows(results, EvaluationRow)]
    return {prompt_key(row): right for row, right in known if right is not None}


def _compare(first: int, then: int, before: Right, after: Right) -> Row:
    both = [(before[key], now) for key, now in after.items() if key in before]
    fixed, broken = both.count((False, True)), both.count((True, False))
    return {"from": first, "to": then, "fixed": fixed, "broken": broken, "p": round(sign_test(fixed, broken), 6)}


def list_lines(curve: Row) -> list[str]:
    """List a curve as a table, and say whether the last rows still helped."""
    lines = [f"{'rows':>18}{'steps':>8}{'valid':>10}{'as asked':>10}   95% interval"]
    for point in curve["points"]:
        asked = point["as_asked"]
        head = f"{point['percent']:>4}% {point['rows']:>12,}{point['steps']:>8,}{point['valid']['rate']:>10.1%}"
        lines.append(f"{head}{asked['rate']:>10.1%}   {asked['low']:.1%} to {asked['high']:.1%}")
    for gain in curve["gains"]:
        said = f"{gain['fixed']} fixed, {gain['broken']} broken, p = {gain['p']:.3g}"
        lines.append(f"from {gain['from']}% to {gain['to']}%: {said}")
    return lines
