"""Bodies of requests and of answers, field by field and bound by bound: no server and no student is needed for it."""

import asyncio
import json
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pytest

from schema_student import __version__
from schema_student.core.jsonl import read_jsonl
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.deploy.serving import ollama_routes, openai_routes, replies, request_log, requests
from schema_student.deploy.serving.answering import Begun
from schema_student.deploy.serving.faults import ApiFault
from schema_student.deploy.serving.ollama_requests import OllamaChat, OllamaGenerate
from schema_student.deploy.serving.ollama_routes import OllamaRoutes
from schema_student.deploy.serving.openai_routes import OpenAIRoutes
from schema_student.deploy.serving.replies import Reply, Writing, make_reply
from schema_student.deploy.serving.request_log import RequestLog
from schema_student.deploy.serving.requests import Asked, ChatReader, Schema, read_as, read_chat
from schema_student.deploy.serving.writer import Done
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.prompts import render_prompt
from schema_student.schema.user_schemas import open_schema
from schema_student.student.generation import row_seed

pytest.importorskip("starlette")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
USER = [{"role": "user", "content": "two"}]
TOOL = {"type": "function", "function": {"name": "f"}}


def chat(**body):
    return read_chat(json.dumps({"model": "m", "messages": USER, **body}).encode())


def refused(read, *given, **body):
    with pytest.raises(ApiFault) as caught:
        read(*given, **body)
    return caught.value.status, caught.value.param, caught.value.message


@pytest.mark.parametrize(
    ("name", "taken", "not_taken"),
    [
        ("messages", [USER * 256], [[], USER * 257, None]),
        ("model", ["m"], [""]),
        ("tools", [[], [TOOL] * 256], [[TOOL] * 257, [{**TOOL, "type": "x"}]]),
        ("temperature", [0, 2], [-0.01, 2.01, "hot"]),
        ("max_tokens", [1], [0]),
        ("max_completion_tokens", [1], [0]),
        ("stop", ["x", "x" * 200, ["x"] * 4], ["", "x" * 201, ["x"] * 5, [""]]),
        ("seed", [-(2**63), 2**63 - 1], [-(2**63) - 1, 2**63]),
        (
            "metadata",
            [{"sample": 0}, {"sample": 2**31 - 1}],
            [{"sample": -1}, {"sample": 2**31}, {"current_date": "x"}],
        ),
        ("n", [1], [0, 2]),
        ("top_p", [1], [0.9, 1.1]),
        ("logprobs", [False], [True]),
        ("presence_penalty", [0], [0.1, -0.1]),
        ("frequency_penalty", [0], [0.1, -0.1]),
        ("logit_bias", [{}], [{"1": 1.0}]),
        ("tool_choice", ["none", "auto", "required", {"function": {"name": "f"}}], ["f", {"function": {"name": ""}}]),
        ("response_format", [{"type": kind} for kind in ("text", "json_object", "json_schema")], [{"type": "x"}]),
        ("messages", [[{"role": r}] for r in ("system", "developer", "user", "assistant", "tool")], [[{"role": "x"}]]),
        (
            "messages",
            [[{"role": "user", "content": [{"type": t, "text": ""}]}] for t in ("text", "input_text")],
            [[{"role": "user", "content": [{"type": "image", "text": ""}]}]],
        ),
        (
            "tools",
            [[{"type": "function", "function": {"name": "f" * n}}] for n in (1, 200)],
            [[{"type": "function", "function": {"name": "f" * n}}] for n in (0, 201)],
        ),
    ],
)
def test_each_field_is_taken_up_to_its_bounds_and_refused_beyond_by_name(name, taken, not_taken):
    for value in taken:
        assert getattr(chat(**{name: value}), name) is not None
        assert getattr(chat(), name) is None or name in ("model", "messages")
    for value in not_taken:
        status, param, message = refused(chat, **{name: value})
        assert (status, param.partition(".")[0], message.partition(":")[0]) == (400, name, param)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the body is not JSON: "),
        (b"\xff", "the body is not JSON: not UTF-8 at byte 0"),
        (b"[]", "the body must be a JSON object"),
    ],
)
def test_what_is_no_object_of_json_is_said_to_be_none(body, said):
    status, param, message = refused(read_chat, body)
    assert (status, param) == (400, None) and message.startswith(said)


