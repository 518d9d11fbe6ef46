"""A served student is evaluated by the same prompts and judge, under a name of its own; smoke says if it is well."""

import exports
import pytest
from fake_ollama import fake_ollama
from served import served

from schema_student.cli.main import VERBS
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.core.paths import evaluated, paths
from schema_student.core.settings import default_settings
from schema_student.deploy.smoke import try_endpoint
from schema_student.evaluation import endpoint
from schema_student.evaluation.endpoint import Endpoint, open_endpoint
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.student.loading import Student, load_student
from schema_student.teacher.apis import Reply
from schema_student.teacher.faults import (
    AccessFault,
    ConnectFault,
    ContextFault,
    CutFault,
    DeadlineFault,
    MissingFault,
    ProtocolFault,
    RefusalFault,
    SilenceFault,
    TeacherError,
    TLSFault,
    TornFault,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return exports.write_run(tmp_path_factory.mktemp("run")).changed(judge_valid=False, max_new_tokens=12)


@pytest.fixture(scope="module")
def student(run):
    adapter = str(paths(run).sft_checkpoint)
    return load_student(run.changed(base_model=str(paths(run).run_dir.parents[2] / "base")), adapter=adapter)


def rows_of(settings):
    name, adapter = evaluated(settings)
    summary = evaluate_student(settings, name, adapter)
    return name, read_json(summary), read_jsonl(summary.with_name("evaluation_results.jsonl"))


def test_a_served_student_gets_the_rows_that_it_gets_here(run, student):
    base = run.changed(base_model=str(paths(run).run_dir.parents[2] / "base"), dtype="float32")
    _, _, here = rows_of(base.changed(eval_student="sft"))
    with served(student) as address:
        there = base.changed(endpoint=address)
        name, summary, rows = rows_of(there)
        assert name == f"student-endpoint-{address.split('//')[1].replace(':', '-')}"
        assert summary["student"] == f"student at {address}" and summary["adapter"] is summary["base"] is None
        known_here = {
            "seconds": 0,
            "read": False,
            "p_truth": None,
            "reference_logp": None,
            "reference_tokens": None,
            "log_p": None,
            "least_sure": [],
        }  # no server tells these
        assert rows and [{**row, **known_here} for row in rows] == [{**row, **known_here} for row in here]
        rows_of(there)  # done already
        with pytest.raises(UserError, match="--overwrite"):
            rows_of(there.changed(max_new_tokens=11))


def test_what_an_endpoint_has_not_got_is_refused(run):
    for wrong in ({"eval_student": "sft"}, {"adapter": "somewhere"}, {"decoding": "constrained"}):
        with pytest.raises(SettingsError, match="--endpoint"):
            evaluated(run.changed(endpoint="http://127.0.0.1:1", **wrong))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("openai", "--endpoint http://127.0.0.1:9 does not answer .*: start it, or name another --endpoint"),
        ("ollama", "--endpoint http://127.0.0.1:9: .*: start it"),
    ],
)
def test_an_endpoint_that_is_not_there_is_told_without_a_word_of_teachers(kind, said):
    settings = default_settings(endpoint="http://127.0.0.1:9", endpoint_kind=kind)
    with pytest.raises(UserError, match=said) as refused:
        try_endpoint(settings)
    assert "teacher" not in str(refused.value)


def test_an_answer_for_one_prompt_alone_is_missing_where_the_server_refuses_it(student):
    with served(student) as address, open_endpoint(default_settings(endpoint=address).endpoint) as opened:
        long, short = opened.ask(["long " * 1000, "short"], 4, 4096)
    assert "that fit" in long.fault and not long.reply.content and short.fault is None and short.reply.prompt_tokens


NOTHING, SAID = Reply("", "", 0, 0), Reply("{}", "", 7, 3)
URL = "http://here:1"


class StandIn:
    """A server with these models that answers, or fails, in turn; remembers what it was asked."""

    def __init__(self, *answers, models=None):
        self.answers, self.asked, self.there, self.closed = [*answers], [], models or {}, False

    def chat(self, *given):
        self.asked.append(given)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def models(self):
        return self.there

    def close(self):
        self.closed = True


def ask(server, *how):
    return list(Endpoint(URL, server, "m", {}).ask(["p"], 9, 64, *how))


@pytest.fixture
def slept(monkeypatch):
    """How long was slept, in seconds."""
    found = []
    monkeypatch.setattr(endpoint.time, "sleep", found.append)
    return found


def test_a_prompt_is_one_turn_greedy_or_sampled_with_a_seed():
    server = StandIn(SAID, SAID)
    (heard,) = ask(server)
    assert (heard.reply, heard.cut, heard.fault) == (SAID, False, None) and 0 <= heard.seconds < 60
    ask(server, 0.7, 0)
    turn, options = [{"role": "user", "content": "p"}], {"num_predict": 9, "num_ctx": 64}
    assert server.asked == [
        ("m", turn, None, {**options, "temperature": 0}, None),
        ("m", turn, None, {**options, "temperature": 0.7, "seed": 0}, None),
    ]


