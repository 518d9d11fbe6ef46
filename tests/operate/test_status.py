"""`status` against an output folder made by hand: the state of each stage, what is on disk, and what comes next."""

import os
from types import SimpleNamespace

import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import write_json
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.verbs import STAGES
from schema_student.operate import status
from schema_student.operate.status import describe_status, find_runs, measure, read_status, say_bytes

TIME = "2026-11-20T11:{:02d}:00+00:00"
ROWS = "evaluation_results.jsonl"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    free = {tmp_path / "out": 7, tmp_path: 8}  # of the folder, or the nearest that there is
    monkeypatch.setattr(status.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    monkeypatch.setattr(status.platform, "node", lambda: "here")
    monkeypatch.setattr(status, "is_running", lambda pid: pid == 41)
    monkeypatch.setattr(status, "process_started", lambda pid: "100")
    monkeypatch.chdir(tmp_path)
    return default_settings(output_dir="out", run="mine")


def put(path, bytes_=100, finished=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * bytes_)
    if finished is not None:
        write_json(path.with_name(f"{path.name}.meta.json"), {"finished_at": TIME.format(finished)})


def record(settings, **stages):
    path = paths(settings).run_folder / "status.json"
    write_json(path, {"run": "mine", "stages": stages})


def states(settings):
    (run,) = read_status(settings)["runs"]
    return {stage["stage"]: stage for stage in run["stages"]}, run


def test_a_run_is_told_with_its_stages_rates_bytes_and_next_command(settings):
    where = paths(settings)
    put(where.dataset, 3000, finished=3)
    put(where.corpus, 500)
    put(where.run_dir / "checkpoint-final" / "a", 70)
    write_json(where.run_dir.with_name("mine.meta.json"), {"finished_at": TIME.format(9)})
    for key, minute in (("base", 4), ("dpo", None)):
        put(where.evals / f"mine-{key}" / ROWS, 40, finished=minute)
    judged = {"semantic_pass_rate": {"rate": 0.75}, "semantic_match_target_rate": {"rate": 0.5}}
    alone = {"semantic_pass_rate": {"rate": None}, "semantic_match_target_rate": 0.25}
    for key, overall in (("base", judged), ("dpo", alone), ("sft", {})):
        write_json(where.evals / f"mine-{key}" / "evaluation_summary.json", {"overall": overall})
    put(where.run_dir.with_name("mine-dpo") / "a", 5)
    put(where.report_dir / "report.html", 6)
    os.utime(where.report_dir / "report.html", (0, 0))
    put(where.dataset.with_name(f"{where.dataset.name}.lock"), 0)
    gone = {"state": "running", "pid": 42, "host": "here", "process_started": "100", "started_at": TIME.format(12)}
    record(
        settings,
        sft={
            **{"state": "done", "started_at": TIME.format(5), "ended_at": "2026-11-20T11:06:30+00:00"},
            **{"settings": {"sft_epochs": 3, "seed": 1, "overwrite": True, "run": "mine"}},
        },
        corpus={"state": "failed", "error": "no room", "settings": {"seed": 2}, "started_at": TIME.format(7)},
        align={**gone, "progress": {"done": 1}, "settings": {"eval_student": "sft", "beta": 0.5}},
    )
    found = read_status(settings)
    (run,) = found["runs"]
    total = measure(where.run_folder.parents[1])
    assert (found["output_dir"], found["bytes"], found["free_bytes"]) == ("out", total, 7) and total > 3721
    logs = measure(where.run_folder)
    sizes = {kind: sum(map(measure, places)) for kind, places in {
        "evaluations": [where.evals], "report": [where.report_dir], "logs": [where.run_folder],
    }.items()}  # fmt: skip
    flags = "--run mine --output-dir out --seed 2 --sft-epochs 3 --beta 0.5"
    assert run == {
        "run": "mine",
        "stages": [
            {"stage": "domain_specs", "state": "to do"},
            {"stage": "schemas", "state": "to do"},
            {"stage": "dataset", "state": "done", "finished_at": TIME.format(3)},
            {"stage": "corpus", "state": "failed", "error": "no room", "started_at": TIME.format(7)},
            {"stage": "sft", "state": "done", "finished_at": TIME.format(9), "seconds": 90.0},
            {"stage": "evaluate_base", "state": "done", "finished_at": TIME.format(4)},
            {"stage": "evaluate_sft", "state": "to do"},
            {
                **{"stage": "align", "state": "killed", "progress": {"done": 1}, "started_at": TIME.format(12)},
                **{"pid": 42, "host": "here"},
            },
            {"stage": "evaluate_aligned", "state": "partial"},
            {"stage": "report", "state": "done", "finished_at": "1970-01-01T00:00:00+00:00"},
        ],
        "rates": {"mine-base": 0.75, "mine-dpo": 0.25},
        "bytes": {"dataset": 3500, "training": 75, "exports": 0, **sizes, "logs": logs},
        "settings": {
            **{"sft_epochs": 3, "seed": 2, "overwrite": True, "run": "mine", "eval_student": "sft", "beta": 0.5}
        },
        "locks": [{"lock": "out/data/mine/d_03_dataset.jsonl.lock", "process": "", "stale": True}],
        "state": "failed",
        "next": f"schema-student run --from domain_specs {flags}",
    }


def test_a_run_that_has_all_is_done_and_one_on_its_own_schemas_makes_none(settings):
    for stage in STAGES:
        record(settings, **{stage: {"state": "done"}})
    where = paths(settings)
    for path in (where.domain_specs, where.schemas, where.dataset, where.corpus):
        put(path, finished=1)
    for path in (where.run_dir, where.run_dir.with_name("mine-rloo"), where.run_dir.with_name("mine-dpo")):
        path.mkdir(parents=True)
        write_json(path.with_name(f"{path.name}.meta.json"), {"finished_at": TIME.format(2)})
    for key in ("base", "sft", "rloo", "dpo"):
        put(where.evals / f"mine-{key}" / ROWS, finished=5 if key == "rloo" else 3)
    put(where.report_dir / "report.html")
    found, run = states(settings)
    assert {stage["state"] for stage in found.values()} == {"done"} and list(found) == list(STAGES)
    assert found["evaluate_aligned"]["finished_at"] == TIME.format(5)  # the last of them
    assert (run["state"], run["next"]) == ("done", 'schema-student ask --run mine --output-dir out "..."')
    (where.evals / "mine-dpo" / f"{ROWS}.meta.json").unlink()
    found, run = states(settings)
    assert found["evaluate_aligned"]["state"] == "partial"
    flags = "--run mine --output-dir out"
    assert (run["state"], run["next"]) == ("partial", f"schema-student run --from evaluate_aligned {flags}")
    record(settings, report={"state": "done", "settings": {"schemas": "a.json"}})
    assert list(states(settings)[0]) == list(STAGES)[2:]


def stage(**recorded):
    return {"state": "running", "pid": 41, "host": "here", "process_started": "100", **recorded}


@pytest.mark.parametrize(
    ("recorded", "state"),
    [
        (stage(), "running"),
        (stage(process_started=""), "running"),
        (stage(process_started="99"), "killed"),  # its number is another process's now
        (stage(pid=40), "killed"),
        (stage(pid=40, host="there"), "running"),  # of another machine, of which nothing is known
        ({"state": "running", "pid": 41, "host": "here"}, "running"),
        ({"state": "running", "host": "here"}, "killed"),
        ({"state": "interrupted"}, "interrupted"),
        ({"state": "done"}, "to do"),  # and what it made is gone
    ],
)
def test_a_stage_is_at_work_while_its_process_is_there(recorded, state, settings):
    record(settings, sft=recorded)
    found, run = states(settings)
    assert found["sft"]["state"] == state
    if state == "running":
        assert (run["state"], run["next"]) == ("running", "schema-student status --watch --run mine --output-dir out")
        known = {key: recorded[key] for key in ("pid", "host") if key in recorded}
        assert found["sft"] == {"stage": "sft", "state": "running", **known}
    else:
        assert run["state"] == ("unfinished" if state == "to do" else state)


def test_a_verb_that_makes_no_stage_stands_behind_them_or_alone(settings):
    record(settings, export={"state": "done"}, sft={"state": "failed"})
    assert list(states(settings)[0]) == [*STAGES, "export"]
    taken = {"started_at": TIME.format(1), "ended_at": TIME.format(2)}
    record(settings, export={"state": "done", **taken}, parity={"state": "done", **taken, "ended_at": 3})
    found, run = states(settings)
    assert list(found.values()) == [
        {"stage": "export", "state": "done", "seconds": 60.0},
        {"stage": "parity", "state": "done"},
    ]
    assert run["state"] == "done"
    record(settings, export={"state": "failed", "settings": {"kind": ["gguf"]}}, parity={"state": "done"})
    assert states(settings)[1]["next"] == "schema-student export --run mine --output-dir out --kind gguf"


def test_a_stamp_that_is_broken_is_no_end(settings):
    where = paths(settings)
    put(where.dataset)
    where.dataset.with_name(f"{where.dataset.name}.meta.json").write_text("[]")
    put(where.corpus, finished=1)
    where.corpus.unlink()  # what the stamp is of is gone
    found, _ = states(settings)
    assert (found["dataset"]["state"], found["corpus"]["state"]) == ("partial", "partial")
    (where.run_dir.parent).mkdir()
    write_json(where.run_dir.with_name("mine.partial.json"), {})
    assert states(settings)[0]["sft"]["state"] == "partial"


def test_locks_of_a_run_are_held_by_whom_they_name(settings):
    runs = paths(settings).run_dir.parent
    for name, holder in {"mine": "41\n", "mine-dpo": "42", "mine-2": "41", "alignment/mine/x": "a b"}.items():
        put(runs / f"{name}.lock", 0)
        (runs / f"{name}.lock").write_text(holder)
    put(paths(settings).evals / "mine-sft" / "rows.lock", 0)
    locks = states(settings)[1]["locks"]
    place = "out/student_runs/"
    assert [(each["lock"].removeprefix(place), each["process"], each["stale"]) for each in locks] == [
        ("alignment/mine/x.lock", "a b", True),
        ("eval/mine-sft/rows.lock", "", True),
        ("mine-dpo.lock", "42", True),
        ("mine.lock", "41", False),
    ]


def test_the_runs_of_a_folder_are_found_by_all_that_they_leave_the_last_recorded_one_last(tmp_path):
    for name in ("student_runs/b", "student_runs/b-dpo", "student_runs/eval/x-sft", "data/c", "runs/a", "runs/d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "student_runs" / "linked").symlink_to(tmp_path / "data")
    (tmp_path / "student_runs" / "file").touch()
    os.utime(tmp_path / "runs" / "a", (9, 9))
    os.utime(tmp_path / "runs" / "d", (8, 8))
    assert find_runs(tmp_path) == ["b", "c", "d", "a"]
    for name in ("d_01_domain_specs.jsonl", "d_03_dataset.jsonl"):
        (tmp_path / name).touch()
        assert find_runs(tmp_path) == ["b", "c", "student", "d", "a"]
        (tmp_path / name).unlink()
    assert find_runs(tmp_path / "none") == []


def test_every_run_of_the_folder_is_told_where_none_is_named(settings):
    (paths(settings).run_folder.parent / "a").mkdir(parents=True)
    (paths(settings).run_folder.parent.parent / "data" / "b").mkdir(parents=True)
    assert [run["run"] for run in read_status(settings.changed(run=""))["runs"]] == ["b", "a"]


def test_bytes_are_those_of_files_and_of_links_themselves(tmp_path):
    put(tmp_path / "a" / "b" / "c", 7)
    put(tmp_path / "a" / "d", 5)
    (tmp_path / "a" / "link").symlink_to("d")  # one byte: where it leads
    (tmp_path / "out").symlink_to(tmp_path / "a")
    assert [measure(tmp_path / name) for name in ("a", "a/d", "out", "none")] == [13, 5, 0, 0]


def test_a_data_set_of_another_run_is_looked_for_where_the_run_took_it_from(settings):
    put(paths(settings).run_folder.parents[1] / "other" / "d_03_dataset.jsonl", finished=1)
    record(settings, sft={"state": "failed", "settings": {"data_dir": "out/other"}})
    assert states(settings)[0]["dataset"]["state"] == "done"


def test_a_summary_that_is_none_is_an_error_that_names_it(settings):
    put(paths(settings).evals / "mine-sft" / "evaluation_summary.json", 3)
    with pytest.raises(UserError, match=r"evaluation_summary\.json"):
        read_status(settings)


# ---- For people


def line_of(**stage):
    run = {"run": "r", "state": "s", "stages": [{"stage": "sft", **stage}], "rates": {}, "bytes": {}, "locks": []}
    return list(describe_status({"output_dir": "o", "bytes": 1, "free_bytes": 1, "runs": [{**run, "next": "n"}]}))[2]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"state": "done"}, "done"),
        ({"state": "done", "seconds": 90, "finished_at": "then"}, "done in 1 min 30 s, then"),
        ({"state": "to do"}, "to do"),
        ({"state": "failed", "error": "no room"}, "failed: no room"),
        ({"state": "running", "pid": 3}, "running (process 3)"),
        ({"state": "running", "pid": 3, "progress": {"total": 9}}, "running (process 3)"),
        (
            {"state": "running", "pid": 3, "progress": {"done": 2, "total": 9, "what": "training", "unit": "step"}},
            "running (process 3) training 2/9 steps",
        ),
        (
            {"state": "killed", "pid": 3, "progress": {"done": 2, "per_second": 0.12345, "seconds_left": 61}},
            "killed: process 3 is gone without a word  2/? s, 0.123 a second, 1 min 1 s left",
        ),
    ],
)
def test_a_stage_is_told_in_a_line(stage, words):
    assert line_of(**stage) == f"  sft              {words}"


