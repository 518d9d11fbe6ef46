"""Judge requests and answers: keep valid ones as rows of the dataset, count the others with their reasons."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from schema_student.core.artifacts import Artifact
from schema_student.core.records import DatasetRow
from schema_student.data.dedup import RequestIndex, normalized
from schema_student.data.grounding import ignored_parts, ungrounded_values
from schema_student.data.quotas import ANSWERABLE, Quota
from schema_student.data.sources import Source
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.parsing import parse_strict
from schema_student.schema.query_dsl import is_refusal, suggests_a_field
from schema_student.schema.rendering import completion_text
from schema_student.schema.structure import in_schema_order
from schema_student.teacher.faults import TeacherFailure

Problem = tuple[str, str]  # error type, reason
CALL = re.compile(r"[\w.-]+\(\s*\w+\s*=.*\)", re.DOTALL)
FREE_WORDS = (
    "prompt",
    "description",
    "refusal",
    "name",
    "operator",
    "field",
)  # of a query AST: not values of a request


@dataclass(frozen=True)
class Disagreement:
    """What stands for an answer where independent ones do not mean the same."""

    reason: str


def agree(answers: Sequence[Any], schema: dict[str, Any]) -> Any:
    """Return the first of several independent answers where all mean the same, else a failure or Disagreement.

    >>> agree([{"a": 1}, {"a": 1.0}], {"type": "object"})
    {'a': 1}
    >>> agree([{"a": 1}, {"a": 2}], {"type": "object"}).reason
    '1 of 2 answers: {"a":1}; 1 of 2 answers: {"a":2}'
    """
    failed = next((answer for answer in answers if isinstance(answer, TeacherFailure)), None)
    if failed is not None or len(answers) == 1:
        return answers[0] if failed is None else failed
    meanings = Counter(canonical(answer, schema) for answer in answers)
    if len(meanings) == 1:
        return answers[0]
    said = [f"{n} of {len(answers)} answers: {meaning}" for meaning, n in meanings.most_common()]
    return Disagreement("; ".join(said))


@dataclass(frozen=True)
class Candidate:
    """A request and an answer to it, not yet judged; teacher_model is who wrote the answer ("user": it was given)."""

    quota: Quota
    query: str
    current_date: str
    answer: Any = None
    teacher_model: str | None = None
    source: str = "teacher"  # who wrote the request: teacher, user, or "variant" of one of the user's
    accepted: dict[str, list[Any]] | None = None

    def as_row(self) -> DatasetRow:
        """Make the row of d_03 that it is where it is valid."""
        source, kind, answer = self.quota.source, self.quota.kind, self.answer
        refused = source.is_dsl and is_refusal(answer)
        return DatasetRow(
            schema_id=source.schema_id,
            domain=source.domain,
            operators=source.operators,
            schema_json=json.dumps(source.schema, ensure_ascii=False),
            query=self.query,
            current_date=self.current_date,
            ast_json=completion_text(answer),
            is_valid=True,
            teacher_model=self.teacher_model,
            split=self.quota.split,
            language=self.quota.language,
            kind="refusal" if refused and kind == ANSWERABLE else kind,
            accepted=self.accepted,
            source=self.source,
        )


@dataclass
class Collector:
    """The rows that were kept and rejected so far; `written` are (schema_id, query) of those on disk already."""

    artifact: Artifact
    requests: RequestIndex
    written: set[tuple[str, str]]
    rows: list[DatasetRow] = field(default_factory=list)
    rejected: list[DatasetRow] = field(default_factory=list)
    check_grounding: bool = False  # whether values of a teacher's answer must be given by its request or schema

    def add(self, candidate: Candidate) -> bool:
        """Judge a candidate and keep or reject it; whether it was kept."""
        quota, query = candidate.quota, candidate.query
        if candidate.source == "user":
            if problem := self.requests.find_problem(query, quota.split, given=True):
                return self.reject(candidate, *problem)
            self.requests.add(query, quota.split)
        if isinstance(candidate.answer, TeacherFailure):
            return self.reject(replace(candidate, answer=None), "no_answer", candidate.answer.reason)
        if isinstance(candidate.answer, Disagreement):
            return self.reject(replace(candidate, answer=None), "disagreement", candidate.answer.reason)
        candidate = _in_form(candidate)
        if problem := _invalid(candidate) or _wrong_kind(candidate) or self._invented(candidate):
            return self.reject(candidate, *problem)
        row = candidate.as_row()
        self.rows.append(row)
        if (row.schema_id, query) not in self.written:
            self.artifact.append(row.as_json())
        return True

    def _invented(self, candidate: Candidate) -> Problem | None:
        if not self.check_grounding or candidate.teacher_model == "user":
            return None
        source = candidate.quota.source
        free = FREE_WORDS if source.is_dsl else ()
        found = ungrounded_values(candidate.query, candidate.answer, source.schema, free)
        if found:
            path, value = found[0]
            return "ungrounded", f"{path}: nothing in the request gives {json.dumps(value, ensure_ascii=False)}"
        return _ignored(candidate)

    def reject(self, candidate: Candidate, error_type: str, reason: str) -> bool:
        """Keep a candidate apart with its reason; False, for the caller to return."""
        row = replace(candidate, answer=None).as_row()
        answered = None if candidate.answer is None else completion_text(candidate.answer)
        row = replace(row, ast_json=answered, is_valid=False, validation_error=reason, error_type=error_type)
        self.rejected.append(row)
        return False

    def deduplicate(self, queries: Iterable[str], quota: Quota, current_date: str, most: int) -> list[str]:
        """Take up to `most` requests that are new, and reject the others."""
        kept: list[str] = []
        for query in map(str.strip, queries):
            if not normalized(query) or len(kept) == most:
                continue
            if problem := _not_words(query) or self.requests.find_problem(query, quota.split):
                self.reject(Candidate(quota, query, current_date), *problem)
            else:
                self.requests.add(query, quota.split)
                kept.append(query)
        return kept

    def is_new(self, query: str, quota: Quota) -> bool:
        """Whether a variant of a kept request repeats none and overlaps with no test; noted where it is.

        That it is like the one that it was made of is no fault of it.
        """
        if self.requests.find_problem(query, quota.split, may_resemble=True):
            return False
        self.requests.add(query, quota.split)
        return True

    def reasons(self) -> dict[str, int]:
        """Count the rejected by reason, the commonest first."""
        return dict(Counter(str(row.error_type) for row in self.rejected).most_common())


def _not_words(query: str) -> Problem | None:
    """A request that is JSON, or a call with named arguments: a small writer takes the answer for the request."""
    if CALL.fullmatch(query):
        return "not_words", "the request is a call with arguments instead of plain words"
    if query[:1] not in ("{", "[") or parse_strict(query)[1]:
        return None
    return "not_words", "the request is JSON instead of plain words"


def _in_form(candidate: Candidate) -> Candidate:
    """An answer with its keys in the schema's order; of a teacher's AST the `prompt` as the request was written."""
    source: Source = candidate.quota.source
    answer = candidate.answer
    if source.is_dsl and isinstance(answer, dict) and candidate.teacher_model != "user":
        answer = {**answer, "prompt": candidate.query}
    return replace(candidate, answer=in_schema_order(answer, source.schema))


def _invalid(candidate: Candidate) -> Problem | None:
    source = candidate.quota.source
    verdict = judge(completion_text(candidate.answer), compile_schema(source.schema, source.schema_id))
    if verdict.schema_valid:
        return None
    if not verdict.violations:
        return "not_json", str(verdict.parse_error)
    first = verdict.violations[0]
    return first.keyword, f"{first.path or '/'}: {first.message}"


def _ignored(candidate: Candidate) -> Problem | None:
    """What of a request stands nowhere in its answer; an AST repeats the request, and a refusal answers none of it."""
    source, answer = candidate.quota.source, candidate.answer
    if source.is_dsl:
        if is_refusal(answer):
            return None
        answer = {name: value for name, value in answer.items() if name != "prompt"}
    left_out = ignored_parts(candidate.query, answer, source.schema)
    return ("ignored", f"nothing in the answer takes up {', '.join(left_out)} of the request") if left_out else None


def _wrong_kind(candidate: Candidate) -> Problem | None:
    """What is wrong with a valid answer that is not of the kind that was asked for."""
    source, kind, answer = candidate.quota.source, candidate.quota.kind, candidate.answer
    if not source.is_dsl or candidate.teacher_model == "user":
        return None
    refused = is_refusal(answer)
    if refused and kind == ANSWERABLE and candidate.source == "teacher":
        return "refused", "a request meant to be answerable was refused"
    if not refused and kind != ANSWERABLE:
        return "not_refused", f"a request of kind {kind} was answered"
    if refused and not suggests_a_field(answer, source.schema):
        return "suggestion", "the suggestion names no field of the schema, so it cannot be answered"
    return None