def test_turns_and_tools_are_as_chat_templates_take_them():
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    turns = [
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [call, {"function": {"name": "g", "arguments": "{"}}]},
    ]
    assert [turn.as_turn() for turn in chat(messages=turns).messages] == [
        {"role": "system", "content": "a\nb"},
        {
            **{"role": "assistant", "content": ""},
            "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
                {"type": "function", "function": {"name": "g", "arguments": "{"}},
            ],
        },
    ]
    described = {"name": "f", "description": "counts", "parameters": SCHEMA}
    tools = [tool.function.as_tool() for tool in chat(tools=[TOOL, {**TOOL, "function": described}]).tools]
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    assert tools == [
        {"type": "function", "function": {"name": "f", "parameters": nothing}},
        {"type": "function", "function": described},
    ]
    assert (chat(stop="x").stops, chat(stop=["x", "y"]).stops, chat().stops) == (["x"], ["x", "y"], [])
    assert chat(stream_options={}).stream_options.include_usage is False


# ---- what is asked of the student


@pytest.fixture
def reader(monkeypatch):
    """A reader whose tokenizer makes a token of each letter, or turn, and that says what it would constrain to."""
    settings = default_settings(seed=9, max_new_tokens=20, max_seq_length=2000)
    monkeypatch.setattr(requests, "encode_prompt", lambda tokenizer, text: [tokenizer, *range(len(text))])
    monkeypatch.setattr(requests, "constrain", lambda student, schemas: [("held to", *map(json.dumps, schemas))])
    return ChatReader(SimpleNamespace(settings=settings, tokenizer=7))


def form(**more):
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, **more}}}


def test_a_request_is_what_it_says_within_the_run_s_limits(reader):
    day = {"metadata": {"current_date": "2026-01-31", "sample": 3}}
    rendering = reader.settings.prompt.schema_rendering
    ids = [7, *range(len(render_prompt(SCHEMA, "two", "2026-01-31", rendering)))]
    asked = reader.read(chat(**form(strict=True), **day, temperature=0.5, max_tokens=5, stop="x", stream=True))
    assert asked.schema.compiled is not None and (asked.schema.strict, asked.schema.tools) == (True, ())
    assert replace(asked, schema=None) == Asked(
        prompt_ids=ids,
        schema=None,
        constraint=("held to", json.dumps(asked.schema.compiled.schema)),
        max_new_tokens=5,
        temperature=0.5,
        seed=row_seed(9, ids, 3),
        stops=("x",),
        streams=True,
        query="two",
        day="2026-01-31",
        is_alone=True,
    )
    plain = reader.read(chat(messages=[{"role": "system", "content": "s"}, *USER], max_tokens=99, seed=4, **day))
    assert plain == Asked(
        **{"prompt_ids": [7, 0, 1], "schema": None, "constraint": None, "max_new_tokens": 20, "temperature": 0.0},
        **{"seed": row_seed(4, [7, 0, 1], 3), "stops": (), "streams": False, "query": "two", "day": "2026-01-31"},
        is_alone=False,
    )
    assert reader.read(chat(max_completion_tokens=3, max_tokens=7)).max_new_tokens == 3
    assert reader.read(chat(seed=0)).seed == row_seed(0, [7, 0, 1, 2], 0)
    some = reader.read(chat(response_format={"type": "json_object"}))
    assert some.constraint == ("held to", '{"type": "object"}') and some.schema is None
    assert reader.read(chat(response_format={"type": "text"})).constraint is None


