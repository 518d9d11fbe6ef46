"""What differs between students on the same prompts: transitions, faults, examples."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.records import EvaluationRow
from schema_student.core.statistics import sign_test
from schema_student.report.error_analysis import (
    count_transitions,
    differing_paths,
    find_failures,
    find_transitions,
    general_path,
    pick_examples,
    tabulate_failures,
)
from schema_student.schema.canonical import canonical


def row(query, passed, **more):
    rank = 5 if passed else 4
    found = {
        "split": "test_seen",
        "schema_id": "s",
        "current_date": "d",
        "query": query,
        "semantic_pass": passed,
        "rank": rank,
    }
    found |= {"parsed": True, "schema_valid": True, "violations": [], "truncated": False, "parse_error": None}
    found |= {"student_canonical": '{"a":1}', "target_canonical": '{"a":1}', "target": {"a": 1}, "raw_output": "{}"}
    return EvaluationRow(**{**found, "prompt_text": "p", **more})


def student(key, rows):
    return {"key": key, "label": key, "who": f"the {key} student", "rows": rows}


def test_a_prompt_is_fixed_broken_right_twice_or_wrong_twice():
    before = [
        row("a", False),
        row("b", True),
        row("c", True),
        row("d", False),
        row("e", None),
        row("only before", True),
    ]
    after = [row("d", False), row("c", True), row("b", False), row("a", True), row("e", True)]
    found = find_transitions(before, after)
    assert {kind: [pair[0].query for pair in found[kind]] for kind in ("fixed", "broken", "right", "wrong")} == {
        "fixed": ["a"],
        "broken": ["b"],
        "right": ["c"],
        "wrong": ["d"],
    }


def test_the_share_of_failures_gone_is_net_of_what_was_broken():
    before = [row(str(i), False) for i in range(4)] + [row("x", True)]
    after = [row("0", True), row("1", True), row("2", False), row("3", False), row("x", False)]
    seen, total = count_transitions(before, after, ["test_seen"])
    assert seen["gone"] == total["gone"] == 0.25 and total["failures"] == 4
    assert count_transitions([row("x", True)], [row("x", True)], [])[0]["gone"] is None


def test_the_sign_test_gives_known_values():
    assert sign_test(8, 0) == pytest.approx(2 / 256)
    assert sign_test(5, 5) == 1.0 == sign_test(0, 0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_does_not_care_which_way(fixed, broken):
    assert sign_test(fixed, broken) == sign_test(broken, fixed)
    assert 0 < sign_test(fixed, broken) <= 1


def test_faults_are_named_by_keyword_and_general_path():
    twice = [{"path": f"/steps/{i}/name", "keyword": "type", "message": "no"} for i in (0, 11)]
    assert find_failures(row("q", False, schema_valid=False, rank=1, violations=twice)) == [("type", "/steps/*/name")]
    assert find_failures(row("q", False, parsed=False, rank=0)) == [("not JSON", "")]
    assert find_failures(row("q", False, parsed=False, rank=0, truncated=True)) == [("cut off", "")]
    assert find_failures(row("q", False, student_canonical='{"a":2}')) == [("not as asked", "/a")]
    assert find_failures(row("q", True)) == []


def test_the_table_of_faults_puts_those_of_the_last_student_first():
    bad = row("q", False, parsed=False, rank=0)
    table = tabulate_failures(
        [student("base", [bad] * 3), student("sft", [row("q", False, student_canonical='{"a":2}')])]
    )
    assert [(line["keyword"], line["counts"]) for line in table] == [("not as asked", [0, 1]), ("not JSON", [3, 0])]


def test_a_general_path_keeps_names_with_digits():
    assert general_path("/steps/0/line2/10/x") == "/steps/*/line2/*/x"


def test_differing_paths_name_what_is_missing_and_what_differs():
    assert list(differing_paths({"a": [1, 2], "b": 1}, {"a": [1, 3], "c": 1})) == ["/a/1", "/b", "/c"]
    assert list(differing_paths([1], [1, 2])) == [""]
    assert list(differing_paths(True, 1)) == [""]


def test_conditions_are_compared_by_their_field_wherever_they_stand():
    def meaning(*conditions):
        named = [dict(zip(("field", "operator", "value"), condition, strict=True)) for condition in conditions]
        return json.loads(canonical({"steps": [{"name": "s", "conditions": named}]}, {"x-dsl": "query"}))

    def paths(ours, target):
        return {general_path(path) for path in differing_paths(ours, target)}

    price, city, star = ("price", "above", 3), ("city", "is", "Lyon"), ("star", "is", 4)
    where = "/steps/*/conditions"
    assert paths(meaning(city, ("price", "above", 30)), meaning(price, city)) == {f"{where}/*/value"}
    assert paths(meaning(("aaa", "is", "Lyon"), price, star), meaning(city, price, star)) == {f"{where}/*/field"}
    assert paths(meaning(city, price, star), meaning(price, star)) == {where}


def test_an_answer_is_held_against_the_nearest_accepted_one():
    target, accepted = '{"a":1,"b":"m","c":2}', {"a": [1], "b": ["m", "metres"], "c": ["", 2]}
    ours = row("q", False, student_canonical='{"a":2,"b":"metres"}', target_canonical=target, accepted=accepted)
    assert find_failures(ours) == [("not as asked", "/a")]


def test_a_refusal_that_was_not_due_is_one_fault():
    wrong = row("q", False, student_canonical='{"refusal":true}', target_canonical='{"steps":[]}')
    assert find_failures(wrong) == [("not as asked", "/refusal")]


def test_examples_show_every_students_answer_to_the_same_prompt():
    base, sft = student("base", [row("q", False, rank=0, parsed=False)]), student("sft", [row("q", True)])
    (kind,) = pick_examples([base, sft])
    assert kind["of"] == "the base student"
    assert [answer["rank"] for answer in kind["prompts"][0]["answers"]] == [0, 5]
