"""Read the body of a chat request: what is asked of the student, and within which limits.

A request names its schema by `response_format` or by `tools`, and its first user turn becomes the student's prompt, as
in training: instruction, schema, date (metadata.current_date, else today), request. A prompt that is rendered already,
and a request without a schema, are read as they are.

    chat = read_chat(b'{"model": "student", "messages": [...], "response_format": {...}}')
    asked = ChatReader(student).read(chat)         # asked.prompt_ids, asked.compiled, asked.constraint
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row
from schema_student.deploy.serving.faults import ApiFault
from schema_student.schema.compiling import CompiledSchema, compile_schema
from schema_student.schema.parsing import parse_strict
from schema_student.schema.prompts import render_prompt
from schema_student.schema.tool_choice import NO_ARGUMENTS
from schema_student.schema.user_schemas import open_schema
from schema_student.student.constraints import Constraint
from schema_student.student.generation import constrain, row_seed
from schema_student.student.loading import Student
from schema_student.student.tokens import encode_prompt

STOPS, STOP_CHARS = 4, 200  # texts that end an answer, and how long each may be
B = TypeVar("B", bound=BaseModel)
Text = Annotated[str, Field(min_length=1)]
Stop = Annotated[str, Field(min_length=1, max_length=STOP_CHARS)]


class Part(BaseModel):
    """A part of a turn: text is all that a student reads."""

    type: Literal["text", "input_text"]
    text: str


class Call(BaseModel):
    """A call of a tool in a turn of the assistant."""

    class Function(BaseModel):
        """What is called, with its arguments as JSON."""

        name: Text
        arguments: str

    function: Function


class Turn(BaseModel):
    """A message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[Call] | None = None

    def as_turn(self) -> dict[str, Any]:
        """Return it as chat templates take it."""
        content = self.content or ""
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        calls = [{"type": "function", "function": _open_arguments(call)} for call in self.tool_calls or ()]
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": text, **({"tool_calls": calls} if calls else {})}


def _open_arguments(call: Call) -> dict[str, Any]:
    value, problem = parse_strict(call.function.arguments)
    return {"name": call.function.name, "arguments": call.function.arguments if problem else value}


class NamedSchema(BaseModel):
    """A JSON Schema, and whether the answer is held to it while it is written."""

    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What the answer is: text, some JSON, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class Function(BaseModel):
    """A function that may be called."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def as_tool(self) -> dict[str, Any]:
        """Return it as open_schema takes a tool."""
        described = {"description": self.description} if self.description else {}
        return {"type": "function", "function": {"name": self.name, **described, "parameters": self._arguments}}

    @property
    def _arguments(self) -> dict[str, Any]:
        return self.parameters or NO_ARGUMENTS


class Tool(BaseModel):
    """A tool."""

    type: Literal["function"]
    function: Function


class NamedTool(BaseModel):
    """A choice of one tool."""

    class Name(BaseModel):
        """Its name."""

        name: Text

    type: Literal["function"] = "function"
    function: Name


class StreamOptions(BaseModel):
    """What a stream says at its end."""

    include_usage: bool = False


class Metadata(BaseModel):
    """Of what a person may say beside a request: the day that it is asked on, and which of several samples it is."""

    current_date: date | None = None
    sample: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Chat(BaseModel):
    """The body of a request; fields that no answer depends on are not read."""

    model: Text
    messages: Annotated[list[Turn], Field(min_length=1, max_length=256)]
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=256)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    metadata: Metadata | None = None
    # What is not done here, and would be missed where it is asked for.
    n: Literal[1] | None = None
    top_p: Annotated[float, Field(ge=1, le=1)] | None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def stops(self) -> list[str]:
        """Return the texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


def read_chat(body: bytes) -> Chat:
    """Read a body; raises ApiFault that names the first parameter that is wrong."""
    return read_as(Chat, parse_body(body))


def parse_body(body: bytes) -> Row:
    """Parse a body as a JSON object; raises ApiFault."""
    try:
        value, problem = parse_strict(body.decode())
    except UnicodeDecodeError as error:
        value, problem = None, f"not UTF-8 at byte {error.start}"
    if problem or not isinstance(value, dict):
        raise ApiFault(400, f"the body is not JSON: {problem}" if problem else "the body must be a JSON object")
    return value


def read_as(kind: type[B], value: Row) -> B:
    """Read an object as a kind of body; raises ApiFault that names the first parameter that is wrong."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"]))
        raise ApiFault(400, f"{param}: {first['msg']}", param=param) from None


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


@dataclass(frozen=True)
class Schema:
    """The schema of an answer; `tools` are the functions that it calls, `strict` whether it is held to the schema."""

    compiled: CompiledSchema
    strict: bool
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A request as the student reads it."""

    prompt_ids: list[int]
    schema: Schema | None
    constraint: Constraint | None
    max_new_tokens: int
    temperature: float
    seed: int
    stops: tuple[str, ...]
    streams: bool
    query: str
    day: str
    is_alone: bool  # the request is the only turn


