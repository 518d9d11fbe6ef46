r"""Read conversations of any convention as messages {role, content}, as chat templates take them.

    OpenAI, trl   {"role": "user", "content": "..."}; content may be a list of parts {"type": "text", "text": ...}
    ShareGPT      {"from": "human", "value": "..."}
    transcripts   "\n\nHuman: ...\n\nAssistant: ..." (Anthropic's HH-RLHF)

Calls of tools stay with their turn (tool_calls, their arguments as an object), and what they gave is a turn of role
tool. What cannot be read raises Malformed, what can be read but not learned from raises Unusable: both are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.core.records import Prompt
from schema_student.data.traces import ROLES, TEXT_PARTS
from schema_student.preference.held_out import as_text

Messages = list[dict[str, Any]]

SPOKEN = re.compile(r"\n\n(Human|Assistant):")
LETTERS = {"user": "u", "assistant": "a", "tool": "t"}  # of a conversation's shape; "c" is a turn that calls a tool
CALLS = "(?:ct+)*"  # calls of tools and what they gave
SHAPE = re.compile(f"(?:u{CALLS}a)*u{CALLS}")  # before the answer
TURN_KEYS = {"role", "from", "content", "value", "tool_calls", "function_call", "name", "tool_call_id", "id"}
TURN_KEYS |= {"weight", "loss", "train"}  # whether a turn is to be learned


class Unusable(Exception):
    """A row that is whole but that nothing can be learned from; its text is the reason."""


class Malformed(Unusable):
    """A row that cannot be read."""


def read_turns(value: Any, column: str) -> Messages:
    """Read a text (one turn of the user), a message, or a list of messages; raises Malformed and Unusable."""
    if isinstance(value, str):
        return _read_spoken(value) or [{"role": "user", "content": value}]
    turns = [value] if isinstance(value, dict) else value
    if not turns or not isinstance(turns, list) or not all(_is_turn(turn) for turn in turns):
        raise Malformed(f"{column} is neither text nor a list of messages {{role, content}}")
    return [_read_turn(turn, column) for turn in turns]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and bool({"role", "from"} & value.keys() or {"content", "value"} & value.keys())


def read_answer(value: Any, column: str) -> tuple[Messages, str]:
    """Read an answer: what of the conversation it brings along, and its text."""
    if isinstance(value, str):
        return [], value
    return split_last(read_turns(value, column))


def _read_turn(turn: Row, column: str) -> dict[str, Any]:
    said = turn.get("role", turn.get("from"))
    role = ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise Malformed(f"{column} has a turn whose role is none of {', '.join(sorted(set(ROLES.values())))}")
    calls = _read_calls(turn, column)
    content = _read_content(turn.get("content", turn.get("value")), bool(calls), column)
    if said == "function_call" and not calls:
        calls, content = _read_calls({"function_call": _as_json(content)}, column), ""
    beside = {name: turn[name] for name in ("name", "tool_call_id") if isinstance(turn.get(name), str)}
    read = {"role": role, "content": content, **beside, **({"tool_calls": calls} if calls else {})}
    unlearned = turn.get("weight") == 0 or turn.get("loss") is False or turn.get("train") is False
    return {**read, "weight": 0} if unlearned else read


def _read_content(content: Any, calls: bool, column: str) -> str:
    if isinstance(content, str):
        return content
    if content is None and calls:
        return ""
    if isinstance(content, list) and all(isinstance(part, (str, dict)) for part in content):
        return "\n".join(part if isinstance(part, str) else _read_part(part, column) for part in content)
    raise Malformed(f"{column} has a turn whose content is {'null' if content is None else 'no text'}")


def _read_part(part: Row, column: str) -> str:
    if part.get("type", "text") in TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Unusable(f"{column} has a part that is no text (an image, audio, a file)")


def _read_calls(turn: Row, column: str) -> list[Row]:
    """The calls of a turn as [{"type": "function", "function": {"name", "arguments"}}], by whichever name."""
    old = turn.get("function_call")
    calls = turn.get("tool_calls") or ([{"type": "function", "function": old}] if isinstance(old, dict) else [])
    if not isinstance(calls, list):
        raise Malformed(f"{column} has tool_calls that are no list")
    return [_read_call(call, column) for call in calls]


def _read_call(call: Any, column: str) -> Row:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Malformed(f"{column} has a tool call without the name of its function")
    arguments = function.get("arguments", {})
    arguments = _as_json(arguments) if isinstance(arguments, str) else arguments
    name = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**name, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _as_json(text: str) -> Any:
    """The value of a text of JSON, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_spoken(text: str) -> Messages:
    r"""The turns of "\n\nHuman: ...\n\nAssistant: ..."; [] where the text is no transcript."""
    parts = SPOKEN.split(text)
    if len(parts) < 3 or parts[0].strip() or parts[1] != "Human":
        return []
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return [{"role": ROLES[who.lower()], "content": said.strip()} for who, said in turns]


def is_spoken(value: Any) -> bool:
    """Return whether a text is a transcript of several turns."""
    return isinstance(value, str) and len(_read_spoken(value)) > 1


def split_last(turns: Messages) -> tuple[Messages, str]:
    """Split a conversation into what was said before the last answer, and that answer; raises Unusable."""
    last = turns[-1]
    if last["role"] != "assistant":
        raise Unusable("the last turn is not the assistant's")
    if last.get("tool_calls"):
        raise Unusable("the answer calls a tool: write the call as the text that is to be learned")
    if last.get("weight") == 0:
        raise Unusable("the answer is marked as not to be learned (weight, loss, train)")
    return turns[:-1], last["content"]


def check_prompt(turns: Messages) -> Prompt:
    """Return a prompt as rows hold it: the text of a single user turn, else messages; raises Unusable for their order.

    The user speaks first and last, or tools do, and nobody twice.
    """
    turns = [{key: value for key, value in turn.items() if key != "weight"} for turn in turns]
    shape = "".join("c" if turn.get("tool_calls") else LETTERS.get(turn["role"], "") for turn in turns)
    if not SHAPE.fullmatch(shape):
        raise Unusable(_explain_order(shape))
    return as_text(turns)


def _explain_order(shape: str) -> str:
    if not shape:
        return "there is no turn of the user"
    if shape[0] != "u":
        return "the first turn is not the user's"
    if shape[-1] not in "ut":
        return "the last turn of the prompt is not the user's"
    return "turns do not alternate between user and assistant"


def add_before(turns: Messages, system: Any, history: Any) -> Messages:
    """Put a system column and a column of earlier turns [[question, answer], ...] before a prompt's own turns."""
    earlier = _read_history(history)
    if system is None:
        return earlier + turns
    if not isinstance(system, str):
        raise Malformed("system is no text")
    if not turns or turns[0]["role"] != "system":
        return [{"role": "system", "content": system}, *earlier, *turns]
    if turns[0]["content"].strip() != system.strip():
        raise Malformed("the column system says otherwise than the system turn")
    return [turns[0], *earlier, *turns[1:]]


def _read_history(history: Any) -> Messages:
    if history is None:
        return []
    pairs: Sequence[Any] = history if isinstance(history, list) else [None]
    if not all(isinstance(pair, list) and [type(text) for text in pair] == [str, str] for pair in pairs):
        raise Malformed("history is no list of [question, answer]")
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)]


def unread_turn_keys(value: Any) -> set[str]:
    """List what the messages of a column hold that nothing reads."""
    turns = value if isinstance(value, list) else []
    return {key for turn in turns if isinstance(turn, dict) for key in turn if turn[key] and key not in TURN_KEYS}
