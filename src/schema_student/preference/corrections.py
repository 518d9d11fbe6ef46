"""Have the teacher correct what a student answers to requests that nobody answered: rows and pairs to learn from.

The student answers the requests of --requests, greedily. What the schema rejects the teacher answers; of the valid
answers it judges as many as half of the questions that are left allow, and answers those that it finds wrong: in all no
more than --teacher-questions. Writes corrections/RUN/: answered_requests.jsonl, rows as --requests takes them, each
with its answer (the student's where the teacher found it right) and what was wrong before; corrected_pairs.jsonl, the
teacher's answer chosen and the student's rejected, as train-beta-dpo takes them. Another round begins with the student
that learned from both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, Pair, read_rows, write_rows
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.stamps import make_stamp
from schema_student.preference.open_requests import read_open_requests
from schema_student.preference.requests import Request
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import Verdict, judge
from schema_student.schema.rendering import completion_text
from schema_student.student.choice import base_digest, resolve_student, revision_facts
from schema_student.student.loading import check_adapter, load_student
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import TeacherFailure

CORRECTED = ("loading", "length", "generation", "prompt", "verdict", "answers", "corrections")  # groups of settings
AskMany = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True)
class Answered:
    """A request, what the student wrote, and the schema's verdict; what was cut off is rejected."""

    request: Request
    text: str
    finished: bool
    strip_fences: bool = False

    @cached_property
    def verdict(self) -> Verdict:
        """Judge the text."""
        row = self.request.row
        return judge(self.text, compile_schema(row.schema, row.schema_id), self.strip_fences)

    @property
    def valid(self) -> bool:
        """Whether the schema accepts the answer."""
        return self.finished and self.verdict.schema_valid

    @property
    def question(self) -> Row:
        """Return what the teacher is asked."""
        row = self.request.row
        return {"schema": row.schema, "query": row.query, "current_date": row.current_date}


def correct_requests(given: AnySettings) -> Path:
    """Make corrections/RUN/; returns answered_requests.jsonl. Raises UserError without --requests."""
    choice, settings = resolve_student(given)
    if not settings.open_requests.requests:
        raise UserError("correct needs --requests FILE: rows {query, schema | schema_id, current_date?}")
    where, asked = paths(settings), Path(settings.open_requests.requests)
    check_adapter(str(where.sft_checkpoint), choice)
    path = where.corrections / "answered_requests.jsonl"
    facts = {"teacher": resolve_teacher(settings).stamp, "base_digest": base_digest(choice.base)}
    stamp = make_stamp(settings, *CORRECTED, **facts, **revision_facts(choice.base))
    weights = where.sft_checkpoint / "adapter_model.safetensors"
    with open_artifact(path, stamp, [asked, weights], settings.run.overwrite) as artifact:
        if not artifact.done:
            answered = answer_requests(settings, asked)
            with open_teacher(settings) as teacher:
                rows, counts = correct(answered, teacher.ask_many, settings.corrections.teacher_questions)
            for row in rows[len(artifact.rows) :]:
                artifact.append(row)
            log.info(f"  {len(rows)} of {len(answered)} requests have an answer now: {describe(counts)}")
            artifact.finish({"counts": dict(counts)})
    write_rows(path.with_name("corrected_pairs.jsonl"), map(make_pair, filter(is_corrected, read_jsonl(path))))
    return path


def answer_requests(settings: ResolvedSettings, asked: Path) -> list[Answered]:
    """Have the student answer the requests of a file that have no known answer."""
    from schema_student.student.generation import generate

    where = paths(settings)
    dataset = read_rows(where.dataset, DatasetRow) if where.dataset.exists() else []
    requests = read_open_requests(asked, dataset, settings.prompt.schema_rendering, settings.part.max_samples)
    requests = [request for request in requests if request.row.target is None]
    student = load_student(settings, adapter=str(where.sft_checkpoint))
    prompts, budget = [request.prompt for request in requests], settings.generation.max_new_tokens
    answers = generate(student, prompts, budget, settings.decoding.eval_batch_size, progress="answering")
    strip = settings.verdict.strip_fences
    return [
        Answered(request, answer.text, answer.finished, strip)
        for request, (answer,) in zip(requests, answers, strict=True)
    ]


def correct(answered: Sequence[Answered], ask_many: AskMany, questions: int) -> tuple[list[Row], Counter[str]]:
    """Ask no more than so many questions; returns rows of requests with answers, in their order, and counts."""
    counts: Counter[str] = Counter()
    invalid = [i for i, each in enumerate(answered) if not each.valid][:questions]
    left = questions - len(invalid)
    judged = [i for i, each in enumerate(answered) if each.valid][: left // 2]
    verdicts = ask_many([("judge", answered[i].question | {"answer": answered[i].verdict.value}) for i in judged])
    found = dict(zip(judged, verdicts, strict=True))
    wrong = [i for i in judged if not isinstance(found[i], TeacherFailure) and not found[i]["is_good"]]
    rejected = sorted([*invalid, *wrong])
    corrections = dict(zip(rejected, ask_many([("answer", answered[i].question) for i in rejected]), strict=True))
    rows = []
    for i, each in enumerate(answered):
        if i in corrections and not isinstance(corrections[i], TeacherFailure):
            counts["corrected, invalid before" if i in invalid else "corrected, valid but wrong before"] += 1
            rows.append(make_row(each, corrections[i], "teacher"))
        elif i in found and i not in corrections and not isinstance(found[i], TeacherFailure):
            counts["found right"] += 1
            rows.append(make_row(each, each.verdict.value, "student"))
        else:
            counts["without an answer of the teacher" if i in found or i in corrections else "not asked about"] += 1
    return rows, counts


def make_row(each: Answered, answer: Any, source: str) -> Row:
    """Make a row of answered_requests.jsonl."""
    row = each.request.row
    head = {"schema_id": row.schema_id, "schema": row.schema, "query": row.query, "current_date": row.current_date}
    wrong = {"rejected": each.text, "finished": each.finished} if source == "teacher" else {}
    return {**head, "answer": answer, "source": source, "prompt": each.request.prompt, **wrong}


def is_corrected(row: Row) -> bool:
    """Return whether a row makes a pair: the teacher's answer to it, and an answer of the student that has an end."""
    return row["source"] == "teacher" and bool(row["finished"]) and bool(row["rejected"].strip())


def make_pair(row: Row) -> Pair:
    """Make a pair of the teacher's answer and the student's."""
    chosen = completion_text(row["answer"])
    return Pair(
        prompt=row["prompt"],
        chosen=chosen,
        rejected=row["rejected"],
        schema_id=row["schema_id"],
        source="greedy",
        chosen_source="teacher",
    )


def describe(counts: Counter[str]) -> str:
    """Say what became of the requests."""
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
