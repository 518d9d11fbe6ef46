"""What of a language model's answers is rejected: invented values, and answers that do not agree."""

import json

import pytest

from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.data.collector import Disagreement, agree
from schema_student.data.dataset import rejected_path, write_dataset
from schema_student.teacher.faults import TeacherFailure
from tests.support.fake_ollama import after_probe, fake_ollama

SCHEMA = {
    "type": "object",
    "properties": {"base": {"type": "integer"}, "height": {"type": "integer"}},
    "required": ["base", "height"],
    "additionalProperties": False,
}
QUERIES = ["a triangle with base 3 and height 4", "the area of a triangle given its base and height"]


def made_by(chat, folder, **changes):
    """Rows and rejected rows of one schema whose two requests a model answers."""
    rows = [{"schema_id": "triangle", "schema": SCHEMA, "query": query} for query in QUERIES]
    rows.append(
        {"schema_id": "triangle", "schema": SCHEMA, "query": "base 7, height 8", "answer": {"base": 7, "height": 8}}
    )
    write_jsonl(folder / "own.jsonl", rows)
    with fake_ollama(after_probe(chat)) as fake:
        settings = default_settings(
            output_dir=str(folder),
            schemas=str(folder / "own.jsonl"),
            teacher_model="m:1",
            teacher_host=[fake.host],
            base_model="embedded",
            **{"train_queries": 1, "pair_queries": 0, "eval_queries": 1, **changes},
        )
        made = read_jsonl(write_dataset(settings))
        rejected = read_jsonl(rejected_path(paths(settings).dataset))
    return {row["query"]: row for row in made}, {row["query"]: row for row in rejected}, fake


def answer_both(body, _):
    """The role of a request gets new ones; both of the user's requests get base 3 and height 4."""
    text = json.dumps(body["messages"])
    return (
        {"queries": ["base 11 and height 12"]}
        if "queries" in json.dumps(body.get("format"))
        else ({"base": 11, "height": 12} if "base 11" in text else {"base": 3, "height": 4})
    )


def test_an_answer_with_invented_values_is_rejected_and_counted(tmp_path):
    made, rejected, _ = made_by(answer_both, tmp_path)
    assert QUERIES[0] in made and QUERIES[1] not in made
    row = rejected[QUERIES[1]]
    assert row["error_type"] == "ungrounded"
    assert row["validation_error"] == "/base: nothing in the request gives 3"
    assert json.loads(row["ast_json"]) == {"base": 3, "height": 4}


@pytest.mark.parametrize("code", ['{"base": 11, "height": 12}', "triangle.area(base=11, height=12)"])
def test_a_request_that_is_json_or_a_call_is_rejected_and_one_with_brackets_is_not(code, tmp_path):
    words = ["[urgent] base 11 and height 12", "area (base = 21, height = 12) please"]

    def answer(body, _):
        found = answer_both(body, _)
        return {"queries": [code, *words]} if "queries" in found else found

    made, rejected, _ = made_by(answer, tmp_path, train_queries=3)
    assert rejected[code]["error_type"] == "not_words"
    assert words[0] in made and rejected.get(words[1], {}).get("error_type") != "not_words"


def test_an_answer_that_leaves_out_a_number_of_its_request_is_rejected(tmp_path):
    def answer(body, _):
        found = answer_both(body, _)
        return {"base": 3, "height": 3} if found.get("base") == 3 else found

    made, rejected, _ = made_by(answer, tmp_path)
    row = rejected[QUERIES[0]]
    assert (row["error_type"], row["validation_error"]) == (
        "ignored",
        "nothing in the answer takes up 4 of the request",
    )
    made, rejected, _ = made_by(answer, tmp_path / "off", teacher_grounding=False)
    assert QUERIES[0] in made


def test_grounding_can_be_left_out(tmp_path):
    made, rejected, _ = made_by(answer_both, tmp_path, teacher_grounding=False)
    assert set(QUERIES) <= made.keys() and not set(QUERIES) & rejected.keys()


@pytest.mark.parametrize(("agreement", "kept"), [(1, True), (2, False)])
def test_answers_that_do_not_agree_are_rejected_with_what_each_said(agreement, kept, tmp_path):
    def answer(body, _):
        """Where it is asked warm, for a second answer, it takes base for height."""
        found = answer_both(body, _)
        warm = body["options"]["temperature"] > 0
        return {"base": 4, "height": 3} if warm and found.get("base") == 3 else found

    made, rejected, fake = made_by(answer, tmp_path, teacher_agreement=agreement, teacher_grounding=False)
    assert (QUERIES[0] in made) == kept
    if not kept:
        assert rejected[QUERIES[0]]["error_type"] == "disagreement"
        said = '1 of 2 answers: {"base":3,"height":4}; 1 of 2 answers: {"base":4,"height":3}'
        assert rejected[QUERIES[0]]["validation_error"] == said
        seeds = {body["options"]["seed"] for body in fake.bodies if QUERIES[0] in json.dumps(body["messages"])}
        assert len(seeds) == 2


def test_agreement_is_of_meaning():
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 2}}}
    assert agree([{"n": 2}, {}], schema) == {"n": 2}
    assert isinstance(agree([{"n": 3}, {}], schema), Disagreement)
    failure = TeacherFailure("answer", "gone", "x")
    assert agree([{"n": 3}, failure], schema) is failure
