"""Artifacts: atomic, stamped, and the same after any kill."""

import fcntl
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student import __version__
from schema_student.core import artifacts, stamps
from schema_student.core.artifacts import dry_run, is_only_checking, open_artifact, read_meta
from schema_student.core.artifacts import make as make_stage
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import (
    dump_row,
    parse_row,
    read_json,
    read_jsonl,
    read_object,
    update_json,
    write_json,
    write_jsonl,
    write_text,
)
from schema_student.core.locks import hold_lock
from schema_student.core.paths import evaluated, evaluated_requests, paths
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import default_settings
from schema_student.core.stamps import beside, digest, find_differences, git_commit, make_stamp, versions
from schema_student.operate.pretty import write_pretty

STAMP = {"settings": {"domains": 3}, "seed": 1}
ROWS = [{"n": 0, "text": "plain"}, {"n": 1, "text": "caf\u00e9 \u2028 \U0001f600"}, {"n": 2, "text": "lone \ud800"}]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
row_lists = st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=5)


def make(path, rows, stamp=STAMP, stop_after=None, **options):
    """An artifact as the stages make it: goes on after the rows that are there, and may be killed after some."""
    with open_artifact(path, stamp, **options) as artifact:
        if artifact.done:
            return "done"
        for row in rows[len(artifact.rows) : stop_after]:
            artifact.append(row)
        if stop_after is None:
            artifact.finish()
        return artifact.rows


