"""`clean` removes what was named and shown, asks before, and never leaves the output folder or a run at work."""

import builtins
import sys

import pytest

from schema_student.cli import operating
from schema_student.cli.main import dispatch
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.locks import hold_lock
from schema_student.core.settings import default_settings
from schema_student.operate.recorder import recorded
from schema_student.operate.removal import KINDS, Removable, remove

FILES = {
    "dataset": [
        "d_03_dataset.jsonl",
        "d_03_dataset.jsonl.meta.json",
        "d_03_hub/README.md",
        "data/mine/d_01_domain_specs.jsonl",
    ],
    "training": ["student_runs/student/checkpoint-final/a", "student_runs/student.meta.json", "student_runs/mine/a"],
    "evaluations": ["student_runs/eval/student-sft/evaluation_results.jsonl", "student_runs/eval/mine-base/a"],
    "alignment": [
        *("student_runs/student-dpo/a", "student_runs/student-dpo.meta.json", "student_runs/mine-rloo/a"),
        *("student_runs/alignment/dpo_pairs.jsonl", "student_runs/alignment/mine/dpo_pairs.jsonl"),
    ],
    "exports": ["exports/student/gguf/a", "exports/mine/merged/a"],
    "rest": [
        "reports/student/report.html",
        "reports/mine/report.html",
        "runs/mine/run.log",
        "chat/mine.jsonl",
        ".gitignore",
    ],
}


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.delenv("SCHEMA_STUDENT_RUNNER", raising=False)
    for name in (name for names in FILES.values() for name in names):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 100)
    (tmp_path / "mine.txt").write_text("outside")
    return tmp_path / "out"


def left(out):
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() or path.is_symlink()}


def clean(out, *flags):
    dispatch(["clean", "--output-dir", str(out), *flags])


def of(run, names):
    """The names that are of a run: of "mine" by its name, of the default run all others."""
    return {name for name in names if ("mine" in name) == (run == "mine")}


@pytest.mark.parametrize("run", ["", "mine", "student"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_of_one_run_or_of_all_goes_and_nothing_else(kind, run, out, capsys):
    before = left(out)
    clean(out, f"--{kind}", "--yes", *(["--run", run] if run else []))
    gone = {*FILES[kind]} if not run else of(run, FILES[kind])
    assert before - left(out) == gone and "in all" in capsys.readouterr().out


def test_all_of_a_run_leaves_the_other_and_all_leaves_what_keeps_the_folder_out_of_git(out):
    before = left(out)
    clean(out, "--all", "--run", "mine", "--yes")
    assert before - left(out) == of("mine", before)
    clean(out, "--all", "--yes")
    assert left(out) == {".gitignore"} and (out.parent / "mine.txt").exists()


def test_a_run_whose_name_begins_with_anothers_keeps_its_evaluations(out):
    for name in ("student_runs/student-2/a", "student_runs/eval/student-2-sft/a"):
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("x")
    clean(out, "--evaluations", "--training", "--run", "student", "--yes")
    assert {"student_runs/student-2/a", "student_runs/eval/student-2-sft/a"} <= left(out)
    assert "student_runs/eval/student-sft/evaluation_results.jsonl" not in left(out)


def test_a_dry_run_shows_and_removes_nothing(out, capsys):
    before = left(out)
    clean(out, "--training", "--dry-run")
    assert left(out) == before and f"100 B  {out}/student_runs/mine" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "answers", "goes"), [
    ("--training", ["y"], True), ("--training", ["n"], False), ("--training", [""], False),
    ("--all", ["y", "yes"], True), ("--all", ["y", "n"], False),
])  # fmt: skip
def test_it_asks_once_and_twice_for_all(kind, answers, goes, out, monkeypatch):
    asked = list(answers)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", lambda question: asked.pop(0))
    before = left(out)
    if goes:
        clean(out, kind)
    else:
        with pytest.raises(UserError, match="nothing was removed"):
            clean(out, kind)
    assert (left(out) != before) == goes and not asked


def test_without_a_terminal_it_asks_for_yes_and_without_a_kind_for_one(out, monkeypatch):
    monkeypatch.setattr(operating.sys.stdin, "isatty", lambda: False, raising=False)
    before = left(out)
    with pytest.raises(UserError, match="--yes"):
        clean(out, "--all")
    with pytest.raises(SettingsError, match="--dataset"):
        clean(out)
    for run in ("eval", "mine-dpo", "../x"):
        with pytest.raises(SettingsError):
            clean(out, "--training", "--yes", "--run", run)
    assert left(out) == before


def test_a_run_in_progress_stays_whether_a_stage_or_a_lock_says_so(out):
    before = left(out)
    with hold_lock(out / "student_runs" / "mine"), pytest.raises(UserError, match="in progress"):
        clean(out, "--training", "--run", "mine", "--yes")
    settings = default_settings(output_dir=str(out), run="mine")
    with recorded("sft", settings), pytest.raises(UserError, match="in progress: sft"):
        clean(out, "--all", "--yes")
    assert before <= left(out)
    clean(out, "--training", "--run", "mine", "--yes")
    assert "student_runs/mine/a" not in left(out)


def test_what_a_link_leads_to_stays(out, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("mine")
    (out / "student_runs" / "linked").symlink_to(tmp_path / "elsewhere")
    (out / "exports" / "student" / "link").symlink_to(tmp_path / "elsewhere")
    (out / "runs" / "mine" / "student").symlink_to(tmp_path / "elsewhere")
    clean(out, "--exports", "--yes")
    clean(out, "--all", "--yes")
    assert (tmp_path / "elsewhere" / "a").read_text() == "mine" and left(out) == {".gitignore"}


@pytest.mark.parametrize("kind", ["--training", "--exports", "--evaluations", "--dataset"])
def test_a_folder_between_that_is_a_link_is_refused(kind, out, tmp_path):
    away = tmp_path / "away"
    for name in ("student_runs", "exports", "data"):
        (out / name).rename(tmp_path / f"{name}-away")
        (out / name).symlink_to(tmp_path / f"{name}-away")
    before = {path for path in tmp_path.rglob("*") if "-away" in str(path)}
    with pytest.raises(UserError, match="link"):
        clean(out, kind, "--run", "mine", "--yes")
    assert {path for path in tmp_path.rglob("*") if "-away" in str(path)} == before and not away.exists()


@pytest.mark.parametrize("place", ["../mine.txt", "exports/../../mine.txt", ".", ".."])
def test_nothing_outside_the_folder_is_removed_whatever_is_named(place, out):
    before = left(out)
    with pytest.raises(UserError, match="nothing was removed"):
        remove([Removable(out / "exports", 1), Removable(out / place, 1)], out)
    assert left(out) == before and (out.parent / "mine.txt").exists()