def test_an_answer_is_held_to_its_schema_where_that_is_asked_for_or_the_server_does(reader):
    assert reader.read(chat(**form())).constraint is None
    assert ChatReader(reader.student, True).read(chat(**form())).constraint is not None
    strict = {**TOOL, "function": {"name": "g", "strict": True}}
    held = {
        (): (False, ("f", "g")),
        ("required",): (True, ("f", "g")),
        ("auto",): (False, ("f", "g")),
    }
    for choice, expected in held.items():
        given = {"tool_choice": choice[0]} if choice else {}
        found = reader.read(chat(tools=[TOOL, strict], **given)).schema
        assert (found.strict, found.tools) == expected
    chosen = reader.read(chat(tools=[TOOL, strict], tool_choice={"function": {"name": "f"}})).schema
    assert (chosen.strict, chosen.tools) == (True, ("f",))
    assert reader.read(chat(tools=[strict])).schema.strict
    assert reader.read(chat(tools=[TOOL], tool_choice="none")).schema is None


def test_what_leaves_no_room_or_asks_nothing_is_refused(reader):
    room = 2000 - 20
    text = [{"role": "user", "content": "x" * (room - 1)}]
    assert len(reader.read(chat(messages=text)).prompt_ids) == room
    text[0]["content"] += "x"
    said = f"the prompt has {room + 1} tokens, of {room} that fit; give a smaller schema or request"
    assert refused(reader.read, chat(messages=text)) == (400, "messages", said)
    said = "messages: none of them is of the user"
    assert refused(reader.read, chat(messages=[{"role": "system"}])) == (400, "messages", said)
    name = "response_format.json_schema"
    assert refused(reader.read, chat(response_format={"type": "json_schema"})) == (400, name, f"{name} is missing")
    wrong = chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "x"}}})
    assert refused(reader.read, wrong)[:2] == (400, "response_format.json_schema.schema")
    assert refused(reader.read, chat(tools=[TOOL, TOOL]))[:2] == (400, "tools")
    said = "tool_choice: there is no tool 'g' among tools"
    choice = {"function": {"name": "g"}}
    assert refused(reader.read, chat(tools=[TOOL], tool_choice=choice)) == (400, "tool_choice", said)


def test_a_prompt_that_is_rendered_already_is_taken_apart(reader):
    rendering = reader.settings.prompt.schema_rendering
    prompt = render_prompt(open_schema(SCHEMA, "schema"), "two", "2025-12-24", rendering)
    for text, expected in (
        (prompt, ("two", "2025-12-24")),
        (prompt.replace("Date: ", "Day: "), (prompt.replace("Date: ", "Day: "), "2026-01-31")),
        (prompt.replace("\nRequest: ", "\n"), (prompt.replace("\nRequest: ", "\n"), "2026-01-31")),
        ("two\nRequest: x", ("two\nRequest: x", "2026-01-31")),
    ):
        body = chat(messages=[{"role": "user", "content": text}], metadata={"current_date": "2026-01-31"}, **form())
        found = reader.read(body)
        assert (found.query, found.day) == expected


# ---- Ollama's bodies