@given(row_lists)
@hypothesis.settings(max_examples=30)
def test_rows_read_back_as_written(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        write_jsonl(path, rows)
        assert read_jsonl(path) == rows


@given(st.dictionaries(st.text(st.characters()), st.text(st.characters())))
def test_any_text_survives_lone_surrogates_and_line_separators_included(row):
    assert parse_row(dump_row(row), "row") == row
    assert "\n" not in dump_row(row)
    assert dump_row({"a": "caf\u00e9"}) == '{"a": "caf\u00e9"}' and dump_row("\u00e9\ud800") == r'"\u00e9\ud800"'


@given(row_lists, st.data())
@hypothesis.settings(max_examples=30)
def test_a_kill_at_any_byte_resumes_to_the_same_rows(rows, data):
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole.jsonl"), Path(folder, "killed.jsonl")
        make(whole, rows)
        make(killed, rows, stop_after=len(rows))
        if killed.exists():
            os.truncate(killed, data.draw(st.integers(0, killed.stat().st_size)))
        make(killed, rows)
        assert killed.read_bytes() == whole.read_bytes()
        assert make(killed, rows) == "done"


def test_a_torn_last_line_is_cut_and_written_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    make(path, ROWS, stop_after=1)
    with path.open("ab") as file:
        file.write(b'{"n": 1, "text": "caf\xc3')
    assert make(path, ROWS) == ROWS[:1]
    assert read_jsonl(path) == ROWS


def test_a_process_killed_in_the_middle_leaves_whole_rows_and_no_lock(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = f"""
import os, signal
from pathlib import Path
from schema_student.core.artifacts import open_artifact
with open_artifact(Path({str(path)!r}), {STAMP!r}) as artifact:
    artifact.append({ROWS[0]!r})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert read_meta(path) is None
    assert make(path, ROWS) == ROWS[:1]
    assert read_jsonl(path) == ROWS


def test_a_second_writer_is_refused_naming_the_first(tmp_path):
    path = tmp_path / "rows.jsonl"
    with open_artifact(path, STAMP), pytest.raises(UserError, match=f"being written by process {os.getpid()}"):  # noqa: SIM117
        with open_artifact(path, STAMP):
            raise AssertionError("two writers")
    assert make(path, ROWS) == []


def test_a_lock_says_its_holder_whoever_held_it_before_and_may_be_removed_meanwhile(tmp_path):
    path, lock = tmp_path / "x.json", tmp_path / "x.json.lock"
    lock.write_text("12345678901")  # of one that was killed
    with hold_lock(path):
        assert lock.read_text() == str(os.getpid())
        lock.unlink()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"x\.json is being written by process \?; wait for it"), hold_lock(path):
            raise AssertionError("two writers")


WAITS = """
import sys
from pathlib import Path
from schema_student.core.locks import hold_lock

path = Path(sys.argv[1])
print("begun", flush=True)
with hold_lock(path, wait=True):
    with path.open("a") as file:
        file.write(" second " + path.with_name(path.name + ".lock").read_text())
"""


def test_a_writer_that_waits_comes_after_the_first(tmp_path):
    path = tmp_path / "x.json"
    with hold_lock(path):
        waiting = subprocess.Popen([sys.executable, "-c", WAITS, str(path)], stdout=subprocess.PIPE, text=True)
        assert waiting.stdout.readline() == "begun\n"
        assert path.with_name("x.json.lock").read_text() == str(os.getpid())
        path.write_text("first")
    assert waiting.wait(60) == 0
    waiting.stdout.close()
    assert path.read_text() == f"first second {waiting.pid}" and not path.with_name("x.json.lock").exists()


def test_drafts_of_processes_that_are_gone_are_swept(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = (f".made.jsonl.{os.getpid()}.tmp", ".made.jsonl.notes.tmp", ".notes.tmp", "made.tmp")
    kept = [tmp_path / name for name in names]
    for path in (*kept, swept := tmp_path / f".other.json.{gone.pid}.tmp"):
        path.write_text("")
    make(tmp_path / "made.jsonl", ROWS)
    assert not swept.exists() and all(path.exists() for path in kept)


def test_a_value_that_stands_there_already_is_not_written_again(tmp_path):
    path = tmp_path / "value.json"
    update_json(path, {"a": 1})
    first = path.stat().st_ino
    update_json(path, {"a": 1})
    assert path.stat().st_ino == first  # a file that is written takes the place of the old one
    update_json(path, {"a": 2})
    assert path.stat().st_ino != first and read_json(path) == {"a": 2}


def test_an_object_has_fields_of_their_kinds(tmp_path):
    path = tmp_path / "meta.json"
    write_json(path, {"inputs": [1], "seed": None})
    assert read_object(path, seed=int, files=dict)["inputs"] == [1]
    with pytest.raises(UserError, match=r"meta\.json: inputs must be dict, not list"):
        read_object(path, inputs=dict)
    write_json(path, [1])
    with pytest.raises(UserError, match=r"meta\.json: must hold a JSON object, not list"):
        read_object(path)


def test_versions_and_commit_say_what_made_an_artifact():
    found = versions()
    libraries = {"torch", "transformers", "trl", "peft", "unsloth", "datasets", "ollama", "jsonschema-rs"}
    assert found.keys() == {"python", "schema_student"} | libraries
    assert found["python"] == ".".join(map(str, sys.version_info[:3])) and found["schema_student"] == __version__
    assert found["torch"] == importlib.metadata.version("torch") and "" not in found.values()


def test_the_commit_is_that_of_the_checkout_and_says_where_files_differ(tmp_path, monkeypatch):
    def read():
        git_commit.cache_clear()
        return git_commit()

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.setattr(stamps, "CHECKOUT", tmp_path)
    monkeypatch.setattr(stamps, "IS_INSTALLED", False)
    assert read() is None
    git("init")
    write_text(tmp_path / "a.py", "1")
    git("add", "a.py")
    git("commit", "-m", "Begin")
    git("tag", "-a", "v1", "-m", "v1")
    commit = git("rev-parse", "HEAD")
    assert read() == commit
    write_text(tmp_path / "a.py", "2")
    assert read() == f"{commit}-dirty"
    monkeypatch.setattr(stamps, "IS_INSTALLED", True)
    assert read() is None
    monkeypatch.setattr(stamps, "IS_INSTALLED", False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read() is None
    git_commit.cache_clear()


def test_what_differs_between_two_stamps_is_said_by_name():
    then = {"settings": {"a": 1, "b": 2}, "inputs": {"x": "1", "y": "2"}, "base": {"d": 1}, "seed": 1, "s": {"t": 1}}
    now = {"settings": {"a": 1, "c": 3}, "inputs": {"x": "1", "y": "3"}, "base": {"d": 2}, "seed": 1, "s": 4}
    assert find_differences(then, now) == [
        "base d was 1, now 2",
        "input y has changed",
        's was {"t": 1}, now 4',
        "b was 2, now null",
        "c was null, now 3",
    ]
    assert find_differences(then, then) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_lies_in_an_artifact_is_never_its_input(tmp_path, overwrite):
    adapter = tmp_path / "student-dpo" / "checkpoint-final" / "adapter_model.safetensors"
    write_text(adapter, "weights")
    with pytest.raises(UserError, match=r"of its own input .*adapter_model\.safetensors; name another"):
        make(tmp_path / "student-dpo", [], inputs=[adapter], overwrite=overwrite)
    assert adapter.read_text() == "weights"


def test_a_finished_step_says_so_and_changes_nothing(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    make(path, ROWS)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert make(path, []) == "done"
    assert "done already" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert set(before) == {"rows.jsonl", "rows.jsonl.meta.json"}


@pytest.mark.parametrize("stop_after", [None, 2], ids=["finished", "partial"])
def test_what_other_settings_made_is_refused_by_name_and_kept(tmp_path, stop_after):
    path = tmp_path / "rows.jsonl"
    make(path, ROWS, stop_after=stop_after)
    before = path.read_bytes()
    other = {"settings": {"domains": 4}, "seed": 1}
    begun = "begun" if stop_after else "made"
    with pytest.raises(UserError, match=rf"rows\.jsonl was {begun} otherwise: domains was 3, now 4\..*--overwrite"):
        make(path, ROWS, stamp=other)
    assert path.read_bytes() == before
    make(path, ROWS[1:], stamp=other, overwrite=True)
    assert read_jsonl(path) == ROWS[1:]


def test_further_facts_of_a_stamp_are_compared_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    make(path, ROWS, stamp={**STAMP, "base": "one"})
    with pytest.raises(UserError, match='base was "one", now "two"'):
        make(path, ROWS, stamp={**STAMP, "base": "two"})


def test_an_input_that_changed_is_named(tmp_path):
    source, path = tmp_path / "source.jsonl", tmp_path / "rows.jsonl"
    write_jsonl(source, ROWS)
    make(path, ROWS, inputs=[source])
    write_jsonl(source, ROWS[1:])
    with pytest.raises(UserError, match=r"input source\.jsonl has changed"):
        make(path, ROWS, inputs=[source])


DATASET_FIELDS = ("schema_id", "schema_json", "query", "current_date", "ast_json", "is_valid", "split")


@pytest.mark.parametrize("text", ["{torn", None, 3])
def test_json_within_a_row_that_is_broken_is_named(tmp_path, text):
    row = dict.fromkeys(DATASET_FIELDS, "{}") | {"ast_json": text}
    path = tmp_path / "d_03_dataset.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"d_03_dataset.jsonl:1: ast_json is not JSON in a string"):
        read_rows(path, DatasetRow)


def test_a_missing_or_unfinished_input_is_refused_with_its_script(tmp_path):
    source, path = tmp_path / "d_03_dataset.jsonl", tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match=r"not there; scripts/generate_dataset\.py makes it"):
        make(path, ROWS, inputs=[source])
    make(source, ROWS, stop_after=1)
    with pytest.raises(UserError, match="unfinished"):
        make(path, ROWS, inputs=[source])
    assert not path.exists()


def test_an_artifact_edited_by_hand_is_not_taken_for_the_one_that_was_made(tmp_path):
    path = tmp_path / "rows.jsonl"
    make(path, ROWS)
    write_jsonl(path, ROWS[1:])
    with pytest.raises(UserError, match="edited after it was made"):
        make(path, ROWS)


def test_a_step_without_rows_leaves_an_empty_finished_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    make(path, [])
    assert path.read_bytes() == b""
    assert make(path, []) == "done"


def test_a_folder_is_made_stamped_and_overwritten_as_a_whole(tmp_path):
    folder = tmp_path / "student"
    for overwrite in (False, True):
        with open_artifact(folder, STAMP, overwrite=overwrite) as artifact:
            assert not artifact.done
            assert not artifact.work.exists()
            write_text(artifact.work / "weights", "1")
            artifact.finish({"steps": 3})
    meta = read_meta(folder)
    assert meta is not None
    assert meta["steps"] == 3
    assert {"settings", "seed", "inputs", "versions", "git_commit", "finished_at"} <= set(meta)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", meta["finished_at"])
    with open_artifact(folder, STAMP) as artifact:
        assert artifact.done


def test_a_stamp_says_the_seconds_of_its_process_and_vouches_for_the_files_that_were_named(tmp_path, monkeypatch):
    clock = iter([100.0, 112.34])
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: next(clock))
    with open_artifact(tmp_path / "run", STAMP) as artifact:
        write_text(artifact.work / "a" / "rows.jsonl", "{}")
        write_text(artifact.work / "run.log", "begun")
        artifact.finish(vouched=["**/*.jsonl"])
    meta = read_meta(tmp_path / "run")
    assert meta["seconds"] == 12.3 and meta["files"] == {"a/rows.jsonl": digest(tmp_path / "run" / "a" / "rows.jsonl")}


META = ("settings", "versions", "inputs", "files", "rejected", "teacher_info", "finished_at", "digest")


@pytest.mark.parametrize("name", META)
def test_a_stamp_whose_field_is_of_another_type_is_named(tmp_path, name):
    write_json(beside(tmp_path / "rows.jsonl", "meta"), {name: 3})
    with pytest.raises(UserError, match=rf"rows\.jsonl\.meta\.json: {name} must be (str|dict), not int"):
        read_meta(tmp_path / "rows.jsonl")


def test_inputs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    files = [tmp_path / place / "x.jsonl" for place in ("a", "b", "c/b")]
    for file in files:
        write_text(file, str(file))
    make(tmp_path / "rows.jsonl", ROWS, inputs=files)
    names = ("x.jsonl", "b/x.jsonl", "c/b/x.jsonl")
    assert read_meta(tmp_path / "rows.jsonl")["inputs"] == dict(zip(names, map(digest, files), strict=True))


def test_an_input_in_an_unfinished_folder_is_refused(tmp_path):
    with open_artifact(tmp_path / "run", STAMP) as artifact:
        write_text(artifact.work / "weights", "half")
        with pytest.raises(UserError, match=r"input .*weights is unfinished: run the step that makes it again"):
            make(tmp_path / "rows.jsonl", ROWS, inputs=[artifact.work / "weights"])


def test_what_a_kill_left_of_a_finished_artifact_s_beginning_is_removed(tmp_path):
    path = tmp_path / "rows.jsonl"
    make(path, ROWS)
    write_json(beside(path, "partial"), {})
    assert make(path, ROWS) == "done" and not beside(path, "partial").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"a": 1', "not JSON"), ("[1]", "must be a JSON object"), ('{"a": NaN}', "NaN"), ('{"a": 1} x', "Extra data")],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"fine": true}\n\n' + line + "\n")
    with pytest.raises(UserError) as caught:
        read_jsonl(path)
    assert f"{path}:3: " in str(caught.value)
    assert words in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)
    for text, words in (('{"a":\n 1,}', r"x\.json:2: not JSON: "), ('{"a": NaN}', r"x\.json: not JSON: NaN is no")):
        write_text(tmp_path / "x.json", text)
        with pytest.raises(UserError, match=words):
            read_json(tmp_path / "x.json")
    (tmp_path / "latin.json").write_bytes(b'"caf\xe9"')
    with pytest.raises(UserError, match="not UTF-8 at byte 4"):
        read_json(tmp_path / "latin.json")


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"old": True})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"new": float("nan")})
    assert read_json(path) == {"old": True}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


def test_digests_follow_content_not_order_or_time(tmp_path):
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    write_text(tmp_path / "one" / "x", "1")
    write_text(tmp_path / "two" / "x", "1")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    write_text(tmp_path / "two" / "x", "2")
    assert digest(tmp_path / "one") != digest(tmp_path / "two")


def test_artifacts_of_the_default_run_lie_where_other_scripts_look_for_them():
    where = paths(default_settings())
    assert where.dataset == Path("outputs/d_03_dataset.jsonl")
    assert where.pairs == Path("outputs/student_runs/alignment/dpo_pairs.jsonl")
    assert where.dpo_checkpoint == Path("outputs/student_runs/student-dpo/checkpoint-final")
    assert where.eval_dir("student-sft") == Path("outputs/student_runs/eval/student-sft")


@pytest.mark.parametrize(
    ("changes", "run", "data", "pairs"),
    [
        ({}, "student", "o", "o/student_runs/alignment"),
        ({"run": "x"}, "x", "o/data/x", "o/student_runs/alignment/x"),
        ({"schemas": "y.jsonl"}, "y", "o/data/y", "o/student_runs/alignment/y"),
        ({"run": "x", "data_dir": "d"}, "x", "d", "o/student_runs/alignment/x"),
    ],
)
def test_each_artifact_has_its_place(changes, run, data, pairs):
    where = vars(paths(default_settings(output_dir="o", **changes)))
    assert {name: str(path) for name, path in where.items()} == {
        "domain_specs": f"{data}/d_01_domain_specs.jsonl",
        "schemas": f"{data}/d_02_final_schemas.jsonl",
        "dataset": f"{data}/d_03_dataset.jsonl",
        "extra_tests": f"{data}/d_03_extra_tests.jsonl",
        "hub_dataset": f"{data}/d_03_hub",
        "corpus": f"{data}/d_04_training_corpus.jsonl",
        "pairs": f"{pairs}/dpo_pairs.jsonl",
        "run_dir": f"o/student_runs/{run}",
        "run_folder": f"o/runs/{run}",
        "dpo_dir": f"o/student_runs/{run}-dpo",
        "reward_dir": f"o/student_runs/{run}-reward",
        "sft_checkpoint": f"o/student_runs/{run}/checkpoint-final",
        "dpo_checkpoint": f"o/student_runs/{run}-dpo/checkpoint-final",
        "references": "o/student_runs/alignment/reference_logps",
        "evals": "o/student_runs/eval",
        "rollouts": f"o/rollouts/{run}",
        "corrections": f"o/corrections/{run}",
        "pairwise": "o/duels",
        "judge": "o/judge",
        "report_dir": f"o/reports/{run}",
        "exports": f"o/exports/{run}",
        "chat": f"o/chat/{run}.jsonl",
        "sweep": f"o/sweeps/{run}",
        "logs": "o/logs",
        "pretty": "o/pretty",
        "reward_scores": "o/reward_scores.sqlite",
        "teacher_cache": "o/teacher_cache.sqlite",
        "teacher_answers": "o/teacher_answers.jsonl",
    }


def test_what_a_person_names_is_its_place(tmp_path):
    where = paths(default_settings(adapter="mine/checkpoint-final", teacher_answers="t.jsonl"))
    assert (where.sft_checkpoint, where.teacher_answers) == (Path("mine/checkpoint-final"), Path("t.jsonl"))
    assert where.link_checkpoint("ppo") == where.run_dir.with_name(f"{where.run_dir.name}-ppo") / "checkpoint-final"
    assert where.overwritten("run") == Path(f"outputs/.overwritten-run-{where.run_dir.name}")
    there = paths(default_settings(output_dir=str(tmp_path)))
    rows = (there.pairs, there.corpus, there.eval_dir("student-sft") / "evaluation_results.jsonl")
    for path in (*rows, there.eval_dir("other-sft") / "evaluation_results.jsonl"):
        write_jsonl(path, [])
    assert there.jsonl_files() == [there.corpus, there.pairs, rows[2]]


def test_two_runs_share_no_artifact():
    one, two = paths(default_settings(run="one")), paths(default_settings(schemas="x/two.jsonl"))
    for name in ("dataset", "corpus", "pairs", "run_dir", "dpo_dir", "report_dir"):
        assert getattr(one, name) != getattr(two, name)
    assert paths(default_settings(run="one", data_dir="outputs")).corpus == paths(default_settings()).corpus


@pytest.mark.parametrize(
    ("changes", "name", "adapter"),
    [
        ({}, "student-base", ""),
        ({"eval_student": "sft"}, "student-sft", "outputs/student_runs/student/checkpoint-final"),
        ({"eval_student": "dpo", "run": "x"}, "x-dpo", "outputs/student_runs/x-dpo/checkpoint-final"),
        ({"adapter": "o/student_runs/x/checkpoint-final"}, "x-sft", "o/student_runs/x/checkpoint-final"),
        ({"adapter": "o/student_runs/x-dpo/checkpoint-final"}, "x-dpo", "o/student_runs/x-dpo/checkpoint-final"),
        ({"adapter": "o/student_runs/x/checkpoint-50"}, "x-sft-checkpoint-50", "o/student_runs/x/checkpoint-50"),
        (
            {"adapter": "o/student_runs/x/checkpoint-final", "eval_student": "sft"},
            "x-sft",
            "o/student_runs/x/checkpoint-final",
        ),
        ({"adapter": "models/mine"}, "student-mine", "models/mine"),
        ({"adapter": "models/mine/checkpoint-final"}, "student-mine", "models/mine/checkpoint-final"),
        ({"adapter": "models/mine", "eval_student": "base"}, "student-base", ""),
        ({"eval_student": "teacher", "run": "x"}, "x-teacher", ""),
        ({"decoding": "constrained", "eval_extra": True}, "student-base-constrained-extra", ""),
        ({"examples": 2, "eval_data": "d/mine.jsonl"}, "student-base-2-examples-on-mine", ""),
        ({"endpoint": "http://h:81", "eval_data": "d/mine.jsonl"}, "student-endpoint-h-81-on-mine", ""),
        ({"endpoint": "http://h:81", "endpoint_model": "m:1"}, "student-endpoint-m-1", ""),
    ],
)
def test_who_is_evaluated_follows_from_flags(changes, name, adapter):
    assert evaluated(default_settings(**changes)) == (name, adapter)


def test_a_dpo_adapter_is_not_evaluated_as_its_own_runs_sft():
    adapter = "o/student_runs/x-dpo/checkpoint-final"
    with pytest.raises(
        SettingsError, match="is the adapter of this run's dpo; leave --eval-student out, or name another"
    ):
        evaluated(default_settings(adapter=adapter, eval_student="sft"))
    assert evaluated(default_settings(adapter=adapter, eval_student="sft", run="y")) == ("y-sft", adapter)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"endpoint": "http://h", "eval_student": "sft"}, "--endpoint is a student of its own"),
        ({"endpoint": "http://h", "adapter": "a/b"}, "--endpoint is a student of its own"),
        ({"endpoint": "http://h", "decoding": "constrained"}, "--endpoint: it decodes as it was started to"),
        ({"eval_student": "teacher", "decoding": "constrained"}, "--eval-student teacher: it decodes as its server"),
        ({"eval_data": "a.jsonl", "eval_extra": True}, "--eval-data and --eval-extra"),
        ({"eval_data": "d/-.jsonl"}, "gives no name of an evaluation"),
        ({"adapter": "models/-"}, "gives no name of its evaluation"),
    ],
)
def test_who_cannot_be_evaluated_so_is_refused(changes, words):
    with pytest.raises(SettingsError, match=words):
        evaluated(default_settings(**changes))


def test_requests_are_the_runs_its_extra_ones_or_a_persons_own():
    where = paths(default_settings())
    assert evaluated_requests(default_settings()) == where.dataset
    assert evaluated_requests(default_settings(eval_extra=True)) == where.extra_tests
    assert evaluated_requests(default_settings(eval_data="mine.jsonl")) == Path("mine.jsonl")


def test_a_dry_run_checks_a_stage_as_far_as_it_checks_before_it_writes(tmp_path, monkeypatch, capsys):
    settings, there = default_settings(dry_run=True), tmp_path / "there.jsonl"
    path = tmp_path / "x" / "y" / "made.jsonl"
    ran = []

    def stage(stamp=STAMP, overwrite=False):
        def run():
            ran.append(is_only_checking())
            with open_artifact(path, stamp, overwrite=overwrite) as artifact:
                if not artifact.done:
                    artifact.append({"n": 1})
                    artifact.finish()

        return run

    monkeypatch.setenv("SCHEMA_STUDENT_SCRIPTS", "build_training_corpus.py")
    there = there.with_name("d_04_training_corpus.jsonl")
    assert not make_stage(stage(), settings, [there], [path]) and ran == []  # an earlier stage makes what it reads
    assert f"would read  {there} (an earlier stage makes it)" in capsys.readouterr().out
    there.write_text("")
    assert not make_stage(stage(), settings, [there], [path]) and ran == [True] and not (tmp_path / "x").exists()
    said = capsys.readouterr().out.splitlines()
    assert said == [f"would read  {there} (present)", f"would write {path} (absent)"]
    assert make_stage(stage(), settings.changed(dry_run=False), [there], [path]) and ran == [True, False]
    made = path.read_bytes()
    assert not make_stage(stage(), settings, [there], [path])
    with pytest.raises(UserError, match="--overwrite"):
        make_stage(stage({**STAMP, "seed": 2}), settings, [there], [path])
    assert not make_stage(stage({**STAMP, "seed": 2}, overwrite=True), settings, [there], [path])
    assert path.read_bytes() == made and not is_only_checking()
    beside(path, "meta").unlink()
    with pytest.raises(UserError, match=r"made\.jsonl"):  # nobody knows what made it
        make_stage(stage(), settings, [there], [path])


def test_a_dry_run_says_what_is_missing_and_writes_nothing(tmp_path, capsys):
    settings = default_settings(output_dir=str(tmp_path), dry_run=True)
    where = paths(settings)
    with pytest.raises(UserError, match=r"d_03_dataset.jsonl is not there; scripts/generate_dataset.py makes it"):
        dry_run(settings, reads=[where.dataset], writes=[where.corpus])
    said = capsys.readouterr().out
    assert "d_03_dataset.jsonl (MISSING)" in said
    assert "d_04_training_corpus.jsonl (absent)" in said
    assert list(tmp_path.iterdir()) == []
    assert not dry_run(settings.changed(dry_run=False), reads=[], writes=[])


def test_pretty_files_unfold_the_json_inside(tmp_path):
    settings = default_settings(output_dir=str(tmp_path))
    where = paths(settings)
    write_jsonl(where.dataset, [{"ast_json": '{"a": [1]}', "schema_json": "broken {"}])
    write_jsonl(where.eval_dir("student-sft") / "evaluation_results.jsonl", [{"rank": 5}])
    assert [path.name for path in write_pretty(settings)] == [
        "student-d_03_dataset.json",
        "student-sft-evaluation_results.json",
    ]
    assert read_json(where.pretty / "student-d_03_dataset.json") == [
        {"ast_json": {"a": [1]}, "schema_json": "broken {"}
    ]


def test_a_stamp_holds_the_named_settings_the_seed_and_facts():
    stamp = make_stamp(default_settings(), "batching", base="abc")
    assert json.loads(json.dumps(stamp)) == {"settings": {"batch_tokens": 16384}, "seed": 13, "base": "abc"}


def test_an_input_in_the_current_folder_is_looked_at_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("input.jsonl").write_text("{}\n")
    with open_artifact(tmp_path / "made.jsonl", {}, [Path("input.jsonl")]) as artifact:
        artifact.finish()
    with pytest.raises(UserError, match=r"^nowhere.json is not there$"):
        read_json(Path("nowhere.json"))


def of_part(limit=None, **others):
    return {"settings": {"domains": 3, **({"max_samples": limit} if limit else {}), **others}, "seed": 1}


@pytest.mark.parametrize("more", [of_part(), of_part(4)])
def test_what_a_part_was_begun_or_made_of_gives_way_to_more(tmp_path, more):
    for stop_after in (1, None):
        path = tmp_path / f"{stop_after}.jsonl"
        write_text(tmp_path / "in", "a part")
        make(path, ROWS[:2], of_part(2), stop_after, inputs=[tmp_path / "in"])
        write_text(tmp_path / "in", "all")
        assert make(path, ROWS, more, inputs=[tmp_path / "in"]) == [] and read_jsonl(path) == ROWS
        assert make(path, ROWS, more, inputs=[tmp_path / "in"]) == "done"


@pytest.mark.parametrize("other", [of_part(1), of_part(domains=4), {**of_part(), "seed": 2}])
def test_a_part_is_not_taken_for_less_nor_for_what_other_settings_make(tmp_path, other):
    make(tmp_path / "a.jsonl", ROWS, of_part(2))
    with pytest.raises(UserError, match=r"was made otherwise: .*\bwas"):
        make(tmp_path / "a.jsonl", ROWS, other)
    assert read_jsonl(tmp_path / "a.jsonl") == ROWS
