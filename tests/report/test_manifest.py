"""manifest.json says what a run was made of: the same for the same run at another time, another for other artifacts."""

from datetime import datetime

import pytest
from report_run import write_run

from schema_student.core.jsonl import read_json, read_jsonl, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.core.stamps import beside
from schema_student.core.times import take_out_times
from schema_student.report import manifest
from schema_student.report.manifest import collect_manifest, write_manifest


@pytest.fixture
def settings(tmp_path):
    settings = default_settings(output_dir=str(tmp_path), base_model="embedded")
    write_run(settings, prompts=4)
    return settings


def manifest_of(settings):
    return take_out_times(collect_manifest(paths(settings), "student"))


def test_it_names_what_ran_and_each_artifact_with_its_digest(settings):
    found = read_json(write_manifest(settings))
    assert found["run"] == "student" and found["commit"] == "0" * 40 and found["versions"]["torch"]
    assert found["base"]["digest"] == "f3a9" * 16 and found["teacher"]["model_digest"] == "7eac" * 16
    assert found["machine"]["cores"] >= 1 and found["machine"]["processor"] and found["machine"]["system"]
    assert list(found["artifacts"]) == [
        *("d_03_dataset.jsonl", "student", "alignment/dpo_pairs.jsonl", "student-dpo"),
        *(f"eval/student-{who}/evaluation_results.jsonl" for who in ("base", "sft", "dpo")),
    ]
    assert all(len(each["digest"]) == 64 and each["seed"] == 13 for each in found["artifacts"].values())


def change_rows(path, **changes):
    write_jsonl(path, [row | {name: each for name, each in changes.items() if name in row} for row in read_jsonl(path)])


def test_it_is_the_same_where_only_times_differ(settings):
    before, where = manifest_of(settings), paths(settings)
    change_rows(where.run_dir / "training_metrics.jsonl", eval_runtime=99)
    results = where.eval_dir("student-sft") / "evaluation_results.jsonl"
    change_rows(results, seconds=99.5)
    meta = beside(results, "meta")
    write_json(meta, {**read_json(meta), "finished_at": "2026-11-21T10:00:00+00:00", "digest": "0" * 64})
    assert manifest_of(settings) == before


@pytest.mark.parametrize("change", ["rows", "adapter", "setting"])
def test_it_is_another_where_anything_else_does(settings, change):
    before, where = manifest_of(settings), paths(settings)
    if change == "rows":
        change_rows(where.eval_dir("student-sft") / "evaluation_results.jsonl", rank=0)
    elif change == "adapter":
        (where.run_dir / "checkpoint-final" / "adapter_model.safetensors").write_text("other weights")
    else:
        meta = beside(where.run_dir, "meta")
        write_json(meta, {**read_json(meta), "settings": {"lora_r": 99}})
    after = manifest_of(settings)
    assert [name for name in before["artifacts"] if before["artifacts"][name] != after["artifacts"][name]] == [
        "eval/student-sft/evaluation_results.jsonl" if change == "rows" else "student"
    ]


def test_inputs_are_what_the_run_did_not_make_itself(settings):
    where = paths(settings)
    for path, inputs in (
        (where.dataset, {"mine.jsonl": "ab" * 32}),
        (where.run_dir, {"d_03_dataset.jsonl": "cd" * 32}),
        (where.dpo_dir, {"adapter_model.safetensors": "ef" * 32}),
    ):
        meta = beside(path, "meta")
        write_json(meta, {**read_json(meta), "inputs": inputs})
    assert manifest_of(settings)["inputs"] == {"mine.jsonl": "ab" * 32}


