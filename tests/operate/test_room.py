"""A full disk is told in one line: which one, how much is missing there, what to do; other failures are left alone."""

import errno
import os
import sys

import pytest

from schema_student.cli import main
from schema_student.core.errors import UserError, is_of_full_disk
from schema_student.core.processes import run_script
from schema_student.core.settings import default_settings
from schema_student.operate.room import estimate_disk, explain_full_disk


@pytest.fixture
def settings(tmp_path):
    return default_settings(
        output_dir=str(tmp_path / "out"), base_model="embedded", teacher_model="embedded", domains=4
    )


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),  # as write() raises it, without a name
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EFBIG, "File too large"),
    Exception("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save
    RuntimeError("basic_ios::clear: iostream error"),  # torch.save, whose file has no room at all
    OSError("100000 requested and 8176 written"),  # numpy.save
    UserError("teacher_cache.sqlite: the cache cannot be used (database or disk is full)"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: str(error)[:20])
def test_a_full_disk_is_told_with_its_place_and_what_is_missing(error, settings, tmp_path):
    words = explain_full_disk(error, settings)
    assert words.startswith(f"{tmp_path / 'out'}: the disk is full") and "about 1.0 MiB more are needed" in words
    wrapped = ValueError("while saving")
    wrapped.__cause__ = error
    assert is_of_full_disk(error) and is_of_full_disk(wrapped)


def test_the_file_that_could_not_be_written_is_named(settings):
    error = OSError(errno.ENOSPC, "No space left on device", "elsewhere/rows.jsonl")
    assert explain_full_disk(error, settings).startswith("elsewhere/rows.jsonl: the disk is full")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), ValueError("28"), KeyError("space")])
def test_another_failure_is_none_of_a_full_disk(error):
    assert not is_of_full_disk(error)


def test_what_is_missing_is_what_a_run_takes_less_what_is_there_and_free(settings, tmp_path, monkeypatch):
    class Disk:
        free, total = 2**20, 2**30

    monkeypatch.setattr("schema_student.operate.room.shutil.disk_usage", lambda path: Disk)
    adapter = tmp_path / "out" / "student_runs" / "student" / "checkpoint-1" / "adapter_model.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_bytes(b"x" * 2**20)
    words = explain_full_disk(FULL[0], settings.changed(train_queries=1, pair_queries=1, eval_queries=1))
    rows = 4 * 0.67 * (1 * 1.11 + 1) + 2
    sizes = {"domains": 4, "train_share": 0.67, "validation_share": 0.11}
    sizes |= {"train_queries": 1, "pair_queries": 1, "eval_queries": 1}
    assert estimate_disk(sizes, 2**20) == pytest.approx(rows * 17_000 + 8 * 3 * 2**20)
    assert "1.0 MiB of 1.0 GiB are free, and about 22.1 MiB more are needed" in words


def test_a_verb_that_meets_a_full_disk_ends_with_that_line(settings, monkeypatch):
    def fail(argv):
        raise FULL[3]

    monkeypatch.delenv("SCHEMA_STUDENT_RUNNER", raising=False)
    monkeypatch.setitem(main.VERBS, "generate", fail)
    with pytest.raises(UserError, match="the disk is full"):
        main.dispatch(["generate", "--output-dir", settings.run.output_dir, "--teacher-model", "embedded"])


def test_a_process_that_a_verb_forks_tells_it_too(settings, monkeypatch, capfd):
    def fork(argv):
        if not (pid := os.fork()):
            try:
                run_script(lambda: (_ for _ in ()).throw(FULL[4]))
            finally:
                os._exit(1)
        os.waitpid(pid, 0)

    monkeypatch.delenv("SCHEMA_STUDENT_RUNNER", raising=False)
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setitem(main.VERBS, "generate", fork)
    main.dispatch(["generate", "--output-dir", settings.run.output_dir, "--teacher-model", "embedded"])
    assert f"error: {settings.run.output_dir}: the disk is full" in capfd.readouterr().err
