"""A learning curve: nested shares of the rows, each a run of its own, on the same tests; the run is the whole."""

from __future__ import annotations

import json

import pytest
import tiny
from training_runs import SCHEMA

from schema_student.cli import learning_curve as verb
from schema_student.cli.main import dispatch
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_json, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, read_rows, write_rows
from schema_student.core.settings import default_settings
from schema_student.data.corpus import build_rows
from schema_student.evaluation.learning_curve import list_gains, list_lines, list_parts, read_curve
from schema_student.report.figures import show_learning_curve
from schema_student.student.choice import resolve_student
from schema_student.training.fine_tuning import take_share

SMALL = {
    **{"sft-epochs": 1, "sft-batch-size": 2, "sft-eval-answers": 0, "max-new-tokens": 8, "lora-r": 2, "eval-limit": 2},
    **{"teacher-model": "embedded-teacher", "dtype": "float32"},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A curve of 25, 50 and 100% of eight rows, drawn twice: (settings, flags, what the second time said)."""
    folder = tmp_path_factory.mktemp("curve")
    base = tiny.save_tiny(folder / "base")
    settings = default_settings(output_dir=str(folder / "outputs"), base_model=str(base))
    head = {"schema_id": "s", "domain": "d", "schema_json": json.dumps(SCHEMA), "current_date": "2026-01-31"}
    splits = {"train": range(8), "validation": range(20, 22), "test_seen": range(30, 32), "test_unseen": range(40, 42)}
    rows = [
        {**head, "query": f"number {i}", "ast_json": json.dumps({"n": i}), "is_valid": True, "split": split}
        for split, numbers in splits.items()
        for i in numbers
    ]
    write_jsonl(paths(settings).dataset, rows)
    write_rows(paths(settings).corpus, build_rows(read_rows(paths(settings).dataset, DatasetRow), "compact")[0])
    flags = ["--output-dir", settings.run.output_dir, "--base-model", str(base)]
    flags += [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "run_apart", lambda stage, settings: stage(settings))
        dispatch(["learning-curve", *flags])
        before = times_of(settings)
        dispatch(["learning-curve", *flags])
    return settings, before


def times_of(settings):
    return {path: path.stat().st_mtime_ns for path in paths(settings).run_dir.parent.rglob("*.safetensors")}


def test_each_share_is_a_run_of_its_own_that_is_passed_over_when_it_is_done(drawn):
    settings, before = drawn
    runs = {path.parent.parent.name for path in before if path.parent.name == "checkpoint-final"}
    assert runs == {"student", "student-25", "student-50"} and times_of(settings) == before


def test_the_curve_holds_rows_rates_and_what_the_last_rows_changed(drawn):
    settings, _ = drawn
    curve = read_curve(paths(settings))
    assert [(point["percent"], point["run"], point["rows"]) for point in curve["points"]] == [
        *((25, "student-25", 2), (50, "student-50", 4), (100, "student", 8)),
    ]
    assert [point["steps"] for point in curve["points"]] == [1, 2, 4]
    assert all(point["as_asked"]["n"] == 4 for point in curve["points"])  # the same tests
    assert [(gain["from"], gain["to"]) for gain in curve["gains"]] == [(25, 50), (50, 100)]
    assert curve["run"] == "student"
    for point in curve["points"]:
        summary = read_json(paths(settings).eval_dir(f"{point['run']}-sft") / "evaluation_summary.json")["overall"]
        assert point == {
            **{name: point[name] for name in ("percent", "run", "rows", "steps")},
            "valid": summary["schema_valid_rate"],
            "as_asked": summary["semantic_pass_rate"],
            "p_truth": summary["p_truth"],
        }


def test_a_curve_is_listed_with_intervals_and_what_more_rows_changed():
    valid, asked = {"rate": 0.985}, {"rate": 0.5, "low": 0.25, "high": 0.75}
    points = [
        {"percent": percent, "rows": rows, "steps": steps, "valid": valid, "as_asked": asked}
        for percent, rows, steps in ((50, 1200, 75), (100, 2400, 1150))
    ]
    gains = [{"from": 50, "to": 100, "fixed": 9, "broken": 1, "p": 0.021484}]
    assert list_lines({"points": points, "gains": gains}) == [
        "              rows   steps     valid  as asked   95% interval",
        "  50%        1,200      75     98.5%     50.0%   25.0% to 75.0%",
        " 100%        2,400   1,150     98.5%     50.0%   25.0% to 75.0%",
        "from 50% to 100%: 9 fixed, 1 broken, p = 0.0215",
    ]


def test_the_parts_learn_from_the_run_s_own_data(drawn):
    settings, _ = drawn
    parts = list_parts(settings, [100, 25])
    assert parts[100] == settings.changed(eval_student="sft") and list(parts) == [25, 100]
    assert (parts[25].run.run, parts[25].sft.sft_share, parts[25].evaluated.eval_student) == ("student-25", 0.25, "sft")
    assert paths(parts[25]).corpus == paths(settings).corpus and paths(parts[25]).dataset == paths(settings).dataset


def test_larger_shares_hold_smaller_ones_and_the_whole_is_all_rows():
    resolved = resolve_student(default_settings(base_model="embedded"))[1]
    rows = [{"name": i} for i in range(40)]
    shares = [take_share(rows, resolved.changed(sft_share=share)) for share in (0.01, 0.25, 0.5, 1.0)]
    assert [len(share) for share in shares] == [1, 10, 20, 40] and shares[3] == rows
    names = [[row["name"] for row in share] for share in shares]
    assert all(set(names[i]) < set(names[i + 1]) and names[i] == sorted(names[i]) for i in range(3))
    other = take_share(rows, resolved.changed(sft_share=0.25, seed=99))
    assert [row["name"] for row in other] != names[1]


def test_the_report_draws_it_with_intervals(drawn):
    figure = show_learning_curve(read_curve(paths(drawn[0])))
    (panel,) = figure.panels
    assert panel.x == "training rows" and [x for x, _ in panel.series[0].points] == [2, 4, 8]
    for series in panel.series:
        assert all(band[1] <= point[1] <= band[2] for point, band in zip(series.points, series.band, strict=True))
    assert show_learning_curve(None) is None


def test_gains_are_counted_on_the_same_prompts(tmp_path):
    parts = list_parts(default_settings(output_dir=str(tmp_path)), [100, 25, 50])
    verdicts = {"1": True, "0": False, "?": None}
    told = {"schema_id": "s", "split": "test_seen", "current_date": "", "raw_output": "", "rank": 4}
    for name, marks in (("student-25", "0000000011?1"), ("student-50", "1111111101"), ("student", "1" * 9 + "?11")):
        rows = [{**told, "query": f"q{i}", "semantic_pass": verdicts[mark]} for i, mark in enumerate(marks)]
        write_jsonl(tmp_path / "student_runs" / "eval" / f"{name}-sft" / "evaluation_results.jsonl", rows)
    assert list_gains(parts) == [  # what is not known, or not asked, counts in neither
        {"from": 25, "to": 50, "fixed": 8, "broken": 1, "p": 0.039062},  # 2 (1 + 9) / 512 = 0.0390625
        {"from": 50, "to": 100, "fixed": 1, "broken": 0, "p": 1.0},
    ]


@pytest.mark.parametrize("text", ["0", "25,101", "a", "25,,50", ""])
def test_percents_that_are_none_are_refused(text):
    with pytest.raises(SettingsError, match="--percents"):
        dispatch(["learning-curve", f"--percents={text}"])


def test_a_run_of_a_share_has_no_curve(tmp_path):
    with pytest.raises(SettingsError, match="--sft-share: a learning curve takes its own shares"):
        dispatch(["learning-curve", "--output-dir", str(tmp_path), "--sft-share", "0.5"])


def test_a_curve_that_holds_no_points_is_refused(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    assert read_curve(paths(settings)) is None
    for name, curve in (("points", {"points": 3}), ("gains", {"points": [], "gains": "none"})):
        write_json(paths(settings).report_dir / "learning_curve.json", curve)
        with pytest.raises(UserError, match=name):
            read_curve(paths(settings))
