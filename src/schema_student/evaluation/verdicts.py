"""Grade a student's answers to requests, against the target, then by the teacher -> rows of evaluation_results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.records import DatasetRow, EvaluationRow
from schema_student.evaluation.completions import Completion
from schema_student.schema.accepted import nearest_target
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.free_text import PLAIN_WORDS, find_language
from schema_student.schema.grading import Grade, grade
from schema_student.schema.parts import compare_parts, name_part
from schema_student.schema.query_dsl import is_query_dsl, is_refusal, suggests_a_field
from schema_student.schema.ranks import NOT_JSON, RIGHT, VALID
from schema_student.schema.structure import list_values
from schema_student.teacher.client import Teacher
from schema_student.teacher.faults import TeacherFailure


@dataclass(frozen=True)
class Graded:
    """A row of evaluation_results, the request that it answers, and the answer's value."""

    row: EvaluationRow
    request: DatasetRow
    value: Any


def grade_completion(request: DatasetRow, written: Completion, strip_fences: bool) -> Graded:
    """Grade an answer: its row, as far as it is known without the teacher."""
    compiled = compile_schema(request.schema, request.schema_id)
    graded = _grade(written, compiled, request, strip_fences)
    verdict = graded.verdict
    has_answer, is_known = request.ast_json is not None, has_truth(request)
    refused, should_refuse = _refusals(graded, request, compiled.schema)
    row = EvaluationRow(
        schema_id=request.schema_id,
        domain=request.domain,
        query=request.query,
        split=request.split,
        current_date=request.current_date,
        language=request.language,
        kind=request.kind,
        prompt_text=written.prompt,
        raw_output=written.text,
        parsed=verdict.parsed,
        parse_error=written.fault or verdict.parse_error,
        schema_valid=verdict.schema_valid,
        violations=[asdict(violation) for violation in verdict.violations],
        rank=graded.rank,
        student_canonical=canonical(verdict.value, compiled.schema) if verdict.schema_valid else None,
        target=request.target,
        accepted=request.accepted,
        target_canonical=canonical(request.target, compiled.schema) if has_answer else None,
        exact_match=verdict.parsed and _same(verdict.value, request.target) if has_answer else None,
        semantic_match_target=graded.right if is_known else None,
        semantic_pass=graded.right if is_known or not verdict.schema_valid else None,
        refused=refused,
        should_refuse=should_refuse,
        suggestion_answerable=suggests_a_field(verdict.value, compiled.schema) if refused else None,
        same_language=keeps_language(verdict.value, request) if verdict.schema_valid else None,
        fences_stripped=verdict.fences_stripped,
        truncated=written.truncated,
        too_long=written.fault is not None and not written.failed,
        parts=_describe_parts(graded, request, compiled.schema),
        tokens=written.tokens,
        seconds=written.seconds,
        mask_changes=written.mask_changes,
        read=written.read,
        p_truth=written.p_truth,
        reference_logp=written.reference.logp if written.reference else None,
        reference_tokens=written.reference.tokens if written.reference else None,
        log_p=written.sureness.log_p if written.sureness else None,
        least_sure=[asdict(token) for token in written.sureness.least_sure] if written.sureness else [],
    )
    return Graded(row, request, verdict.value)


def _grade(written: Completion, schema: CompiledSchema, request: DatasetRow, strip_fences: bool) -> Grade:
    """Grade an answer's text. One that was cut at the limit has no end, and is no answer though its text may be one."""
    graded = grade(written.text, schema, request.target, request.accepted, strip_fences)
    if not (written.truncated and graded.verdict.schema_valid):
        return graded
    cut = replace(graded.verdict, parsed=False, parse_error="cut at the limit", schema_valid=False, value=None)
    return replace(graded, verdict=cut, rank=NOT_JSON, right=False)


def _describe_parts(graded: Grade, request: DatasetRow, schema: Row) -> list[Row]:
    """Name the parts of the answer and its target; an answer that is not JSON gives none of those expected."""
    if request.target is None:
        return []
    value = graded.verdict.value if graded.verdict.parsed else {}
    target = nearest_target(value, request.target, request.accepted)
    parts = graded.parts or compare_parts(value, target, schema)
    return [
        {"name": name_part(part, value, target), "right": part.right, "given": part.given, "expected": part.expected}
        for part in parts
    ]


def has_truth(request: DatasetRow) -> bool:
    """Return whether it is known which answers to a request are right, without asking anyone."""
    return request.ast_json is not None or request.accepted is not None


def _refusals(graded: Grade, request: DatasetRow, schema: Row) -> tuple[bool | None, bool | None]:
    """(whether the student refused validly, whether it should have); None where schema or request do not say."""
    if not is_query_dsl(schema):
        return None, None
    refused = graded.verdict.schema_valid and is_refusal(graded.verdict.value)
    return refused, None if request.ast_json is None else is_refusal(request.target)


def keeps_language(value: Any, request: DatasetRow) -> bool | None:
    """Return whether an answer's own words are in its request's language; None where either language is not known.

    Its own words are neither the request's nor the schema's: the reason of a refusal, the description of a step.
    """
    given = (request.query, request.schema_json)
    own = [text for text in list_values(value) if isinstance(text, str) and not any(text in each for each in given)]
    found = find_language(own) if request.language in PLAIN_WORDS else None
    return None if found is None else found == request.language


def _same(value: Any, target: Any) -> bool:
    """Equal as JSON, whatever the order of keys; true is not 1."""
    return json.dumps(value, sort_keys=True) == json.dumps(target, sort_keys=True)


def ask_teacher(graded: Sequence[Graded], teacher: Teacher) -> list[Graded]:
    """Ask the teacher for verdicts on valid answers. Where it fails to judge, semantic_pass is unknown.

    The embedded teacher judges by the known answer: without one it is not asked.
    """
    embedded = teacher.chat.choice.embedded
    valid = [each for each in graded if each.row.schema_valid and (each.request.ast_json is not None or not embedded)]
    answers = teacher.ask_many([("judge", judge_question(each.request, each.value)) for each in valid])
    found = {id(each): answer for each, answer in zip(valid, answers, strict=True)}
    return [
        replace(each, row=_with_verdict(each.row, found[id(each)])) if id(each) in found else each for each in graded
    ]


def _with_verdict(row: EvaluationRow, answer: Any) -> EvaluationRow:
    if isinstance(answer, TeacherFailure):
        return replace(row, teacher_error=answer.reason, semantic_pass=None)
    good = answer["is_good"]
    rank = RIGHT if good else VALID
    return replace(row, teacher_verdict=good, teacher_reason=answer["reason"], semantic_pass=good, rank=rank)


def judge_question(request: DatasetRow, answer: Any, blind: bool = False) -> Row:
    """Write the question that a judge is asked about an answer's value; `blind`: without the known answer."""
    return {
        "schema": request.schema,
        "query": request.query,
        "current_date": request.current_date,
        "answer": answer,
        "reference": None if blind else request.target,
        "accepted": None if blind else request.accepted,
    }
