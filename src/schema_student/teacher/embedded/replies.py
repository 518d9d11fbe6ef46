"""Answer any chat as the embedded teacher: by a role's answer, an instance of the format, or who it is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.stamps import digest
from schema_student.schema.compiling import SchemaError
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.rendering import completion_text
from schema_student.teacher.embedded.judging import compare_answers, give_verdict
from schema_student.teacher.embedded.writing import SENTENCE, Unknown, write_answer, write_domain_spec, write_queries
from schema_student.teacher.roles import INPUT_MARKER

ROLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "domain_spec": write_domain_spec,
    "query": write_queries,
    "answer": write_answer,
    "judge": give_verdict,
    "compare": compare_answers,
}
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError)  # what a payload of another shape raises


def reply(messages: list[dict[str, Any]], answer_format: Any) -> str:
    """Answer a chat: a role's answer as JSON; to anything else an instance of the format, or who it is."""
    role, payload = read_role(messages)
    try:
        if role is not None:
            return completion_text(ROLES[role](payload))
        if isinstance(answer_format, dict):
            return completion_text(example_instance(answer_format, random.Random(digest(messages))))
    except (Unknown, SchemaError) as error:
        return str(error)
    except UserError:
        raise
    except UNREADABLE as error:
        return f"I cannot read this question ({type(error).__name__}: {error}). {SENTENCE}"
    return completion_text({"answer": SENTENCE}) if answer_format == "json" else SENTENCE


def read_role(messages: list[dict[str, Any]]) -> tuple[str | None, dict[str, Any]]:
    """Read the role and its payload, from the JSON after the last `Input:` of the last user message."""
    texts = [str(message.get("content", "")) for message in messages if message.get("role", "user") == "user"]
    _, marker, text = (texts[-1] if texts else "").rpartition(INPUT_MARKER)
    try:
        payload = json.loads(text) if marker else None
    except json.JSONDecodeError:
        payload = None
    return (_role_of(payload), payload) if isinstance(payload, dict) else (None, {})


def _role_of(payload: dict[str, Any]) -> str | None:
    """Tell the role that a payload is of, by the keys that it alone has; see roles.role_messages."""
    if "first" in payload and "second" in payload:
        return "compare"
    for key, role in (("index", "domain_spec"), ("answer", "judge"), ("query", "answer"), ("schema", "query")):
        if key in payload:
            return role
    return None
