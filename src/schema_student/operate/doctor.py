"""Try each part of the pipeline in small, in a folder that is removed again, and estimate what a full run needs here.

    measured = Measured()
    for check in examine(settings, measured):       # judge, teacher, data, training, generation, export
        check.ok, check.words, check.advice
    estimate(settings, measured)                    # {"seconds": ..., "memory": ..., "disk": ...}

The teacher that the settings choose is asked one question; the data that training learns from is the embedded
teacher's, so that a slow teacher does not keep a person waiting.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from schema_student.core.cleaning import one_line
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl
from schema_student.core.log import TerminalHandler, log
from schema_student.core.paths import paths
from schema_student.core.processes import count_cores
from schema_student.core.settings import AnySettings
from schema_student.data.corpus import write_corpus
from schema_student.data.dataset import write_dataset
from schema_student.data.domains import write_domain_specs, write_schemas
from schema_student.deploy.export import export_student
from schema_student.operate.resolved import resolve_settings
from schema_student.operate.room import count_rows, estimate_disk
from schema_student.operate.secrets import secret_hider
from schema_student.operate.status import measure
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.student.ask import Question
from schema_student.student.choice import resolve_student
from schema_student.student.loading import Student
from schema_student.teacher.choice import resolve_teacher
from schema_student.training.sft import train_sft

STEPS = 3  # of the training that is tried; the first one alone would count what is compiled in it
PROMPTS = 8  # that the student answers
SMALL = {  # what the tried parts are made of
    **{"domains": 4, "train_queries": 12, "pair_queries": 2, "eval_queries": PROMPTS, "extra_tests": 0},
    **{"sft_max_steps": STEPS, "sft_epochs": 1, "eval_every": STEPS, "save_every": STEPS, "processes": 1},
    **{"kind": ["adapter"], "export_prompts": 2, "schemas": "", "adapter": "", "data_dir": "", "run": "doctor"},
    **{"push_to_hub": "", "report_to": "none", "overwrite": False, "dry_run": False},
}
ASKED_A_ROW = 1.25  # questions to the teacher: some rows are rejected, some answers are judged
ALIGNED_STEP = 2.0  # steps of SFT that one step of an alignment takes


@dataclass(frozen=True)
class Check:
    """How one part did: what was found, or what failed and what to do about it."""

    part: str
    ok: bool
    seconds: float
    words: str
    advice: str = ""


@dataclass
class Measured:
    """What the tried parts took, for the estimate: seconds, rates, bytes."""

    row: float = 0.0  # seconds of one row that the teacher makes
    step: float = 0.0  # seconds of an optimizer step
    answers: float = 0.0  # of the student, a second
    adapter: int = 0  # bytes
    failed: list[str] = field(default_factory=list)


Part = Callable[[AnySettings, Measured], str]


def examine(settings: AnySettings, measured: Measured) -> Iterator[Check]:
    """Try the parts one after another; what needs a part that failed is not tried."""
    with tempfile.TemporaryDirectory(prefix="schema-student-doctor-") as folder:
        here = settings.changed(**SMALL, output_dir=folder)
        for name, (part, needs, advice) in PARTS.items():
            if missing := [need for need in needs if need in measured.failed]:
                measured.failed.append(name)
                yield Check(name, False, 0.0, f"not tried, as {missing[0]} failed", f"mend {missing[0]} first")
                continue
            check = _try(name, part, advice, here, measured)
            if not check.ok:
                measured.failed.append(name)
            yield check


def _try(name: str, part: Part, advice: str, settings: AnySettings, measured: Measured) -> Check:
    begun = time.monotonic()
    try:
        with _quiet():
            words = part(settings, measured)
    except UserError as error:  # which says what to do itself
        return Check(name, False, time.monotonic() - begun, one_line(str(error)))
    except (Exception, SystemExit) as error:
        hide = secret_hider(settings.server.teacher_host)
        words = one_line(hide(f"{type(error).__name__}: {error}"))
        return Check(name, False, time.monotonic() - begun, words, advice)
    return Check(name, True, time.monotonic() - begun, words)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the messages of a part from the terminal."""
    handlers = [handler for handler in log.handlers if isinstance(handler, TerminalHandler)]
    for handler in handlers:
        log.removeHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.addHandler(handler)


# ---------------------------------------------------------------------------------------------------------------------
# The parts


def _judge(settings: AnySettings, measured: Measured) -> str:
    schema = compile_schema({"type": "object", "properties": {"day": {"type": "string", "format": "date"}}})
    good, bad = judge('{"day": "2026-02-28"}', schema), judge('{"day": "2026-02-30"}', schema)
    if good.violations or not bad.violations:
        raise RuntimeError("a valid answer is refused, or one that is no day of the calendar passes")
    return "valid and invalid answers are told apart, formats checked"


