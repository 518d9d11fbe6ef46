"""Define the teacher's roles: an instruction, the JSON Schema of the answer, and a payload.

A question ends with one JSON object after "Input:", which the embedded teacher reads as well as a language model.
"""

from __future__ import annotations

import json
from typing import Any

INPUT_MARKER = "Input:\n"

INSTRUCTIONS = {
    "domain_spec": (
        "You design a data domain that people search. From the seed below, write its specification: 6 to 9 fields with "
        "snake_case names, mixed types (string, number, integer, boolean, date, enum), a short description of each in "
        "English and French separated by ' / ', enum values with descriptions in the same form, the noun of its "
        "records in both languages, and three example requests."
    ),
    "query": (
        "You are a person who searches this data. Write `count` different requests in the given language, as people "
        "really ask: short, natural, varied, unambiguous given the schema, each with all the values that its answer "
        "needs and no others. Do not quote field names of the schema, and do not speak of it. "
        "kind `answerable`: the schema can express it. kind `missing_field`: it needs a field that the schema does not "
        "have. kind `unsupported_operator`: it needs a comparison that the schema's operators cannot make."
    ),
    "answer": (
        "Write the one JSON object that is valid against the schema and means what the request asks, and nothing else. "
        "Take up every value of the request, and invent none. Relative dates count from current_date. Where the schema "
        "has a `refusal` property and cannot express the request, answer with a refusal: the reason, and a suggestion "
        "that the schema can answer."
    ),
    "judge": (
        "You judge whether an answer, already known to be valid against the schema, means what the request asks. "
        "`reference` is one accepted answer where it is known; other answers of equal meaning are good too. "
        "Answer with is_good and a short reason."
    ),
    "compare": (
        "You compare two answers to one request, whatever their order. Where a schema is given, an answer that is not "
        "valid against it is worse than any that is; then what counts is which one means what the request asks. "
        "`reference` is one accepted answer where it is known. Answer with better (first, second, or tie where neither "
        "is better) and a short reason."
    ),
}

_STRING = {"type": "string", "minLength": 1}
_VALUE: dict[str, Any] = {
    "type": "object",
    "properties": {"const": {**_STRING, "pattern": "^[a-z][a-z0-9_]*$"}, "description": _STRING},
    "required": ["const", "description"],
    "additionalProperties": False,
}
_FIELD = {
    "type": "object",
    "properties": {
        **_VALUE["properties"],
        "type": {"enum": ["string", "number", "integer", "boolean", "date", "enum"]},
        "enum": {
            "type": "array",
            "items": {**_VALUE, "properties": {"const": _STRING, "description": _STRING}},
            "minItems": 2,
        },
        "examples": {"type": "array"},
    },
    "required": ["const", "description", "type"],
    "additionalProperties": False,
}
FORMATS: dict[str, dict[str, Any]] = {
    "domain_spec": {
        "type": "object",
        "properties": {
            "schema_id": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
            "domain": _STRING,
            "noun": {"type": "object", "properties": {"en": _STRING, "fr": _STRING}, "required": ["en", "fr"]},
            "description": _STRING,
            "fields": {"type": "array", "items": _FIELD, "minItems": 4, "maxItems": 12},
            "example_queries": {"type": "array", "items": _STRING, "minItems": 1},
        },
        "required": ["schema_id", "domain", "noun", "description", "fields", "example_queries"],
        "additionalProperties": False,
    },
    "query": {
        "type": "object",
        "properties": {"queries": {"type": "array", "items": _STRING, "minItems": 1}},
        "required": ["queries"],
        "additionalProperties": False,
    },
    "judge": {
        "type": "object",
        "properties": {"is_good": {"type": "boolean"}, "reason": {"type": "string"}},
        "required": ["is_good", "reason"],
        "additionalProperties": False,
    },
    "compare": {
        "type": "object",
        "properties": {"better": {"enum": ["first", "second", "tie"]}, "reason": {"type": "string"}},
        "required": ["better", "reason"],
        "additionalProperties": False,
    },
}


def role_messages(role: str, payload: dict[str, Any]) -> list[dict[str, str]]:
    """Write the chat messages of a role: its instruction, then the payload as JSON after `Input:`."""
    content = f"{INPUT_MARKER}{json.dumps(payload, ensure_ascii=False)}"
    return [{"role": "system", "content": f"Role: {role}\n{INSTRUCTIONS[role]}"}, {"role": "user", "content": content}]


def role_format(role: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema that a role's answer must obey; for "answer" it is the payload's own schema."""
    return payload["schema"] if role == "answer" else FORMATS[role]


def repair_messages(messages: list[dict[str, str]], answer: str, problems: list[str]) -> list[dict[str, str]]:
    """Write the question with a rejected answer to it, what is wrong with that, and the demand to write it again."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    demand = f"This answer is not valid:\n{listed}\nWrite the whole JSON object again, corrected, and nothing else."
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": demand}]
