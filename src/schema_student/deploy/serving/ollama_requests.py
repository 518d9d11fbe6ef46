"""Read the bodies of Ollama's /api/chat and /api/generate as chat requests.

Options that Ollama does not know are ignored, as it does; those that it knows and that would change an answer in a way
that is not done here are refused by name.
"""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from schema_student.core.jsonl import Row
from schema_student.deploy.serving.faults import ApiFault
from schema_student.deploy.serving.requests import Chat, Text, read_as

LATEST = ":latest"  # the tag of a name without one
NEUTRAL = {"repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0, "mirostat": 0}  # changes no answer
NEUTRAL_DRAWS = {"top_p": 1, "top_k": 0, "min_p": 0, "typical_p": 1}  # the same of answers that are drawn


class Options(BaseModel):
    """What of Ollama's options an answer depends on here, and the day that a request is asked on."""

    temperature: float | None = None
    num_predict: int | None = None  # below 1: as long as an answer may be
    seed: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    current_date: date | None = None

    def as_openai(self) -> Row:
        """Return them by OpenAI's names; raises ApiFault for one that is not done."""
        neutral = NEUTRAL | (NEUTRAL_DRAWS if self.temperature else {})
        for name, value in neutral.items():
            if getattr(self, name) not in (None, value):
                raise ApiFault(400, f"option {name!r} is not done here: leave it out, or give {value}")
        limit = self.num_predict if (self.num_predict or 0) > 0 else None
        day = {"current_date": self.current_date} if self.current_date else {}
        given = {"temperature": self.temperature, "max_tokens": limit, "stop": self.stop or None, "seed": self.seed}
        return {**given, "metadata": day}


class Call(BaseModel):
    """A call of a tool; its arguments are an object."""

    class Function(BaseModel):
        """What is called."""

        name: Text
        arguments: dict[str, Any] = {}

    function: Function

    def as_openai(self) -> Row:
        """Return it as OpenAI writes it: the arguments as JSON."""
        return {"function": {"name": self.function.name, "arguments": json.dumps(self.function.arguments)}}


class Message(BaseModel):
    """A turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: list[Call] | None = None

    def as_openai(self) -> Row:
        """Return it as OpenAI writes it."""
        calls = [call.as_openai() for call in self.tool_calls or ()]
        return {"role": self.role, "content": self.content, **({"tool_calls": calls} if calls else {})}


class OllamaRequest(BaseModel):
    """What both kinds of requests have."""

    model: Text
    stream: bool | None = None  # None is true
    format: Any = None
    options: Options | None = None
    think: bool | str | None = None
    keep_alive: float | str | None = None

    @property
    def streams(self) -> bool:
        """Return whether the answer is sent as it is written."""
        return self.stream is not False

    def _as_chat(self, messages: list[Row], **more: Any) -> Chat:
        """Make the chat request; raises ApiFault for what is not done, or is out of bounds."""
        if self.think:
            raise ApiFault(400, f'"{self.model}" does not support thinking')
        body = {"model": self.model, "messages": messages, "stream": self.streams, **more}
        return read_as(Chat, body | self._format() | (self.options or Options()).as_openai())

    def _format(self) -> Row:
        if not self.format:
            return {}
        if self.format == "json":
            return {"response_format": {"type": "json_object"}}
        if isinstance(self.format, dict):
            wanted = {"name": "format", "schema": self.format, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": wanted}}
        raise ApiFault(400, f'invalid format: {json.dumps(self.format)[:80]}; expected "json" or a JSON Schema')


class OllamaChat(OllamaRequest):
    """The body of /api/chat."""

    messages: list[Message] = []
    tools: list[Row] | None = None

    @property
    def asks(self) -> bool:
        """Return whether anything is asked; else the model is to be loaded."""
        return bool(self.messages)

    def as_chat(self) -> Chat:
        """Return it as a chat request; raises ApiFault."""
        return self._as_chat([message.as_openai() for message in self.messages], tools=self.tools or None)


class OllamaGenerate(OllamaRequest):
    """The body of /api/generate; what would take the place of the student's own template is refused."""

    prompt: str = ""
    system: str = ""
    suffix: Annotated[str, Field(max_length=0)] | None = None
    template: Annotated[str, Field(max_length=0)] | None = None
    context: Annotated[list[int], Field(max_length=0)] | None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None
    raw: Literal[False] | None = None

    @property
    def asks(self) -> bool:
        """Return whether anything is asked; else the model is to be loaded."""
        return bool(self.prompt)

    def as_chat(self) -> Chat:
        """Return it as a chat request; raises ApiFault."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return self._as_chat([*system, {"role": "user", "content": self.prompt}])