def test_a_chat_of_ollama_is_the_chat_that_it_says():
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    options = {"temperature": 0.5, "num_predict": 7, "seed": 3, "stop": ["x"], "current_date": "2026-01-31"}
    body = {"model": "m", "messages": [*USER, {"role": "assistant", "tool_calls": [call]}], "tools": [TOOL]}
    read = read_as(OllamaChat, {**body, "format": SCHEMA, "options": options})
    made = [
        *USER,
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
    ]
    told = {"temperature": 0.5, "max_tokens": 7, "stop": ["x"], "seed": 3, "metadata": {"current_date": "2026-01-31"}}
    form_ = {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}}
    assert read.asks and read.streams
    assert read.as_chat() == chat(messages=made, tools=[TOOL], stream=True, response_format=form_, **told)
    bare = read_as(OllamaChat, {"model": "m", "stream": False, "messages": USER, "tools": [], "format": ""})
    assert bare.as_chat() == chat(stream=False, metadata={}) and not bare.streams
    assert not read_as(OllamaChat, {"model": "m"}).asks
    generate = read_as(OllamaGenerate, {"model": "m", "prompt": "two", "system": "s", "format": "json"})
    turns = [{"role": "system", "content": "s"}, *USER]
    form_ = {"type": "json_object"}
    assert generate.as_chat() == chat(messages=turns, stream=True, metadata={}, response_format=form_)
    assert read_as(OllamaGenerate, {"model": "m", "prompt": "two"}).as_chat() == chat(stream=True, metadata={})
    assert not read_as(OllamaGenerate, {"model": "m"}).asks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_predict": 0, "stop": ""}, {}),
        ({"num_predict": -2}, {}),
        ({"num_predict": 1}, {"max_tokens": 1}),
        ({"repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0, "mirostat": 0}, {}),
        *(({name: 2}, f"option '{name}' is not done here: leave it out, or give {value}") for name, value in
          {"repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0, "mirostat": 0}.items()),
        ({"top_p": 0.5, "top_k": 3, "min_p": 0.5, "typical_p": 0.5}, {}),  # of a greedy answer
        ({"temperature": 1.0, "top_p": 1, "top_k": 0, "min_p": 0, "typical_p": 1}, {"temperature": 1.0}),
        *(({"temperature": 1, name: 0.5 if name != "top_k" else 3}, f"option '{name}' is not done here: leave it out, "
           f"or give {value}") for name, value in {"top_p": 1, "top_k": 0, "min_p": 0, "typical_p": 1}.items()),
    ],
)  # fmt: skip
def test_options_of_ollama_are_heeded_or_refused_by_name(options, said):
    read = read_as(OllamaChat, {"model": "m", "messages": USER, "options": options})
    if isinstance(said, str):
        assert refused(read.as_chat) == (400, None, said)
    else:
        assert read.as_chat() == chat(stream=True, metadata={}, **said)


def test_what_ollama_has_and_this_server_has_not_is_refused():
    for name, value in {"suffix": "x", "template": "x", "context": [1], "images": ["x"], "raw": True}.items():
        assert refused(read_as, OllamaGenerate, {"model": "m", "prompt": "x", name: value})[1].partition(".")[0] == name
        empty = {"raw": False}.get(name, [] if isinstance(value, list) else "")
        assert read_as(OllamaGenerate, {"model": "m", "prompt": "x", name: empty}).as_chat()
    think = read_as(OllamaChat, {"model": "m", "messages": USER, "think": True})
    assert refused(think.as_chat) == (400, None, '"m" does not support thinking')
    odd = read_as(OllamaChat, {"model": "m", "messages": USER, "format": "x" * 100})
    shown = json.dumps("x" * 100)[:80]
    assert refused(odd.as_chat) == (400, None, f'invalid format: {shown}; expected "json" or a JSON Schema')


# ---- answers


VALID = judge('{"n": 2}', compile_schema(SCHEMA))
WRONG = judge('{"n": "x"}', compile_schema(SCHEMA))
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
ASKED = Asked([1, 2, 3], None, None, 9, 0.0, 1, (), False, "two", "2026-01-31", True)


@pytest.fixture
def fixed(monkeypatch):
    """Ids and times that do not change."""
    monkeypatch.setattr(replies.secrets, "token_hex", lambda count: f"{count}hex")
    monkeypatch.setattr(replies.time, "time", lambda: 100.9)
    clock = SimpleNamespace(now=lambda zone: datetime(2026, 1, 31, tzinfo=zone))
    monkeypatch.setattr(ollama_routes, "datetime", clock)
    ticks = iter(range(1000, 9000, 500))
    monkeypatch.setattr(ollama_routes.time, "monotonic_ns", lambda: next(ticks))


@pytest.mark.parametrize(
    ("text", "tools", "finished", "call", "reason"),
    [
        ('{"n": 2}', None, True, None, "stop"),
        ('{"n": 2}', (), True, None, "stop"),
        ('{"n": 2}', ("f",), True, ("f", '{"n":2}'), "tool_calls"),
        ('{"n": 2}', ("f",), False, ("f", '{"n":2}'), "length"),
        ("[2]", ("f",), True, None, "stop"),
        ('{"n"', ("f",), True, None, "stop"),
        ('{"name": "g", "arguments": {"n": 1}}', ("f", "g"), True, ("g", '{"n":1}'), "tool_calls"),
        ('{"name": "h", "arguments": {}}', ("f", "g"), True, None, "stop"),
        ('{"name": "g", "arguments": 3}', ("f", "g"), True, None, "stop"),
    ],
)
def test_an_answer_is_a_call_where_tools_were_asked_for_and_it_is_one(text, tools, finished, call, reason, fixed):
    schema = None if tools is None else Schema(compile_schema(SCHEMA), False, tools)
    reply = make_reply(replace(ASKED, schema=schema), Done(text, 5, finished, 0.5, 2), False)
    named = call and {"id": "call_12hex", "type": "function", "function": {"name": call[0], "arguments": call[1]}}
    verdict = None if tools is None else judge(text, compile_schema(SCHEMA))
    assert reply == Reply(text, named, reason, verdict, USAGE, 2, 0.5, {})
    assert reply.valid is (tools is not None and text == '{"n": 2}' and finished)


def test_an_answer_is_written_as_openai_writes_it_whole_and_in_pieces(fixed):
    head = {"id": "chatcmpl-12hex", "created": 100, "model": "m"}
    violation = {"path": "/n", "keyword": "type", "message": WRONG.violations[0].message}
    verdict = {"verdict": {"valid": False, "parse_error": None, "violations": [violation]}, "mask_changes": 4}
    reply = Reply("{}", None, "stop", WRONG, USAGE, 4, 0.5, {"by": "teacher"})
    message = {"role": "assistant", "content": "{}"}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    assert Writing("m").whole(reply) == {
        **{**head, "object": "chat.completion", "choices": [choice], "usage": USAGE, **verdict, "by": "teacher"}
    }
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = Reply("{}", call, "tool_calls", None, USAGE)
    assert called.message() == {"role": "assistant", "content": None, "tool_calls": [call]} and called.judged() == {}

    def chunk(delta, reason=None, **more):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**head, "object": "chat.completion.chunk", "choices": [choice], **more}

    def events(parts):
        assert all(part.startswith(b"data: ") and part.endswith(b"\n\n") for part in parts)
        return [part[6:-2].decode() if b"DONE" in part else json.loads(part[6:]) for part in parts]

    writing = Writing("m")
    assert events([writing.begin(), writing.piece("a")]) == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "a"}),
    ]
    usage = {**head, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    assert events([*writing.end(called, True)]) == [
        chunk({"tool_calls": [{"index": 0, **call}]}),
        *(chunk({}, "tool_calls"), usage, "[DONE]"),
    ]
    assert events([*writing.end(reply, False)]) == [chunk({}, "stop", **verdict, by="teacher"), "[DONE]"]
    assert json.loads(replies.fault_event({"a": 1})[6:]) == {"a": 1}


class Answers:
    """Stands for Answering: the student says one reply, in these pieces; remembers what it was asked."""

    def __init__(self, reply=None, pieces=(), fault=None):
        self.reply, self.parts, self.fault, self.asked = reply, pieces, fault, []
        self.reader = SimpleNamespace(settings=default_settings(max_seq_length=512))

    async def in_thread(self, function, *given):
        return function(*given)

    async def begin(self, asked):
        self.asked.append(asked)
        return Begun(SimpleNamespace(asked=ASKED), None)

    async def whole(self, request, begun):
        return self.reply

    async def pieces(self, begun):
        for part in (*self.parts, self.reply):
            yield part
        if self.fault:
            raise self.fault


def call_route(routes, path, **body):
    """What a route answers: (type, lines), or one object."""
    (route,) = [route for route in routes.routes() if route.path == path]

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode()}

    from starlette.requests import Request

    request = Request({"type": "http", "headers": [], "path_params": {"model": body.get("model")}}, receive)

    async def run():
        made = await route.endpoint(request)
        if hasattr(made, "body_iterator"):
            return made.media_type, [part async for part in made.body_iterator]
        return made.media_type, made.body

    return asyncio.run(run())


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
HEAD = {"model": "m", "created_at": "2026-01-31T00:00:00Z"}
JUDGED = {"verdict": {"valid": True, "parse_error": None, "violations": []}, "mask_changes": 0}


