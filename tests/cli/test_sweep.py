"""A sweep: each point of a grid or list is a run of its own, on data that are made once; it goes on where it was."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
import threading

import pytest
import report_run

from schema_student.cli.main import dispatch
from schema_student.core.errors import SettingsError
from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.operate import sweep
from schema_student.operate.sweep import choose_note, list_points, list_values, rank_points, read_plan


def points(*argv, plan=None, first="domain_specs", last="report"):
    grids = [word for flag, word in itertools.pairwise(argv) if flag == "--grid"]
    rest = [word for i, word in enumerate(argv) if word != "--grid" and (i == 0 or argv[i - 1] != "--grid")]
    return list_points(list_values(read_plan(plan, grids)), rest, first, last)


def test_points_that_differ_in_training_share_data_and_those_of_other_data_have_their_own(tmp_path):
    plan = tmp_path / "plan.json"
    grid, rows = {"lora_r": [8, 16]}, [{"align": ["dpo"]}, {"sft_epochs": 2}]
    write_json(plan, {"grid": grid, "list": rows, "data": ["a/x.jsonl", "a/y.jsonl"]})
    found = points("--seed", "3", plan=plan)
    assert len(found) == len({point.run for point in found}) == 8
    assert {point.data_run for point in found} == {"student-schemas_x", "student-schemas_y"}
    assert found[0].run == "student-align_dpo-lora_r_8-schemas_x"
    assert found[0].values == {"align": ["dpo"], "lora_r": 8, "schemas": "a/x.jsonl"}
    for point in found:
        assert point.settings.run.seed == 3 and point.settings.run.data_dir == f"outputs/data/{point.data_run}"
        assert "--until corpus" in shlex.join(point.data_flags) and "--lora-r" not in shlex.join(point.data_flags)
        assert "--from sft --until report" in shlex.join(point.flags)


def test_the_data_of_points_that_differ_in_training_are_those_of_the_run_itself():
    (point,) = points("--grid", "lora_r=8")
    assert point.data_run == "student" and point.settings.run.data_dir == "outputs"
    (point,) = points("--grid", "lora_r=8", "--data-dir", "d", "--run", "mine", first="sft")
    assert (point.run, point.settings.run.data_dir, point.data_flags) == ("mine-lora_r_8", "d", [])
    (point,) = points("--grid", "lora_r=8", "--on", "ray", "--dry-run", last="schemas")
    assert not point.flags and point.data_flags[-2:] == ["--until", "schemas"]


def test_the_same_point_is_run_once_and_long_names_differ():
    assert len(points("--grid", "sft_learning_rate=1e-3,0.001,2e-3")) == 2
    wide = {name: [1, 2] for name in ("gradient_accumulation", "sft_batch_size", "sft_eval_answers", "dpo_batch_size")}
    found = list_points(list_values({"grid": wide, "list": [{}]}), [], "sft", "sft")
    assert len({point.run for point in found}) == 16 and max(len(point.run) for point in found) <= 80


@pytest.mark.parametrize(
    ("argv", "plan", "said"),
    [
        (["--grid", "lora_rank=8"], None, "unknown argument '--lora-rank=8'; did you mean '--lora-r'?"),
        (["--grid", "lora_r=x"], None, "--lora-r: "),
        (["--grid", "lora_r"], None, "--grid lora_r: give NAME=VALUE,VALUE"),
        (["--grid", "run=a,b"], None, "run is of the whole sweep"),
        (["--grid", "seed=1,2", "--data-dir", "d"], None, "--data-dir holds data of one kind, and seed makes others"),
        (["--grid", "runs=a"], None, "--runs: nothing that run runs reads it"),
        ([], None, "give --grid NAME=VALUE,VALUE or --plan FILE"),
        ([], {"grd": {}}, "unknown 'grd'; did you mean 'grid'?"),
        ([], {"grid": {"lora_r": 8}}, "grid is {"),
        ([], {"list": {}}, "list is ["),
        ([], {"data": "x"}, "data is ["),
        (["--grid", "lora_r=8"], {"list": [{"lora_r": 4}]}, "lora_r stands in the grid and in the list"),
    ],
)
def test_a_plan_that_is_none_is_wrong_usage(argv, plan, said, tmp_path):
    path = tmp_path / "plan.json" if plan else None
    if plan:
        write_json(path, plan)
    with pytest.raises(SettingsError, match=re.escape(said)):
        points(*argv, plan=path)


@pytest.fixture
def fake_runs(tmp_path, monkeypatch):
    """Runs that leave the artifacts of a run, better with a larger rank; with rank 16 they fail: a list of starts."""
    started, failing, writing = [], {"--lora-r=16"}, threading.Lock()

    def start(command, **options):
        started.append(shlex.join(command[3:]))
        given = dict(itertools.pairwise(command))
        rank = re.search(r"--lora-r=(\d+)", started[-1])
        if any(words in started[-1] for words in failing):
            options["stdout"].write(b"a line\nerror: no room\n")
            return subprocess.CompletedProcess(command, 1)
        if not rank:
            return subprocess.CompletedProcess(command, 0)
        with writing:
            settings = default_settings(output_dir=str(tmp_path), run=given["--run"], data_dir=str(tmp_path))
            report_run.write_run(settings, keys=("sft",), prompts=12)
            evals = paths(settings).evals
            shutil.rmtree(evals / f"{given['--run']}-sft", ignore_errors=True)
            (evals / "student-sft").rename(evals / f"{given['--run']}-sft")
            adapter = paths(settings).sft_checkpoint / "adapter_config.json"
            adapter.parent.mkdir(parents=True, exist_ok=True)
            adapter.write_text("{}")
            metrics = paths(settings).run_dir / "training_metrics.jsonl"
            rows = [row for row in read_jsonl(metrics) if "eval_loss" not in row]
            write_jsonl(metrics, [*rows, {"step": rows[-1]["step"], "eval_loss": 1 / int(rank[1])}])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sweep.subprocess, "run", start)
    return started, failing


def test_a_sweep_goes_past_a_failed_point_and_runs_again_only_what_is_not_done(fake_runs, tmp_path, capsys):
    started, failing = fake_runs
    argv = ["sweep", "--grid", "lora_r=8,16,4", "--output-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        dispatch(argv)
    assert left.value.code == 1 and len(started) == 4  # the data, and three points
    said = capsys.readouterr().out
    assert "student-lora_r_16: failed (exit code 1): no room" in said
    told = read_json(tmp_path / "sweeps" / "student" / "sweep.json")
    assert [row["settings"]["lora_r"] for row in told["points"]] == [8, 4, 16]  # by validation loss; failed last
    assert (told["best"], told["ranked_by"]) == ("student-lora_r_8", "validation loss")
    assert told["points"][0]["as_asked"]["n"] and told["points"][2]["error"] == "no room"
    table = (tmp_path / "sweeps" / "student" / "sweep.md").read_text()
    assert "**student-lora_r_8** (best) | 8 |" in table and "failed: no room" in table
    failing.clear()
    dispatch(argv)
    assert len(started) == 5 and "--lora-r=16" in started[-1]
    dispatch([*argv, "--overwrite"])
    assert len(started) == 9


def test_points_whose_data_fail_are_not_run(fake_runs, tmp_path):
    started, failing = fake_runs
    failing.add("--seed=2")
    with pytest.raises(SystemExit):
        dispatch(["sweep", "--grid", "lora_r=8", "--grid", "seed=1,2", "--output-dir", str(tmp_path)])
    assert [("--seed=2" in line, "--until corpus" in line) for line in started] == [
        (False, True),
        (True, True),
        (False, False),
    ]


def test_jobs_at_once_end_as_one_after_another(fake_runs, tmp_path):
    started, _ = fake_runs
    dispatch(["sweep", "--grid", "lora_r=8,4,2", "--jobs", "3", "--output-dir", str(tmp_path)])
    told = read_json(tmp_path / "sweeps" / "student" / "sweep.json")
    assert [row["settings"]["lora_r"] for row in told["points"]] == [8, 4, 2] and len(started) == 4


def test_a_dry_run_lists_commands_that_exist_and_writes_nothing(tmp_path, capsys):
    dispatch(["sweep", "--grid", "lora_r=8,16", "--output-dir", str(tmp_path / "out"), "--dry-run"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if " -m schema_student run " in line]
    assert len(lines) == 3 and not list(tmp_path.iterdir())
    assert all(line.startswith(shlex.quote(sys.executable)) for line in lines)


def test_an_interrupted_point_ends_the_sweep(tmp_path, monkeypatch):
    started = []

    def start(command, **options):
        started.append(command)
        return subprocess.CompletedProcess(command, 130)

    monkeypatch.setattr(sweep.subprocess, "run", start)
    with pytest.raises(KeyboardInterrupt):
        dispatch(["sweep", "--grid", "lora_r=8,16", "--output-dir", str(tmp_path)])
    assert len(started) == 1


def test_points_are_ranked_by_the_measure_that_all_have():
    def row(run, rate, **validation):
        return {"run": run, "state": "done", "as_asked": {"rate": rate}, "validation": validation}

    rows = [row("a", 0.9, eval_loss=0.2), row("b", 0.5, eval_loss=0.1, eval_as_asked=0.7)]
    assert rank_points(rows)[0] == "validation loss" and [r["run"] for r in rank_points(rows)[1]] == ["b", "a"]
    rows = [row("a", 0.9, eval_as_asked=0.6), row("b", 0.5, eval_as_asked=0.7), row("c", 1.0, eval_as_asked=0.5)]
    assert [r["run"] for r in rank_points(rows)[1]] == ["b", "a", "c"]
    rows = [row("a", 0.5), row("b", 0.9)]
    assert rank_points(rows)[0] == "tests" and rank_points(rows)[1][0]["run"] == "b"
    assert "looks better than it is" in choose_note("tests", False)
