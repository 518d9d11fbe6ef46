"""`doctor` tries each part, says what failed and what to do, leaves nothing behind, and estimates a full run."""

import json

import pytest

from schema_student.cli.main import dispatch
from schema_student.core.errors import UserError
from schema_student.core.settings import default_settings
from schema_student.operate import doctor
from schema_student.operate.doctor import Measured, estimate, examine

SHORT = ("--sft-batch-size", "2", "--max-new-tokens", "256")  # a test of every part that takes seconds
SETTINGS = default_settings(base_model="embedded", teacher_model="embedded")


def parts(**failing):
    """Parts that take no time; those that are named raise."""

    def part(name):
        def run(settings, measured):
            if name in failing:
                raise failing[name]
            return f"{name} went well"

        return run

    return {name: (part(name), needs, f"mend the {name}") for name, (_, needs, _) in doctor.PARTS.items()}


def test_every_part_works_here_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    dispatch(["doctor", "--base-model", "embedded", "--teacher-model", "embedded", *SHORT, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [(check["part"], check["ok"]) for check in found["checks"]] == [(name, True) for name in doctor.PARTS]
    assert all(found["full_run"][name] > 0 for name in ("teacher", "training", "evaluation", "memory", "disk"))
    assert not list((tmp_path / "tmp").iterdir()) and not (tmp_path / "outputs").exists()


def test_what_needs_a_part_that_failed_is_not_tried(monkeypatch):
    monkeypatch.setattr(doctor, "PARTS", parts(training=RuntimeError("out of memory")))
    checks = {check.part: check for check in examine(SETTINGS, Measured())}
    assert [name for name, check in checks.items() if not check.ok] == ["training", "generation", "export"]
    assert (
        checks["training"].words == "RuntimeError: out of memory" and checks["training"].advice == "mend the training"
    )
    assert checks["export"].words == "not tried, as training failed"


def test_a_failure_ends_with_1_and_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "PARTS", parts(teacher=UserError("no server at h: start it")))
    with pytest.raises(SystemExit) as left:
        dispatch(["doctor"])
    said = capsys.readouterr().out
    assert left.value.code == 1 and "FAILED teacher" in said and "no server at h: start it" in said
    assert "a full run here" not in said and "ok     export" in said


def test_no_secret_of_an_error_is_said(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_T0pSecret")
    monkeypatch.setattr(doctor, "PARTS", parts(judge=RuntimeError("401 for hf_T0pSecret")))
    (words,) = [check.words for check in examine(SETTINGS, Measured()) if check.part == "judge"]
    assert words == "RuntimeError: 401 for ***"


def test_the_estimate_grows_with_what_was_measured_and_with_the_sizes():
    measured = Measured(row=0.01, step=1.0, answers=10.0, adapter=1_000_000)
    one = estimate(SETTINGS, measured)
    slower = estimate(SETTINGS, Measured(row=0.02, step=2.0, answers=5.0, adapter=1_000_000))
    assert slower["seconds"] == pytest.approx(2 * one["seconds"])
    longer = estimate(SETTINGS.changed(sft_epochs=3), measured)
    assert longer["training"] == pytest.approx(3 * one["training"]) and longer["teacher"] == one["teacher"]
    assert one["seconds"] == pytest.approx(
        sum(one[name] for name in ("teacher", "training", "evaluation", "alignment"))
    )
