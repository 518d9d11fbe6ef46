"""A run's test requests as lm-evaluation-harness and promptfoo read them: the same prompts, and the same judge."""

import importlib.util
import json

import exports
import pytest
import yaml
from jinja2 import Template

from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.deploy.export import export_student
from schema_student.deploy.harnesses import escape_template
from schema_student.schema.prompts import render_prompt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folders of both kinds, of a run with six test requests."""
    settings = exports.write_run(tmp_path_factory.mktemp("run")).changed(kind=["lm-eval", "promptfoo"])
    return export_student(settings)


def load_judging(folder):
    spec = importlib.util.spec_from_file_location("judging", folder / "judging.py")
    judging = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judging)
    return judging


class Tagged(yaml.SafeLoader):
    """Reads the tag that names a function as the harness does: module.name."""


Tagged.add_constructor("!function", lambda loader, node: node.value)


def test_the_task_has_the_run_s_prompts_and_names_its_functions(made):
    metrics = [
        {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("schema_valid", "as_asked")
    ]
    assert yaml.load((made[0] / "task.yaml").read_text(), Tagged) == {
        **{"task": "schema_student_student", "custom_dataset": "judging.load", "test_split": "test"},
        **{"output_type": "generate_until", "doc_to_text": "{{prompt}}", "doc_to_target": "{{target}}"},
        **{"process_results": "judging.judge_answer", "metric_list": metrics, "metadata": {"version": 1}},
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 12},
    }
    address = "http://127.0.0.1:8000/v1/chat/completions"
    command = f"lm_eval --model local-chat-completions --model_args model=student,base_url={address},num_concurrent=8 "
    command += "--tasks schema_student_student --include_path . --apply_chat_template"
    card = (made[0] / "README.md").read_text()
    assert command in card and "\n- 6 test requests of the run\n" in card
    facts = read_json(made[0] / "export.json")
    assert (facts["tried"], facts["requests"], facts["kind"]) == (None, 6, "lm-eval")
    documents = read_jsonl(made[0] / "requests.jsonl")
    assert len(documents) == 6 and documents[3]["prompt"] == render_prompt(exports.SCHEMA, "number 3", "2026-01-31")
    known = {"split": "test_seen", "schema_json": json.dumps(exports.SCHEMA), "target": '{"n": 3}', "accepted": "null"}
    assert documents[3] == {"prompt": documents[3]["prompt"], **known}


def test_its_judge_is_that_of_evaluate(made):
    pytest.importorskip("datasets")
    judging = load_judging(made[0])
    document = judging.load(anything=1)["test"][2]
    judged = {text: judging.judge_answer(document, [text]) for text in ('{"n": 2}', '{"n": 3}', '{"n": "2"}', "two")}
    assert [(*each.values(),) for each in judged.values()] == [(1, 1), (1, 0), (0, 0), (0, 0)]
    assert judging.judge_answer({**document, "target": "null"}, ['{"n": 2}']) == {"schema_valid": 1}
    assert {
        metric["metric"] for metric in yaml.load((made[0] / "task.yaml").read_text(), Tagged)["metric_list"]
    } == set(judged["two"])


def test_promptfoo_has_each_request_judged_as_evaluate_does(made):
    config = read_json(made[1] / "promptfooconfig.json")
    tests = config.pop("tests")
    asked = {"apiBaseUrl": "http://127.0.0.1:8000/v1", "apiKey": "none", "temperature": 0, "max_tokens": 12}
    assert config == {
        "description": "test requests of the run student",
        "prompts": ["{{prompt}}"],
        "providers": [{"id": "openai:chat:student", "config": asked}],
    }
    known = {"schema": exports.SCHEMA, "target": {"n": 5}, "accepted": None}
    check = {"type": "python", "value": "file://judging.py", "config": known}
    assert len(tests) == 6 and tests[5] == {
        "description": "number 5",
        "vars": {"prompt": render_prompt(exports.SCHEMA, "number 5", "2026-01-31")},
        "assert": [check],
        "metadata": {"schema_id": "s", "split": "test_seen"},
    }
    command = "`PROMPTFOO_PYTHON=PYTHON npx promptfoo eval -c promptfooconfig.json`, PYTHON one that has this package."
    assert command in (made[1] / "README.md").read_text()
    judging = load_judging(made[1])
    for text, scores, passes in (('{"n": 5}', [1, 1], True), ('{"n": 4}', [1, 0], False), ("{", [0, 0], False)):
        judged = judging.get_assert(text, {"config": check["config"]})
        assert ([*judged["namedScores"].values()], judged["pass"], judged["score"]) == (scores, passes, passes)
    unknown = judging.get_assert('{"n": 4}', {"config": {**check["config"], "target": None}})
    assert unknown["pass"] and "as_asked" not in unknown["namedScores"]


def test_promptfoo_gets_what_stands_in_a_prompt_and_renders_none_of_it():
    text = 'a {{ 7*7 }} {% if x %}y {# c #} #} {% raw %} {{{ {"a": {"b": 1}}'
    assert Template(escape_template(text)).render() == text
    assert "#}" not in escape_template(text).replace('"#" }', "")


def test_the_requests_are_an_input_of_the_export(made):
    meta = read_json(made[0].with_name("lm-eval.meta.json"))
    assert any("d_03_dataset" in name for name in meta["inputs"])
