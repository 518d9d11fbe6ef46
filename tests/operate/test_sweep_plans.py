"""The table of a sweep, its ranking and its plan, and what doctor estimates: each figure worked out by hand."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from schema_student.core.errors import SettingsError
from schema_student.core.jsonl import write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.statistics import wilson
from schema_student.operate import doctor, sweep
from schema_student.operate.doctor import Measured, estimate
from schema_student.operate.sweep import (
    choose_note,
    describe_point,
    list_points,
    list_values,
    rank_points,
    read_plan,
    run_command,
    write_table,
)


def test_a_plan_is_its_file_with_what_the_flags_say_of_further_settings(tmp_path):
    path = tmp_path / "plan.json"
    write_json(path, {"grid": {"lora_r": [4]}, "list": [{"seed": 1}, {}], "data": ["a.jsonl", "b.jsonl"]})
    assert read_plan(path, ["--sft-epochs = 1, 2", "lora_r=8"]) == {
        "grid": {"lora_r": ["8"], "sft_epochs": ["1", "2"], "schemas": ["a.jsonl", "b.jsonl"]},
        "list": [{"seed": 1}, {}],
        "data": ["a.jsonl", "b.jsonl"],
    }
    assert read_plan(None, ["seed=1"]) == {"grid": {"seed": ["1"]}, "list": [{}], "data": []}
    for wrong in ({"grid": {"a": []}}, {"grid": 3}, {"list": [3]}, {"data": [3]}):
        write_json(path, wrong)
        with pytest.raises(SettingsError, match=rf"{next(iter(wrong))} is "):
            read_plan(path, [])
    with pytest.raises(SettingsError, match="give NAME=VALUE,VALUE"):
        read_plan(None, ["seed="])
    for place in ("run", "output_dir", "data_dir", "overwrite", "dry_run"):
        with pytest.raises(SettingsError, match=f"^{place} is of the whole sweep: give it as a flag$"):
            list_values({"grid": {place: ["a"]}, "list": [{}]})


def test_a_point_is_a_run_with_its_flags_and_those_of_its_data(tmp_path):
    known = {"lora_r": 8, "align": ["dpo", "rloo"], "seed": 2}
    (point,) = list_points(
        [known], ["--output-dir", "o", "--run", "mine", "--on", "ray", "--dry-run"], "schemas", "sft"
    )
    assert point.run == "mine-align_dpo.rloo-lora_r_8-seed_2" and point.data_run == "mine-seed_2"
    place = ["--run", point.run, "--data-dir", "o/data/mine-seed_2"]
    assert point.values == known
    words = ["--output-dir", "o", "--lora-r=8", "--align=dpo,rloo", "--seed=2", *place]
    assert point.flags == [*words, "--from", "sft", "--until", "sft"]
    data = ["--output-dir", "o", "--seed=2", "--run", "mine-seed_2"]
    assert point.data_flags == [*data, "--from", "schemas", "--until", "corpus"]
    (late,) = list_points([{"lora_r": 8}], [], "evaluate_sft", "report")
    assert late.flags[-4:] == ["--from", "evaluate_sft", "--until", "report"] and late.data_flags == []
    (data,) = list_points([{"lora_r": 8}], [], "domain_specs", "dataset")
    assert data.flags == [] and data.data_flags[-4:] == ["--from", "domain_specs", "--until", "dataset"]


@pytest.mark.parametrize(("value", "flag"), [(True, ""), ("true", ""), (False, "no-"), ("false", "no-")])
def test_a_setting_that_is_on_or_off_is_a_flag_without_a_value(value, flag):
    (point,) = list_points([{"strip_fences": value}], [], "evaluate_sft", "report")
    assert f"--{flag}strip-fences" in point.flags and point.values == {"strip_fences": not flag}


def test_long_names_end_in_a_digest_and_places_are_their_last_part():
    wide = {"sft_learning_rate": "0.001", "gradient_accumulation": 2, "sft_batch_size": 4, "align_modules": "mlp"}
    (point,) = list_points([wide], [], "sft", "sft")
    assert len(point.run) == 80 and point.run.startswith("student-align_modules_mlp-gradient_accumulation_2-sft_")
    assert point.run[71] == "_" and len(point.run.rpartition("_")[2]) == 8
    (named,) = list_points([{"schemas": "far/my data.jsonl"}], [], "sft", "sft")
    assert named.run == "student-schemas_my-data" == named.data_run


def test_a_run_s_last_words_are_its_error_or_its_last_line(tmp_path, monkeypatch):
    def say(text, code):
        def run(command, env, stdin, stdout, stderr):
            assert command == [sys.executable, "-m", "schema_student", "run", "--seed", "1"] and stdout is stderr
            assert env["SCHEMA_STUDENT_RUNNER"].isdigit() and env["PATH"] and stdin == subprocess.DEVNULL
            stdout.write(text)
            return SimpleNamespace(returncode=code)

        monkeypatch.setattr(sweep.subprocess, "run", run)
        ticks = iter((10.0, 12.5))
        monkeypatch.setattr(sweep.time, "monotonic", lambda: next(ticks))
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
        return run_command(["--seed", "1"], path)

    assert say(b"a\nerror: no room\n\n b \n", 3) == {"code": 3, "seconds": 2.5, "said": "no room"}
    assert say(b"a\n b \n\n", 0) == {"code": 0, "seconds": 2.5, "said": "b"}
    assert say(b"", -9) == {"code": 137, "seconds": 2.5, "said": "it said nothing"}


def test_a_point_is_described_by_what_its_last_student_reaches_and_its_checkpoint_on_validation(tmp_path, monkeypatch):
    settings = default_settings(output_dir=str(tmp_path), run="r")
    rates = {"schema_valid_rate": wilson(3, 4), "semantic_pass_rate": wilson(2, 4), "p_truth": 0.4}
    student = {"label": "r, after SFT", "summary": {"overall": rates}}
    monkeypatch.setattr("schema_student.report.compare_runs.find_student", lambda given, run: student)
    point = SimpleNamespace(run="r", values={"lora_r": 8}, settings=settings)
    told = {"run": "r", "settings": {"lora_r": 8}, "seconds": 3.0, "error": None, "state": "done"}
    told |= {"student": "r, after SFT", "valid": wilson(3, 4), "as_asked": wilson(2, 4), "p_truth": 0.4}
    ended = {"code": 0, "seconds": 3.0, "said": "done"}
    assert describe_point(point, ended) == {**told, "validation": {}}
    where = paths(settings)
    write_json(where.sft_checkpoint / "adapter_config.json", {})
    assert describe_point(point, ended) == {**told, "validation": {}}
    measured = [
        {"step": 1, "eval_loss": 0.5},
        {"step": 2, "eval_loss": 0.4, "eval_as_asked": 0.7, "eval_p_truth": None},
    ]
    write_jsonl(where.run_dir / "training_metrics.jsonl", [*measured, {"step": 3, "loss": 1.0}])
    assert describe_point(point, ended)["validation"] == {"eval_as_asked": 0.7, "eval_loss": 0.4}
    write_json(where.run_dir / "run_config.json", {"checkpoint": "checkpoint-1"})
    assert describe_point(point, ended)["validation"] == {"eval_loss": 0.5}
    failed = {"run": "r", "settings": {"lora_r": 8}, "state": "failed", "seconds": 1.0, "error": "no room"}
    nothing = dict.fromkeys(("student", "valid", "as_asked", "p_truth"))
    for ended in ({"code": 2, "seconds": 1.0, "said": "no room"}, {"seconds": 1.0}):
        error = ended.get("said")
        assert describe_point(point, ended) == {**failed, **nothing, "error": error, "validation": {}}


def row(run, state="done", rate=None, **validation):
    asked = None if rate is None else {"rate": rate}
    return {"run": run, "state": state, "as_asked": asked, "validation": validation}


@pytest.mark.parametrize(
    ("rows", "words", "order"),
    [
        ([row("a", eval_p_truth=0.1, eval_loss=0.1), row("b", eval_p_truth=0.2, eval_loss=9)],
         "P(truth) of validation requests", "ba"),
        ([row("a", eval_as_asked=0.1), row("b", eval_as_asked=0.2)], "validation requests answered as asked", "ba"),
        ([row("a", eval_loss=0.2), row("b", eval_loss=0.1), row("c", "failed")], "validation loss", "bac"),
        ([row("a", rate=0.1, eval_loss=0.1), row("b", rate=0.2), row("c")], "tests", "bac"),
        ([row("c", "failed"), row("a", rate=0.1)], "tests", "ac"),
        ([row("a", "failed")], "tests", "a"),
    ],
)  # fmt: skip
def test_points_are_ranked_by_the_most_telling_measure_that_all_have(rows, words, order):
    found = rank_points(rows)
    assert (found[0], "".join(each["run"] for each in found[1])) == (words, order)


def test_what_an_order_is_worth_is_said():
    said = "Ranked by validation loss; the tests chose nothing, so the best point's rates there are not flattered."
    assert choose_note("validation loss", False) == said
    assert (
        choose_note("validation loss", True) == f"{said} Points on different data were validated on different requests."
    )
    assert choose_note("tests", True).startswith(
        "Ranked by the tests, as no measure of validation is known of all points"
    )


def test_the_table_has_a_line_a_point_with_what_differs():
    like = {"state": "done", "valid": {"rate": 0.9}, "as_asked": {"rate": 0.5}, "p_truth": 0.4, "error": None}
    rows = [
        {**like, "run": "a|b", "settings": {"lora_r": 8}, "validation": {"eval_loss": 0.123456}, "seconds": 61.4},
        {**like, "run": "c", "settings": {"seed": 1}, "validation": {}, "seconds": None, "valid": None},
        {**like, "run": "d", "settings": {}, "validation": {}, "state": "failed", "error": "no room", "seconds": 2},
    ]
    assert write_table(rows, "a|b", "A note.").split("\n") == [
        "| run | lora_r | seed | valid | as asked | P(truth) | validation loss | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| **a\\|b** (best) | 8 |  | 90.0% | 50.0% | 40.0% | 0.1235 | 61 |",
        "| c |  | 1 | - | 50.0% | 40.0% |  |  |",
        "| d |  |  | failed: no room |  |  |  | 2 |",
        "",
        "A note.",
        "",
    ]


# ---- doctor


SIZES = {"domains": 10, "train_share": 0.5, "train_queries": 20, "validation_share": 0.1, "pair_queries": 4}
SIZES |= {"eval_queries": 30, "align": ["dpo", "rloo"], "sft_batch_size": 4, "gradient_accumulation": 2}
SIZES |= {"sft_max_steps": 0, "sft_epochs": 2, "dpo_max_steps": 7, "pair_prompts": 6, "samples_per_prompt": 3}
SIZES |= {"processes": 3}


@pytest.mark.parametrize(("cores", "speed"), [(2, 2), (8, 3)])
def test_a_full_run_is_estimated_by_its_sizes_and_the_speeds_of_a_few_steps(cores, speed, monkeypatch):
    monkeypatch.setattr(doctor, "resolve_settings", lambda settings: {**SIZES, "dtype": settings.loading.dtype})
    monkeypatch.setattr(doctor, "count_cores", lambda: cores)
    monkeypatch.setattr(doctor.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=1000))
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    measured = Measured(row=0.5, step=2.0, answers=4.0, adapter=100)
    found = estimate(default_settings(), measured)
    rows = 10 * 0.5 * (20 * 1.1 + 4) + 2 * 30  # 190
    steps = 26  # of 100 rows, 8 a step, 2 epochs
    parts = {"teacher": rows * 0.5, "training": steps * 2.0 / speed, "evaluation": 4 * 60 / 4.0}
    parts["alignment"] = 7 * 2.0 * 2.0 / speed + 18 / 4.0
    disk = rows * 17_000 + 24 * 100
    assert found == pytest.approx({**parts, "seconds": sum(parts.values()), "memory": 1_024_000 * speed, "disk": disk})
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    assert estimate(default_settings(), measured)["memory"] == 1000 * speed
    monkeypatch.setitem(SIZES, "sft_max_steps", 5)
    assert estimate(default_settings(), measured)["training"] == pytest.approx(10 / speed)


def test_a_check_says_how_long_its_part_took_and_what_needs_it_is_left_out(monkeypatch):
    ticks = iter(range(0, 99, 2))
    monkeypatch.setattr(doctor.time, "monotonic", lambda: float(next(ticks)))

    def fail(settings, measured):
        assert settings.sft.sft_max_steps == 3 and settings.run.run == "doctor" and settings.domains.domains == 4
        raise SystemExit("no")

    table = {
        "judge": (lambda *_: "well", (), "a"),
        "data": (fail, ("judge",), "mend it"),
        "sft": (fail, ("data",), "b"),
    }
    table["export"] = (fail, ("sft", "data"), "c")
    monkeypatch.setattr(doctor, "PARTS", table)
    measured = Measured()
    assert list(doctor.examine(default_settings(), measured)) == [
        doctor.Check("judge", True, 2.0, "well"),
        doctor.Check("data", False, 2.0, "SystemExit: no", "mend it"),
        doctor.Check("sft", False, 0.0, "not tried, as data failed", "mend data first"),
        doctor.Check("export", False, 0.0, "not tried, as sft failed", "mend sft first"),
    ]
    assert measured.failed == ["data", "sft", "export"]
