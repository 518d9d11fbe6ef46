"""Write the chat that asks a role's question as it stands now, and validate the answer."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from schema_student.core.cleaning import one_line
from schema_student.core.setting_groups import AnswersSettings
from schema_student.schema.compiling import CompiledSchema
from schema_student.schema.judging import judge
from schema_student.teacher.apis import Reply
from schema_student.teacher.chat import Chat, size_options
from schema_student.teacher.faults import AnswerFault
from schema_student.teacher.roles import repair_messages
from schema_student.teacher.thoughts import has_thoughts, last_json

WRITERS = ("domain_spec", "query")  # roles that must vary; the others are asked at temperature 0
SHOWN_PROBLEMS = 8  # violations that a repair shows
SHOWN_CHARS = 160  # of an answer, in the reason of its rejection
CLOSING = {"object": "}", "array": "]"}


@dataclass
class Question:
    """A question to a role, and what has come of it so far."""

    role: str
    messages: list[dict[str, str]]
    compiled: CompiledSchema
    key: str
    formatted: bool  # whether the server is given the schema as `format`
    sample: int = 0  # which of several independent answers this one is
    tries: int = 0  # answers that were of no use
    faults: int = 0  # requests that failed
    repairs: int = 0
    rejected: AnswerFault | None = None  # the last answer, where it can be repaired
    cost: Counter[str] = field(default_factory=Counter)


def write_chat(question: Question, answers: AnswersSettings, info: dict[str, Any]) -> Chat:
    """Write the chat that asks a question as it stands now; `info` is what the probe found."""
    messages = [dict(message) for message in question.messages]
    if not question.formatted:
        wanted = json.dumps(question.compiled.schema)
        messages[0]["content"] += f"\nAnswer with one JSON object of this JSON Schema, nothing else:\n{wanted}"
    if question.rejected is not None:
        messages = repair_messages(messages, question.rejected.text, question.rejected.problems)
    schema = question.compiled.schema if question.formatted else None
    return Chat(messages, _options(question, answers, info), schema, info["think"])


def _options(question: Question, answers: AnswersSettings, info: dict[str, Any]) -> dict[str, Any]:
    """The seed is the question's own, and another after an answer of no use; writers vary, and so does a second try."""
    varied = (question.tries or question.sample or question.role in WRITERS) and question.rejected is None
    num_ctx = answers.teacher_num_ctx
    if info["api"] == "openai" and info["context_length"]:
        num_ctx = min(num_ctx, info["context_length"])
    return {
        **size_options(answers),
        "num_ctx": num_ctx,
        "temperature": answers.teacher_temperature if varied else 0.0,
        "seed": int(question.key[:8], 16) % 2**31 + question.tries,
    }


def text_of(reply: Reply, info: dict[str, Any]) -> str:
    """Return a reply's text, which some servers put into its thinking where they hold a format."""
    in_thinking = info["format"] == "in thinking" and not reply.content.strip()
    return reply.thinking if in_thinking else reply.content


def read_answer(text: str, compiled: CompiledSchema) -> Any:
    """Read the JSON value of an answer, also out of fences, prose or behind thoughts.

    Raises AnswerFault with what is wrong.
    """
    if not text.strip():
        raise AnswerFault("the answer is empty", text)
    verdict = judge(text, compiled, strip_fences=True)
    if not verdict.parsed and (found := last_json(text, CLOSING.get(_root_type(compiled), "}]"))):
        verdict = judge(found, compiled)
    if verdict.schema_valid:
        return verdict.value
    if not verdict.parsed:
        why = "thoughts without an answer" if has_thoughts(text) else one_line(verdict.parse_error or "")
        what = f"the answer is not JSON ({why})"
        raise AnswerFault(f"{what}: {one_line(text, SHOWN_CHARS)}", text, [what])
    problems = [f"{each.path or '/'}: {each.message} ({each.keyword})" for each in verdict.violations]
    raise AnswerFault(f"the answer is not valid: {one_line(problems[0])}", text, problems[:SHOWN_PROBLEMS])


def _root_type(compiled: CompiledSchema) -> str:
    """The type that a schema names for all of its values, "" where it names none or several."""
    wanted = compiled.schema.get("type") if isinstance(compiled.schema, dict) else None
    return wanted if isinstance(wanted, str) else ""