def test_a_status_is_told_in_lines():
    run = {"run": "mine", "state": "failed", "stages": [], "rates": {"mine-sft": 0.875}, "next": "schema-student run"}
    run["bytes"] = {"dataset": 2048, "training": 0, "logs": 3}
    held = {"process": "41", "stale": False}
    run["locks"] = [{"lock": "a.lock", **held}, {"lock": "b.lock", "process": "", "stale": True}]
    told = {"output_dir": "out", "bytes": 1023, "free_bytes": 1024, "runs": [run]}
    assert list(describe_status(told)) == [
        "out: 1023 B, 1.0 KiB of the disk free",
        "\nrun mine: failed",
        "  mine-sft: 87.5% of its answers pass",
        "  disk: dataset 2.0 KiB, logs 3 B",
        "  lock a.lock of process 41: held",
        "  lock b.lock of process ?: stale, in nobody's way",
        "  next: schema-student run",
    ]
    assert list(describe_status({**told, "runs": []}))[1:] == ["no run yet; begin: schema-student run"]


def test_bytes_are_said_in_the_largest_unit_that_they_fill():
    sizes = {
        0: "0 B",
        2**20 - 1: "1024.0 KiB",
        2**20: "1.0 MiB",
        2**30: "1.0 GiB",
        2**41: "2.0 TiB",
        2**52: "4096.0 TiB",
    }
    assert {size: say_bytes(size) for size in sizes} == sizes
