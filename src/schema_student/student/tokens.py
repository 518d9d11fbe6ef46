"""Encode text as the student's tokens, in one place, so that a prompt has the same ids in training and use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from schema_student.core.errors import UserError
from schema_student.core.settings import ResolvedSettings

END_OF_TURN = "<end_of_turn>"

Turns = Sequence[dict[str, Any]]
Tools = Sequence[dict[str, Any]]
SPEAKERS = {"assistant": "Assistant", "system": "System"}  # of a transcript; all others are Human
TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)


class TurnsRefused(UserError):
    """Turns that the base's chat template does not take."""


def encode_prompt(
    tokenizer: Any,
    prompt: str | Turns,
    tools: Tools | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[int]:
    """Encode a user turn, or several turns {role, content}, and the opening of the model's turn.

    By the base's own chat template. What it has no place for (a system turn, tools, their calls) is written into the
    text of the turns that it has; a base without one reads the bare text, or a transcript of the turns. Raises
    TurnsRefused where the template refuses them nevertheless.
    """
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not tokenizer.chat_template:
        return _encode(tokenizer, write_transcript(_as_texts(turns, tools or [])))
    if tools or not isinstance(prompt, str):
        turns, tools = _fit(turns, tools or [], find_places(tokenizer, str(tokenizer.chat_template)))
    try:
        text = _apply(tokenizer, turns, tools, chat_template_kwargs)
    except TEMPLATE_FAULTS as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise TurnsRefused(f"the base's chat template refuses turns of {roles}: {error}") from None
    return _encode(tokenizer, text, add_special_tokens=False)


def _apply(tokenizer: Any, turns: Turns, tools: Tools | None, kwargs: dict[str, Any] | None = None) -> str:
    given = {"tools": list(tools) if tools else None, "tokenize": False, "add_generation_prompt": True}
    return str(tokenizer.apply_chat_template(list(turns), **{**(kwargs or {}), **given}))


# ---------------------------------------------------------------------------------------------------------------------
# What a chat template has no place for


@dataclass(frozen=True)
class Places:
    """What a chat template shows to the model: system turns, descriptions of tools, calls of tools with what came."""

    system: bool
    tools: bool
    calls: bool


@lru_cache(maxsize=8)
def find_places(tokenizer: Any, template: str) -> Places:
    """Find what the tokenizer's chat template shows, by trying each; some leave out what they do not know.

    `template` is the tokenizer's own, so that another one is tried anew.
    """
    user: dict[str, Any] = {"role": "user", "content": "probe-user"}
    function = {"name": "probe_tool", "description": "probe", "parameters": {"type": "object", "properties": {}}}
    call = {"type": "function", "id": "probe0001", "function": {"name": "probe_call", "arguments": {"probe": 1}}}
    called: list[dict[str, Any]] = [user, {"role": "assistant", "content": "", "tool_calls": [call]}]
    came = {"role": "tool", "name": "probe_call", "tool_call_id": "probe0001", "content": "probe-result"}
    tool = [{"type": "function", "function": function}]
    return Places(
        _shows(tokenizer, [{"role": "system", "content": "probe-system"}, user], None, "probe-system"),
        _shows(tokenizer, [user], tool, "probe_tool"),
        _shows(tokenizer, [*called, came], tool, "probe_call", "probe-result"),
    )


def explain_template(tokenizer: Any, prompts: Iterable[tuple[str | Turns, Tools | None]]) -> list[str]:
    """Say how prompts are written where the base's chat template has no place for what they hold."""
    if not tokenizer.chat_template:
        how = "a prompt of one turn is read as its text, several as Human: ... Assistant: ..., tools as lines of JSON"
        return [f"the base has no chat template: {how}"]
    turns_and_tools = [([] if isinstance(prompt, str) else prompt, tools) for prompt, tools in prompts]
    places = find_places(tokenizer, str(tokenizer.chat_template))
    calls = sum(any(turn.get("tool_calls") for turn in turns) for turns, _ in turns_and_tools) * (not places.calls)
    tools = sum(bool(tools) for _, tools in turns_and_tools) * (not places.tools)
    system = sum(bool(turns) and turns[0]["role"] == "system" for turns, _ in turns_and_tools) * (not places.system)
    written = (
        (tools, "tools: they are written as lines of JSON into the system turn"),
        (calls, "calls of tools: they are written as JSON into the assistant's turn"),
        (system, "a system turn: it is written before the first turn of the user"),
    )
    return [f"the base's chat template has no place for {what} ({n} rows)" for n, what in written if n]


def _shows(tokenizer: Any, turns: Turns, tools: Tools | None, *words: str) -> bool:
    try:
        text = _apply(tokenizer, turns, tools)
    except TEMPLATE_FAULTS:
        return False
    return all(word in text for word in words)


def _fit(turns: Turns, tools: Tools, places: Places) -> tuple[Turns, Tools]:
    """Write what a template has no place for into the turns that it has."""
    if (tools and not places.tools) or (any(turn.get("tool_calls") for turn in turns) and not places.calls):
        turns, tools = _as_texts(turns, tools), []
    if turns and turns[0]["role"] == "system" and not places.system:
        turns = _into_first(turns)
    return turns, tools


def _as_texts(turns: Turns, tools: Tools) -> Turns:
    """Write tools as lines of JSON in the system turn, calls in the assistant's, and what they gave in the user's."""
    written = _join_results([_as_text(turn) for turn in turns], turns)
    if not tools:
        return written
    listed = "\n".join(["Tools:", *(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)])
    if written and written[0]["role"] == "system":
        return [{"role": "system", "content": f"{written[0]['content']}\n\n{listed}"}, *written[1:]]
    return [{"role": "system", "content": listed}, *written]


def _as_text(turn: dict[str, Any]) -> dict[str, Any]:
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in turn.get("tool_calls", ())]
    role = "user" if turn["role"] == "tool" else turn["role"]
    return {"role": role, "content": "\n".join([turn["content"]] * bool(turn["content"]) + calls)}


