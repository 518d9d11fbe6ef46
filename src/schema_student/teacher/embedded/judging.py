"""Play the judging roles of the embedded teacher, by a known truth: judge one answer, compare two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from schema_student.schema.accepted import nearest_target
from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade, grade_value
from schema_student.schema.parts import echoes_alike
from schema_student.schema.query_dsl import is_refusal, suggests_a_field
from schema_student.schema.ranks import RIGHT
from schema_student.schema.rendering import completion_text
from schema_student.teacher.embedded.writing import SENTENCE, Unknown


def give_verdict(payload: dict[str, Any]) -> dict[str, Any]:
    """Judge whether an answer is right by the reference; of a refusal, whether its suggestion can be answered too."""
    schema, reference = payload["schema"], payload.get("reference")
    answer: Any = payload.get("answer")
    if reference is None:
        raise Unknown(f"I cannot judge an answer without a reference. {SENTENCE}")
    if not grade_value(answer, compile_schema(schema), reference, payload.get("accepted")).right:
        nearest = nearest_target(answer, reference, payload.get("accepted"))
        return {"is_good": False, "reason": difference(answer, nearest, schema)}
    if is_refusal(answer) and not suggests_a_field(answer, schema):
        return {"is_good": False, "reason": "the suggestion names no field of the schema, so it cannot be answered"}
    return {"is_good": True, "reason": "it means what was asked"}


def compare_answers(payload: dict[str, Any]) -> dict[str, Any]:
    """Compare two texts by their ranks; a tie where they have the same."""
    if payload.get("schema") is None or payload.get("reference") is None:
        raise Unknown(f"I cannot compare answers without a schema and a reference. {SENTENCE}")
    known = compile_schema(payload["schema"]), payload["reference"], payload.get("accepted")
    first, second = (grade(str(payload[side]), *known).rank for side in ("first", "second"))
    better = "tie" if first == second else "first" if first > second else "second"
    return {"better": better, "reason": f"rank {first} of {RIGHT} against rank {second}"}


def difference(answer: Any, reference: Any, schema: dict[str, Any]) -> str:
    """Say in one line what an answer has that the reference lacks, and the other way round."""
    if is_refusal(answer) and not is_refusal(reference):
        return "it refuses what the schema can express"
    if is_refusal(reference) and not is_refusal(answer):
        return "the schema cannot express this: it should refuse"
    if not echoes_alike(answer, reference):
        return "it garbles the request that it echoes"
    if is_refusal(reference):
        return "its reason does not name what is missing"
    ours, theirs = (set(_leaves(json.loads(canonical(value, schema)))) for value in (answer, reference))
    sides = (("has", ours - theirs), ("lacks", theirs - ours))
    return "; ".join(f"{word} {', '.join(sorted(some))}" for word, some in sides if some) or "it differs in structure"


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
