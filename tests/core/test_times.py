"""Artifacts of equal runs are equal where their time fields are taken out, and nothing else is."""

import pytest

from schema_student.core.jsonl import write_json, write_jsonl
from schema_student.core.times import TIMED, TIMES, digest_timeless, read_timeless, take_out_times


@pytest.mark.parametrize("name", TIMES)
def test_a_time_field_is_taken_out_at_any_depth(name):
    value = {"a": [{name: 1.5, "b": {name: {"p50": 2}, "c": 3}}], name: "2026-01-01"}
    assert take_out_times(value) == {"a": [{"b": {"c": 3}}]}


@pytest.mark.parametrize("name", TIMED)
def test_the_digest_of_a_file_with_time_fields_is_one_of_them(name):
    stamp = {"files": {name: "ab12", "margins.jsonl": "cd34"}, "inputs": {f"sft/{name}": "ef56"}}
    assert take_out_times(stamp) == {"files": {"margins.jsonl": "cd34"}, "inputs": {}}
    named = [{"name": f"sft/{name}", "digest": "ab12"}, {"name": "d_03_dataset.jsonl", "digest": "cd34"}]
    assert take_out_times(named) == [{"name": f"sft/{name}"}, named[1]]


def test_these_fields_and_files_have_times():
    fields = "finished_at written_at at seconds eval_runtime tokens_per_second seconds_percentiles"
    fields += " tokens_per_second_percentiles teacher_cost"
    assert take_out_times(dict.fromkeys(fields.split(), 1)) == {} and len(TIMES) == 9
    files = ("training_metrics.jsonl", "evaluation_results.jsonl", "evaluation_summary.json")
    assert take_out_times(dict.fromkeys(files, "ab12")) == {} and len(TIMED) == 3


def test_what_is_no_time_stays():
    row = {"step": 2, "eval_loss": 0.5, "second": 1, "times": [3], "at_least": None}
    assert take_out_times(row) == row


def write_run(folder, seconds, loss=0.5, weights=b"\x00\x01"):
    folder.mkdir()
    write_jsonl(folder / "training_metrics.jsonl", [{"step": 2, "eval_loss": loss, "eval_runtime": seconds}])
    write_json(folder / "run_config.json", {"stage": "sft", "finished_at": f"at {seconds}"})
    (folder / "weights.bin").write_bytes(weights)
    return folder


def test_a_folder_has_one_digest_whatever_the_time_it_took(tmp_path):
    first = digest_timeless(write_run(tmp_path / "a", 1.5))
    assert digest_timeless(write_run(tmp_path / "b", 2.5)) == first
    assert digest_timeless(write_run(tmp_path / "c", 1.5, loss=0.25)) != first
    assert digest_timeless(write_run(tmp_path / "d", 1.5, weights=b"\x00\x02")) != first
    alone = [digest_timeless(tmp_path / name / "run_config.json") for name in "ab"]
    assert alone[0] == alone[1] != digest_timeless(tmp_path / "a" / "training_metrics.jsonl")
    (tmp_path / "b" / "more.json").write_text("{}")
    assert digest_timeless(tmp_path / "b") != first


def test_a_stamp_of_a_file_with_time_fields_is_read_without_its_digest(tmp_path):
    for name, kept in (("evaluation_results.jsonl", False), ("d_03_dataset.jsonl", True)):
        write_json(path := tmp_path / f"{name}.meta.json", {"digest": "ab12", "seed": 13, "finished_at": "now"})
        assert (b"ab12" in read_timeless(path)) == kept and b"seed" in read_timeless(path)
        write_json(path, {"seed": 13})
        assert read_timeless(path) == b'{\n  "seed": 13\n}'
