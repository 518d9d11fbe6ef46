"""A teacher behind an OpenAI-compatible endpoint is asked by the same client, with the same care."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from asking import ADVICE, DEADLINE, TIMED, ask, outcome, settings_for
from fault_server import NUM_CTX, VERDICT, Fault, fault_server, line, status, whole
from server_faults import FAULTS

from schema_student.core.settings import default_settings
from schema_student.teacher.addresses import Address, read_addresses
from schema_student.teacher.apis import Reply, name_models, open_servers
from schema_student.teacher.budget import Limits
from schema_student.teacher.choice import resolve_teacher
from schema_student.teacher.client import open_teacher
from schema_student.teacher.faults import ContextFault, TeacherError, TeacherFailure
from schema_student.teacher.transport import GuardedTransport

OF_STREAMS = ("cut", "context", "changed", "answer")  # faults that only Ollama's lines can have
APART = ("a stream without done", "blank lines alone", "an empty body", "no message", "content that is a number")


pytestmark = pytest.mark.usefixtures("nothing_named")


def openai_settings(server, tmp_path, **changes):
    return settings_for(server, tmp_path, **{"teacher_api": "openai", **changes})


def completion(message, **facts):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"} | facts
    return whole(line({"choices": [choice], "usage": {"prompt_tokens": 700, "completion_tokens": 9}}))


def usage(value):
    """A good answer with another usage."""
    choice = {"message": {"role": "assistant", "content": json.dumps(VERDICT)}, "finish_reason": "stop"}
    return whole(line({"choices": [choice], "usage": value}))


def events(*parts):
    """Server-sent events, in spite of stream: false."""
    data = b"".join(b"data: " + part.strip() + b"\n\n" for part in parts)
    return whole(b": hello\nevent: chunk\nid: 1\n" + data + b"data: [DONE]\n\n", kind="text/event-stream")


def delta(finish=None, **message):
    return line({"choices": [{"index": 0, "delta": message, "finish_reason": finish}]})


@pytest.mark.parametrize(
    "send",
    [
        completion(
            {"content": [{"type": "text", "text": '{"is_good": true, '}, {"type": "text", "text": '"reason": "fine"}'}]}
        ),
        completion({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": json.dumps(VERDICT)}]}),
        completion({"content": json.dumps(VERDICT), "reasoning_content": "so"}),
        completion({"content": f"<think>maybe {{}}</think>{json.dumps(VERDICT)}"}),
        usage(None),
        usage({}),
        usage({"prompt_tokens": "700", "completion_tokens": 9.0}),
        whole(
            line({"choices": [{"message": {"content": json.dumps(VERDICT)}, "finish_reason": "stop"}]}),
            kind="text/plain",
        ),
        events(
            delta(role="assistant", content=None),
            delta(reasoning_content="so"),
            *(delta(content=letter) for letter in json.dumps(VERDICT)),
            delta("stop"),
            line({"choices": [], "usage": {"prompt_tokens": 700, "completion_tokens": 9}}),
        ),
        events(line({"choices": [{"message": {"content": json.dumps(VERDICT)}, "finish_reason": "stop"}]})),
    ],
)
def test_an_answer_in_an_odd_form_is_read(send, tmp_path):
    with fault_server() as server, open_teacher(openai_settings(server, tmp_path)) as teacher:
        server.fault = Fault("", "", "", send)
        assert outcome(teacher) == VERDICT and len(server.chats) == 1


def test_a_model_is_another_where_its_list_says_so_but_for_what_changes_at_every_asking(tmp_path):
    def digest_of(**entry):
        with fault_server() as server:
            listed = line({"data": [{"id": "m:1", "created": 1, **entry}], "created": {}})
            server.routes["/v1/models"] = whole(listed, kind="application/json")
            with open_teacher(openai_settings(server, tmp_path)) as teacher:
                return teacher.info["model_digest"]

    others = [digest_of(**entry) for entry in ({}, {"max_model_len": 512}, {"root": "r"}, {"meta": {"n_ctx_train": 9}})]
    assert len({*others}) == 4 and digest_of(created=2) == others[0]


@pytest.mark.parametrize(
    "entry",
    [
        {"id": ["m:1"]},
        {"id": "m:1", "max_model_len": "many"},
        {"id": "m:1", "max_model_len": [4096]},
        {"id": "m:1", "meta": [1]},
        {"id": "m:1", "owned_by": {}},
        "m:1",
        None,
    ],
)
@pytest.mark.parametrize("as_list", [True, False])
def test_a_list_of_models_of_another_form_is_named(entry, as_list, tmp_path):
    with fault_server() as server:
        body = line({"data": [entry] if as_list else entry, "created": {}})
        server.routes["/v1/models"] = whole(body, kind="application/json")
        with (
            pytest.raises(TeacherError, match=r"gave no proper answer \(fields are missing or ill-typed"),
            open_teacher(openai_settings(server, tmp_path, teacher_retries=0)),
        ):
            pass


@pytest.mark.parametrize(
    ("think", "sent"),
    [("low", {"reasoning_effort": "low"}), ("", {})]
    + [(str(on).lower(), {"chat_template_kwargs": {"enable_thinking": on}}) for on in (True, False)],
)
def test_thinking_is_asked_for_in_the_words_of_this_api(think, sent, tmp_path):
    settings = {"teacher_think": think}
    with fault_server() as server, open_teacher(openai_settings(server, tmp_path, **settings)) as teacher:
        assert teacher.ask(*ask()) == VERDICT
        body = server.chats[0]
        assert {name: body[name] for name in ("reasoning_effort", "chat_template_kwargs") if name in body} == sent


def test_a_question_is_put_with_its_schema_as_response_format(tmp_path):
    with fault_server() as server, open_teacher(openai_settings(server, tmp_path)) as teacher:
        assert teacher.ask(*ask()) == VERDICT
        facts = {name: teacher.info[name] for name in ("api", "server", "context_length", "format", "think")}
        assert facts == {
            **{"api": "openai", "server": "vllm", "context_length": 4096},
            "format": "honored",
            "think": "low",
        }
        body = server.chats[0]
        assert body["response_format"]["type"] == "json_schema" and not body["stream"]
        assert body["response_format"]["json_schema"]["schema"]["required"] == ["is_good", "reason"]
        assert body["temperature"] == 0 and isinstance(body["seed"], int) and "num_ctx" not in json.dumps(body)
        cost = teacher.usage.summary(1)["cost"]
        assert (cost["prompt_tokens"], cost["answer_tokens"]) == (700, 9)


def test_an_address_may_end_in_v1_and_stand_in_the_environment(tmp_path, monkeypatch):
    with fault_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.host}/v1/")
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        with open_teacher(openai_settings(server, tmp_path, teacher_host=[])) as teacher:
            assert teacher.ask(*ask()) == VERDICT
        assert {headers["authorization"] for headers in server.seen_headers} == {"Bearer secret"}


def test_auto_takes_the_preferred_model_of_such_a_server(tmp_path):
    with fault_server() as server:
        settings = openai_settings(server, tmp_path, teacher_model="auto", preferred_teacher="m:1")
        choice = resolve_teacher(settings)
        assert (choice.model, choice.api) == ("m:1", "openai") and "has it" in choice.reason
        with pytest.raises(TeacherError, match=r"has not got other \(it has m:1\): get it there"):
            resolve_teacher(settings.changed(preferred_teacher="other"))


def test_a_model_that_is_not_served_is_named(tmp_path):
    with fault_server() as server:
        settings = openai_settings(server, tmp_path, teacher_model="other")
        with (
            pytest.raises(TeacherError, match=r"has not got other \(it has m:1\): serve it there"),
            open_teacher(settings),
        ):
            pass


def test_a_server_without_response_format_is_asked_in_words(tmp_path):
    def refuse_format(connection):
        if "response_format" in connection.body:
            return status(400, b'{"error": {"message": "response_format is not supported"}}')(connection)
        return completion({"content": json.dumps(VERDICT)})(connection)

    with fault_server() as server, open_teacher(openai_settings(server, tmp_path)) as teacher:
        server.fault = Fault("format", "", "", refuse_format)
        assert teacher.ask(*ask()) == VERDICT and len(server.chats) == 2
        assert "JSON Schema, nothing else" in server.chats[1]["messages"][0]["content"]


@pytest.mark.parametrize(
    "name", [name for name, fault in FAULTS.items() if fault.kind not in OF_STREAMS and name not in APART]
)
def test_a_fault_ends_as_it_does_with_ollama(name, tmp_path):
    fault = FAULTS[name]
    # Nothing is streamed: silence lasts until the deadline.
    kind = {"silence": "deadline"}.get(fault.kind, fault.kind)
    bounds = {"teacher_timeout": DEADLINE, "teacher_deadline": DEADLINE} if fault.kind in TIMED else {}
    with fault_server() as server, open_teacher(openai_settings(server, tmp_path, **bounds)) as teacher:
        server.fault, server.times = fault, 1
        first = outcome(teacher)
        if name in ("an error after words", "closed after done, but before the last chunk"):
            assert first == VERDICT  # of one document, words before an error are not JSON
        elif fault.end == "stop":
            assert isinstance(first, TeacherError) and ADVICE.search(str(first))
        elif fault.end == "failure":
            assert isinstance(first, TeacherFailure) and first.kind == kind and ADVICE.search(first.reason)
        else:
            assert first == VERDICT and len(server.chats) == 2
            assert list(teacher.usage.summary(1)["faults"]) in ([kind], ["protocol"])


@pytest.mark.parametrize(
    ("send", "kind"),
    [
        (completion({"content": None}), "answer"),
        (completion({"content": ""}), "answer"),
        (completion({"content": None, "reasoning_content": json.dumps(VERDICT)}), "answer"),
        (completion({"content": '{"is_good": tr'}), "answer"),
        (completion({"content": '{"is_good": tr'}, finish_reason="length"), "cut"),
        (completion({"content": 5}), "protocol"),
        (completion({"content": {}}), "protocol"),
        (completion({"content": [5]}), "protocol"),
        (completion({"content": [{"type": "text"}]}), "protocol"),
        (completion({"content": [{"type": "image_url", "image_url": {}}]}), "answer"),
        (completion({"content": None}, finish_reason="length"), "cut"),
        (completion({"content": None, "tool_calls": [{"function": {"arguments": "{}"}}]}), "answer"),
        (completion({"content": None, "reasoning_content": 5}), "protocol"),
        (completion({"content": "{}"}, finish_reason={}), "protocol"),
        (completion({"content": None, "refusal": {}}), "answer"),
        (completion({"content": None, "refusal": ["no"]}), "protocol"),
        (whole(b'{"choices": [{"message": null, "finish_reason": "stop"}]}'), "protocol"),
        (whole(b'{"choices": {"message": {}}}'), "protocol"),
        (whole(b'{"choices": [[]]}'), "protocol"),
        (whole(b'{"choices": null, "usage": []}'), "protocol"),
        (usage("none"), "protocol"),
        (usage({"prompt_tokens": "many"}), "protocol"),
        (usage({"completion_tokens": {}}), "protocol"),
        (usage({"completion_tokens": True}), "protocol"),
        (usage({"prompt_tokens": -1}), "protocol"),
        (usage({"completion_tokens": 10**400}), "protocol"),
        (events(line({"choices": [{"delta": {"content": "{"}}]})), "torn"),
        (events(b'{"error": {"message": "out of memory"}}'), "server"),
        (events(b"{oops}"), "protocol"),
        (events(), "torn"),
        (whole(b"<html>busy</html>", kind="text/html"), "protocol"),
        (whole(b"busy", kind="text/plain"), "protocol"),
        (completion({"content": "{}"}, finish_reason=None), "torn"),
        (completion({"content": None, "refusal": "I will not"}), "refusal"),
        (whole(b'{"choices": []}'), "protocol"),
        (whole(b'{"object": "chat.completion"}'), "protocol"),
        (whole(b'{"error": {"message": "overloaded"}}'), "server"),
        (status(400, b'{"error": {"message": "maximum context length is 4096 tokens"}}'), "refusal"),
    ],
)
def test_an_answer_of_no_use_is_typed(send, kind, tmp_path):
    with fault_server() as server, open_teacher(openai_settings(server, tmp_path)) as teacher:
        server.fault = Fault("", kind, "", send)
        failed = outcome(teacher)
        assert isinstance(failed, TeacherFailure) and failed.kind == kind and ADVICE.search(failed.reason)


def test_a_prompt_that_the_server_cut_is_an_error(tmp_path):
    def cut(connection):
        usage = {"prompt_tokens": 60, "completion_tokens": 9}
        choice = {"message": {"content": json.dumps(VERDICT)}, "finish_reason": "stop"}
        connection.whole(line({"choices": [choice], "usage": usage}))

    with fault_server() as server, open_teacher(openai_settings(server, tmp_path)) as teacher:
        server.fault = Fault("cut", "", "", cut)
        failed = outcome(teacher)
        assert failed.kind == "context" and "has read 60 tokens" in failed.reason and str(NUM_CTX) in failed.reason


@pytest.mark.parametrize(
    ("chars", "read", "answered", "num_ctx", "fault"),
    [
        (800, 100, 9, 4096, None),
        (801, 100, 9, 4096, "of 801 characters the model has read 100 tokens: raise --teacher-num-ctx above 4096"),
        (9000, 0, 9, 4096, None),  # the server does not count
        (500, 100, 9, 200, None),
        (501, 100, 9, 200, "of 501 characters the model has read 100 tokens"),  # Ollama's half
        (541, 108, 9, 200, "of 541 characters the model has read 108 tokens"),
        (600, 109, 9, 200, None),
        (600, 99, 9, 200, None),
        (600, 150, 49, 200, None),
        (600, 150, 50, 200, "the question does not fit: raise --teacher-num-ctx above 200"),
    ],
)
def test_a_prompt_that_was_not_read_whole_is_told_by_its_characters_and_tokens(chars, read, answered, num_ctx, fault):
    with fault_server() as server:
        server.fault = Fault("", "", "", usage({"prompt_tokens": read, "completion_tokens": answered}))
        limits = Limits(silence=5.0, deadline=5.0, max_bytes=99_999)
        with closing(open_servers("openai", read_addresses("openai", [server.host]), limits)[0]) as opened:
            asked = "m:1", [{"role": "user", "content": "x" * chars}], None, {"num_ctx": num_ctx}, None
            if fault is None:
                reply = opened.chat(*asked)
                assert (reply.prompt_tokens, reply.answer_tokens) == (read, answered)
            else:
                with pytest.raises(ContextFault) as caught:
                    opened.chat(*asked)
                assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("message", "counts", "reply"),
    [
        ({"content": "c", "reasoning_content": "r"}, None, Reply("c", "r", 0, 0)),
        ({"content": "c", "reasoning": "r"}, {}, Reply("c", "r", 0, 0)),
        ({"content": None}, {"prompt_tokens": 5}, Reply("", "", 5, 0)),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "output_text", "text": "b"}]},
            None,
            Reply("ab", "", 0, 0),
        ),
    ],
)
def test_what_was_said_and_thought_is_read(message, counts, reply):
    with fault_server() as server:
        choice = {"message": message, "finish_reason": "stop"}
        server.fault = Fault("", "", "", whole(line({"choices": [choice], "usage": counts})))
        limits = Limits(silence=5.0, deadline=5.0, max_bytes=99_999)
        with closing(open_servers("openai", read_addresses("openai", [server.host]), limits)[0]) as opened:
            assert opened.chat("m:1", [{"role": "user", "content": "x"}], None, {"num_ctx": 99}, None) == reply


def test_models_are_named_eight_at_most_in_order_and_short():
    assert name_models([]) == "it has no model yet"
    assert name_models(["b\x1b[1m", "a" * 90]) == f"it has {'a' * 76} ..., b [1m"
    assert name_models(f"m{i}" for i in range(9)) == "it has m0, m1, m2, m3, m4, m5, m6, m7"


def test_a_secret_is_hidden_in_answers_where_it_is_long_enough_to_tell_and_in_messages_always():
    address = Address("http://127.0.0.1:9", "Bearer x", ("1234567", "12345678"))
    with closing(GuardedTransport(address, Limits(1.0, 1.0, 9))) as transport:
        said = {"a 12345678": ["x12345678y", 5, {"b": "1234567 7654321"}], "c": None}
        assert transport.hide(said) == {"a ***": ["x***y", 5, {"b": "1234567 7654321"}], "c": None}
        assert transport.clean("so\n1234567\x1b") == "so ***"


def test_what_is_hidden_of_a_password_or_a_key_is_each_form_in_which_it_may_be_repeated(monkeypatch):
    (address,) = read_addresses("ollama", ["http://ann:p%40s@gpu"])
    assert address.authorization == "Basic YW5uOnBAcw=="
    assert address.secrets == ("ann:p%40s", "ann:p@s", "YW5uOnBAcw==", "YW5uOnBAcw", "p%40s", "p@s")
    monkeypatch.setenv("OLLAMA_API_KEY", "k/1")
    assert {*read_addresses("ollama", ["gpu"])[0].secrets} == {"k/1", "k%2F1"}


def test_keys_pair_up_with_hosts_in_their_order(monkeypatch):
    def api_keys(api, hosts):
        return [address.authorization.removeprefix("Bearer ") for address in read_addresses(api, hosts)]

    a, b, c = "http://a:1", "http://b:2", "http://c:3"
    monkeypatch.setenv("OLLAMA_API_KEY", "k1, k2")
    assert api_keys("ollama", [a, b, c]) == ["k1", "k2", ""]
    monkeypatch.setenv("OLLAMA_HOST", "b:2")
    assert api_keys("ollama", [a, b, c]) == ["", "k1", ""]
    monkeypatch.delenv("OLLAMA_API_KEY")
    assert api_keys("ollama", [a, b]) == ["", ""] and api_keys("openai", [a]) == [""]


def test_a_server_that_is_down_is_called_by_its_api_with_how_to_start_one(tmp_path):
    settings = default_settings(
        output_dir=str(tmp_path), teacher_model="m:1", teacher_api="openai", teacher_host=["http://127.0.0.1:9"]
    )
    with pytest.raises(TeacherError, match=r"OpenAI-compatible server does not answer .*`vllm serve") as caught:
        open_teacher(settings).__enter__()
    assert "ollama" not in str(caught.value).casefold()
    with pytest.raises(TeacherError, match=r"OpenAI-compatible server does not answer at http://127.0.0.1:9"):
        resolve_teacher(settings.changed(teacher_model="auto"))


def test_a_limit_of_tokens_is_sent_and_named_where_an_answer_meets_it(tmp_path):
    with fault_server() as server, open_teacher(openai_settings(server, tmp_path, teacher_num_predict=99)) as teacher:
        server.fault = Fault("", "cut", "", completion({"content": '{"is_good": tr'}, finish_reason="length"))
        failed = outcome(teacher)
        assert isinstance(failed, TeacherFailure) and "raise --teacher-num-predict above 99" in failed.reason
        assert server.chats[-1]["max_tokens"] == 99
