"""Which requests and answers become rows, and why others do not: each reason, by a hand-made candidate."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from schema_examples import QUERY_SCHEMA, condition, query

from schema_student.data.collector import Candidate, Collector, Disagreement, agree
from schema_student.data.dataset import count_rows
from schema_student.data.dedup import RequestIndex
from schema_student.data.quotas import Quota
from schema_student.data.sources import Source
from schema_student.teacher.faults import TeacherFailure

PLAIN = Source(
    "p", "places", [], {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}
)
DSL = Source("q", "things", [{"const": "is", "canonical": "equals"}], QUERY_SCHEMA)
RED = query(condition("color", "is", "red"))
REFUSED = {"prompt": "p", "refusal": {"reason": "no field for moon", "suggestion": "ask by color"}}


def collector(written=(), **facts):
    appended = []
    made = Collector(SimpleNamespace(append=appended.append), RequestIndex(0.0, 0), {*written}, **facts)
    return made, appended


def candidate(answer, query="take 5", schema=PLAIN, kind="answerable", **facts):
    return Candidate(Quota(schema, "train", kind, "en"), query, "2026-01-31", answer, **{"teacher_model": "m", **facts})


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_rows_are_counted_by_split():
    made, _ = collector()
    for answer, text, schema, facts in (
        ({"a": 5}, "one", PLAIN, {"source": "user"}),
        (REFUSED, "two", DSL, {"source": "user"}),
        (RED, "three", DSL, {}),
    ):
        assert made.add(candidate(answer, text, schema, **facts))
    none = dict.fromkeys(("schemas", "rows", "refusals", "french", "own"), 0)
    french = replace(made.rows[2], split="test_seen", language="fr")
    assert count_rows([*made.rows, french]) == {
        "train": {"schemas": 2, "rows": 3, "refusals": 1, "french": 0, "own": 2},
        "validation": none,
        "alignment": none,
        "test_seen": {"schemas": 1, "rows": 1, "refusals": 0, "french": 1, "own": 0},
        "test_unseen": none,
    }


def test_a_valid_answer_is_a_row_with_its_keys_in_order():
    made, appended = collector()
    assert made.add(candidate({"b": [1.0], "a": 5}, accepted={"a": [5]}))
    (row,) = made.rows
    assert appended == [row.as_json()] and made.rejected == []
    assert row.as_json() == {
        **{"schema_id": "p", "domain": "places", "operators": [], "schema_json": json.dumps(PLAIN.schema)},
        **{"query": "take 5", "current_date": "2026-01-31", "ast_json": '{"a":5,"b":[1.0]}', "is_valid": True},
        **{"validation_error": None, "error_type": None, "teacher_model": "m", "split": "train", "language": "en"},
        **{"kind": "answerable", "accepted": {"a": [5]}, "source": "teacher"},
    }


def test_a_row_that_is_on_disk_is_kept_and_not_written_again():
    made, appended = collector([("p", "take 5")])
    assert made.add(candidate({"a": 5})) and made.add(candidate({"a": 6}, "take 6"))
    assert len(made.rows) == 2 and [row["query"] for row in appended] == ["take 6"]


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        (candidate(TeacherFailure("answer", "tired")), "no_answer", "tired"),
        (candidate(Disagreement("1 of 2")), "disagreement", "1 of 2"),
        (candidate({"a": "5"}), "type", '/a: "5" is not of type "integer"'),
        (candidate({}), "required", '/: "a" is a required property'),
        (candidate({"a": 7}), "ungrounded", "/a: nothing in the request gives 7"),
        (candidate({"a": 5, "b": nested(201)}), "not_json", "nested deeper than 200"),
        (candidate({"a": 5, "b": "caf\u00e9"}), "ungrounded", '/b: nothing in the request gives "caf\u00e9"'),
        (
            candidate({"a": 5}, "take 5 of 'Blue Bird'"),
            "ignored",
            "nothing in the answer takes up Blue Bird of the request",
        ),
        (candidate({"a": 5}, "take 5 and 9, 8"), "ignored", "nothing in the answer takes up 9, 8 of the request"),
        (candidate(REFUSED, schema=DSL), "refused", "a request meant to be answerable was refused"),
        (
            candidate(RED, "red", DSL, "missing_field"),
            "not_refused",
            "a request of kind missing_field was answered",
        ),
        (
            candidate({**REFUSED, "refusal": {"reason": "r", "suggestion": "by moon"}}, "x", DSL, "missing_field"),
            "suggestion",
            "the suggestion names no field of the schema, so it cannot be answered",
        ),
        (candidate(RED, "blue", DSL), "ungrounded", '/steps/0/conditions/0/value: nothing in the request gives "red"'),
        (candidate(RED, "red 9", DSL), "ignored", "nothing in the answer takes up 9 of the request"),
    ],
)
def test_what_is_wrong_with_an_answer_is_kept_with_its_reason(given, error, reason):
    made, appended = collector(check_grounding=True)
    assert not made.add(given)
    (row,) = made.rejected
    assert (row.error_type, row.validation_error, row.is_valid) == (error, reason, False)
    assert made.rows == appended == [] and made.reasons() == {error: 1}
    failed = isinstance(given.answer, (TeacherFailure, Disagreement))
    assert (row.ast_json is None) == failed and row.query == given.query


def test_of_a_refusal_nothing_is_grounded_and_an_ast_has_the_prompt_as_it_was_written():
    made, _ = collector(check_grounding=True)
    assert made.add(candidate(REFUSED, "moons of 9", DSL, "missing_field"))
    assert made.add(candidate({**RED, "prompt": "garbled"}, "the red ones", DSL))
    assert [row.target["prompt"] for row in made.rows] == ["moons of 9", "the red ones"]
    assert [row.kind for row in made.rows] == ["missing_field", "answerable"]


def test_what_the_user_gave_is_taken_as_it_is_but_not_twice():
    made, _ = collector(check_grounding=True)
    user = {"teacher_model": "user", "source": "user"}
    assert made.add(candidate({"a": 7}, "take some", **user))
    unhelpful = {**REFUSED, "refusal": {"reason": "r", "suggestion": "by moon"}}
    assert made.add(candidate(unhelpful, "by moon", DSL, **user)) and made.rows[1].kind == "refusal"
    assert made.rows[1].target["prompt"] == "p"
    assert not made.add(candidate({"a": 7}, "Take  some.", **user))
    assert made.reasons() == {"duplicate": 1}


def test_a_model_may_refuse_what_the_user_asked():
    made, _ = collector()
    assert made.add(candidate(REFUSED, "by moon", DSL, source="user")) and made.rows[0].kind == "refusal"


def test_requests_that_are_new_are_taken_up_to_a_number():
    made, _ = collector()
    quota = Quota(PLAIN, "train", "answerable", "en")
    asked = [
        " one ",
        "One!",
        "?",
        "",
        '{"a": 5}',
        "[1]",
        "[not JSON",
        "f(a=5)",
        "shop.f(a = 5, b = 6)",
        "f(5)",
        "two",
        "three",
    ]
    assert made.deduplicate(asked, quota, "2026-01-31", 4) == ["one", "[not JSON", "f(5)", "two"]
    assert [(row.query, row.error_type) for row in made.rejected] == [
        *(("One!", "duplicate"), ('{"a": 5}', "not_words"), ("[1]", "not_words"), ("f(a=5)", "not_words")),
        ("shop.f(a = 5, b = 6)", "not_words"),
    ]
    assert made.reasons() == {"not_words": 4, "duplicate": 1} and list(made.reasons()) == ["not_words", "duplicate"]
    assert {row.validation_error for row in made.rejected} == {
        "this request stands there already",
        "the request is JSON instead of plain words",
        "the request is a call with arguments instead of plain words",
    }
    assert {(row.teacher_model, row.source, row.current_date) for row in made.rejected} == {
        (None, "teacher", "2026-01-31")
    }
    assert made.is_new("four", quota) and not made.is_new("Four.", quota) and not made.is_new("two", quota)


def test_independent_answers_agree_where_all_mean_the_same():
    failure = TeacherFailure("answer", "tired")
    assert agree([failure], {}) is failure and agree([{"a": 1}], {}) == {"a": 1}
    assert agree([{"a": 1}, failure, {"a": 2}], {}) is failure
    first = {"a": 1}
    assert agree([first, {"a": 1.0}], {}) is first
    said = '2 of 3 answers: {"a":2}; 1 of 3 answers: {"a":1}'
    assert agree([{"a": 1}, {"a": 2}, {"a": 2}], {}) == Disagreement(said)
