"""Figures, lines and cards of exports against answers made by hand; no model is loaded."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch

from schema_student.core.errors import UserError
from schema_student.core.jsonl import dump_row, write_json, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.core.statistics import wilson
from schema_student.deploy import card, parity, smoke, trial
from schema_student.deploy.card import write_card
from schema_student.deploy.parity import Reference, agreement, describe
from schema_student.deploy.smoke import try_endpoint
from schema_student.deploy.targets import Heard, Target, without_stop
from schema_student.deploy.trial import Answered, compare, describe_ids, read_prompts, try_answers
from schema_student.evaluation.endpoint import Heard as Told
from schema_student.schema.prompts import render_prompt
from schema_student.teacher.apis import Reply

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ADAPTER = [Answered(f"{i}", rank) for i, rank in enumerate((5, 5, 5, 4, 0))]
OURS = [Answered(text, rank) for text, rank in (("0", 5), ("x", 5), ("2", 4), ("3", 3), ("4", 0))]


def test_an_export_is_held_against_the_adapter_answer_by_answer(caplog):
    figures = {
        "prompts": 5,
        "schema_valid_rate": wilson(3, 5),
        "right_rate": wilson(2, 5),
        "adapter_schema_valid_rate": wilson(4, 5),
        "adapter_right_rate": wilson(3, 5),
        "same_answer_as_adapter": wilson(4, 5),
        "same_verdict_as_adapter": wilson(3, 5),
    }
    assert compare(OURS, ADAPTER) == figures
    tried = try_answers("it", OURS, ADAPTER)
    line = (
        "it: of 5 test prompts 3 answered validly and 2 as asked (the adapter 4 and 3); 4 answers are the adapter's, "
    )
    line += "word for word"
    assert (tried.facts, tried.lines) == ({"tried": figures}, [line])


def test_an_export_that_is_worse_beyond_chance_is_refused_and_a_quantized_one_warned_of(capsys):
    good, bad = [Answered("a", 5)] * 20, [Answered("b", 3)] * 20
    said = "it answers worse than the adapter: schema_valid_rate 0 of 20, the adapter 20; it is not the same student"
    with pytest.raises(UserError, match=f"^{said}, and was not kept$"):
        try_answers("it", bad, good)
    (line,) = try_answers("it", bad, good, quantized=True).lines
    assert line.endswith("; WORSE than the adapter beyond chance: schema_valid_rate, right_rate")
    assert capsys.readouterr().err == f"{line}\n"
    wrong = [Answered("b", 4)] * 20
    with pytest.raises(UserError, match="right_rate 0 of 20, the adapter 20"):
        try_answers("it", wrong, good)
    assert (Answered("", 4).valid, Answered("", 3).valid) == (True, False)


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        ([1, 2, 3, 4, 5, 6], [1, 9, 3, 4, 5, 6], (6, 6, 1, [9, 3, 4, 5], [2, 3, 4, 5])),
        ([1, 2], [1], (1, 2, 1, [], [2])),
        ([1], [1, 2], (2, 1, 1, [2], [])),
    ],
)
def test_where_the_ids_of_a_prompt_differ_is_told_with_the_next_four(wanted, found, said):
    ours, theirs, at, read, own = said
    assert describe_ids(wanted, found) == (
        f"its prompt has {ours} token ids and the student's {theirs}; from token {at} on it reads {read} in place of "
        f"{own}"
    )


@pytest.fixture
def letters(monkeypatch):
    """A tokenizer that makes a token of each letter."""
    monkeypatch.setattr(trial, "encode_prompt", lambda tokenizer, text: [*range(len(text))])


def test_test_requests_that_leave_room_are_read_evenly_spread(letters, tmp_path):
    given = default_settings(output_dir=str(tmp_path), max_new_tokens=20, max_seq_length=400)
    like = {
        "schema_id": "s",
        "schema_json": json.dumps(SCHEMA),
        "current_date": "d",
        "is_valid": True,
        "ast_json": "{}",
    }
    rows = [{**like, "query": f"q{i}", "split": "test_seen" if i < 4 else "test_unseen"} for i in range(8)]
    rows.append({**like, "query": "x" * 999, "split": "test_seen"})
    write_jsonl(paths(given).dataset, [*rows, {**like, "query": "t", "split": "train"}])
    found = read_prompts(given, given, None, 0)
    text = render_prompt(SCHEMA, "q0", "d", given.prompt.schema_rendering)
    assert [each.request.query for each in found] == [f"q{i}" for i in range(8)]
    assert (found[0].text, found[0].ids) == (text, [*range(len(text))])
    few = [each.request.query for each in read_prompts(given, given, None, 2)]
    assert len(few) == 2 and {few[0]} <= {"q0", "q1", "q2", "q3"} and {few[1]} <= {"q4", "q5", "q6", "q7"}
    with pytest.raises(UserError, match=r"leaves room for an answer in 60 tokens$"):
        read_prompts(given, given.changed(max_seq_length=60), None, 0)


def test_without_a_dataset_three_requests_to_small_schemas_are_asked(letters, tmp_path):
    given = default_settings(output_dir=str(tmp_path), max_new_tokens=20, max_seq_length=4000)
    found = [each.request for each in read_prompts(given, given, None, 0)]
    asked = (
        ("city", {"city": "string"}, "what is the weather in Oslo?", {"city": "Oslo"}),
        ("a-b", {"a": "integer", "b": "integer"}, "add 3 and 4", {"a": 3, "b": 4}),
        ("title-done", {"title": "string", "done": "boolean"}, "Milk is bought", {"title": "Milk", "done": True}),
    )
    for row, (name, types, query, answer) in zip(found, asked, strict=True):
        properties = {key: {"type": kind} for key, kind in types.items()}
        schema = {"type": "object", "properties": properties, "required": [*types], "additionalProperties": False}
        assert row == DatasetRow(
            **{
                "schema_id": name,
                "query": query,
                "is_valid": True,
                "split": "test_unseen",
                "current_date": "2026-01-31",
            },
            **{"schema_json": dump_row(schema), "ast_json": dump_row(answer)},
        )


# ---- parity


@pytest.fixture
def reference(monkeypatch):
    """An adapter that answered four prompts, whose next token is the likelier the larger its id; token 9 ends."""

    def model(input_ids, logits_to_keep):
        asked.append((input_ids.tolist(), logits_to_keep))
        return SimpleNamespace(logits=torch.arange(12.0)[None, None])

    ranks = {"right": 5, "valid": 4, "bad": 3}
    monkeypatch.setattr(parity, "grade_answer", lambda prompt, text, asked: Answered(text, ranks[text]))
    asked, found = [], Reference.__new__(Reference)
    tokenizer = SimpleNamespace(decode=lambda ids: "".join(f"<{each}>" for each in ids))
    found.student = SimpleNamespace(tokenizer=tokenizer, model=model)
    found.prompts = [SimpleNamespace(ids=[2, i], request=SimpleNamespace(query=f"q{i}")) for i in range(4)]
    found.asked, found.stops, found.calls = default_settings(), frozenset([9]), asked
    found.parity = default_settings(parity_tokens=3, parity_tie=1.5, parity_threshold=0.75).parity
    said = [("right", [3, 4]), ("right", [3, 5, 6, 7]), ("valid", [3]), ("bad", [1])]
    found.answers = [Heard([2, i], text, ids) for i, (text, ids) in enumerate(said)]
    found.of_base = [[3, 4], [3], [8], [1]]
    return found


def test_a_target_is_compared_token_by_token_and_verdict_by_verdict(reference):
    said = [("right", [3, 4, 9]), ("right", [3, 5, 6, 8]), ("bad", [4]), ("bad", [1, 5])]
    heard = [Heard([2, i], text, ids) for i, (text, ids) in enumerate(said)]
    row = reference.compare(Target("it", True, list), heard)
    whole, half, most = wilson(4, 4), wilson(2, 4), wilson(3, 4)
    assert row == {
        "exact": True,
        "same_prompt_ids": whole,
        "same_answer": half,  # of the first three tokens
        "same_answer_but_for_ties": most,
        "same_verdict": most,
        "schema_valid_rate": half,
        "right_rate": half,
        "adapter_schema_valid_rate": most,
        "adapter_right_rate": half,
        "differences": [
            {"request": "q2", "token": 0, "adapter": "<3>", "found": "<4>", "gap": -1.0, "tie": True},
            {"request": "q3", "token": 1, "adapter": "(end)", "found": "<5>", "gap": 4.0, "tie": False},
        ],
        "agreement_with_adapter": (2 / 3 + 1 + 0 + 0.5) / 4,
        "agreement_with_base": (2 / 3 + 1 / 3 + 0 + 0.5) / 4,
        "undone": False,
        "passed": True,
    }
    assert reference.calls == [([[2, 2]], 1), ([[2, 3, 1]], 1)]
    reference.parity = reference.parity.model_copy(update={"parity_threshold": 0.76})
    assert not reference.compare(Target("it", True, list), heard)["passed"]
    assert not reference.compare(Target("it", False, list), heard)["passed"]


def test_an_endpoint_tells_no_ids_and_passes_by_its_verdicts(reference):
    heard = [Heard(2, text) for text in ("right", "right", "valid", "right")]
    row = reference.compare(Target("it", False, list), heard)
    assert (row["passed"], row["same_verdict"], row["same_answer"]) == (True, wilson(3, 4), wilson(3, 4))
    assert "agreement_with_base" not in row and not row["undone"] and row["differences"] == []
    assert not reference.compare(Target("it", False, list), [Heard(3, "right"), *heard[1:]])["passed"]


def test_what_is_nearer_to_the_base_than_to_the_adapter_is_undone(reference):
    heard = [Heard([2, i], "right", ids) for i, ids in enumerate([[3, 4], [3], [8], [1]])]
    row = reference.compare(Target("it", False, list), heard)
    assert (row["agreement_with_base"], row["undone"]) == (1.0, True)
    line = (
        "it: same prompt ids 4/4 (51%-100%), same answer 2/4 (15%-85%), same verdict 2/4 (15%-85%), schema valid rate "
        "4/4 (51%-100%), right rate 4/4 (51%-100%): FAILED; WARNING: it answers more like the base (100% of the first "
        "tokens) than the adapter (58%): quantization undoes what training did"
    )
    assert describe("it", row) == line
    exact = {**row, "exact": True, "undone": False, "passed": True}
    assert describe("it", exact).endswith("right rate 4/4 (51%-100%): passed") and "but for ties" in describe(
        "it", exact
    )


@pytest.mark.parametrize(
    ("some", "others", "most", "share"),
    [([[1, 2, 3]], [[1, 2, 4]], 2, 1.0), ([[1, 2, 3]], [[1, 2, 4]], 3, 2 / 3), ([[1], []], [[1, 2], []], 9, 0.75)],
)
def test_agreement_is_the_share_of_the_first_tokens_before_answers_part(some, others, most, share):
    assert agreement(some, others, most) == pytest.approx(share)


def test_the_token_that_ends_an_answer_is_left_out():
    assert [without_stop(ids, frozenset([9])) for ids in ([1, 9], [9], [1], [], [9, 1])] == [[1], [], [1], [], [9, 1]]


# ---- the card


def source_of(folder, licence="Apache 2.0", **more):
    weights = folder / "adapter" / "checkpoint-final" / "weights"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_text("w")
    known = {"run": "mine", "adapter": weights.parent, "weights": weights, "base_name": "a base", "is_full": False}
    known |= {"base_licence": licence, "base_record": None, "choice": SimpleNamespace(base="owner/base@0123abcd")}
    return SimpleNamespace(settings=default_settings(), **{**known, **more})


def test_a_card_says_what_the_export_is_made_of(tmp_path):
    given = default_settings(output_dir=str(tmp_path))
    source = source_of(tmp_path)
    shown = {
        "schema_rendering": "compact",
        "fine_tuning": "lora",
        "lora_r": 4,
        "lora_alpha": 8,
        "sft_learning_rate": 0.1,
    }
    shown |= {"sft_epochs": 2, "max_seq_length": 512}
    config = source.adapter.parent / "run_config.json"
    write_json(config, {"stage": "dpo", "settings": {**shown, "seed": 3}})
    like = {"schema_json": "{}", "query": "q", "current_date": "d", "ast_json": "{}", "is_valid": True}
    splits = [("train", "me"), ("validation", "me"), ("test_seen", "you"), ("test_seen", None)]
    rows = [{**like, "schema_id": f"s{i // 2}", "split": s, "teacher_model": t} for i, (s, t) in enumerate(splits)]
    write_jsonl(paths(given).dataset, [*rows, {**rows[0], "is_valid": False}])
    text = write_card("gguf", source, given, None, ["tried so", "and so"], "Ask it.")
    prompt = render_prompt(card.EXAMPLE, "trains to Oslo", "2026-01-31", source.settings.prompt.schema_rendering)
    assert text.split("\n")[:29] == [
        "---",
        'license: "apache-2.0"',
        'base_model: "owner/base"',
        'library_name: "gguf"',
        'pipeline_tag: "text-generation"',
        'tags: ["json-schema", "structured-output", "lora", "schema-student"]',
        "---",
        "",
        "# mine: a base that writes JSON",
        "",
        "A small language model as GGUF files, for llama.cpp and what is built on it. It reads a JSON Schema and a "
        "request in plain words, and writes the one JSON object that is valid against the schema and",
        "means what was asked. Made with schema-student.",
        "",
        "## What it was made of",
        "",
        "| | |",
        "|---|---|",
        "| base | a base |",
        "| licence of the base | Apache 2.0 |",
        f"| adapter | DPO of the run mine, {digest(source.weights)[:16]} (SHA-256 of its weights) |",
        *(f"| {name} | {json.dumps(value)} |" for name, value in shown.items()),
        "",
        "The base's licence holds for this model as well.",
    ]
    trained = sum(split in card.TRAINED for split, _ in splits)
    told = f"4 requests to 2 JSON Schemas, answered by None and me and you; {trained} of them were trained on."
    assert (
        told in text
        and "\n- tried so\n- and so\n" in text
        and f"```text\n{prompt}\n```" in text
        and "\nAsk it.\n" in text
    )
    assert "These weights were not evaluated." in text
    for stage, name in (("sft", "SFT"), ("rloo", "training")):
        write_json(config, {"stage": stage})
        assert f"| adapter | {name} of the run" in write_card("gguf", source, given, None, [], "")
    paths(given).dataset.unlink()
    assert "What it was trained on is not known here" in write_card("gguf", source, given, None, [], "")


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("Gemma Terms of Use", {"license": "gemma"}),
        ("MIT License", {"license": "mit"}),
        ("apache-2.0", {"license": "apache-2.0"}),
        ("their own", {"license": "other", "license_name": "their own"}),
    ],
)
def test_the_front_of_a_card_is_what_hubs_read(licence, front, tmp_path):
    libraries = {"merged": "transformers", "gguf": "gguf", "ollama": "gguf", "vllm": "transformers", "adapter": "peft"}
    libraries |= {"lm-eval": "lm-eval", "promptfoo": "promptfoo"}
    source = source_of(tmp_path, licence, is_full=True)
    source.choice.base = str(tmp_path)  # a folder is no base of a hub
    for kind, library in [*libraries.items()][:: 1 if licence == "their own" else 9]:
        lines = write_card(kind, source, default_settings(output_dir=str(tmp_path)), None, [], "").split("---\n")[1]
        told = {name: json.loads(value) for name, value in (line.split(": ", 1) for line in lines.splitlines())}
        tags = ["json-schema", "structured-output", "schema-student"]
        assert told == {**front, "library_name": library, "pipeline_tag": "text-generation", "tags": tags}


# ---- smoke


@pytest.fixture
def endpoint(monkeypatch):
    """An endpoint whose answers a test gives; what it was asked is kept."""

    class Endpoint:
        model, asked, answers = "its-model", [], []

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.asked.append("closed")

        def ask(self, *given):
            self.asked.append(given)
            return iter(self.answers)

    found = Endpoint()
    found.asked, found.answers = [], []
    monkeypatch.setattr(smoke, "open_endpoint", lambda given: found)
    return found


def told(text, fault=None):
    return Told(Reply(text, "", 0, 0), 0.25, fault=fault)


def health(monkeypatch, status):
    urls = []

    def get(url, **options):
        urls.append((url, options))
        if isinstance(status, Exception):
            raise status
        return httpx.Response(status)

    monkeypatch.setattr(smoke.httpx, "get", get)
    return urls


def test_a_served_student_is_tried_by_three_requests(endpoint, monkeypatch):
    urls = health(monkeypatch, 200)
    endpoint.answers = [told('{"brightness": 40}'), told('{"amount": 20}'), told("", "a fault")]
    tried = try_endpoint(default_settings(endpoint="h:1/v1/"))
    said = [line.replace('"', "'") for line in tried.lines]
    assert said[0] == "health: ok" and said[1] == "model: its-model"
    assert said[2] == "'set brightness to 40': valid, {'brightness': 40} (0.2 s)"
    assert said[3].startswith("'the amount is 20 and the currency is dollar': not valid: ") and "currency" in said[3]
    assert said[4] == "'three nights in Oslo': not valid: a fault (0.2 s)"
    assert said[5:] == ["1 of 3 answers are valid: healthy"] and tried.healthy
    assert urls == [("http://h:1/health", {"timeout": 10.0, "trust_env": False})]
    properties = [
        {"brightness": {"type": "integer", "minimum": 0}},
        {"amount": {"type": "number"}, "currency": {"enum": ["dollar", "yen"]}},
        {"city": {"type": "string"}, "nights": {"type": "integer", "minimum": 1}},
    ]
    requests = ("set brightness to 40", "the amount is 20 and the currency is dollar", "three nights in Oslo")
    rendering = default_settings().prompt.schema_rendering
    prompts = [
        render_prompt(
            {"type": "object", "properties": each, "required": [*each], "additionalProperties": False},
            *(request, "2026-01-31", rendering),
        )
        for each, request in zip(properties, requests, strict=True)
    ]
    assert endpoint.asked == [(prompts, 256, 4096), "closed"]


def test_an_endpoint_without_a_valid_answer_is_not_well(endpoint, monkeypatch):
    health(monkeypatch, 404)
    endpoint.answers = [told("{"), told("[]"), told('{"city": "Oslo", "nights": 0}')]
    tried = try_endpoint(default_settings(endpoint="https://h"))
    assert tried.lines[0] == "health: not told (/health answers 404)" and not tried.healthy
    assert tried.lines[-1] == "0 of 3 answers are valid: NOT healthy; is it the student, with its chat template?"
    endpoint.answers = [told("{}")] * 3
    urls = health(monkeypatch, 200)
    assert try_endpoint(default_settings(endpoint="h", endpoint_kind="ollama")).lines[0] == "model: its-model"
    assert urls == []  # Ollama has no such route


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, "--endpoint h: /health answers 500: wait until it is loaded, or see its log"),
        (httpx.ConnectError("gone"), "--endpoint h does not answer (gone): start it, or name another --endpoint"),
        (httpx.InvalidURL("odd"), "--endpoint h does not answer (odd): start it, or name another --endpoint"),
    ],
)
def test_an_endpoint_that_is_not_well_is_said_to_be_so(status, said, endpoint, monkeypatch):
    health(monkeypatch, status)
    with pytest.raises(UserError) as refused:
        try_endpoint(default_settings(endpoint="h"))
    assert str(refused.value) == said and endpoint.asked == []


# ---- the server itself


def test_a_student_is_served_until_a_signal_and_noted_meanwhile(tmp_path, monkeypatch, capsys):
    server = pytest.importorskip("schema_student.deploy.serving.server")
    given = default_settings(output_dir=str(tmp_path))
    steps = []

    class Running:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            steps.append("closed")

        def run(self, sockets):
            signal.raise_signal(signal.SIGTERM)  # ends the server alone
            signal.raise_signal(signal.SIGINT)
            steps.extend([sockets, sorted(path.name for path in (tmp_path / "serving").glob("*"))])

    monkeypatch.setattr(server, "open_server", lambda *asked: steps.append(asked) or Running())
    monkeypatch.setattr(server, "describe_serving", lambda *asked: {"url": asked[2]})
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    serving = server.Serving("it")
    with server.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        server.serve_student("student", serving, taken, given)
        assert steps == [("student", serving, taken), [taken], [f"{port}.json"], "closed"]
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        address = f"http://127.0.0.1:{port}"
        assert capsys.readouterr().out == (
            f"it is served at {address} until Ctrl-C. In another terminal:\n"
            f"  schema-student smoke --endpoint {address}\nall that was asked is answered\n"
        )
        steps.clear()
        server.serve_student("student", replace(serving, deferral="a teacher"), taken, given)
        assert steps[2] == []  # who asks the student alone would not see who answers
        with pytest.raises(UserError, match=rf"^127\.0\.0\.1:{port} cannot be served on: another program has it; give"):
            server.bind("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot be served on: "):
        server.bind("192.0.2.1", 70000)


def test_a_served_student_is_described_by_what_decides_its_answers(tmp_path):
    server = pytest.importorskip("schema_student.deploy.serving.server")
    (tmp_path / "adapter_model.safetensors").write_text("w")
    model = torch.nn.Linear(1000, 100, dtype=torch.bfloat16)
    model.config, model.dtype = SimpleNamespace(model_type="gemma3_text"), torch.bfloat16
    settings = default_settings(max_seq_length=512)
    choice = SimpleNamespace(base=str(tmp_path / "none"))
    student = SimpleNamespace(adapter=str(tmp_path), digest="d", settings=settings, model=model, choice=choice)
    weights = {"base_digest": "d", "adapter_digest": digest(tmp_path / "adapter_model.safetensors")}
    facts = {"max_model_len": 512, "meta": weights}
    assert server.describe_student(student) == facts
    details = {"parent_model": "", "format": "safetensors", "family": "gemma3_text", "families": ["gemma3_text"]}
    details |= {"parameter_size": "0.1M", "quantization_level": "bfloat16"}
    assert server.describe_weights(student) == {"size": 2 * 100_100, "digest": digest(facts), "details": details}
    serving = server.Serving("it", key="k", constrained=True)
    assert server.describe_serving(student, serving, "http://h:1") == {
        **{"url": "http://h:1", "key": "k", "model": "it", "constrained": True, "adapter": str(tmp_path)},
        **{"base": str(tmp_path / "none"), "base_files": {}, **facts},
    }
    student.adapter = None
    assert server.describe_student(student)["meta"]["adapter_digest"] is None
    assert server.Serving("it") == server.Serving(
        **{"name": "it", "host": "127.0.0.1", "key": "", "slots": 8, "constrained": False, "log_requests": ""},
        **{"requests": 2048, "seconds": 300.0, "deferral": None},
    )
    names = {("127.0.0.1", 8): "http://127.0.0.1:8", ("::1", 8, 0, 0): "http://[::1]:8"}
    assert {server.address_of(SimpleNamespace(getsockname=lambda name=name: name)) for name in names} == {
        *names.values()
    }
    assert Path(student.choice.base).name == "none"
