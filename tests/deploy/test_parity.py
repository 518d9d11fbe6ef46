"""Parity finds what an export does otherwise: its prompts' ids, its tokens but for ties, its verdicts."""

import dataclasses
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import exports
import pytest

from schema_student.cli.main import VERBS
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.core.paths import paths
from schema_student.deploy import parity, targets
from schema_student.deploy.export import export_student
from schema_student.deploy.llamacpp import has_llamacpp, serve_gguf
from schema_student.deploy.parity import Reference, agreement, measure_parity, part_at
from schema_student.deploy.source import find_source
from schema_student.deploy.targets import Heard, Target
from schema_student.deploy.trial import read_prompts
from schema_student.student.loading import load_student


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = exports.write_run(tmp_path_factory.mktemp("run"))
    settings = settings.changed(export_prompts=2, parity_prompts=4, parity_tokens=8, gguf_types=["F16"])
    export_student(settings.changed(kind=["merged", "gguf"]))
    return settings


@pytest.fixture(scope="module")
def reference(run):
    source = find_source(run)
    student = load_student(source.settings, str(source.adapter))
    prompts = read_prompts(run, source.settings, student.tokenizer, 4)
    return Reference(student, prompts, source, run)


def heard(reference, change=lambda ids: ids):
    """What a target would say that answers as the adapter, but for a change of each answer's ids."""
    pairs = zip(reference.prompts, reference.answers, strict=True)
    return [said(reference, prompt.ids, change(list(answer.ids))) for prompt, answer in pairs]


def said(reference, prompt, ids):
    return Heard(prompt, reference.student.tokenizer.decode(ids, skip_special_tokens=True), ids)


EXACT, OTHER = Target("it", True, list), Target("it", False, list)


def test_an_exact_export_of_the_same_tokens_passes(reference):
    row = reference.compare(EXACT, heard(reference))
    assert row["passed"] and row["same_answer"]["k"] == 4 and row["differences"] == []
    assert row["agreement_with_adapter"] == 1 > row["agreement_with_base"]


def test_another_token_is_named_with_how_much_the_adapter_prefers_its_own(reference):
    row = reference.compare(EXACT, heard(reference, lambda ids: [*ids[:2], 9, *ids[3:]]))
    assert not row["passed"] and row["same_answer_but_for_ties"]["k"] == 0
    assert {each["token"] for each in row["differences"]} == {2}
    assert all(each["gap"] > 0.2 and not each["tie"] for each in row["differences"])


def test_a_tie_is_named_and_passes(reference):
    near = Reference.__new__(Reference)
    near.__dict__ |= reference.__dict__ | {"parity": reference.parity.model_copy(update={"parity_tie": 1e9})}
    row = near.compare(EXACT, heard(reference, lambda ids: [*ids[:2], 9, *ids[3:]]))
    assert row["passed"] and row["same_answer"]["k"] == 0 and all(each["tie"] for each in row["differences"])


def test_another_prompt_fails_whatever_is_answered(reference):
    twice = [Heard([2, *each.prompt], each.text, each.ids) for each in heard(reference)]
    row = reference.compare(OTHER, twice)
    assert row["same_verdict"]["k"] == 4 and row["same_prompt_ids"]["k"] == 0 and not row["passed"]
    counted = [Heard(len(each.prompt), each.text) for each in heard(reference)]
    assert reference.compare(OTHER, counted)["passed"]
    assert not reference.compare(OTHER, [Heard(each.prompt + 1, each.text) for each in counted])["passed"]


def test_an_export_that_answers_like_the_base_is_warned_of(reference):
    pairs = zip(reference.prompts, reference.of_base, strict=True)
    row = reference.compare(OTHER, [said(reference, prompt.ids, ids) for prompt, ids in pairs])
    assert row["agreement_with_base"] == 1
    assert "WARNING: it answers more like the base (100%" in parity.describe("it", row)
    assert "WARNING" not in parity.describe("it", reference.compare(OTHER, heard(reference)))


def test_the_verb_ends_with_1_under_the_threshold_and_names_the_targets(run, capsys, monkeypatch):
    monkeypatch.setattr(targets, "has_llamacpp", lambda: False)
    flags = ["--output-dir", run.run.output_dir, "--parity-prompts", "3"]
    VERBS["parity"](flags)
    said = capsys.readouterr()
    assert re.search(r"^merged: same prompt ids 3/3 .*: passed$", said.out, re.M)
    assert "xllamacpp is not installed" in said.err
    assert read_json(paths(run).exports / "parity.json")["passed"] is True
    monkeypatch.setattr(
        targets, "ask_merged", lambda folder, asked, prompts: [Heard(p.ids, "no", [9]) for p in prompts]
    )
    VERBS["parity"](flags)  # by the answers that were kept
    with pytest.raises(SystemExit) as left:
        VERBS["parity"]([*flags, "--overwrite"])
    assert left.value.code == 1 and read_json(paths(run).exports / "parity.json")["passed"] is False


