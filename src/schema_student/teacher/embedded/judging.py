"""The judging roles of the embedded teacher: a verdict on one answer, and which of two is better, by a known truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.meaning import canonical, matches, nearest_target
from schema_student.schema.query_dsl import names_a_field
from schema_student.schema.rendering import completion_text
from schema_student.teacher.embedded.writing import SENTENCE, Unknown


def give_verdict(payload: dict[str, Any]) -> dict[str, Any]:
    """Whether an answer means what the reference means; for refusals, whether the suggestion can be answered."""
    schema, answer, reference = payload["schema"], payload.get("answer"), payload.get("reference")
    if reference is None:
        raise Unknown(f"I cannot judge an answer without a reference. {SENTENCE}")
    if answer is None or not matches(answer, reference, schema, payload.get("accepted")):
        nearest = nearest_target(answer, reference, payload.get("accepted"))
        return {"is_good": False, "reason": difference(answer, nearest, schema)}
    if _is_refusal(answer) and not names_a_field(str(answer["refusal"].get("suggestion")), schema):
        return {"is_good": False, "reason": "the suggestion names no field of the schema, so it cannot be answered"}
    return {"is_good": True, "reason": "it means what was asked"}


def compare_answers(payload: dict[str, Any]) -> dict[str, Any]:
    """Which of two texts is nearer to right, by the ranks of `judge`; a tie where they have the same."""
    if payload.get("schema") is None or payload.get("reference") is None:
        raise Unknown(f"I cannot compare answers without a schema and a reference. {SENTENCE}")
    compiled = compile_schema(payload["schema"])
    first, second = (_rank(str(payload[side]), compiled, payload) for side in ("first", "second"))
    better = "tie" if first == second else "first" if first > second else "second"
    return {"better": better, "reason": f"rank {first} of 5 against rank {second}"}


def _rank(text: str, compiled: CompiledSchema, payload: dict[str, Any]) -> int:
    verdict = judge(text, compiled)
    known = payload["reference"], compiled.schema, payload.get("accepted")
    return verdict.meaning(verdict.schema_valid and matches(verdict.value, *known))


def difference(answer: Any, reference: Any, schema: dict[str, Any]) -> str:
    """What an answer has that the reference lacks and the other way round, in one line for people."""
    if _is_refusal(answer) and not _is_refusal(reference):
        return "it refuses what the schema can express"
    if _is_refusal(reference) and not _is_refusal(answer):
        return "the schema cannot express this: it should refuse"
    ours, theirs = (set(_leaves(json.loads(canonical(value, schema)))) for value in (answer, reference))
    sides = (("has", ours - theirs), ("lacks", theirs - ours))
    return "; ".join(f"{word} {', '.join(sorted(some))}" for word, some in sides if some) or "it differs in structure"


def _is_refusal(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("refusal"), dict)


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """`path = value` of every leaf; conditions and list members are told by content, not by position."""
    if isinstance(value, dict) and {"field", "operator"} <= value.keys():
        yield f"{value['field']} {value['operator']} {completion_text(value.get('value'))}"
    elif isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(child, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for child in value:
            yield from _leaves(child, f"{path}[]")
    else:
        yield f"{path or 'it'} = {completion_text(value)}"
