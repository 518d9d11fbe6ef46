"""Read traces of any common envelope: a request, the tools that were at hand, and the call that was made.

    OpenAI      {messages: [..., {role: assistant, tool_calls: [{function: {name, arguments: "{...}"}}]}], tools}
    Anthropic   {messages: [..., {role: assistant, content: [{type: tool_use, name, input}]}], tools}
    Gemini      {contents: [..., {role: model, parts: [{functionCall: {name, args}}]}], tools}
    BFCL        {question, function, ground_truth: [{NAME: {argument: [alternatives]}}]}
    plain       {request, call: {name, arguments}, tools?}

A request and its response may also stand apart, as logs hold them: {request: {messages, tools}, response: {choices}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from schema_student.schema.compiling import SchemaError
from schema_student.schema.envelopes import SEVERAL, list_tools
from schema_student.schema.tool_choice import Tool

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "function_call"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "ipython"), "tool"),
}
TEXT_PARTS = ("text", "input_text", "output_text")
TURNS = ("messages", "contents", "conversations", "conversation", "input", "question")
ASKED = ("request", "query", "question", "prompt", "instruction", "utterance", "user", "input")
CALLED = (
    *("call", "calls", "tool_call", "tool_calls", "function_call", "function_calls", "ground_truth"),
    *("answer", "answers", "output", "completion", "response"),
)
ARGUMENTS = ("arguments", "args", "input", "parameters", "params")
EXPECTED = "a request (request, query, question, messages, contents) and the call that was made (call, tool_calls, ...)"


class Unread(Exception):
    """A trace that gives no row; its text is the reason."""


class Call(NamedTuple):
    """A call of a tool, with the alternatives accepted for each argument where they are known."""

    name: str
    arguments: Any
    accepted: dict[str, list[Any]] | None = None


@dataclass(frozen=True)
class Trace:
    """A request and its call, None where none was made; the tools at hand, where the trace names them."""

    query: str
    call: Call | None
    tools: list[Tool]
    has_more: bool = False  # whether turns follow that are not read


class _Turn(NamedTuple):
    role: str
    text: str
    calls: list[Call]


def is_trace(row: Any) -> bool:
    """Return whether a document looks like a trace: something is asked in it."""
    return isinstance(row, dict) and bool(row.keys() & {*TURNS, *ASKED})


def read_trace(row: dict[str, Any], name: str) -> Trace:
    """Read a trace; raises Unread with the reason where it gives no row, and SchemaError for tools that are none."""
    request = row["request"] if isinstance(row.get("request"), dict) else row
    tools = _read_tools(request, name) or _read_tools(row, name)
    turns = [turn for turn in [*_asked_turns(request), *_answered_turns(row)] if turn.role != "system"]
    asked = next((i for i, turn in enumerate(turns) if turn.role != "user"), len(turns))
    query = "\n".join(turn.text.strip() for turn in turns[:asked]).strip()
    if not query:
        raise Unread(f"nothing is asked before the first answer; expected: {EXPECTED}")
    if asked == len(turns):
        return Trace(query, None, tools)
    calls = turns[asked].calls
    if not calls:
        raise Unread("answered in words, without a call")
    if len(calls) > 1:
        raise Unread("several calls for one request")
    return Trace(query, calls[0], tools, has_more=len(turns) > asked + 1)


def _read_tools(row: dict[str, Any], name: str) -> list[Tool]:
    for key in (*SEVERAL, "function"):
        held = _unpack(row.get(key))
        if isinstance(held, list) and held:
            try:
                return list_tools({"tools": held}, name)
            except SchemaError as error:
                raise Unread(str(error).removeprefix(f"{name}: ")) from None
    return []


def _unpack(value: Any) -> Any:
    """A value that stands as JSON in a text, as tables and APIs hold it; any other as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


def _asked_turns(request: dict[str, Any]) -> Iterator[_Turn]:
    for key in TURNS:
        turns = _unpack(request.get(key))
        if isinstance(turns, list) and turns:
            flat = [turn for part in turns for turn in (part if isinstance(part, list) else [part])]  # BFCL's rounds
            yield from (_read_turn(turn) for turn in flat)
            return
    asked = [request[key] for key in ASKED if isinstance(request.get(key), str)]
    if asked:
        yield _Turn("user", asked[0], [])


