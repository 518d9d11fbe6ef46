"""A file of a run that holds something else than it should is an error that names it, not a traceback."""

import shutil

import pytest
import report_run

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import EvaluationRow, MarginRow, read_rows
from schema_student.core.settings import default_settings
from schema_student.report.pages import write_report


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    settings = default_settings(output_dir=str(folder))
    report_run.write_run(settings, prompts=8)
    write_json(paths(settings).exports / "parity.json", {})
    return folder


FILES = {
    "config": lambda where: where.dpo_dir / "run_config.json",
    "summary": lambda where: where.eval_dir("student-sft") / "evaluation_summary.json",
    "results": lambda where: where.eval_dir("student-sft") / "evaluation_results.jsonl",
    "metrics": lambda where: where.run_dir / "training_metrics.jsonl",
    "margins": lambda where: where.dpo_dir / "margins.jsonl",
    "dataset": lambda where: where.dataset,
    "statistics": lambda where: where.hub_dataset / "description.json",
    "parity": lambda where: where.exports / "parity.json",
    "meta": lambda where: where.run_dir.with_name("student.meta.json"),
}
DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config", "[]"),
        ("config", '{"settings": [1]}'),
        ("config", '{"student": "x"}'),
        ("config", '{"checkpoint": 3}'),
        ("config", DEEP),
        ("summary", "3"),
        ("summary", DEEP),
        ("results", '{"schema_id": 3}'),
        ("metrics", '{"step": "x", "loss": 1}'),
        ("metrics", '{"step": 1, "loss": "x"}'),
        ("metrics", '{"step": 1, "loss": {}}'),
        ("margins", '{"step": 1, "median": []}'),
        ("dataset", '{"schema_id": []}'),
        ("statistics", "[1]"),
        ("statistics", '{"balance": 3}'),
        ("statistics", '{"diversity": {"training": 1}}'),
        ("parity", '{"targets": 3}'),
        ("parity", '{"targets": {"merged": {"right_rate": {"rate": "x"}}}}'),
        ("meta", "[]"),
        ("meta", DEEP),
        ("meta", '{"finished_at": 3}'),
        ("meta", '{"finished_at": "yesterday"}'),
        ("meta", '{"versions": 3}'),
    ],
)
def test_the_report_names_the_file(whole, tmp_path, name, text):
    shutil.copytree(whole, tmp_path / "outputs")
    settings = default_settings(output_dir=str(tmp_path / "outputs"))
    path = FILES[name](paths(settings))
    assert path.exists()
    path.write_text(text)
    with pytest.raises(UserError, match=path.name):
        write_report(settings)


def test_rates_are_those_of_the_rows_whatever_the_summary_says(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "outputs")
    settings = default_settings(output_dir=str(tmp_path / "outputs"))
    page = write_report(settings).read_text()
    path = FILES["summary"](paths(settings))
    write_json(path, {**read_json(path), "splits": 3, "overall": [], "speed": "fast"})
    assert write_report(settings).read_text() == page


ROW = {"schema_id": "s", "query": "q", "split": "test_seen", "current_date": "2026-01-01", "raw_output": "", "rank": 5}


@pytest.mark.parametrize(
    "change", [{"rank": "5"}, {"violations": {}}, {"query": None}, {"seconds": "1"}, {"parsed": 1}]
)
def test_a_row_with_a_value_of_another_type_is_named_by_file_line_and_field(change, tmp_path):
    (field,) = change
    write_jsonl(tmp_path / "rows.jsonl", [{**ROW, "seconds": 1, "target": [1]}, {**ROW, **change}])
    with pytest.raises(UserError, match=rf"rows.jsonl:2: {field} must be "):
        read_rows(tmp_path / "rows.jsonl", EvaluationRow)


def test_a_whole_number_is_a_number_too(tmp_path):
    names = ("mean", "std", "min", "p10", "median", "p90", "max", "pos_frac")
    write_jsonl(tmp_path / "margins.jsonl", [{"step": 1, "n": 2, **dict.fromkeys(names, 0)}])
    assert read_rows(tmp_path / "margins.jsonl", MarginRow)[0].mean == 0