def _join_results(written: Sequence[dict[str, Any]], turns: Turns) -> list[dict[str, Any]]:
    """Write what several tools gave as one turn, as it is the user's, who speaks once before the assistant does."""
    joined: list[dict[str, Any]] = []
    for i, (text, turn) in enumerate(zip(written, turns, strict=True)):
        if i and turn["role"] == turns[i - 1]["role"] == "tool":
            text = {"role": "user", "content": f"{joined.pop()['content']}\n{text['content']}"}
        joined.append(text)
    return joined


def _into_first(turns: Turns) -> Turns:
    """Write the system turn before the first turn of the user, as Gemma's template does."""
    system, first, *rest = [*turns, {"role": "user", "content": ""}] if len(turns) == 1 else turns
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def write_transcript(turns: Turns) -> str:
    """One turn as it is; several as "\\n\\nHuman: ...\\n\\nAssistant: ..." with the assistant to go on."""
    if len(turns) == 1:
        return str(turns[0]["content"])
    said = "".join(f"\n\n{SPEAKERS.get(turn['role'], 'Human')}: {turn['content']}" for turn in turns)
    return f"{said}\n\nAssistant:"


def encode_completion(tokenizer: Any, completion: str) -> list[int]:
    """Encode the model's turn: the text and the end-of-turn token, which teaches it to stop."""
    return [*_encode(tokenizer, completion, add_special_tokens=False), end_of_turn_id(tokenizer)]


def find_length_fault(prompt: int, completion: int, settings: ResolvedSettings) -> str:
    """Say why a sequence of so many tokens cannot be trained on whole; "" where it can."""
    if not completion:
        return "no supervised token"
    if completion > settings.generation.max_new_tokens:
        return "completion longer than max_new_tokens"
    if prompt + completion > settings.length.max_seq_length:
        return "longer than max_seq_length"
    return "longer than batch_tokens" if prompt + completion > settings.batching.batch_tokens else ""


def encode_until(tokenizer: Any, completion: str, end: int) -> list[int]:
    """Encode the model's turn up to the token in which the character at `end` begins, or as a whole.

    That token says that what stands before `end` is complete: 3, and not the beginning of 30.
    """
    if end >= len(completion):
        return encode_completion(tokenizer, completion)
    read = tokenizer(completion, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    kept = sum(start <= end for start, _ in read["offset_mapping"])
    return list(read["input_ids"][:kept])


def _encode(tokenizer: Any, text: str, **options: bool) -> list[int]:
    """Encode a text without the tokenizer's own remark on long ones: its reader says what is too long for what."""
    return list(tokenizer(text, verbose=False, **options)["input_ids"])


def end_of_turn_id(tokenizer: Any) -> int:
    """Find the id of the token that ends the model's turn: Gemma's own, else what ends a text for this tokenizer."""
    gemmas = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    return int(tokenizer.eos_token_id if gemmas in (None, tokenizer.unk_token_id) else gemmas)
