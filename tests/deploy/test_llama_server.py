"""llama.cpp is asked by its own endpoints, greedily, and told apart where it fails; no server is started here."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import httpx
import pytest

from schema_student.core.errors import UserError
from schema_student.core.settings import default_settings
from schema_student.deploy import gguf_trial, llamacpp, targets
from schema_student.deploy.llamacpp import Completed, serve_gguf
from schema_student.deploy.targets import Heard, find_targets


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of llama.cpp that answers what a test puts into `replies`, and keeps what it was asked."""

    @dataclass
    class Server:
        replies: dict = field(default_factory=dict)
        asked: list = field(default_factory=list)
        started: list = field(default_factory=list)
        clients: list = field(default_factory=list)

    found, client = Server(), httpx.Client

    def reply(request):
        found.asked.append((request.url.path, json.loads(request.content)))
        answer = found.replies[request.url.path]
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def make(base_url, timeout, trust_env):
        assert (base_url, timeout, trust_env) == ("http://127.0.0.1:4321", 600.0, False)
        found.clients.append(client(base_url=base_url, transport=httpx.MockTransport(reply)))
        return found.clients[-1]

    def start(*given, **named):
        found.started.append((given, named))
        return SimpleNamespace(listening_address="http://127.0.0.1:4321")

    monkeypatch.setattr(llamacpp.httpx, "Client", make)
    monkeypatch.setattr(llamacpp, "start_server", start)
    monkeypatch.setattr(llamacpp.torch, "get_num_threads", lambda: 3)
    return found


def test_a_prompt_is_encoded_by_the_file_s_own_template_and_answered_greedily(server, tmp_path):
    server.replies = {"/apply-template": {"prompt": "<two>"}, "/tokenize": {"tokens": [2, 9]}}
    server.replies["/completion"] = {"content": "{}", "tokens": [7, 8]}
    with serve_gguf(tmp_path / "a.gguf", 512) as llama:
        assert llama.url == "http://127.0.0.1:4321"
        assert llama.encode_prompt("two") == [2, 9] == llama.encode_text("two")
        assert llama.complete((2, 9), 32) == Completed("{}", [7, 8])
    assert server.started == [((tmp_path / "a.gguf", 0, 1, 512, 3), {"warmup": False})]
    greedy = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "return_tokens": True, "cache_prompt": True}
    assert server.asked == [
        ("/apply-template", {"messages": [{"role": "user", "content": "two"}]}),
        ("/tokenize", {"content": "<two>", "add_special": True, "parse_special": True}),
        ("/tokenize", {"content": "two", "add_special": True, "parse_special": True}),
        ("/completion", {"prompt": [2, 9], "n_predict": 32, **greedy}),
    ]
    assert server.clients[0].is_closed


def test_what_llama_cpp_refuses_is_said_and_its_server_ends(server, tmp_path, monkeypatch):
    server.replies["/tokenize"] = httpx.Response(503, text="x" * 300)
    with (
        pytest.raises(UserError, match=r"^llama.cpp answers /tokenize with 503: x{200}$"),
        serve_gguf(tmp_path, 1) as it,
    ):
        it.encode_text("two")
    assert server.clients[0].is_closed

    def fail(*_, **__):
        raise RuntimeError("no such file")

    monkeypatch.setattr(llamacpp, "start_server", fail)
    with (
        pytest.raises(UserError, match=r"^llama.cpp does not load a.gguf: no such file$"),
        serve_gguf(tmp_path / "a.gguf", 1),
    ):
        pass


def test_whether_it_is_installed_is_looked_up_by_its_name(monkeypatch):
    for found in (None, object()):
        monkeypatch.setattr(llamacpp.importlib.util, "find_spec", {"xllamacpp": found}.get)
        assert llamacpp.has_llamacpp() is (found is not None)


# ---- exports in llama.cpp


ASKED = SimpleNamespace(
    length=SimpleNamespace(max_seq_length=512),
    generation=SimpleNamespace(max_new_tokens=12),
)
PROMPTS = [SimpleNamespace(text=f"number {i}", ids=[2, i]) for i in range(2)]