def _teacher(settings: AnySettings, measured: Measured) -> str:
    choice = resolve_teacher(settings)
    asked = settings.changed(output_dir=str(Path(settings.run.output_dir) / "asked"), domains=1)
    begun = time.monotonic()
    write_domain_specs(asked)
    took = time.monotonic() - begun
    measured.row = took * ASKED_A_ROW / settings.server.teacher_concurrency
    return f"{choice.display_name} answers in {took:.1f} s ({choice.reason})"


def _data(settings: AnySettings, measured: Measured) -> str:
    embedded, begun = settings.changed(teacher_model="embedded"), time.monotonic()
    for write in (write_domain_specs, write_schemas, write_dataset, write_corpus):
        write(embedded)
    rows = len(read_jsonl(paths(embedded).dataset))
    if "teacher" not in measured.failed and resolve_teacher(settings).embedded:
        measured.row = (time.monotonic() - begun) / rows
    return f"{rows} rows of the embedded teacher"


def _training(settings: AnySettings, measured: Measured) -> str:
    choice, _ = resolve_student(settings)
    listener = _Listener()
    log.addHandler(listener)
    level = log.level
    log.setLevel(logging.DEBUG)
    try:
        adapter = train_sft(resolve_student(settings)[1])
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
    measured.step = 1 / max(listener.rate, 1e-9)
    measured.adapter = measure(adapter)
    return f"{choice.name}: {STEPS} steps, {measured.step:.1f} s each ({choice.reason})"


class _Listener(logging.Handler):
    """Hears how many steps a second a training takes."""

    rate = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        facts = getattr(record, "facts", {})
        self.rate = facts.get("per_second") or self.rate


def _generation(settings: AnySettings, measured: Measured) -> str:
    where = paths(settings)
    rows = [row for row in read_jsonl(where.dataset) if row["split"].startswith("test")][:PROMPTS]
    student = Student.load(where.sft_checkpoint)
    questions = [Question(json.loads(row["schema_json"]), row["query"], row["current_date"]) for row in rows]
    begun = time.monotonic()
    answers = student.ask_many(questions)
    measured.answers = len(answers) / max(time.monotonic() - begun, 1e-9)
    valid = sum(answer.valid for answer in answers)
    return f"{len(answers)} answers, {measured.answers:.1f} a second, {valid} valid after {STEPS} steps of training"


def _export(settings: AnySettings, measured: Measured) -> str:
    (folder,) = export_student(settings)
    return f"the adapter is written, loaded back and answers as before ({len(list(folder.iterdir()))} files)"


ADVICE = "this is a fault of ours or of the installation: `schema-student runtime --json` belongs in a report of it"
PARTS: dict[str, tuple[Part, tuple[str, ...], str]] = {
    "judge": (_judge, (), "install the package's requirements again"),
    "teacher": (_teacher, (), "see docs/teacher.md, or do without: --teacher-model embedded"),
    "data": (_data, ("judge",), ADVICE),
    "training": (_training, ("data",), f"less memory: --sft-batch-size 1, --base-model embedded; else {ADVICE}"),
    "generation": (_generation, ("training",), ADVICE),
    "export": (_export, ("training",), ADVICE),
}


# ---------------------------------------------------------------------------------------------------------------------
# What a full run needs


def estimate(settings: AnySettings, measured: Measured) -> dict[str, float]:
    """Estimate seconds of each part, peak memory and disk in bytes of a run with these settings, by what was measured.

    Rough, to be right within a factor of two: the sizes are those of the run, the speeds those of a few steps.
    """
    sizes = resolve_settings(settings.changed(dtype="float32"))
    schemas = sizes["domains"]
    trained = schemas * sizes["train_share"] * sizes["train_queries"]
    tests = 2 * sizes["eval_queries"]
    rows = count_rows(sizes)
    students = 2 + len(sizes["align"])
    per_step = sizes["sft_batch_size"] * sizes["gradient_accumulation"]
    steps = sizes["sft_max_steps"] or math.ceil(trained / per_step) * sizes["sft_epochs"]
    aligned = sum(sizes.get(f"{link}_max_steps", 0) for link in sizes["align"])
    sampled = sizes["pair_prompts"] * sizes["samples_per_prompt"]
    speed = min(sizes["processes"], count_cores())
    seconds = {
        "teacher": rows * measured.row,
        "training": steps * measured.step / speed,
        "evaluation": students * tests / max(measured.answers, 1e-9),
        "alignment": aligned * ALIGNED_STEP * measured.step / speed + sampled / max(measured.answers, 1e-9),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    disk = estimate_disk(sizes, measured.adapter)
    return {**seconds, "seconds": sum(seconds.values()), "memory": peak * speed, "disk": disk}
