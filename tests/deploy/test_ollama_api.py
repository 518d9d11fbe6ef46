"""Our server speaks Ollama's API: the official client is answered as OpenAI's is, and refused in Ollama's words."""

import json

import httpx
import pytest
import tiny
from served import served

from schema_student.core.errors import UserError
from schema_student.deploy.smoke import try_endpoint
from schema_student.evaluation.endpoint import open_endpoint
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.prompts import render_prompt
from schema_student.student.ask import Asking, Question
from schema_student.student.generation import generate
from schema_student.student.tokens import encode_prompt

ollama = pytest.importorskip("ollama")
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}, "ok": {"type": "boolean"}}, "required": ["n"]}
SCHEMA |= {"additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "stop", "description": "stops", "parameters": {"type": "object"}}}
DAY = "2026-01-31"
USER = [{"role": "user", "content": "two"}]
DATED = {"current_date": DAY}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny.load_student(tiny.tiny_settings(tmp_path_factory.mktemp("base"), max_new_tokens=24, max_seq_length=512))


@pytest.fixture(scope="module")
def address(student):
    with served(student, slots=4) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with ollama.Client(address, trust_env=False) as client:
        yield client


def post(address, path, **body):
    return httpx.post(address + path, json={"model": "student", **body}, trust_env=False)


def test_the_official_client_finds_the_model(client, student):
    (model,) = client.list().models
    shown = client.show("student")
    assert model.model == "student:latest" and len(model.digest) == 64 and model.details.parameter_size.endswith("M")
    assert model.size == sum(w.numel() * w.element_size() for w in student.model.parameters())
    assert shown.modelinfo["gemma3_text.context_length"] == 512 and "tools" in shown.capabilities


def test_an_answer_by_a_format_is_that_of_constrained_ask(client, student):
    (asked,) = student.ask_many([Question(SCHEMA, "two", DAY)], Asking(constrained=True))
    made = client.chat("student", USER, format=SCHEMA, options=DATED)
    assert made.message.content == asked.text and made.done_reason == "stop" and made.eval_count == asked.tokens
    assert made.prompt_eval_count == len(encode_prompt(student.tokenizer, render_prompt(SCHEMA, "two", DAY)))
    assert made.total_duration >= made.eval_duration > 0
    written = client.generate("student", "two", format=SCHEMA, options=DATED)
    assert written.response == asked.text and judge(written.response, compile_schema(SCHEMA)).schema_valid


def test_a_stream_is_the_whole_answer_in_pieces(client):
    for asked in ({"format": SCHEMA, "options": DATED}, {}):
        whole = client.chat("student:latest", USER, **asked)
        parts = list(client.chat("student", USER, stream=True, **asked))
        assert "".join(part.message.content for part in parts) == whole.message.content and len(parts) > 2
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        assert parts[-1].done_reason == whole.done_reason and parts[-1].eval_count == whole.eval_count
        generated = list(client.generate("student", "two", stream=True, **asked))
        assert "".join(part.response for part in generated) == whole.message.content


def test_without_a_word_of_it_an_answer_is_streamed_as_lines_of_json(address):
    with httpx.stream("POST", f"{address}/api/chat", json={"model": "student", "messages": USER}) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert answer.headers["content-type"] == "application/x-ndjson" and lines[-1]["done"] and not lines[0]["done"]


def test_json_without_a_schema_is_an_object_where_it_is_whole(client):
    made = client.chat("student", USER, format="json")
    assert made.message.content.startswith("{")
    assert made.done_reason == "length" or isinstance(json.loads(made.message.content), dict)


def test_options_are_heeded_and_unknown_ones_ignored(client, student):
    (whole,) = generate(student, ["two"], 24, 1)[0]
    assert client.chat("student", USER, options={"num_predict": -1, "num_gpu": 1, "x": 3}).message.content == whole.text
    short = client.chat("student", USER, options={"num_predict": 3})
    assert short.done_reason == "length" and short.eval_count == 3 and whole.text.startswith(short.message.content)
    stop = whole.text[4:6]
    stopped = client.chat("student", USER, options={"stop": [stop], "top_p": 0.5})  # which a greedy answer heeds not
    assert stopped.message.content == whole.text[: whole.text.index(stop)] and stopped.done_reason == "stop"
    drawn = [client.chat("student", USER, options={"temperature": 1.5, "seed": s}).message.content for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_call_of_a_tool_has_an_object_of_arguments(client):
    for stream in (False, True):
        made = client.chat("student", USER, tools=[TOOL], stream=stream, options={"num_predict": 24})
        parts = list(made) if stream else [made]
        calls = [call for part in parts for call in part.message.tool_calls or ()]
        assert parts[-1].done and all(isinstance(call.function.arguments, dict) for call in calls)


def test_a_called_tool_stands_in_the_next_turns(client, student):
    call = {"function": {"name": "stop", "arguments": {"now": True}}}
    turns = [*USER, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "done"}]
    turns += [{"role": "user", "content": "and?"}]
    written = {"name": "stop", "arguments": {"now": True}}
    known = [*turns[:1], {**turns[1], "tool_calls": [{"type": "function", "function": written}]}, *turns[2:]]
    made = client.chat("student", turns)
    assert made.prompt_eval_count == len(encode_prompt(student.tokenizer, known))


def test_a_system_text_is_a_turn_of_its_own(client, student):
    made = client.generate("student", "two", system="be brief")
    turns = [{"role": "system", "content": "be brief"}, *USER]
    assert made.prompt_eval_count == len(encode_prompt(student.tokenizer, turns))


def test_a_request_without_a_question_says_that_the_model_is_loaded(client):
    assert client.generate("student", keep_alive="5m").done_reason == "load"
    assert client.chat("student", []).done_reason == "load"
    assert client.generate("student", keep_alive=0).done_reason == "unload"


REFUSED = {
    "another model": ("/api/chat", {"model": "gpt-4", "messages": USER}, 404, "'gpt-4' not found"),
    "a model that is not shown": ("/api/show", {"model": "gpt-4"}, 404, "'gpt-4' not found"),
    "no format": ("/api/chat", {"messages": USER, "format": "xml"}, 400, "invalid format"),
    "a schema that is none": ("/api/chat", {"messages": USER, "format": {"type": "banana"}}, 400, "banana"),
    "thoughts": ("/api/chat", {"messages": USER, "think": True}, 400, "does not support thinking"),
    "images": ("/api/generate", {"prompt": "x", "images": ["aGk="]}, 400, "images"),
    "a text to be filled in": ("/api/generate", {"prompt": "x", "suffix": "y"}, 400, "suffix"),
    "a raw prompt": ("/api/generate", {"prompt": "x", "raw": True}, 400, "raw"),
    "a share of the tokens": (
        "/api/chat",
        {"messages": USER, "options": {"temperature": 1, "top_p": 0.5}},
        400,
        "top_p",
    ),
    "a penalty": ("/api/chat", {"messages": USER, "options": {"repeat_penalty": 1.1}}, 400, "repeat_penalty"),
    "an ill-typed option": ("/api/chat", {"messages": USER, "options": {"seed": "x"}}, 400, "seed"),
    "an ill-typed message": ("/api/chat", {"messages": [3]}, 400, "messages"),
    "a path that there is not": ("/api/embed", {"input": "x"}, 404, "/api/embed"),
    "a prompt that is too long": ("/api/generate", {"prompt": "long " * 300}, 400, "tokens, of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_done_is_refused_in_ollamas_words(address, name):
    path, body, status, words = REFUSED[name]
    for stream in (True, False):
        refused = post(address, path, stream=stream, **body)
        assert refused.status_code == status and words in refused.json()["error"], refused.text


def test_a_body_that_is_no_json_and_a_stranger_are_refused_in_ollamas_words(student, address):
    assert "not JSON" in httpx.post(f"{address}/api/chat", content=b"{").json()["error"]
    assert httpx.get(f"{address}/api/tags", headers={"Origin": "http://x.example"}).json() == {
        "error": "no web page may ask"
    }
    with served(student, key="s3cret") as guarded:
        with (
            ollama.Client(guarded) as stranger,
            pytest.raises(ollama.ResponseError, match="the key is missing") as refused,
        ):
            stranger.list()
        with ollama.Client(guarded, headers={"Authorization": "Bearer s3cret"}) as friend:
            assert refused.value.status_code == 401 and friend.list().models


def test_a_fault_of_the_model_is_a_line_of_its_own(client, student, monkeypatch):
    def break_down(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(student.model, "forward", break_down)
    with pytest.raises(ollama.ResponseError, match="out of memory"):
        list(client.chat("student", USER, stream=True))
    with pytest.raises(ollama.ResponseError, match="out of memory"):
        client.chat("student", USER)


def test_the_command_is_told_that_it_is_alive(address):
    assert httpx.head(address).status_code == 200 and "running" in httpx.get(address).text


def test_smoke_and_evaluations_ask_it_as_ollama(student, address):
    there = student.settings.changed(endpoint=address, endpoint_kind="ollama")
    assert "student:latest" in "".join(try_endpoint(there).lines)
    prompt = render_prompt(SCHEMA, "two", DAY)
    with open_endpoint(there.endpoint) as endpoint:
        (heard,) = endpoint.ask([prompt], 24, 512)
        assert endpoint.identity["model"] == "student:latest" and len(endpoint.identity["digest"]) == 64
    assert heard.reply.content == generate(student, [prompt], 24, 1)[0][0].text
    with (
        pytest.raises(UserError, match="name one by --endpoint-model"),
        open_endpoint(there.changed(endpoint_model="other").endpoint),
    ):
        raise AssertionError("there is no such model")
