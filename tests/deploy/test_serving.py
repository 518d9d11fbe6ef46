"""Our server speaks OpenAI's API, feeds the ids that ask feeds, and answers whatever it is asked."""

import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import tiny
from served import served

from schema_student.core.errors import UserError
from schema_student.deploy.serving import requests as reading
from schema_student.deploy.serving.writer import held_back
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.prompts import render_prompt
from schema_student.schema.user_schemas import load_schemas
from schema_student.student.ask import Asking, Question
from schema_student.student.generation import generate
from schema_student.student.tokens import encode_prompt

openai = pytest.importorskip("openai")
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}, "ok": {"type": "boolean"}}, "required": ["n"]}
SCHEMA |= {"additionalProperties": False}
STRICT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
FREE = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
TOOLS = [
    {"type": "function", "function": {"name": "count", "description": "counts", "parameters": SCHEMA, "strict": True}},
    {"type": "function", "function": {"name": "stop", "strict": True}},
]
DAY = "2026-01-31"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny.load_student(tiny.tiny_settings(tmp_path_factory.mktemp("base"), max_new_tokens=24, max_seq_length=512))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "requests.jsonl"


@pytest.fixture(scope="module")
def address(student, log):
    with served(student, slots=4, log_requests=str(log)) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def chat(client, text, **asked):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="student", messages=messages, metadata={"current_date": DAY}, **asked)


def test_the_official_client_lists_the_model_and_is_answered_by_the_schema(client):
    assert [model.id for model in client.models.list()] == ["student"] and client.models.retrieve("student")
    made = chat(client, "two", response_format=STRICT)
    (choice,) = made.choices
    assert choice.finish_reason == "stop" and judge(choice.message.content, compile_schema(SCHEMA)).schema_valid
    assert made.verdict == {"valid": True, "parse_error": None, "violations": []}
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_a_served_answer_is_that_of_ask_and_reads_the_same_ids(client, student):
    for request in ("two", "ok, three", "s\u00ed"):
        for strict, wanted in ((True, STRICT), (False, FREE)):
            (asked,) = student.ask_many([Question(SCHEMA, request, DAY)], Asking(constrained=strict))
            made = chat(client, request, response_format=wanted)
            assert made.choices[0].message.content == asked.text and made.verdict["valid"] is asked.valid
            prompt = encode_prompt(student.tokenizer, render_prompt(SCHEMA, request, DAY))
            assert made.usage.prompt_tokens == len(prompt) and made.usage.completion_tokens == asked.tokens


@pytest.mark.parametrize("rendered", [True, False])
def test_the_ids_that_are_fed_are_those_of_evaluation_also_where_the_prompt_is_rendered_before(student, rendered):
    prompt = render_prompt(SCHEMA, "two", DAY, student.settings.prompt.schema_rendering)
    body = {"model": "student", "messages": [{"role": "user", "content": prompt if rendered else "two"}]}
    body |= {"response_format": FREE, "metadata": {"current_date": DAY}}
    asked = reading.ChatReader(student).read(reading.read_chat(json.dumps(body).encode()))
    assert asked.prompt_ids == encode_prompt(student.tokenizer, prompt)
    del body["response_format"]
    asked = reading.ChatReader(student).read(reading.read_chat(json.dumps(body).encode()))
    assert asked.prompt_ids == encode_prompt(student.tokenizer, prompt if rendered else "two")


def test_further_turns_stand_behind_the_first_as_repairs_do(student):
    turns = [
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "{}"},
        {"role": "user", "content": "no"},
    ]
    body = json.dumps(
        {"model": "student", "messages": turns, "response_format": FREE, "metadata": {"current_date": DAY}}
    )
    asked = reading.ChatReader(student).read(reading.read_chat(body.encode()))
    turns[0]["content"] = render_prompt(SCHEMA, "two", DAY, student.settings.prompt.schema_rendering)
    assert asked.prompt_ids == encode_prompt(student.tokenizer, turns)


def test_tools_come_back_as_a_call_of_one_of_them(client):
    for tools in (TOOLS, TOOLS[:1]):
        made = chat(client, "two", tools=tools, max_tokens=24)
        (choice,) = made.choices
        if choice.finish_reason == "length":
            continue
        (call,) = choice.message.tool_calls
        assert choice.finish_reason == "tool_calls" and choice.message.content is None and made.verdict["valid"]
        assert call.function.name in {tool["function"]["name"] for tool in tools}
        assert isinstance(json.loads(call.function.arguments), dict)
    chosen = chat(client, "two", tools=TOOLS, tool_choice={"type": "function", "function": {"name": "stop"}})
    assert chosen.choices[0].message.tool_calls[0].function.arguments == "{}"
    assert chat(client, "two", tools=TOOLS, tool_choice="none").choices[0].message.tool_calls is None