def ended(total, reason="stop"):
    times = {"total_duration": total, "load_duration": 0, "prompt_eval_duration": 0, "eval_duration": 500_000_000}
    counts = {"prompt_eval_count": 3, "eval_count": 5}
    return {"done": True, "done_reason": reason, **times, **counts, **JUDGED}


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [("/api/chat", {"messages": USER}, "message"), ("/api/generate", {"prompt": "two"}, "response")],
)
def test_an_answer_is_written_as_ollama_writes_it_whole_and_line_by_line(path, body, key, fixed):
    def said(text, **more):
        return {"message": {"role": "assistant", "content": text, **more}} if key == "message" else {"response": text}

    reply = Reply('{"n": 2}', None, "stop", VALID, USAGE, 0, 0.5)
    answers = Answers(reply, ["{", "}"])
    routes = OllamaRoutes("m", {"details": {}}, answers)
    kind, whole = call_route(routes, path, model="m", stream=False, **body)
    assert kind == "application/json" and json.loads(whole) == {**HEAD, **said('{"n": 2}'), **ended(500)}
    assert answers.asked == [chat(stream=False, metadata={})]
    kind, lines = call_route(routes, path, model="m:latest", **body)
    assert kind == "application/x-ndjson" and all(line.endswith(b"}\n") for line in lines)
    head = {**HEAD, "model": "m:latest"}
    assert [json.loads(line) for line in lines] == [
        *({**head, **said(text), "done": False} for text in "{}"),
        {**head, **said(""), **ended(500)},
    ]
    answers.reply, answers.parts, answers.fault = (
        replace(reply, call=CALL, reason="length"),
        (),
        ApiFault(500, "broken"),
    )
    lines = [json.loads(line) for line in call_route(routes, path, model="m", **body)[1]]
    calls = said("", tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}])
    judged = {"verdict": {**JUDGED["verdict"], "valid": False}}  # it is not whole
    assert lines == [
        {**HEAD, **calls, "done": False},
        {**HEAD, **said(""), **ended(500, "length"), **judged},
        {"error": "broken"},
    ]
    whole = json.loads(call_route(routes, path, model="m", stream=False, **body)[1])
    assert whole == {**HEAD, **calls, **ended(500, "length"), **judged}
    for keep_alive, reason in ((None, "load"), (0, "unload")):
        loaded = json.loads(call_route(routes, path, model="m", keep_alive=keep_alive)[1])
        assert loaded == {**HEAD, **said(""), "done": True, "done_reason": reason}


