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
from schema_student.evaluation.endpoint import open_endpoint
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.student.loading import Student, load_student


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
    with served(student) as address, open_endpoint(default_settings(endpoint=address).endpoint) as endpoint:
        long, short = endpoint.ask(["long " * 1000, "short"], 4, 4096)
    assert "that fit" in long.fault and not long.reply.content and short.fault is None and short.reply.prompt_tokens


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
