"""A run's log: each row to the file, every tenth step as a line, and for who watches what is left."""

import logging
from types import SimpleNamespace

import pytest

from schema_student.core.jsonl import read_jsonl
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.training import metrics_log
from schema_student.training.metrics_log import MetricsLog

SETTINGS = resolve_auto(default_settings(), "embedded")
ROWS = [  # at what second, a row
    (130.0, {"step": 9, "loss": 0.5}),
    (136.0, {"step": 10, "loss": 0.12345678, "learning_rate": 1e-4, "grad_norm": 3.0, "beta/effective": 0.1}),
    (136.0, {"step": 10, "eval_loss": 0.4, "eval_runtime": 2.0, "note": "words"}),
    (196.0, {"step": 20, "loss": 0.1}),
]


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics_log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_lines_are_of_tenth_steps_validations_and_the_last_step_with_the_seconds_that_are_left(
    clock, tmp_path, capsys, caplog
):
    written = MetricsLog(tmp_path, SETTINGS, steps=20, first_step=4)
    with caplog.at_level(logging.DEBUG, "schema_student"):
        for clock[0], row in ROWS:
            written.write(row)
    written.close()
    assert read_jsonl(tmp_path / "training_metrics.jsonl") == [row for _, row in ROWS]
    assert capsys.readouterr().out.splitlines() == [
        "  step 10/20  loss 0.1235  learning_rate 0.0001  beta/effective 0.1  60 s left",  # 6 steps took 36 s
        "  step 10/20  eval_loss 0.4  60 s left",
        "  step 20/20  loss 0.1",
    ]
    events = [record.facts for record in caplog.records if getattr(record, "event", "") == "progress"]
    assert [each["done"] for each in events] == [9, 10, 10, 20] and {each["total"] for each in events} == {20}
    assert [each["seconds_left"] for each in events] == pytest.approx([66.0, 60.0, 60.0, 0.0])
    assert [each["per_second"] for each in events] == pytest.approx([5 / 30, 6 / 36, 6 / 36, 16 / 96])
    assert events[2]["figures"] == {"step": 10, "eval_loss": 0.4, "eval_runtime": 2.0}


def test_before_the_first_step_nothing_is_known_of_the_rest_and_the_clock_starts_when_it_is_told(
    clock, tmp_path, capsys
):
    written = MetricsLog(tmp_path, SETTINGS, steps=20, first_step=0)
    written.write({"step": 0, "eval_loss": 0.4})
    clock[0] = 200.0
    written.start_clock()
    clock[0] = 220.0
    written.write({"step": 10, "loss": 0.4})
    assert capsys.readouterr().out.splitlines() == [
        "  step 0/20  eval_loss 0.4",
        "  step 10/20  loss 0.4  20 s left",
    ]


def test_another_process_of_the_run_writes_nothing(clock, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    written = MetricsLog(tmp_path, SETTINGS, steps=20, first_step=0)
    written.write({"step": 20, "loss": 0.4})
    written.close()
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""