def test_ollama_is_told_of_the_one_model(fixed):
    facts = {"size": 3, "details": {"family": "gemma3_text"}}
    routes = OllamaRoutes("m", facts, Answers())
    entry = {"name": "m:latest", "model": "m:latest", "modified_at": "2026-01-31T00:00:00Z", **facts}
    assert json.loads(call_route(routes, "/api/tags")[1]) == {"models": [entry]}
    assert json.loads(call_route(routes, "/api/version")[1]) == {"version": __version__}
    assert call_route(routes, "/") == ("text/plain", b"schema-student is running")
    architecture = {"general.architecture": "gemma3_text", "general.basename": "m", "gemma3_text.context_length": 512}
    shown = {
        **{"modelfile": "", "parameters": "temperature 0", "template": "", "license": "", "details": facts["details"]},
        **{"model_info": architecture, "capabilities": ["completion", "tools"], "modified_at": entry["modified_at"]},
    }
    for asked in ({"model": "m"}, {"name": "m:latest"}):
        assert json.loads(call_route(routes, "/api/show", **asked)[1]) == shown
    assert refused(call_route, routes, "/api/show", model="x") == (404, None, "model 'x' not found; it is 'm'")
    assert OllamaRoutes("m:2", facts, Answers()).entry["name"] == "m:2"
    assert refused(call_route, routes, "/api/chat", model="x", messages=USER)[0] == 404


