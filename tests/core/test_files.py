"""Nothing is written through a link, nothing but plain files is opened to write, and only a named folder is removed."""

import os
import subprocess

import pytest

from schema_student.core import files
from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, open_to_write, remove_folder, write_bytes
from schema_student.core.jsonl import append_row, read_object, truncate_log, write_json
from schema_student.core.locks import hold_lock
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings


@pytest.fixture
def victim(tmp_path):
    """A file of somebody's, to which a link in an output folder leads."""
    path = tmp_path / "victim"
    path.write_text("precious\n")
    return path


@pytest.mark.parametrize("mode", ["w", "a", "r+", "a+", "wb"])
@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_a_link_is_not_opened_to_write(tmp_path, victim, mode, target):
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"rows.jsonl is a link"):
        open_to_write(tmp_path / "rows.jsonl", mode)
    assert victim.read_text() == "precious\n" and not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("mode", ["w", "a", "a+"])
def test_a_pipe_is_not_opened_and_not_waited_for(tmp_path, mode):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no plain file"):
        open_to_write(tmp_path / "pipe", mode)
    with pytest.raises(UserError, match="no plain file"):
        open_to_write("/dev/null", "w")


def test_a_plain_file_is_opened_as_usual(tmp_path):
    with open_to_write(tmp_path / "file", "w", encoding="utf-8") as file:
        file.write("a\n")
    append_row(tmp_path / "file", {"b": 1})
    assert (tmp_path / "file").read_text() == 'a\n{"b": 1}\n'
    assert (tmp_path / "file").stat().st_mode & 0o111 == 0  # no program


WRITERS = {
    "d_03.jsonl": lambda path: append_row(path, {"a": 1}),
    "d_03.jsonl.lock": lambda path: hold_lock(path.with_name("d_03.jsonl")).__enter__(),
    f".a.json.{os.getpid()}.tmp": lambda path: write_json(path.with_name("a.json"), {}),
    "d_04.jsonl": lambda path: _make(path),
    ".partial": lambda path: make_folder(path),
}


def _make(path):
    with open_artifact(path, {"settings": {}}, overwrite=False) as artifact:
        artifact.append({"a": 1})
        artifact.finish()


@pytest.mark.parametrize("name", WRITERS, ids=lambda name: name.replace(str(os.getpid()), "PID"))
def test_a_link_in_the_place_of_what_a_stage_writes_is_an_error_that_names_it(tmp_path, victim, name):
    link = tmp_path / "outputs" / name
    link.parent.mkdir()
    link.symlink_to(victim)
    with pytest.raises(UserError, match="is a link"):
        WRITERS[name](link)
    assert victim.read_text() == "precious\n"


def test_a_whole_write_takes_the_place_of_a_link_and_leaves_its_target(tmp_path, victim):
    (tmp_path / "a.json").symlink_to(victim)
    write_bytes(tmp_path / "a.json", b"new")
    assert not (tmp_path / "a.json").is_symlink() and victim.read_text() == "precious\n"


def test_a_log_that_is_a_link_is_cut_back_without_its_target(tmp_path, victim):
    victim.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    (tmp_path / "log.jsonl").symlink_to(victim)
    truncate_log(tmp_path / "log.jsonl", 1)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n' and victim.read_text().endswith('{"ste')


def test_a_log_is_cut_back_to_a_step_without_that_of_its_checkpoint(tmp_path):
    path, kept = tmp_path / "log.jsonl", [b'{"note": "\xff"}', b'{"step": 0}', b'{"step": 1, "loss": 1}']
    dropped = [b'{"step": 1, "checkpoint": 1}', b'{"step": 2}', b'{"step"']
    path.write_bytes(b"\n\n".join([*kept, *dropped]))
    truncate_log(path, 1)
    assert path.read_bytes() == b"\n".join([*kept, b""]).replace(b"\xff", "\ufffd".encode())
    truncate_log(path, -1)
    assert path.read_text() == ""
    truncate_log(tmp_path / "nothing.jsonl", 1)
    assert not (tmp_path / "nothing.jsonl").exists()


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "../outputs", "link"])
def test_only_a_folder_of_that_name_is_removed(tmp_path, name):
    outputs = tmp_path / "outputs"
    (outputs / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (outputs / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"nothing was removed or moved|is a link"):
        remove_folder(outputs, name)
    assert (outputs / "a" / "b").is_dir() and (tmp_path / "elsewhere").is_dir()
    remove_folder(outputs, "a")
    remove_folder(outputs, "a")
    assert not (outputs / "a").exists()


RUN = {"schemas": "", "run": "mine"}


@pytest.mark.parametrize(
    "folder",
    ["student_runs", "student_runs/mine", "reports/mine", "student_runs/eval", "data/mine", "judge", "exports/mine"],
)
def test_a_folder_of_a_run_that_is_a_link_is_named(tmp_path, folder):
    link = tmp_path / "outputs" / folder
    link.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{folder} is a link"):
        paths(default_settings(output_dir=str(tmp_path / "outputs"), **RUN))


def test_a_folder_whose_name_has_a_dot_is_looked_at_too_and_a_file_or_the_adapter_may_be_a_link(tmp_path):
    settings = default_settings(output_dir=str(tmp_path / "outputs"), run="mine.v2")
    where = paths(settings)
    for path in (where.teacher_cache, where.dataset, where.sft_checkpoint):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path)
    assert paths(settings) == where
    for path in (where.dpo_dir, where.exports, where.rollouts):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path)
        with pytest.raises(UserError, match=rf"{path.name} is a link"):
            paths(settings)
        path.unlink()


def test_the_output_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "big-disk")
    where = paths(default_settings(output_dir=str(tmp_path / "outputs"), **RUN))
    make_folder(where.run_dir)
    assert (tmp_path / "big-disk" / "student_runs" / "mine").is_dir()


def test_an_evaluation_that_is_a_link_is_named(tmp_path):
    where = paths(default_settings(output_dir=str(tmp_path)))
    where.evals.mkdir(parents=True)
    (where.evals / "mine-sft").symlink_to(tmp_path)
    with pytest.raises(UserError, match="mine-sft is a link"):
        where.eval_dir("mine-sft")


@pytest.mark.parametrize(
    "text", ["[1]", "3", '"text"', "null", "[" * 100_000, '{"a": Infinity}', '{"a":' * 100_000, "{", "\x00"]
)
def test_what_should_be_an_object_and_is_not_is_named(tmp_path, text):
    (tmp_path / "a.meta.json").write_text(text)
    with pytest.raises(UserError, match=r"a.meta.json"):
        read_object(tmp_path / "a.meta.json")


def test_what_a_killed_process_was_writing_is_removed_by_who_writes_it_next(tmp_path):
    killed = subprocess.Popen(["true"])
    killed.wait()
    drafts = [tmp_path / f".{name}.tmp" for name in (f"a.json.{killed.pid}", f"b.json.{killed.pid}", "a.json.1")]
    for draft in drafts:
        draft.write_text("half")
    write_bytes(tmp_path / "a.json", b"{}")
    assert [draft.exists() for draft in drafts] == [False, True, True]  # process 1 is at work


def test_two_may_remove_the_same_draft(tmp_path, monkeypatch):
    draft = tmp_path / ".a.json.12.tmp"
    draft.write_text("half")
    monkeypatch.setattr(files, "is_running", lambda pid: draft.unlink())
    files.remove_drafts(tmp_path)
    assert not draft.exists()
