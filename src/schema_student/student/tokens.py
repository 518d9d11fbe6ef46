"""Encode text as the student's tokens, in one place, so that a prompt has the same ids in training and use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from schema_student.core.errors import UserError

END_OF_TURN = "<end_of_turn>"


def encode_prompt(tokenizer: Any, prompt: str | list[dict[str, str]]) -> list[int]:
    """Encode a user turn, or several turns {role, content}, and the opening of the model's turn.

    By the base's own chat template. A base without one reads the bare text, or a transcript of the turns. Raises
    UserError where the template refuses the turns.
    """
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not tokenizer.chat_template:
        return _encode(tokenizer, write_transcript(turns))
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(f"the base's chat template refuses turns of {roles}: {error}; leave such rows out") from None
    return _encode(tokenizer, text, add_special_tokens=False)


def write_transcript(turns: Sequence[dict[str, str]]) -> str:
    """One turn as it is; several as "\\n\\nHuman: ...\\n\\nAssistant: ..." with the assistant to go on."""
    if len(turns) == 1:
        return turns[0]["content"]
    who = {"assistant": "Assistant", "system": "System"}
    return "".join(f"\n\n{who.get(t['role'], 'Human')}: {t['content']}" for t in turns) + "\n\nAssistant:"


def encode_completion(tokenizer: Any, completion: str) -> list[int]:
    """Encode the model's turn: the text and the end-of-turn token, which teaches it to stop."""
    return [*_encode(tokenizer, completion, add_special_tokens=False), end_of_turn_id(tokenizer)]


def _encode(tokenizer: Any, text: str, **options: bool) -> list[int]:
    """Encode a text without the tokenizer's own remark on long ones: its reader says what is too long for what."""
    return list(tokenizer(text, verbose=False, **options)["input_ids"])


def end_of_turn_id(tokenizer: Any) -> int:
    """Find the id of the token that ends the model's turn: Gemma's own, else what ends a text for this tokenizer."""
    gemmas = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    return int(tokenizer.eos_token_id if gemmas in (None, tokenizer.unk_token_id) else gemmas)
