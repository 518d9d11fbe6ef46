"""The old artifact stands until the new one is whole, wherever a kill falls; a stop costs nothing that was made."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schema_student.core import artifacts, integrity, replacing
from schema_student.core.artifacts import OVERWRITTEN, dry_run, only_check, open_artifact, overwriting
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl, write_text
from schema_student.core.replacing import draft_of
from schema_student.core.settings import default_settings
from schema_student.core.stamps import beside

OLD, NEW = {"settings": {"domains": 3}}, {"settings": {"domains": 4}}
OLD_ROWS, NEW_ROWS = [{"n": i} for i in range(3)], [{"n": 10 + i} for i in range(4)]
KINDS = ("rows.jsonl", "run")


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def make(path: Path, stamp, rows, stop_after=None, **options) -> str:
    """Make an artifact as stages do, a file of rows or a folder of files; KeyboardInterrupt after some of them."""
    with open_artifact(path, stamp, **options) as artifact:
        if artifact.done:
            return "done"
        begun = len(artifact.rows) if path.suffix else len([*artifact.work.glob("*")])
        for i, row in enumerate(rows):
            if i == stop_after:
                raise KeyboardInterrupt
            if i >= begun and path.suffix:
                artifact.append(row)
            elif i >= begun:
                write_jsonl(artifact.work / f"{i}.jsonl", [row])
        artifact.finish()
        return f"made after {begun}"


def rows_of(path: Path) -> list:
    return [row for file in ([path] if path.suffix else sorted(path.glob("*"))) for row in read_jsonl(file)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_old_one_stands_until_the_new_one_is_whole_and_a_stopped_overwrite_goes_on(tmp_path, kind, capsys):
    path = tmp_path / kind
    make(path, OLD, OLD_ROWS)
    before = content(tmp_path)
    for stop_after in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            make(path, NEW, NEW_ROWS, stop_after, overwrite=True)
        assert {**content(tmp_path), **before} == content(tmp_path)
    assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 3"
    assert rows_of(path) == NEW_ROWS and make(path, NEW, []) == "done"
    assert not (tmp_path / ".new").exists() and not (tmp_path / ".old").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_an_overwrite_that_cannot_begin_leaves_no_trace(tmp_path, kind):
    path = tmp_path / kind
    make(path, OLD, OLD_ROWS)
    before = content(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        make(path, NEW, NEW_ROWS, stop_after=0, overwrite=True)
    assert content(tmp_path) == before and not (tmp_path / ".new").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_without_overwrite_the_old_one_counts_and_what_was_begun_is_said(tmp_path, kind, capsys):
    path = tmp_path / kind
    make(path, OLD, OLD_ROWS)
    with pytest.raises(KeyboardInterrupt):
        make(path, NEW, NEW_ROWS, stop_after=2, overwrite=True)
    assert make(path, OLD, OLD_ROWS) == "done"
    assert f"it goes on with --overwrite ({draft_of(path)})" in capsys.readouterr().out
    with pytest.raises(UserError, match="domains was 3, now 4"):
        make(path, NEW, NEW_ROWS)
    assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 2"


@pytest.mark.parametrize("kind", KINDS)
def test_what_replaces_with_yet_other_settings_begins_anew(tmp_path, kind):
    path = tmp_path / kind
    make(path, OLD, OLD_ROWS)
    with pytest.raises(KeyboardInterrupt):
        make(path, NEW, NEW_ROWS, stop_after=2, overwrite=True)
    assert make(path, {"settings": {"domains": 5}}, OLD_ROWS, overwrite=True) == "made after 0"
    assert rows_of(path) == OLD_ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_an_overwrite_of_nothing_goes_on_too(tmp_path, kind):
    path = tmp_path / kind
    with pytest.raises(KeyboardInterrupt):
        make(path, NEW, NEW_ROWS, stop_after=2, overwrite=True)
    assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 2"


@pytest.mark.parametrize("kind", KINDS)
def test_what_other_settings_left_unfinished_stands_until_the_new_one_is_whole(tmp_path, kind):
    path = tmp_path / kind
    with pytest.raises(KeyboardInterrupt):
        make(path, OLD, OLD_ROWS, stop_after=2)
    before = content(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        make(path, NEW, NEW_ROWS, stop_after=2, overwrite=True)
    assert {**content(tmp_path), **before} == content(tmp_path)
    assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 2"
    assert rows_of(path) == NEW_ROWS and make(path, NEW, []) == "done"


class Killed(BaseException):
    """As SIGKILL, but for what cleans up after it."""


def die_in_the_swap(path: Path, operation: int) -> None:
    """Overwrite in a process of its own that ends at once before the given operation on files of the swap."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        return
    count, swap = iter(range(100)), replacing.complete_swap

    def dying(real):
        return lambda *given, **options: os._exit(9) if next(count) >= operation else real(*given, **options)

    def dying_swap(path):
        if beside(draft_of(path), "meta").exists():
            for name in ("rename", "replace", "unlink"):
                setattr(Path, name, dying(getattr(Path, name)))
            shutil.rmtree = dying(shutil.rmtree)
        swap(path)

    artifacts.complete_swap = dying_swap
    make(path, NEW, NEW_ROWS, overwrite=True)
    os._exit(9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", range(8))
def test_a_kill_at_any_moment_of_the_swap_leads_to_the_new_one(tmp_path, kind, operation):
    path = tmp_path / kind
    make(path, OLD, OLD_ROWS)
    die_in_the_swap(path, operation)
    left = {each.name for each in tmp_path.iterdir()} - {kind, f"{kind}.meta.json", f"{kind}.lock", ".new"}
    assert path.exists() if path.suffix else left <= {".old"} and (path.exists() or left == {".old"})
    if beside(draft_of(path), "meta").exists():  # nobody reads what is neither the old one nor the new one
        with pytest.raises(UserError, match=r"is unfinished|is not there"):
            make(tmp_path / "other.jsonl", OLD, [], inputs=[path])
    else:
        assert rows_of(path) == NEW_ROWS
    assert make(path, NEW, []) == "done"
    assert rows_of(path) == NEW_ROWS and not (tmp_path / ".new").exists() and not (tmp_path / ".old").exists()


def test_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    make(path, OLD, OLD_ROWS)
    before = content(tmp_path)

    def finish(rows):
        with open_artifact(path, NEW, overwrite=True) as artifact:
            artifact.append(rows[0])
            monkeypatch.setattr(artifacts, "write_json", full)
            artifact.finish()

    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    with pytest.raises(OSError, match="No space"):
        finish(NEW_ROWS)
    monkeypatch.undo()
    assert {**content(tmp_path), **before} == content(tmp_path)
    assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 1"


def test_files_beside_an_artifact_take_their_place_with_it(tmp_path):
    path, beside_it = tmp_path / "rows.jsonl", tmp_path / "rejected.jsonl"
    for stamp, fails in ((OLD, False), (NEW, True), (NEW, False)):
        try:
            with open_artifact(path, stamp, overwrite=True) as artifact:
                write_text(artifact.companion(beside_it), str(stamp))
                artifact.append({"n": 1})
                if fails:
                    raise KeyboardInterrupt
                artifact.finish()
        except KeyboardInterrupt:
            assert beside_it.read_text() == str(OLD)
    assert beside_it.read_text() == str(NEW) and not (tmp_path / ".new").exists()


def test_a_link_in_an_artifact_s_place_is_refused_and_what_it_leads_to_stays(tmp_path):
    path, far = tmp_path / "run", tmp_path / "far" / "run"
    make(path, OLD, OLD_ROWS)
    far.parent.mkdir()
    path.rename(far)
    path.symlink_to(far)
    before = content(far)
    with pytest.raises(UserError, match="run is a link"):
        make(path, NEW, NEW_ROWS, overwrite=True)
    assert path.is_symlink() and content(far) == before


def test_a_second_process_is_refused_while_one_overwrites(tmp_path):
    path = tmp_path / "run"
    make(path, OLD, OLD_ROWS)
    with open_artifact(path, NEW, overwrite=True), pytest.raises(UserError, match="being written by process"):  # noqa: SIM117
        with open_artifact(path, NEW, overwrite=True):
            raise AssertionError("two writers")


def test_sigkill_in_the_middle_leaves_the_old_one_and_the_rows_of_the_new_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    make(path, OLD, OLD_ROWS)
    code = f"""
import os, signal
from pathlib import Path
from schema_student.core.artifacts import open_artifact
with open_artifact(Path({str(path)!r}), {NEW!r}, overwrite=True) as artifact:
    artifact.append({NEW_ROWS[0]!r})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert make(path, OLD, []) == "done" and rows_of(path) == OLD_ROWS
    assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 1"


def test_the_same_command_goes_on_with_what_it_had_not_made_again(tmp_path, monkeypatch):
    monkeypatch.delenv(OVERWRITTEN, raising=False)
    first, second, record = tmp_path / "first.jsonl", tmp_path / "second.jsonl", tmp_path / "o" / "p" / ".overwritten"

    def command(stop_after=None):
        with overwriting(record):
            return make(first, OLD, OLD_ROWS, overwrite=True), make(second, OLD, OLD_ROWS, stop_after, overwrite=True)

    assert command() == ("made after 0", "made after 0")
    assert command() == ("made after 0", "made after 0"), "a command that came to its end makes all again"
    with pytest.raises(KeyboardInterrupt):
        command(stop_after=2)
    assert command() == ("done", "made after 2")
    assert not record.exists() and OVERWRITTEN not in os.environ
    with overwriting(record):
        assert os.environ[OVERWRITTEN] == str(record)


def test_what_was_made_again_is_made_again_with_other_settings(tmp_path, monkeypatch):
    monkeypatch.delenv(OVERWRITTEN, raising=False)
    path, record = tmp_path / "rows.jsonl", tmp_path / ".overwritten-pairs"
    with pytest.raises(KeyboardInterrupt), overwriting(record):
        assert make(path, OLD, OLD_ROWS, overwrite=True) and make(tmp_path / "next", OLD, OLD_ROWS, stop_after=0)
    with overwriting(record):
        assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 0"


# ---------------------------------------------------------------------------------------------------------------------
# Rows that nothing vouches for


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", ["finished", "partial"])
def test_what_nothing_vouches_for_is_refused_and_stands_until_it_is_replaced(tmp_path, kind, left):
    path = tmp_path / kind
    try:
        make(path, OLD, OLD_ROWS, None if left == "finished" else 2)
    except KeyboardInterrupt:
        assert left == "partial"
    for stamp in tmp_path.glob("*.json"):
        stamp.unlink()
    before = content(tmp_path)
    with pytest.raises(
        UserError, match=rf"{kind} is there, but no .* says what made it; move it away.* or give --overwrite"
    ):
        make(path, NEW, NEW_ROWS)
    assert content(tmp_path) == before
    assert make(path, NEW, NEW_ROWS, overwrite=True) == "made after 0"
    assert rows_of(path) == NEW_ROWS


def test_an_empty_file_or_folder_is_nothing_to_lose(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "run" / "within").mkdir(parents=True)
    assert [make(tmp_path / kind, OLD, OLD_ROWS) for kind in KINDS] == ["made after 0", "made after 1"]


@pytest.mark.parametrize("moment", ["write_json", "append"])
def test_rows_are_vouched_for_from_the_first_byte_on(tmp_path, moment, monkeypatch):
    path = tmp_path / "rows.jsonl"
    make(path, OLD, OLD_ROWS)
    path.unlink()  # its .meta.json stays
    where = (artifacts, moment) if moment == "write_json" else (artifacts.Artifact, moment)
    real = getattr(*where)

    def killed(*given):
        real(*given)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*where, killed)
        with pytest.raises(Killed):
            make(path, OLD, OLD_ROWS)
    assert make(path, OLD, OLD_ROWS) in ("made after 0", "made after 1")
    assert rows_of(path) == OLD_ROWS


# ---------------------------------------------------------------------------------------------------------------------
# "done already" looks at what it vouches for


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "deleted":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(data[:-1])
    else:
        data[3] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_rows_that_are_not_those_that_were_made_are_refused(tmp_path, how):
    path = tmp_path / "rows.jsonl"
    make(path, OLD, OLD_ROWS)
    damage(path, how)
    with pytest.raises(UserError, match="was edited after it was made; to keep your edit"):
        make(path, OLD, OLD_ROWS)
    assert make(path, OLD, OLD_ROWS, overwrite=True) == "made after 0"
    assert make(path, OLD, OLD_ROWS) == "done"


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted"])
@pytest.mark.parametrize("place", ["in the folder", "beside an input"])
def test_a_damaged_file_of_a_folder_is_restored_from_an_equal_copy(tmp_path, how, place, capsys):
    path, source = tmp_path / "run", tmp_path / "before" / "weights"
    write_text(source, "the weights before")
    with open_artifact(path, OLD, [source]) as artifact:
        text = "the weights before" if place == "beside an input" else "the weights"
        for folder in ("checkpoint-final", *(["checkpoint-2"] if place == "in the folder" else [])):
            write_text(artifact.work / folder / "weights", text)
        write_text(path / "run_config.json", "{}")
        artifact.finish()
    whole = content(path)
    damage(path / "checkpoint-final" / "weights", how)
    with open_artifact(path, OLD, [source]) as artifact:
        assert artifact.done
    assert content(path) == whole
    said = capsys.readouterr().out
    assert (
        f"{path}/checkpoint-final/weights {'was missing' if how == 'deleted' else 'had changed'}: restored from" in said
    )


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted"])
def test_a_damaged_file_without_a_copy_is_named_with_what_to_do(tmp_path, how):
    path = tmp_path / "run"
    make(path, OLD, OLD_ROWS)
    damage(path / "1.jsonl", how)
    with pytest.raises(
        UserError, match=r"run is no longer what was made: 1\.jsonl (is missing|has changed), .*--overwrite"
    ):
        make(path, OLD, OLD_ROWS)
    assert dry_run(default_settings(dry_run=True), [], [path])
    assert make(path, OLD, OLD_ROWS, overwrite=True) == "made after 0"


def test_a_dry_run_says_what_is_not_what_was_made(tmp_path, capsys):
    path = tmp_path / "run"
    make(path, OLD, OLD_ROWS)
    dry_run(default_settings(dry_run=True), [], [path])
    damage(path / "1.jsonl", "flipped")
    dry_run(default_settings(dry_run=True), [], [path])
    beside(path, "meta").unlink()
    dry_run(default_settings(dry_run=True), [], [path])
    beside(path, "partial").write_text("{}")
    dry_run(default_settings(dry_run=True), [], [path])
    said = capsys.readouterr().out
    assert [line.rpartition("(")[2] for line in said.splitlines()] == [
        "finished)",
        "finished, but no longer what was made)",
        "nothing says what made it)",
        "partial)",
    ]


def test_what_is_missing_of_a_derived_folder_is_made_again_but_an_edit_is_kept(tmp_path, capsys):
    path = tmp_path / "run"
    make(path, OLD, OLD_ROWS)
    damage(path / "1.jsonl", "deleted")
    assert make(path, OLD, OLD_ROWS, derived=True) == "made after 0" and rows_of(path) == OLD_ROWS
    assert "no longer what was made (1.jsonl is missing): it is made again" in capsys.readouterr().out
    damage(path / "1.jsonl", "flipped")
    with pytest.raises(UserError, match=r"1\.jsonl has changed"):
        make(path, OLD, OLD_ROWS, derived=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_artifact_that_is_gone_is_made_again_and_that_is_said(tmp_path, kind, capsys):
    path = tmp_path / kind
    make(path, OLD, OLD_ROWS)
    for file in [path] if path.suffix else path.glob("*"):
        file.unlink()
    assert make(path, OLD, OLD_ROWS) == "made after 0" and rows_of(path) == OLD_ROWS
    assert "was finished, and is gone: it is made again" in capsys.readouterr().out


def test_an_input_that_is_not_what_its_folder_vouches_for_is_refused(tmp_path):
    adapter = tmp_path / "run" / "checkpoint-final" / "adapter_model.safetensors"
    with open_artifact(tmp_path / "run", OLD) as artifact:
        write_text(adapter, "weights")
        artifact.finish()
    assert make(tmp_path / "rows.jsonl", OLD, OLD_ROWS, inputs=[adapter]) == "made after 0"
    damage(adapter, "flipped")
    with pytest.raises(UserError, match="is not what was made, it has changed since; run the step that makes run"):
        make(tmp_path / "others.jsonl", OLD, OLD_ROWS, inputs=[adapter])


def test_a_stamp_that_names_files_outside_its_folder_writes_none(tmp_path):
    write_text(tmp_path / "mine", "text")
    write_text(tmp_path / "run" / "mine", "other")
    vouched = {"../outside/mine": integrity.digest(tmp_path / "mine")}
    damaged = integrity.find_damage(tmp_path / "run", vouched)
    vouched[str(tmp_path / "absolute")] = vouched["../outside/mine"]
    damaged = integrity.find_damage(tmp_path / "run", vouched)
    assert len(damaged) == 2
    assert integrity.restore(tmp_path / "run", vouched, damaged, [tmp_path], only_check=False) == damaged
    assert not (tmp_path / "outside").exists() and not (tmp_path / "absolute").exists()


def test_what_has_a_copy_is_restored_beside_what_has_none_and_a_check_restores_nothing(tmp_path):
    write_text(tmp_path / "copies" / "b", "text")
    vouched = {name: integrity.digest(tmp_path / "copies" / "b") for name in ("a", "in/b", "c")}
    damaged = integrity.find_damage(tmp_path / "run", vouched)
    assert damaged == dict.fromkeys(vouched, "is missing")
    for checked in (True, False):
        assert not (tmp_path / "run").exists()
        left = integrity.restore(tmp_path / "run", vouched, damaged, [tmp_path / "copies"], checked)
        assert left == {"a": "is missing", "c": "is missing"}
    assert content(tmp_path / "run") == {"in/b": b"text"}


def test_a_dry_run_finds_a_copy_and_leaves_the_damage(tmp_path):
    with open_artifact(tmp_path / "run", OLD) as artifact:
        for name in "ab":
            write_text(artifact.work / name / "weights", "text")
        artifact.finish()
    damage(tmp_path / "run" / "a" / "weights", "flipped")
    before = content(tmp_path)
    with only_check(), open_artifact(tmp_path / "run", OLD) as artifact:
        assert artifact.done and content(tmp_path) == before


def test_a_file_a_folder_and_a_link_are_discarded_without_what_it_leads_to(tmp_path):
    write_text(tmp_path / "kept" / "x", "text")
    write_text(tmp_path / "folder" / "x", "text")
    write_text(tmp_path / "file", "text")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("folder", "file", "link", "nothing"):
        replacing.discard(tmp_path / name)
    assert content(tmp_path) == {"kept/x": b"text"} and [*tmp_path.iterdir()] == [tmp_path / "kept"]