def test_nothing_is_written_of_a_run_that_has_finished_nothing(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    assert write_manifest(settings) is None and not paths(settings).report_dir.exists()


def test_a_manifest_is_made_of_the_stamps_of_what_is_there(tmp_path, monkeypatch):
    class Clock:
        @staticmethod
        def now(zone):
            return datetime(2026, 11, 20, 12, 0, 1, 5, tzinfo=zone)

    monkeypatch.setattr(manifest, "datetime", Clock)
    monkeypatch.setattr(manifest, "describe_machine", lambda: "a machine")
    monkeypatch.setattr(manifest, "digest_timeless", lambda path: f"digest of {path.name}")
    settings = default_settings(output_dir=str(tmp_path), run="r")
    where = paths(settings)

    def make(path, finished_at, **more):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        write_json(beside(path, "meta"), {"finished_at": finished_at, "digest": "x", **more})

    teacher = {
        "model": "m",
        "display_name": "M",
        "model_digest": "d",
        "api": "ollama",
        "ollama_version": "1",
        "key": "k",
    }
    make(where.dataset, "1", inputs={"mine.jsonl": "a", "d_02_final_schemas.jsonl": "b"}, teacher_info=teacher)
    make(where.schemas, "0", seconds=1.25)
    settings_ = {"lora_r": 8}
    make(where.dpo_dir, "3", settings=settings_, seed=3, base_digest="b", git_commit="new", versions={"torch": "2"})
    make(where.pairs, "2", seconds=2.5, git_commit="old", inputs={"eval/r-sft/evaluation_summary.json": "t"})
    make(where.link_dir("reward"), "", seconds=None)
    where.dpo_dir.unlink()
    write_json(
        where.dpo_dir / "run_config.json",
        {
            "student": {
                **{
                    "name": str(tmp_path / "models" / "base"),
                    "kind": "gemma",
                    "digest": "f",
                    "revision": "0",
                    "backend": "x",
                },
                "reason": "so",
            }
        },
    )
    beside(where.corpus, "meta").write_text("{}")  # what it is of is gone
    (where.pairs.parent / "other.jsonl").touch()  # not finished
    assert collect_manifest(where, "r") == {
        **{"run": "r", "versions": {"torch": "2"}, "commit": "new", "machine": "a machine"},
        "base": {"name": "base", "kind": "gemma", "digest": "f", "revision": "0", "backend": "x"},
        "teacher": {name: value for name, value in teacher.items() if name != "key"},
        "inputs": {"mine.jsonl": "a"},
        "artifacts": {
            "d_02_final_schemas.jsonl": {
                **{"digest": "digest of d_02_final_schemas.jsonl", "inputs": {}, "finished_at": "0", "seconds": 1.25}
            },
            "d_03_dataset.jsonl": {
                "digest": "digest of d_03_dataset.jsonl",
                "inputs": {"mine.jsonl": "a", "d_02_final_schemas.jsonl": "b"},
                "finished_at": "1",
            },
            "alignment/r/dpo_pairs.jsonl": {
                **{"digest": "digest of dpo_pairs.jsonl", "git_commit": "old", "finished_at": "2", "seconds": 2.5},
                "inputs": {},
            },
            "r-dpo": {
                **{"digest": "digest of r-dpo", "inputs": {}, "settings": {"lora_r": 8}, "seed": 3, "base_digest": "b"},
                **{"git_commit": "new", "finished_at": "3"},
            },
            "r-reward": {"digest": "digest of r-reward", "inputs": {}, "finished_at": "", "seconds": None},
        },
        "seconds": 3.8,
        "written_at": "2026-11-20T12:00:01+00:00",
    }
    path = write_manifest(settings)
    assert path == where.report_dir / "manifest.json" and read_json(path) == collect_manifest(where, "r")


def test_before_anything_was_trained_there_is_no_base_and_no_teacher(tmp_path):
    found = collect_manifest(paths(default_settings(output_dir=str(tmp_path))), "student")
    told = {name: found[name] for name in ("base", "teacher", "artifacts", "versions", "commit", "inputs", "seconds")}
    assert told == {
        "base": None,
        "teacher": None,
        "artifacts": {},
        "versions": {},
        "commit": None,
        "inputs": {},
        "seconds": 0,
    }