class ChatReader:
    """Reads requests as a student's run reads its prompts."""

    def __init__(self, student: Student, constrained: bool = False) -> None:
        self.student, self.settings, self.constrained = student, student.settings, constrained

    def read(self, chat: Chat) -> Asked:
        """Read a request; raises ApiFault for a schema or a prompt that cannot be used."""
        schema = _find_schema(chat, self.constrained)
        metadata = chat.metadata or Metadata()
        day = str(metadata.current_date or date.today())
        turns = [turn.as_turn() for turn in chat.messages]
        place = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
        if place is None:
            raise ApiFault(400, "messages: none of them is of the user", param="messages")
        query = turns[place]["content"]
        if schema:
            query, day = self._find_request(schema.compiled, query, day)
            rendering = self.settings.prompt.schema_rendering
            turns[place] = {
                **turns[place],
                "content": render_prompt(schema.compiled.schema, query, day, rendering),
            }
        longest = self.settings.generation.max_new_tokens
        limit = min(chat.max_completion_tokens or chat.max_tokens or longest, longest)
        prompt_ids = self._encode(turns, self.settings.length.max_seq_length - limit)
        seed = self.settings.run.seed if chat.seed is None else chat.seed
        return Asked(
            prompt_ids=prompt_ids,
            schema=schema,
            constraint=self._constrain(schema) if schema else self._constrain_to_json(chat),
            max_new_tokens=limit,
            temperature=chat.temperature or 0.0,
            seed=row_seed(seed, prompt_ids, metadata.sample),
            stops=tuple(chat.stops),
            streams=bool(chat.stream),
            query=query,
            day=day,
            is_alone=len(turns) == 1,
        )

    def _find_request(self, compiled: CompiledSchema, text: str, day: str) -> tuple[str, str]:
        """The request and the day of a prompt that a program has rendered before, for this schema; else as given."""
        before = render_prompt(compiled.schema, "", "", self.settings.prompt.schema_rendering).rpartition("Date: ")[0]
        rendered, (said, found, request) = text.removeprefix(before), text.removeprefix(before).partition("\nRequest: ")
        is_rendered = rendered != text and found and said.startswith("Date: ") and "\n" not in said
        return (request, said.removeprefix("Date: ")) if is_rendered else (text, day)

    def _encode(self, turns: list[dict[str, Any]], room: int) -> list[int]:
        alone = len(turns) == 1 and turns[0]["role"] == "user"
        try:
            ids = encode_prompt(self.student.tokenizer, turns[0]["content"] if alone else turns)
        except UserError as error:
            raise ApiFault(400, f"messages: {error}", param="messages") from None
        if len(ids) > room:
            said = f"the prompt has {len(ids)} tokens, of {room} that fit; give a smaller schema or request"
            raise ApiFault(400, said, param="messages", code="context_length_exceeded")
        return ids

    def _constrain_to_json(self, chat: Chat) -> Constraint | None:
        """The constraint of an answer that is some JSON object, whatever its properties."""
        wants_json = chat.response_format is not None and chat.response_format.type == "json_object"
        return constrain(self.student, [{"type": "object"}])[0] if wants_json else None

    def _constrain(self, schema: Schema) -> Constraint | None:
        if not schema.strict:
            return None
        try:
            return constrain(self.student, [schema.compiled.schema])[0]
        except UserError as error:
            raise ApiFault(400, f"{error}; leave strict out", param=_where(schema)) from None


def _where(schema: Schema) -> str:
    return "tools" if schema.tools else "response_format"


def _find_schema(chat: Chat, constrained: bool) -> Schema | None:
    """The schema of the tools that may be called, else of the response format; None for a request without one."""
    tools = _callable(chat)
    try:
        if tools:
            must = isinstance(chat.tool_choice, NamedTool) or chat.tool_choice == "required"
            strict = constrained or must or all(tool.strict for tool in tools)
            compiled = _compile_tools(json.dumps([tool.as_tool() for tool in tools]))
            return Schema(compiled, strict, tuple(tool.name for tool in tools))
        wanted = chat.response_format
        if wanted is None or wanted.type != "json_schema":
            return None
        if wanted.json_schema is None:
            raise ApiFault(400, "response_format.json_schema is missing", param="response_format.json_schema")
        compiled = _compile(json.dumps(wanted.json_schema.schema_))
        return Schema(compiled, constrained or bool(wanted.json_schema.strict))
    except UserError as error:
        raise ApiFault(400, str(error), param="tools" if tools else "response_format.json_schema.schema") from None


def _callable(chat: Chat) -> list[Function]:
    """The functions that the answer may call: all, the one that is chosen, or none."""
    functions = [] if chat.tool_choice == "none" else [tool.function for tool in chat.tools or ()]
    if not isinstance(chat.tool_choice, NamedTool):
        return functions
    name = chat.tool_choice.function.name
    chosen = [function for function in functions if function.name == name]
    if not chosen:
        raise ApiFault(400, f"tool_choice: there is no tool {name!r} among tools", param="tool_choice")
    return chosen[:1]


@lru_cache(maxsize=256)
def _compile(text: str) -> CompiledSchema:
    return compile_schema(open_schema(json.loads(text), "schema"))


@lru_cache(maxsize=256)
def _compile_tools(text: str) -> CompiledSchema:
    return compile_schema(open_schema(json.loads(text), "tools"))
