"""The embedded teacher: the official Ollama client works against it, and its four roles tell the truth."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import ollama
import pytest

from schema_student.core.resources import DATA_DIR, PACKAGE
from schema_student.data.domains import schema_row
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.schema.query_dsl import suggests_a_field
from schema_student.teacher.embedded.bank import KINDS
from schema_student.teacher.embedded.identity import MODEL, model_digest
from schema_student.teacher.embedded.judging import difference, give_verdict
from schema_student.teacher.embedded.replies import reply
from schema_student.teacher.embedded.server import serve
from schema_student.teacher.embedded.writing import Unknown, write_domain_spec, write_queries
from schema_student.teacher.roles import role_format, role_messages

LEXICON = json.loads((DATA_DIR / "lexicon.json").read_text(encoding="utf-8"))
SCHEMA = schema_row(LEXICON[0], seed=1).schema
OBJECT = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
QUERY = {"schema": SCHEMA, "language": "en", "current_date": "2026-03-04", "kind": "answerable", "count": 4, "batch": 7}


@pytest.fixture(scope="module")
def address():
    with serve() as found:
        yield found


@pytest.fixture(scope="module")
def http(address):
    """A client that has the token."""
    headers = {"Authorization": address.authorization}
    with httpx.Client(base_url=address.url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(address):
    headers = {"Authorization": address.authorization}
    with ollama.Client(address.url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


def question(payload, query, **changes):
    kept = {key: payload[key] for key in ("schema", "language", "current_date", "batch")}
    return {**kept, "query": query, **changes}


# The protocol


def test_chat_answers_a_role_as_one_object(client):
    answer = client.chat(MODEL, role_messages("query", QUERY), format=role_format("query", QUERY))
    assert answer.done and answer.done_reason == "stop" and answer.eval_count > 0 and answer.prompt_eval_count > 0
    assert len(json.loads(answer.message.content)["queries"]) == 4


def test_a_stream_says_the_same_as_one_object(client):
    messages = role_messages("query", QUERY)
    parts = list(client.chat(MODEL, messages, stream=True))
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 2 and parts[-1].done_reason == "stop" and parts[-1].eval_count > 0
    assert "".join(part.message.content for part in parts) == client.chat(MODEL, messages).message.content


def test_generate_answers_and_streams(client):
    prompt = role_messages("query", QUERY)[-1]["content"]
    whole = client.generate(MODEL, prompt)
    parts = list(client.generate(MODEL, prompt, stream=True))
    assert "".join(part.response for part in parts) == whole.response
    assert json.loads(whole.response)["queries"] and whole.done_reason == "stop" and parts[-1].done


def test_tags_show_and_version_describe_the_model(client, http):
    assert [model.model for model in client.list().models] == [f"{MODEL}:latest"]
    assert len(client.list().models[0].digest) == 64
    shown = client.show(MODEL)
    assert shown.capabilities == ["completion"] and "not an LLM" in shown.modelfile
    assert http.get("/api/version").json()["version"].endswith("embedded")
    assert http.get("/").text == "Ollama is running"
    assert client.chat(f"{MODEL}:latest", []).done_reason == "load"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_a_404_that_the_client_understands(client, stream):
    with pytest.raises(ollama.ResponseError, match="model 'gpt-oss:120b' not found") as caught:
        list(client.chat("gpt-oss:120b", role_messages("query", QUERY), stream=stream))
    assert caught.value.status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/api/chat", b"{", 400, "invalid JSON"),
        ("/api/chat", b"[]", 400, "JSON object"),
        ("/api/chat", b"{}", 400, "model is required"),
        ("/api/chat", json.dumps({"model": MODEL, "messages": "hello"}).encode(), 400, "list of objects"),
        ("/api/chat", json.dumps({"model": MODEL, "format": "xml"}).encode(), 400, "invalid format"),
        ("/api/chat", json.dumps({"model": MODEL, "think": "low"}).encode(), 400, "does not support thinking"),
        ("/api/show", json.dumps({"model": "x"}).encode(), 404, "not found"),
        ("/api/nothing", b"{}", 404, "page not found"),
    ],
)
def test_bad_requests_are_answered_as_ollama_does(http, path, body, status, said):
    answer = http.post(path, content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_num_predict_cuts_the_answer_and_says_so(client):
    answer = client.chat(MODEL, role_messages("query", QUERY), options={"num_predict": 3})
    assert answer.done_reason == "length" and answer.eval_count == 3
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.message.content)


def test_a_format_holds_for_any_question(client):
    said = client.generate(MODEL, "Where to?", format=OBJECT).response
    assert judge(said, compile_schema(OBJECT)).schema_valid
    assert json.loads(client.generate(MODEL, "Where to?", format="json").response)["answer"]
    assert "not a language model" in client.generate(MODEL, "Where to?").response


def test_many_clients_at_once_get_their_own_answers(client):
    payloads = [QUERY | {"batch": batch} for batch in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda p: client.chat(MODEL, role_messages("query", p)).message.content, payloads))
    assert answers == [reply(role_messages("query", payload), None) for payload in payloads]


# The roles


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_request_it_writes_it_can_answer_validly(kind, language):
    payload = QUERY | {"kind": kind, "language": language}
    compiled = compile_schema(SCHEMA)
    for query in write_queries(payload)["queries"]:
        answer = reply(role_messages("answer", question(payload, query)), None)
        verdict = judge(answer, compiled)
        assert verdict.schema_valid, (query, answer, verdict.violations)
        assert ("refusal" in verdict.value) == (kind != "answerable")


def test_queries_depend_on_schema_language_date_kind_and_batch_alone():
    assert write_queries(QUERY) == write_queries(dict(QUERY))
    assert write_queries(QUERY)["queries"][:2] == write_queries(QUERY | {"count": 2})["queries"]
    changes = [{"batch": 8}, {"language": "fr"}, {"current_date": "2026-03-05"}, {"kind": "missing_field"}]
    assert all(write_queries(QUERY | change) != write_queries(QUERY) for change in changes)


def test_a_request_is_found_without_its_batch_and_after_a_restart():
    query = write_queries(QUERY | {"batch": 2})["queries"][0]
    asked = question(QUERY, query)
    del asked["batch"]
    assert judge(reply(role_messages("answer", asked), None), compile_schema(SCHEMA)).schema_valid


def test_an_arbitrary_schema_is_asked_and_answered():
    payload = QUERY | {"schema": OBJECT}
    queries = write_queries(payload)["queries"]
    answers = [reply(role_messages("answer", question(payload, query)), None) for query in queries]
    assert len(queries) == 4
    assert all(judge(answer, compile_schema(OBJECT)).schema_valid for answer in answers)
    assert all(json.loads(a)["city"].casefold() in q.casefold() for q, a in zip(queries, answers, strict=True))


def test_other_schemas_get_other_values_and_french_names_every_property():
    payload = QUERY | {"schema": OBJECT}
    assert write_queries(payload) != write_queries(payload | {"schema": OBJECT | {"$comment": "another"}})
    french = write_queries(payload | {"language": "fr"})["queries"]
    assert len(french) == 4 and all("city" in query for query in french)


def test_a_domain_is_that_of_the_lexicon_which_a_prompt_begins_with_else_drafted():
    index, spec = next((i, spec) for i, spec in enumerate(LEXICON))
    assert write_domain_spec({"seed_prompt": f"  {spec['domain'].upper()} : anything"}) == spec
    assert write_domain_spec({"seed_prompt": "stamps: prices"})["schema_id"] == "stamps"
    assert write_domain_spec({}) == write_domain_spec({"index": index}) == spec
    for wrong in (-1, len(LEXICON)):
        with pytest.raises(Unknown, match=f"My lexicon has {len(LEXICON)} domains; there is none at index {wrong}"):
            write_domain_spec({"index": wrong})


def test_it_says_that_it_does_not_know_what_others_ask():
    said = reply(role_messages("answer", question(QUERY, "how many stars are there?")), None)
    assert "did not write this request" in said
    assert "without a reference" in reply(role_messages("judge", {"schema": SCHEMA, "query": "?", "answer": {}}), None)
    assert "none at index 999" in reply(role_messages("domain_spec", {"index": 999}), None)
    assert "cannot read" in reply(role_messages("query", {"schema": 3}), None)


def test_domain_specs_are_those_of_the_lexicon():
    found = [json.loads(reply(role_messages("domain_spec", {"index": i}), None)) for i in range(len(LEXICON))]
    assert len(found) >= 30 and found == LEXICON
    compiled = compile_schema(role_format("domain_spec", {}))
    assert all(judge(json.dumps(spec), compiled).schema_valid for spec in found)


def test_the_judge_accepts_the_truth_and_says_what_differs():
    query = write_queries(QUERY)["queries"][0]
    truth = json.loads(reply(role_messages("answer", question(QUERY, query)), None))
    asked = {"schema": SCHEMA, "query": query, "current_date": "2026-03-04", "reference": truth, "accepted": None}
    assert give_verdict({**asked, "answer": truth})["is_good"]
    other = json.loads(json.dumps(truth))
    other["steps"][0]["conditions"][0]["value"] = "something else"
    verdict = give_verdict({**asked, "answer": other})
    assert not verdict["is_good"] and "something else" in verdict["reason"]
    refusal = {"prompt": query, "refusal": {"reason": "no", "suggestion": "ask by nothing"}}
    assert "refuses what" in give_verdict({**asked, "answer": refusal})["reason"]
    assert "should refuse" in give_verdict({**asked, "reference": refusal, "answer": truth})["reason"]


def test_a_refusal_must_suggest_something_that_can_be_answered():
    query = write_queries(QUERY | {"kind": "missing_field"})["queries"][0]
    truth = json.loads(reply(role_messages("answer", question(QUERY, query)), None))
    asked = {"schema": SCHEMA, "query": query, "reference": truth, "answer": truth}
    assert give_verdict(asked)["is_good"]
    bad = {"prompt": query, "refusal": truth["refusal"] | {"suggestion": "ask by moon phase"}}
    assert "names no field" in give_verdict({**asked, "answer": bad})["reason"]


def test_a_field_is_named_by_its_name_or_its_words_but_not_by_a_part_of_one():
    said = ("ask by guest_name", "Ask by the Guest.", "demandez par tarif par nuit", "ask by guesthouse", None)
    found = [suggests_a_field({"refusal": {"suggestion": text}}, SCHEMA) for text in said]
    assert found == [True, True, True, False, False]


def test_the_judge_compares_objects_by_their_accepted_alternatives():
    asked = {"schema": OBJECT, "query": "?", "reference": {"city": "Paris", "days": 2}}
    accepted = {"city": ["Paris", "Paris, France"], "days": [2]}
    answer = {"city": "paris france", "days": 2}
    assert give_verdict({**asked, "answer": answer, "accepted": accepted})["is_good"]
    verdict = give_verdict({**asked, "answer": answer, "accepted": None})
    assert verdict["reason"] == 'has city = "paris france"; lacks city = "Paris"'


def test_a_verdict_blames_nothing_that_an_alternative_accepts():
    payload = {"schema": {}, "answer": {"a": 2, "b": "metres"}, "reference": {"a": 1, "b": "m"}}
    verdict = give_verdict({**payload, "accepted": {"a": [1], "b": ["m", "metres"]}})
    assert verdict == {"is_good": False, "reason": "has a = 2; lacks a = 1"}


def test_the_teachers_digest_covers_every_module_that_decides_its_answers(monkeypatch):
    read = []
    monkeypatch.setattr("schema_student.teacher.embedded.identity.digest", lambda thing: read.append(thing) or "0")
    model_digest.__wrapped__()
    names = {path.name for path in read if isinstance(path, Path)}
    assert {"generator.py", "requests.py", "canonical.py", "grading.py", "query_dsl.py", "replies.py"} <= names
    code = "import sys; from schema_student.teacher.embedded import replies; print(*sys.modules)"
    used = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    modules = {name.split(".", 1)[1] for name in used if re.match(r"schema_student\.(schema|teacher)\.", name)}
    covered = {path for path in read if isinstance(path, Path)}
    missing = {name for name in modules if not covered & set(files_of(name))}
    assert len(modules) > 20 and not missing


def files_of(module):
    path = PACKAGE.joinpath(*module.split("."))
    return path.with_suffix(".py"), path / "__init__.py"


def test_a_difference_is_told_by_path():
    assert difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, {}) == "has a[].b = 2; lacks a[].b = 3"


def test_hundreds_of_different_requests_can_be_written():
    seen = set()
    for batch in range(60):
        seen |= set(write_queries(QUERY | {"batch": batch, "count": 10})["queries"])
    assert len(seen) > 550
    templates = {re.sub(r"\d+|\b[A-Z]\w*", "_", text) for text in random.Random(1).sample(sorted(seen), 100)}
    assert len(templates) > 80


def test_two_answers_are_compared_by_the_judge_and_not_by_their_place():
    right, wrong, broken = '{"city":"Lyon","days":2}', '{"city":"Lyon","days":3}', '{"city":"Lyon"}'
    known = {"schema": OBJECT, "query": "q", "reference": {"city": "Lyon", "days": 2}}
    compiled = compile_schema(role_format("compare", known))

    def better(first, second, **changes):
        text = reply(role_messages("compare", {**known, **changes, "first": first, "second": second}), None)
        verdict = judge(text, compiled)
        return verdict.value["better"] if verdict.schema_valid else text

    assert (better(right, wrong), better(wrong, right)) == ("first", "second")
    assert (better(broken, wrong), better(wrong, wrong + " ")) == ("second", "tie")
    assert "I cannot compare" in better(right, wrong, reference=None)
