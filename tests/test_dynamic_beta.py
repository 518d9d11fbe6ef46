"""The benchmark of dynamic beta: its runs resume, its table comes from results.jsonl, its intervals are right."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import fork_server
from training_runs import dataset_rows, settings_with_pairs

from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
dynamic_beta = importlib.import_module("dynamic_beta")


@pytest.fixture
def finished(tmp_path):
    """What a finished run of the pipeline leaves, in small; its output folder."""
    settings = settings_with_pairs(tmp_path, teacher_model="embedded-teacher", run="student")
    seen = [{**row, "split": "test_seen", "query": f"number {i}"} for i, row in enumerate(dataset_rows() * 2)]
    unseen = [{**row, "split": "test_unseen"} for row in seen]
    write_jsonl(paths(settings).dataset, [*dataset_rows()[:2], *seen, *unseen])
    return Path(settings.run.output_dir)


def run(monkeypatch, output_dir, *flags):
    words = ["dynamic_beta.py", "--output-dir", output_dir, "--out", output_dir.parent / "bench", *flags]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    dynamic_beta.main()
    return read_jsonl(output_dir.parent / "bench" / "results.jsonl")


@pytest.mark.slow
def test_it_makes_every_run_once_and_a_table(finished, monkeypatch, capsys):
    real, made = dynamic_beta.run_job, []

    def dying(job, base):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(job)
        return real(job, base)

    with monkeypatch.context() as patch:
        patch.setattr(dynamic_beta, "run_job", dying)
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, finished, "--smoke")
    rows = run(monkeypatch, finished, "--smoke")
    names = ["sft", "fixed", "fixed", "calibrated", "risk", "beta_dpo"]
    assert [row["controller"] for row in rows] == names and len(made) == 3
    assert all(len(row["outcomes"][split]["schema_valid"]) == 2 for row in rows for split in dynamic_beta.SPLITS)
    assert all(0 < row["overhead"]["controller"] < row["overhead"]["step"] for row in rows[1:])
    assert all(row["overhead"]["look_ahead"] == 0 and row["beta_last"] > 0 for row in rows[1:])
    table = (finished.parent / "bench" / "table.md").read_text()
    assert len(re.findall(r"^\| (?:sft|fixed|calibrated|risk|beta_dpo)[^|]*\| test_", table, re.M)) == 12
    assert table.count("best on validation") == 3 and "| P(truth) on validation, % |" in table
    assert "0.00% (at most 0.00%): medians of 5 runs" in table
    capsys.readouterr()
    run(monkeypatch, finished, "--smoke", "--table")
    assert table in capsys.readouterr().out


def test_by_reading_alone_nothing_is_answered(finished, monkeypatch):
    monkeypatch.setattr(dynamic_beta, "evaluate", None)
    rows = run(monkeypatch, finished, "--smoke", "--reading", "--controllers", "fixed,risk")
    assert [(row["controller"], row["outcomes"]) for row in rows] == [("fixed", None)] * 2 + [("risk", None)]
    table = (finished.parent / "bench" / "table.md").read_text()
    assert len(re.findall(r"^\| (?:fixed|risk)[^|]*\| [\d.]+ \| [+-][\d.]+ \+- [\d.]+ \|", table, re.M)) == 3
    assert "test_seen" not in table and all(0 <= row["validation"]["p_truth"] <= 1 for row in rows)


def test_the_look_ahead_of_accumulated_steps_is_counted_apart_and_in_the_step(tmp_path):
    few = {"dpo_max_steps": 2, "dpo_eval_every": 2, "dpo_gradient_accumulation": 2}
    with dynamic_beta.timed() as spent:
        dynamic_beta.train_dpo(settings_with_pairs(tmp_path, **few))
    assert spent["look_ahead"] > spent["controller"] > 0
    assert spent["look_ahead"] + spent["controller"] < spent["step"]


@pytest.mark.slow
def test_two_runs_at_a_time_give_what_one_after_the_other_gives(finished, monkeypatch):
    fork_server()  # whose forks they are
    flags = ("--smoke", "--controllers", "calibrated,risk")
    one = run(monkeypatch, finished, *flags)
    shutil.rmtree(finished / "dynamic_beta")
    (finished.parent / "bench" / "results.jsonl").unlink()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # put back at the end, as --jobs sets it
    two = run(monkeypatch, finished, *flags, "--jobs", "2")
    told = [{row["controller"]: (row["outcomes"], row.get("margin")) for row in rows} for rows in (one, two)]
    assert told[0] == told[1] and set(told[0]) == {"sft", "calibrated", "risk"}


def test_a_run_that_is_not_finished_is_said(tmp_path, monkeypatch):
    with pytest.raises(dynamic_beta.UserError, match=r"run_config.json is not there: ./runAll.sh makes it"):
        run(monkeypatch, tmp_path / "nothing", "--smoke")


def row(controller, beta, seed, passed, semantic):
    outcomes = {split: dict.fromkeys(dynamic_beta.MEASURES, passed) for split in dynamic_beta.SPLITS}
    facts = {"beta_mean": beta, "beta_last": beta, "margin": 1.0, "accuracy": 0.9, "chosen_moved": -0.5}
    facts |= {
        "validation": {**dict.fromkeys(dynamic_beta.READ, 0.0), "p_truth": semantic},
        "overhead": {"controller": 0.1, "look_ahead": 2.5, "step": 10.0},
    }
    return {"controller": controller, "beta": beta, "seed": seed, "outcomes": outcomes, **facts}


def test_the_best_beta_is_chosen_by_validation_not_by_the_test_prompts():
    rows = [row("fixed", 0.05, 0, "1111", 0.4), row("fixed", 0.1, 0, "0000", 0.6), row("fixed", 0.1, 1, "0000", 0.4)]
    assert dynamic_beta.best_beta(rows) == 0.1
    rows.append({"controller": "sft", "outcomes": rows[0]["outcomes"]})
    table = dynamic_beta.make_table(rows)
    assert "| fixed 0.1 (best on validation) | test_seen | 2 x 4 | 0.0 (0.0 to 0.0) |" in table
    assert "| sft | test_unseen | 1 x 4 | 100.0 (100.0 to 100.0) | 100.0 (100.0 to 100.0) |  |" in table
    assert "-100.0 (-100.0 to -100.0)" in table
    assert "1.00% (at most 1.00%), look-ahead passes 25.00% (at most 25.00%): medians of 3 runs" in table


def test_the_interval_holds_the_mean_and_is_that_of_a_share():
    rng = np.random.default_rng(1)
    outcomes = (rng.random((1, 400)) < 0.3).astype(float)
    value, low, high = dynamic_beta.interval(outcomes)
    half = 1.96 * (value * (1 - value) / 400) ** 0.5
    assert (value - low, high - value) == pytest.approx((half, half), rel=0.12)
    value, low, high = dynamic_beta.interval(np.tile(outcomes, (3, 1)), outcomes[0])
    assert (value, low, high) == (0, 0, 0)


def test_an_outcome_that_is_unknown_counts_in_no_mean():
    assert json.loads(json.dumps(dynamic_beta.interval(np.array([dynamic_beta.parse("1?11")])))) == [1.0, 1.0, 1.0]
