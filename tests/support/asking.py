"""What tests of the teacher ask a fault server, with which settings, and how they look at what comes of it."""

from __future__ import annotations

import re

from fault_server import NUM_CTX

from schema_student.core.settings import default_settings
from schema_student.teacher.faults import TeacherError

ADVICE = re.compile(r"\b(raise|lower|check|set|see|run|name|start|have|give|may do better|change|ask|serve)\b")
QUERY = "one " * 700  # long enough to tell a prompt that was cut
SILENCE, DEADLINE = 0.5, 1.0  # seconds: enough for a good answer on a busy machine
TIMED = ("silence", "deadline")


def ask(number=0):
    return ("judge", {"schema": {}, "query": QUERY, "answer": {"number": number}})


def settings_for(server, tmp_path, **changes):
    facts = {"output_dir": str(tmp_path / "out"), "teacher_model": "m:1"}
    hosts = {"teacher_host": [server.host] if server else []}
    bounds = {"teacher_timeout": 5.0, "teacher_deadline": 10.0, "teacher_retries": 1, "teacher_num_ctx": NUM_CTX}
    return default_settings(**{**facts, **hosts, **bounds, **changes})


def bounds_for(fault):
    return {"teacher_timeout": SILENCE, "teacher_deadline": DEADLINE} if fault.kind in TIMED else {}


def outcome(teacher, number=0):
    """What a question ends in: its answer, a TeacherFailure, or the TeacherError that stops the run."""
    try:
        return teacher.ask_many([ask(number)])[0]
    except TeacherError as error:
        return error