def test_what_can_pass_is_asked_three_times_and_nothing_else_twice(slept):
    assert ask(server := StandIn(TornFault("torn"), TornFault("torn"), SAID))[0].reply == SAID
    assert len(server.asked) == 3 and slept == [1.0, 1.0]
    with pytest.raises(UserError, match=f"^--endpoint {URL}: torn: see its log$"):
        ask(server := StandIn(*[TornFault("torn")] * 3, SAID))
    assert len(server.asked) == 3 and slept == [1.0] * 4
    with pytest.raises(UserError, match="no trust: see its log"):
        ask(StandIn(TLSFault("no trust"), SAID))
    with pytest.raises(UserError, match=r"^--endpoint: a proxy"):
        ask(StandIn(TeacherError("a proxy"), SAID))
    assert len(slept) == 4


def test_an_answer_that_is_cut_or_refused_is_that_of_its_prompt_alone():
    cut = CutFault("cut")
    cut.reply = Reply("{", "", 7, 9)
    heard = [ask(StandIn(each))[0] for each in (cut, CutFault("cut"), RefusalFault("no"), ContextFault("too long"))]
    assert [(each.reply, each.cut, each.fault) for each in heard] == [
        (cut.reply, True, None),
        (NOTHING, True, None),
        (NOTHING, False, "no"),
        (NOTHING, False, "too long"),
    ]
    assert all(0 <= each.seconds < 60 for each in heard)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (AccessFault, "set OPENAI_API_KEY"),
        (ConnectFault, "start it, or name another --endpoint"),
        (DeadlineFault, "it is too slow, or stuck: see its log"),
        (SilenceFault, "it is too slow, or stuck: see its log"),
        (MissingFault, "check --endpoint and --endpoint-kind"),
        (ProtocolFault, "check that --endpoint and --endpoint-kind name a model server"),
    ],
)
def test_a_fault_of_the_server_says_what_to_do(slept, fault, advice):
    with pytest.raises(UserError, match=f"^--endpoint {URL}: so: {advice}"):
        ask(StandIn(*[fault("so")] * 3))


def open_one(monkeypatch, models, **changes):
    server, given = StandIn(models=models), []
    monkeypatch.setattr(endpoint, "open_servers", lambda *how: given.append(how) or [server])
    with open_endpoint(default_settings(endpoint=URL, **changes).endpoint) as opened:
        assert opened.server is server and opened.url == URL and not server.closed
    (kind, (address,), limits), found = given[0], (opened.model, opened.identity)
    assert (kind, str(address)) == (opened.identity["kind"], URL) and server.closed
    assert (limits.silence, limits.deadline) == (120.0, 120.0)
    return found


def test_the_one_model_that_is_there_is_asked_and_of_several_the_one_that_is_named(monkeypatch):
    identity = {"kind": "openai", "model": "a", "digest": "1"}
    assert open_one(monkeypatch, {"a": "1"}) == ("a", identity)
    both = {"a": "1", "b": "2"}
    assert open_one(monkeypatch, both, endpoint_model="b", endpoint_kind="ollama") == (
        "b",
        {"kind": "ollama", "model": "b", "digest": "2"},
    )
    assert endpoint.identify_endpoint(default_settings(endpoint=URL, endpoint_model="a").endpoint) == identity
    for there, named, said in ((both, "", "a, b"), (both, "c", "a, b"), ({}, "", "no model")):
        with pytest.raises(UserError, match=f"^--endpoint {URL} has {said}: name one by --endpoint-model"):
            open_one(monkeypatch, there, endpoint_model=named)


def test_smoke_judges_three_requests_and_ends_with_1_where_none_is_valid(student, capsys):
    with served(Student.load("embedded"), slots=3) as address:
        VERBS["smoke"](["--endpoint", address])
        said = capsys.readouterr().out
        assert said.startswith("health: ok\nmodel: student\n") and "healthy" in said and "NOT" not in said
    with served(student) as address, pytest.raises(SystemExit) as left:
        VERBS["smoke"](["--endpoint", f"{address}/v1"])
    assert left.value.code == 1 and "0 of 3 answers are valid: NOT healthy" in capsys.readouterr().out


def test_smoke_asks_ollama_through_its_official_client(capsys):
    with fake_ollama(lambda body, number: '{"amount": 20, "currency": "yen"}') as fake:
        VERBS["smoke"](["--endpoint", fake.host, "--endpoint-kind", "ollama"])
    assert "model: m:1" in (said := capsys.readouterr().out) and "1 of 3 answers are valid: healthy" in said
    assert {body["options"]["temperature"] for body in fake.bodies} == {0}


def test_smoke_needs_an_endpoint():
    with pytest.raises(SettingsError, match="give --endpoint"):
        VERBS["smoke"]([])
