"""Answer one request with a student, and judge the answer.

The prompt, its token ids and the greedy decoding are those of evaluation, so that an answer here is the one that was
evaluated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from schema_student.core.errors import UserError
from schema_student.core.settings import ResolvedSettings
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.prompts import render_prompt
from schema_student.schema.violations import Violation
from schema_student.student.tokens import encode_prompt

if TYPE_CHECKING:
    from schema_student.student.generation import TextGenerator


@dataclass(frozen=True)
class Answer:
    """A student's answer: the JSON value (None where the text is not JSON) and whether it is valid.

    >>> answer = student.ask({"properties": {"city": {"type": "string"}}}, "flights to Oslo")     # doctest: +SKIP
    >>> answer.valid, answer.value                                                                # doctest: +SKIP
    (True, {'city': 'Oslo'})
    """

    value: Any
    valid: bool
    violations: tuple[Violation, ...]
    text: str
    tokens: int
    seconds: float


def ask_student(
    student: TextGenerator,
    schema: dict[str, Any] | CompiledSchema,
    request: str,
    current_date: str | date | None,
    settings: ResolvedSettings,
) -> Answer:
    """Answer a request greedily; without a date it is asked today.

    Raises SchemaError for a schema that cannot be used, and UserError for a prompt that leaves no room for an answer.
    """
    from schema_student.student.generation import generate

    compiled = schema if isinstance(schema, CompiledSchema) else compile_schema(schema)
    day = str(current_date or date.today())
    prompt = render_prompt(compiled.schema, request, day, settings.prompt.schema_rendering)
    length, room = len(encode_prompt(student.tokenizer, prompt)), find_room(settings)
    if length > room:
        raise UserError(f"the prompt has {length} tokens, of {room} that fit; give a smaller schema or request")
    begun = time.monotonic()
    ((generation,),) = generate(student, [prompt], settings.generation.max_new_tokens, batch_size=1)
    verdict = judge(generation.text, compiled, settings.verdict.strip_fences)
    seconds = time.monotonic() - begun
    return Answer(verdict.value, verdict.schema_valid, verdict.violations, generation.text, generation.tokens, seconds)


def find_room(settings: ResolvedSettings) -> int:
    """Find how many tokens a prompt may have, so that the longest completion fits behind it."""
    return settings.length.max_seq_length - settings.generation.max_new_tokens