def _read_turn(turn: Any) -> _Turn:
    if isinstance(turn, str):
        return _Turn("user", turn, [])
    if not isinstance(turn, dict):
        raise Unread(f"a turn that is no message: {json.dumps(turn)[:80]}")
    said = turn.get("role", turn.get("from"))
    if said is None and turn.get("type") == "function_call":  # of OpenAI's Responses
        return _Turn("assistant", "", [_read_call(turn)])
    role = ROLES.get(said.lower()) if isinstance(said, str) else "user"
    if role is None:
        raise Unread(f"a turn of role {said}; known are {', '.join(sorted(ROLES))}")
    content = turn.get("content", turn.get("value", turn.get("parts")))
    parts = content if isinstance(content, list) else [content]
    called = [*_as_list(turn.get("tool_calls")), *_as_list(turn.get("function_call"))]
    called += _as_list(_unpack(content)) if said == "function_call" else []
    called += [part for part in parts if _is_call(part)]
    return _Turn(role, "\n".join(filter(None, map(_text_of, parts))), [_read_call(call) for call in called])


def _is_call(part: Any) -> bool:
    named = isinstance(part, dict) and (
        part.get("type") == "tool_use" or part.keys() & {"functionCall", "function_call"}
    )
    return bool(named)


def _text_of(part: Any) -> str:
    if isinstance(part, dict) and part.get("type", "text") in TEXT_PARTS:
        part = part.get("text")
    return part if isinstance(part, str) else ""


def _as_list(value: Any) -> list[Any]:
    value = _unpack(value)
    return [] if value is None else value if isinstance(value, list) else [value]


# ---------------------------------------------------------------------------------------------------------------------
# What was called


def _answered_turns(row: dict[str, Any]) -> Iterator[_Turn]:
    """The response that stands apart from its request."""
    if isinstance(row.get("response"), dict) and (turns := list(_response_turns(row["response"]))):
        yield from turns
        return
    for key in CALLED:
        calls = [call for call in _as_list(row.get(key)) if isinstance(call, dict)]
        if calls:
            yield _Turn("assistant", "", [_read_call(call) for call in calls])
            return


def _response_turns(response: dict[str, Any]) -> Iterator[_Turn]:
    """The first answer of a response of OpenAI (choices, output), Gemini (candidates) or Anthropic (content)."""
    for choice in _as_list(response.get("choices"))[:1]:
        yield _read_turn({"role": "assistant", **choice["message"]})
    for candidate in _as_list(response.get("candidates"))[:1]:
        yield _read_turn({"role": "model", **candidate["content"]})
    if isinstance(response.get("content"), list):
        yield _read_turn({"role": "assistant", "content": response["content"]})
    called = [each for each in _as_list(response.get("output")) if each.get("type") == "function_call"]
    if called:
        yield _Turn("assistant", "", [_read_call(each) for each in called])


def _read_call(call: Any) -> Call:
    """Read a call of any convention; raises Unread."""
    for key in ("function", "functionCall", "function_call"):
        if isinstance(call, dict) and isinstance(call.get(key), dict):
            call = call[key]
    if not isinstance(call, dict):
        raise Unread(f"a call that is no object: {json.dumps(call)[:80]}")
    name = call.get("name", call.get("tool_name", call.get("tool")))
    if isinstance(name, str):
        given: Any = next((call[key] for key in ARGUMENTS if call.get(key) is not None), {})
        arguments = _unpack(given) if given != "" else {}
        if not isinstance(arguments, dict):
            raise Unread(f"arguments of {name} that are no JSON object: {json.dumps(arguments)[:80]}")
        return Call(name, arguments)
    if len(call) == 1 and isinstance(alternatives := next(iter(call.values())), dict):
        return _read_truth(next(iter(call)), alternatives)
    raise Unread(f"a call without the name of its tool: {json.dumps(call)[:80]}")


def _read_truth(name: str, alternatives: dict[str, Any]) -> Call:
    """Read a call of BFCL: its arguments are the first alternatives, "" says that one may be left out.

    >>> _read_truth("area", {"base": [10], "unit": ["cm", ""], "round": ["", 2]}).arguments
    {'base': 10, 'unit': 'cm'}
    """
    if not all(isinstance(options, list) and options for options in alternatives.values()):
        raise Unread(f"alternatives of {name} that are no lists")
    return Call(name, _first_of(alternatives), alternatives)


def _first_of(alternative: Any) -> Any:
    if isinstance(alternative, dict):
        firsts = {
            key: options[0] if isinstance(options, list) and options else options
            for key, options in alternative.items()
        }
        return {key: _first_of(first) for key, first in firsts.items() if first != ""}
    return [_first_of(part) for part in alternative] if isinstance(alternative, list) else alternative