@pytest.fixture
def exports(monkeypatch, tmp_path):
    for name in (
        "merged/export.json",
        "gguf/b-Q8_0.gguf",
        "gguf/a-F16.gguf",
        "ollama/c-F32.gguf",
        "ollama/d-BF16.gguf",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    kinds = {path: SimpleNamespace(quantization=path.stem[2:]) for path in tmp_path.rglob("*.gguf")}
    monkeypatch.setattr(targets, "read_header", kinds.__getitem__)
    monkeypatch.setattr(targets, "digest", lambda path: f"digest of {path.name}")
    monkeypatch.setattr(targets, "has_llamacpp", lambda: True)
    return tmp_path


def test_the_places_of_a_student_are_its_exports_and_the_endpoint(exports):
    found = list(find_targets(default_settings(endpoint="http://h:1"), ASKED, exports))
    assert [(each.name, each.exact, each.made_of, each.by) for each in found] == [
        ("merged", True, "digest of merged", "transformers"),
        ("gguf/a-F16.gguf", True, "digest of a-F16.gguf", "xllamacpp"),
        ("gguf/b-Q8_0.gguf", False, "digest of b-Q8_0.gguf", "xllamacpp"),
        ("ollama/c-F32.gguf", True, "digest of c-F32.gguf", "xllamacpp"),
        ("ollama/d-BF16.gguf", True, "digest of d-BF16.gguf", "xllamacpp"),
        ("http://h:1", False, "", "transformers"),
    ]
    (exports / "merged" / "export.json").unlink()
    assert next(each.name for each in find_targets(default_settings(), ASKED, exports)) == "gguf/a-F16.gguf"


def test_a_file_is_asked_each_prompt_by_its_own_template(exports, server):
    server.replies = {"/apply-template": {"prompt": "<two>"}, "/tokenize": {"tokens": [2, 9]}}
    server.replies["/completion"] = {"content": "{}", "tokens": [7]}
    (target, *_) = [each for each in find_targets(default_settings(), ASKED, exports) if each.name.startswith("gguf")]
    assert list(target.ask(PROMPTS)) == [Heard([2, 9], "{}", [7])] * 2
    asked = [body for path, body in server.asked if path != "/tokenize"]
    assert [body.get("messages", [{}])[0].get("content") for body in asked] == ["number 0", None, "number 1", None]
    assert [body["n_predict"] for body in asked if "n_predict" in body] == [12, 12]
    assert server.started == [((exports / "gguf" / "a-F16.gguf", 0, 1, 512, 3), {"warmup": False})]


def test_an_endpoint_is_asked_all_prompts_at_once(exports, monkeypatch):
    class Endpoint:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            asked.append("closed")

        def ask(self, *given):
            asked.append(given)
            return [SimpleNamespace(reply=SimpleNamespace(prompt_tokens=i, content=f"{i}")) for i in range(2)]

    asked, settings = [], default_settings(endpoint="http://h:1")
    monkeypatch.setattr(targets, "open_endpoint", lambda given: Endpoint() if given is settings.endpoint else None)
    *_, target = find_targets(settings, ASKED, exports)
    assert target.ask(PROMPTS) == [Heard(0, "0"), Heard(1, "1")]
    assert asked == [(["number 0", "number 1"], 12, 512), "closed"]


@pytest.fixture
def merged(server, monkeypatch, tmp_path):
    """A merged student whose tokenizer knows two texts, and a quantizer that writes ten bytes."""
    monkeypatch.setattr(gguf_trial, "has_llamacpp", lambda: True)
    monkeypatch.setattr(gguf_trial, "probe_texts", lambda: {"spaces": "a b", "signs": "<>"})
    monkeypatch.setattr(gguf_trial, "write_gguf", lambda student, path, *given: path.write_bytes(b"x" * 10) and given)
    monkeypatch.setattr(gguf_trial, "read_header", lambda path: None)
    server.replies = {"/apply-template": {"prompt": "<two>"}, "/tokenize": {"tokens": [2, 9]}}
    server.replies["/completion"] = {"content": "{}", "tokens": [7]}
    monkeypatch.setattr(
        gguf_trial, "grade_answer", lambda prompt, text, asked, ids: gguf_trial.Answered(text, 5, tuple(ids))
    )
    source = SimpleNamespace(settings=ASKED, run="mine", base_licence="mit", base_record=None)
    student = SimpleNamespace(tokenizer=lambda text: {"input_ids": {"a b": [2, 9], "<>": [3]}[text]})
    prompts = [SimpleNamespace(text="two", ids=[2, 9], request=None)]
    answers = [gguf_trial.Answered("{}", 5)]
    return SimpleNamespace(source=source, student=student, prompts=prompts, adapter_answers=answers)


def test_a_gguf_file_is_asked_in_llama_cpp_and_what_its_tokenizer_reads_otherwise_is_named(merged, server, tmp_path):
    tried = gguf_trial.make_gguf(merged, tmp_path / "mine-F16.gguf", "F16")
    assert tried.facts["tried_by"] == "by llama.cpp" and tried.facts["tokenizer_differs_on"] == ["signs"]
    assert tried.facts["tried"]["same_answer_as_adapter"]["k"] == 1 == tried.facts["tried"]["prompts"]
    (line,) = tried.lines
    assert line.startswith("mine-F16.gguf: of 1 test prompts 1 answered validly") and line.endswith("; by llama.cpp")
    assert ("/completion", 12, [2, 9]) in [(p, b.get("n_predict"), b.get("prompt")) for p, b in server.asked]
    server.replies["/tokenize"] = {"tokens": [9]}
    merged.prompts[0].request = SimpleNamespace(query="two")
    with pytest.raises(
        UserError, match=r"^mine-F16.gguf: its prompt has 1 token ids and the student's 2; from token 0"
    ):
        gguf_trial.make_gguf(merged, tmp_path / "mine-F16.gguf", "F16")


@pytest.mark.parametrize(
    ("kind", "of_base", "warned"),
    [("Q4_K_M", "Q4_K_M", True), ("Q4_K_M", "Q8_0", False), ("Q8_0", "Q8_0", False), ("F16", "F16", False)],
)
def test_a_base_of_the_same_quantization_is_warned_of(kind, of_base, warned, merged, tmp_path):
    merged.source.base_record = SimpleNamespace(quantization=of_base)
    lines = gguf_trial.make_gguf(merged, tmp_path / "a.gguf", kind).lines
    assert (len(lines) == 2) == warned and (f"was dequantized from {kind}" in lines[-1]) == warned


def test_each_type_of_file_is_made_once_with_its_size_and_how_to_serve_it(merged, tmp_path):
    made = gguf_trial.export_gguf(merged, tmp_path, default_settings(gguf_types=["F16", "Q8_0", "F16"]))
    assert {name: (facts["type"], facts["bytes"]) for name, facts in made.facts["gguf"].items()} == {
        "mine-F16.gguf": ("F16", 10),
        "mine-Q8_0.gguf": ("Q8_0", 10),
    }
    assert [line.partition(":")[0] for line in made.lines] == ["mine-F16.gguf", "mine-Q8_0.gguf"]
    assert made.usage.startswith("`llama-server -m mine-F16.gguf -c 512 --temp 0` of llama.cpp")