def test_a_stream_is_the_whole_answer_in_pieces(client):
    for asked in ({"response_format": STRICT}, {"response_format": FREE}, {}):
        whole = chat(client, "two", **asked)
        parts = list(chat(client, "two", stream=True, stream_options={"include_usage": True}, **asked))
        texts = [part.choices[0].delta.content or "" for part in parts[:-1]]
        assert "".join(texts) == whole.choices[0].message.content and sum(map(bool, texts)) > 1
        assert parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        assert parts[-1].usage == whole.usage and not parts[-1].choices
    calls = list(chat(client, "two", stream=True, tools=TOOLS[1:]))
    assert calls[1].choices[0].delta.tool_calls[0].function.name == "stop"
    assert calls[-1].choices[0].finish_reason == "tool_calls" and calls[-1].verdict["valid"]


def test_limits_stops_and_seeds_are_heeded(client, student):
    whole = chat(client, "hello").choices[0].message.content
    short = chat(client, "hello", max_tokens=3).choices[0]
    assert (
        short.finish_reason == "length" and whole.startswith(short.message.content) and short.message.content != whole
    )
    stop = whole[4:6]
    stopped = chat(client, "hello", stop=[stop])
    assert stopped.choices[0].message.content == whole[: whole.index(stop)]
    assert stopped.choices[0].finish_reason == "stop" and stopped.usage.completion_tokens < 24
    pieces = [part.choices[0].delta.content or "" for part in chat(client, "hello", stop=stop, stream=True)]
    assert "".join(pieces) == stopped.choices[0].message.content
    drawn = [chat(client, "hello", temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_may_begin_a_text_of_stop_is_held_back():
    assert [held_back(text, ["END"]) for text in ("one", "one E", "one EN", "\ufffd", "EX")] == [0, 1, 2, 1, 0]


def test_answers_do_not_depend_on_what_is_asked_beside_them(client, student):
    texts = [f"request {i}" for i in range(24)]
    alone = [written[0].text for written in generate(student, texts, 24, 1)]
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda text: chat(client, text).choices[0].message.content, texts))
    assert together == alone


def test_logged_requests_are_rows_of_schemas_without_an_answer_as_truth(client, log):
    chat(client, "what is logged", response_format=STRICT), chat(client, "not logged")
    rows = load_schemas(log)
    assert "what is logged" in [row.query for row in rows] and "not logged" not in [row.query for row in rows]
    (logged,) = [row for row in rows if row.query == "what is logged"]
    assert logged.answer is None and logged.schema["properties"] == SCHEMA["properties"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert json.loads(log.read_text().splitlines()[-1])["student_valid"] is True


def test_a_request_that_breaks_the_model_is_told_so_and_the_others_beside_it_are_answered(student, client, monkeypatch):
    poison = encode_prompt(student.tokenizer, "poison")
    whole = chat(client, "beside").choices[0].message.content
    forward, ready = student.model.forward, threading.Barrier(9)

    def break_down(*args, **kwargs):
        ids = kwargs["input_ids"].flatten().tolist()
        if any(ids[i : i + len(poison)] == poison for i in range(len(ids))):
            raise RuntimeError("out of memory")
        return forward(*args, **kwargs)

    def ask(text):
        ready.wait()
        try:
            return chat(client, text).choices[0].message.content
        except openai.InternalServerError as error:
            return error.body["message"]

    monkeypatch.setattr(student.model, "forward", break_down)
    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(ask, [*["beside"] * 8, "poison"]))
    assert answers == [whole] * 8 + ["this request failed: RuntimeError: out of memory"]


def test_a_key_is_asked_of_everybody_but_for_health(student):
    with served(student, key="s3cret") as address:
        assert httpx.get(f"{address}/health").json() == {"status": "ok"}
        for given in ({}, {"Authorization": "Bearer no"}, {"Authorization": "s3cret"}):
            refused = httpx.get(f"{address}/v1/models", headers=given)
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{address}/v1/models", headers={"Authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": "127.0.0.1:1"}]
)
def test_no_web_page_is_answered(address, headers):
    for path in ("/health", "/v1/models"):
        refused = httpx.get(address + path, headers=headers)
        assert refused.status_code == 403 and refused.json()["error"]["type"] == "authentication_error"


def test_a_port_that_another_program_has_is_refused(address):
    from schema_student.deploy.serving.server import bind

    with pytest.raises(UserError, match="another program has it; give another --port"):
        bind("127.0.0.1", int(address.rpartition(":")[2]))


def test_requests_beyond_the_most_are_told_to_come_again_and_slow_ones_end(student):
    with served(student, requests=0) as address:
        busy = httpx.get(f"{address}/v1/models")
        assert busy.status_code == 429 and busy.headers["retry-after"] == "1" and busy.json()["error"]["code"] == "busy"
    with served(student, seconds=0.02) as address:
        messages = [{"role": "user", "content": "two"}]
        late = httpx.post(f"{address}/v1/chat/completions", json={"model": "student", "messages": messages * 200})
        assert late.status_code in (400, 504)
