"""Write an answer as OpenAI's objects: a chat completion, or the chunks of a stream.

Beside what OpenAI's API has, an answer to a schema says its verdict, "verdict": {"valid": ..., "violations": [...]},
and how many of its tokens the schema's grammar has changed: "mask_changes".
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from schema_student.core.jsonl import Row
from schema_student.deploy.serving.requests import Asked
from schema_student.deploy.serving.writer import Done
from schema_student.schema.judging import Verdict, judge
from schema_student.schema.rendering import completion_text

LAST = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """An answer: its text, the call of a tool that it is, why it ended, and the verdict where there is a schema."""

    text: str
    call: Row | None
    reason: str
    verdict: Verdict | None
    usage: Row
    mask_changes: int = 0
    seconds: float = 0.0
    told: Row = field(default_factory=dict)  # who answered, and how sure the student was, where a teacher stands behind

    @property
    def valid(self) -> bool:
        """Return whether the answer is whole and valid against its schema."""
        return self.verdict is not None and self.verdict.schema_valid and self.reason != "length"

    def message(self) -> Row:
        """Return OpenAI's message."""
        if self.call is None:
            return {"role": "assistant", "content": self.text}
        return {"role": "assistant", "content": None, "tool_calls": [self.call]}

    def judged(self) -> Row:
        """Return the verdict, where there is one, as it stands beside the choices."""
        if self.verdict is None:
            return {}
        violations = [asdict(violation) for violation in self.verdict.violations]
        verdict = {"valid": self.valid, "parse_error": self.verdict.parse_error, "violations": violations}
        return {"verdict": verdict, "mask_changes": self.mask_changes, **self.told}


def make_reply(asked: Asked, done: Done, strip_fences: bool) -> Reply:
    """Judge an answer, and make a call of a tool of it where tools were asked for and it is JSON."""
    verdict = judge(done.text, asked.schema.compiled, strip_fences) if asked.schema else None
    call = _find_call(asked.schema.tools, verdict.value) if asked.schema and verdict and verdict.parsed else None
    reason = "length" if not done.finished else "tool_calls" if call else "stop"
    read = len(asked.prompt_ids)
    usage = {"prompt_tokens": read, "completion_tokens": done.tokens, "total_tokens": read + done.tokens}
    return Reply(done.text, call, reason, verdict, usage, done.mask_changes, done.seconds)


def _find_call(tools: tuple[str, ...], value: Any) -> Row | None:
    """The call that an answer is: of one tool the arguments, of several {name, arguments}; None where it is no call."""
    if not tools or not isinstance(value, dict):
        return None
    name, arguments = (tools[0], value) if len(tools) == 1 else (value.get("name"), value.get("arguments"))
    if name not in tools or not isinstance(arguments, dict):
        return None
    function = {"name": name, "arguments": completion_text(arguments)}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


class Writing:
    """What the parts of one answer have in common: its id, when it began, who writes."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, reply: Reply) -> Row:
        """Return the answer as one object."""
        choice = {"index": 0, "message": reply.message(), "logprobs": None, "finish_reason": reply.reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": reply.usage, **reply.judged()}

    def piece(self, text: str) -> bytes:
        """Return further text as an event of a stream."""
        return self._chunk({"content": text})

    def begin(self) -> bytes:
        """Return a stream's first event."""
        return self._chunk({"role": "assistant", "content": ""})

    def end(self, reply: Reply, with_usage: bool) -> Iterator[bytes]:
        """Return a stream's last events: a call, why it ended, with the verdict; the counts where they are wanted."""
        if reply.call:
            yield self._chunk({"tool_calls": [{"index": 0, **reply.call}]})
        yield self._chunk({}, reply.reason, **reply.judged())
        if with_usage:
            yield _event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": reply.usage})
        yield LAST

    def _chunk(self, delta: Row, reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**self._head, "object": "chat.completion.chunk", "choices": [choice], **more})


def _event(value: Row) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def fault_event(body: Row) -> bytes:
    """Return a fault that comes after a stream has begun."""
    return _event(body)