def test_a_measurement_that_was_stopped_goes_on_after_the_last_answer(run, reference, tmp_path):
    asked = []

    def ask(prompts):
        for prompt in prompts:
            if len(asked) == 3:
                raise KeyboardInterrupt
            asked.append(prompt.text)
            yield Heard(prompt.ids, "{}", [9])

    place = Target("gguf/a-Q8_0.gguf", False, ask, made_of="d1", by="numpy")

    def hear(place=place, again=False):
        return targets.hear(place, reference.prompts, reference.asked, tmp_path / "parity", again)

    with pytest.raises(KeyboardInterrupt):
        hear()
    asked.clear()
    assert [each.prompt for each in hear()] == [prompt.ids for prompt in reference.prompts] and len(asked) == 1
    assert hear()[0] == Heard(reference.prompts[0].ids, "{}", [9]) and len(asked) == 1
    (path,) = (tmp_path / "parity").glob("gguf-a-Q8_0.gguf-*.jsonl")
    assert {"schema_id", "query", "text", "rank"} < set(read_jsonl(path)[0])
    for other, again in ((dataclasses.replace(place, made_of="d2"), False), (place, True)):
        asked.clear()
        with pytest.raises(KeyboardInterrupt):
            hear(other, again)
        assert len(asked) == 3


def test_all_test_prompts_are_asked_where_none_are_counted(run, reference):
    assert len(read_prompts(run, reference.asked, reference.student.tokenizer, 0)) == 6


def test_without_an_export_there_is_nothing_to_compare(run, tmp_path):
    elsewhere = run.changed(adapter=str(paths(run).sft_checkpoint), output_dir=str(tmp_path), run="other")
    with pytest.raises(UserError, match="holds no export to compare: run schema-student export"):
        measure_parity(elsewhere)


@pytest.mark.skipif(not has_llamacpp(), reason="xllamacpp is not installed")
def test_f16_in_llamacpp_writes_the_adapter_s_tokens_and_is_an_endpoint_too(run):
    with serve_gguf(paths(run).exports / "gguf" / "student-F16.gguf", 512) as server:
        found = measure_parity(run.changed(endpoint=server.url))["targets"]
    served, row = found[server.url], found["gguf/student-F16.gguf"]
    assert served["same_prompt_ids"]["k"] == served["same_verdict"]["k"] == 4
    assert row["exact"] and row["same_prompt_ids"]["k"] == 4 and row["same_answer_but_for_ties"]["k"] == 4


@pytest.mark.parametrize(("some", "others", "at"), [([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([], [], 0)])
def test_where_two_answers_part(some, others, at):
    assert part_at(some, others) == at
    assert agreement([some], [others], 32) == (1.0 if some == others else at / max(len(some), len(others)))


# An endpoint


@pytest.fixture
def endpoint():
    """An OpenAI-compatible server that answers what it is told; its URL in `url`, its answer in `body`."""
    facts = SimpleNamespace(body=None, kind="application/json", asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"data": [{"id": "mine"}]})

        def do_POST(self):
            facts.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"message": {"content": '{"n": 1}'}, "finish_reason": "stop"}
            self.answer(facts.body or {"choices": [message], "usage": {"prompt_tokens": 100, "completion_tokens": 3}})

        def answer(self, value):
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", facts.kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *given):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    facts.url = f"http://127.0.0.1:{server.server_port}"
    yield facts
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_is_asked_greedily_and_judged_by_its_verdicts(run, endpoint, monkeypatch):
    monkeypatch.setattr(targets, "has_llamacpp", lambda: False)
    found = measure_parity(run.changed(endpoint=endpoint.url))["targets"][endpoint.url]
    assert found["schema_valid_rate"]["k"] == 4 and found["same_prompt_ids"]["k"] == 0 and not found["passed"]
    assert {(each["temperature"], each["max_tokens"], each["model"]) for each in endpoint.asked} == {(0, 12, "mine")}
    texts = [each["messages"][0]["content"] for each in endpoint.asked]
    assert any(text.endswith("Request: number 0") for text in texts)


def test_an_endpoint_that_answers_html_or_has_not_got_the_model_is_named(run, endpoint, monkeypatch):
    monkeypatch.setattr(targets, "has_llamacpp", lambda: False)
    with pytest.raises(UserError, match="has mine: name one by --endpoint-model"):
        measure_parity(run.changed(endpoint=endpoint.url, endpoint_model="other"))
    endpoint.body, endpoint.kind = "<html>hello</html>", "text/html"
    with pytest.raises(UserError, match=f"--endpoint {endpoint.url}: "):
        measure_parity(run.changed(endpoint=endpoint.url))
