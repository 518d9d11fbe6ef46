"""A run's test requests as lm-evaluation-harness and promptfoo read them: the same prompts, and the same judge."""

import importlib.util
import json

import exports
import pytest
import yaml

from schema_student.core.jsonl import read_json, read_jsonl
from schema_student.deploy.export import export_student
from schema_student.schema.prompts import render_prompt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folders of both kinds, of a run with six test requests."""
    settings = exports.write_run(tmp_path_factory.mktemp("run")).changed(kind=["lm-eval", "promptfoo"])
    return export_student(settings)


class Tagged(yaml.SafeLoader):
    """Reads the tag that names a function as the harness does: module.name."""


Tagged.add_constructor("!function", lambda loader, node: node.value)


def test_the_task_has_the_run_s_prompts_and_names_its_functions(made):
    task = yaml.load((made[0] / "task.yaml").read_text(), Tagged)
    assert (task["custom_dataset"], task["process_results"]) == ("judging.load", "judging.judge_answer")
    assert task["task"] == "schema_student_student" and task["generation_kwargs"]["max_gen_toks"] == 12
    documents = read_jsonl(made[0] / "requests.jsonl")
    assert len(documents) == 6 and documents[3]["prompt"] == render_prompt(exports.SCHEMA, "number 3", "2026-01-31")
    assert all(isinstance(value, str) for document in documents for value in document.values())


def test_its_judge_is_that_of_evaluate(made):
    pytest.importorskip("datasets")
    spec = importlib.util.spec_from_file_location("judging", made[0] / "judging.py")
    judging = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judging)
    document = judging.load(anything=1)["test"][2]
    judged = {text: judging.judge_answer(document, [text]) for text in ('{"n": 2}', '{"n": 3}', '{"n": "2"}', "two")}
    assert [(*each.values(),) for each in judged.values()] == [(1, 1), (1, 0), (0, 0), (0, 0)]
    assert {
        metric["metric"] for metric in yaml.load((made[0] / "task.yaml").read_text(), Tagged)["metric_list"]
    } == set(judged["two"])


def test_promptfoo_checks_the_schema_and_the_target_of_each_request(made):
    config = read_json(made[1] / "promptfooconfig.json")
    (provider,) = config["providers"]
    assert provider["id"] == "openai:chat:student" and provider["config"]["temperature"] == 0
    test = config["tests"][5]
    assert (
        test["vars"]["prompt"] == render_prompt(exports.SCHEMA, "number 5", "2026-01-31") and len(config["tests"]) == 6
    )
    valid, equal = test["assert"]
    assert valid["value"]["required"] == ["n"] and equal["value"] == {"n": 5} and "{{" not in json.dumps(test)


def test_the_requests_are_an_input_of_the_export(made):
    meta = read_json(made[0].with_name("lm-eval.meta.json"))
    assert any("d_03_dataset" in name for name in meta["inputs"])
