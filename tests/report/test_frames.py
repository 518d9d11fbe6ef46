"""A run's rows as pandas frames."""

import shutil

import pytest
import report_run

from schema_student import read_run
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    settings = default_settings(output_dir=str(tmp_path_factory.mktemp("run")))
    report_run.write_run(settings, prompts=20)
    return settings


@pytest.fixture
def run(settings):
    return read_run("student", settings.run.output_dir)


def test_evaluations_are_the_verdict_rows_of_every_student(settings, run):
    assert list(run.evaluations.student.unique()) == ["base", "sft", "dpo"]
    rows = read_jsonl(paths(settings).eval_dir("student-sft") / "evaluation_results.jsonl")
    found = run.evaluations.query("student == 'sft'")
    assert list(found["rank"]) == [row["rank"] for row in rows]


def test_metrics_pairs_and_margins_are_the_rows_of_their_files(settings, run):
    where = paths(settings)
    assert set(run.metrics.stage) == {"sft", "dpo"}
    logged = [row["step"] for row in read_jsonl(where.dpo_dir / "training_metrics.jsonl")]
    assert list(run.metrics.query("stage == 'dpo'").step) == logged
    assert list(run.pairs.chosen) == [row["chosen"] for row in read_jsonl(where.pairs)]
    assert list(run.margins["mean"]) == [row["mean"] for row in read_jsonl(where.dpo_dir / "margins.jsonl")]


def test_what_a_run_has_not_made_is_an_empty_frame(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base",), prompts=4)
    run = read_run("student", tmp_path)
    assert len(run.evaluations) == 8 and run.pairs.empty and run.metrics.empty and run.margins.empty


def test_a_run_is_not_given_the_evaluations_of_one_whose_name_begins_alike(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    report_run.write_run(settings, keys=("base",), prompts=4)
    evals = paths(settings).evals
    shutil.copytree(evals / "student-base", evals / "student-b-sft")
    for file in (evals / "student-b-sft").glob("evaluation_summary.json"):
        file.write_text(file.read_text().replace('"run": "student"', '"run": "student-b"'))
    assert set(read_run("student", tmp_path).evaluations.student) == {"base"}


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="give the name of a run"):
        read_run("nobody", tmp_path)