def test_openai_is_told_of_the_one_model_and_streams_its_answer(fixed, monkeypatch):
    monkeypatch.setattr(openai_routes.time, "time", lambda: 90.5)
    reply = Reply("{}", None, "stop", None, USAGE)
    answers = Answers(reply, ["{", "}"])
    routes = OpenAIRoutes("m", {"max_model_len": 512}, answers)
    entry = {"id": "m", "object": "model", "created": 90, "owned_by": "schema-student", "max_model_len": 512}
    assert json.loads(call_route(routes, "/v1/models")[1]) == {"object": "list", "data": [entry]}
    assert json.loads(call_route(routes, "/v1/models/{model}", model="m")[1]) == entry
    said = "there is no model 'x'; it is 'm'"
    assert refused(call_route, routes, "/v1/models/{model}", model="x") == (404, "model", said)
    path, writing = "/v1/chat/completions", Writing("m")
    assert refused(call_route, routes, path, model="x", messages=USER) == (404, "model", said)
    assert json.loads(call_route(routes, path, model="m", messages=USER)[1]) == writing.whole(reply)
    pieces = [writing.begin(), writing.piece("{"), writing.piece("}")]
    for usage in (True, False):
        options = {"stream": True, "stream_options": {"include_usage": usage}}
        told = call_route(routes, path, model="m", messages=USER, **options)
        assert told == ("text/event-stream", [*pieces, *writing.end(reply, usage)])
    answers.fault = fault = ApiFault(500, "broken", "server_error")
    told = call_route(routes, path, model="m", messages=USER, stream=True)[1]
    assert told == [*pieces, *writing.end(reply, False), replies.fault_event(fault.as_json()), replies.LAST]
    error = {"message": "broken", "type": "server_error", "param": None, "code": ""}
    assert fault.as_json() == {"error": error}


# ---- the log of requests


def test_requests_to_a_schema_are_logged_as_rows_for_their_owner_alone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "requests.jsonl"
    log = RequestLog(str(path))
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == ""
    schema = Schema(compile_schema(SCHEMA), False)
    reply = Reply("{}", None, "stop", VALID, USAGE)
    for asked in (ASKED, replace(ASKED, schema=schema), replace(ASKED, schema=schema)):
        log.add(asked, reply)
    known = schema.compiled.schema
    row = {"schema_id": f"served-{digest(known)[:12]}", "schema": known, "query": "two", "current_date": "2026-01-31"}
    assert read_jsonl(path) == [{**row, "student_answer": "{}", "student_valid": True}] * 2
    RequestLog("").add(replace(ASKED, schema=schema), reply)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(request_log.os, "open", fail)
    for _ in range(2):
        log.add(replace(ASKED, schema=schema), reply)
    assert capsys.readouterr().err == f"{path}: No space left on device: requests are not logged\n"
    with pytest.raises(request_log.UserError, match=r"^--log-requests x: No space left on device; name another file$"):
        RequestLog("x")


def test_requests_are_not_logged_through_a_link(tmp_path):
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(request_log.UserError, match="--log-requests"):
        RequestLog(str(tmp_path / "log"))
    assert not (tmp_path / "elsewhere").exists()
