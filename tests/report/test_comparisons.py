"""Students on the same prompts: what was fixed and broken, against whom, and whether chance would do it."""

import pytest

from schema_student.core.records import EvaluationRow
from schema_student.core.statistics import holm, paired_difference, sign_test, smallest_difference
from schema_student.report.comparisons import compare_students, count_transitions, find_origin, find_transitions


def row(query, passed, schema_id="s"):
    known = {"split": "test_seen", "current_date": "2026-01-01", "raw_output": "{}", "rank": 5 if passed else 4}
    return EvaluationRow(schema_id=schema_id, query=query, semantic_pass=passed, **known)


def student(key, passed=(), stage="same"):
    rows = [row(str(i), each) for i, each in enumerate(passed)]
    return {"key": key, "keys": [key], "label": key, "stage": key if stage == "same" else stage, "rows": rows}


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


def test_a_line_has_difference_intervals_and_what_a_test_shows():
    before = [row(str(i), i < 20, f"schema {i % 4}") for i in range(40)]
    after = [row(str(i), i < 28 and i > 1, f"schema {i % 4}") for i in range(40)]
    (line,) = count_transitions(before, after, [])
    assert (line["fixed"], line["broken"], line["n"]) == (8, 2, 40)
    assert line["difference"] == paired_difference(8, 2, 40) and line["p"] == sign_test(8, 2)
    assert line["smallest"] == smallest_difference(40, 0.25)
    assert line["by_schema"]["schemas"] == 4 and line["by_schema"]["low"] < 0.15 < line["by_schema"]["high"]


def test_each_student_is_compared_with_what_it_was_made_of():
    students = [student("base"), student("mine", stage=None), student("sft-checkpoint-80", stage=None), student("sft")]
    students += [student("rloo"), student("dpo"), student("dpo-constrained", stage=None), student("control")]
    found = {each["key"]: find_origin(each, students[:i]) for i, each in enumerate(students)}
    assert {key: origin and origin["key"] for key, origin in found.items()} == {
        "base": None,
        "mine": "base",
        "sft-checkpoint-80": "base",
        "sft": "base",
        "rloo": "sft",
        "dpo": "rloo",
        "dpo-constrained": "dpo",
        "control": "sft",
    }
    longer = student("sft-checkpoint-80-constrained", stage=None)
    assert find_origin(longer, students[:4])["key"] == "sft-checkpoint-80"


def test_the_last_link_is_held_against_the_control():
    passed = {"sft": [0, 0, 0, 1], "rloo": [1, 1, 1, 1], "dpo": [1, 1, 0, 0], "control": [1, 0, 1, 1]}
    students = [student(key, map(bool, right)) for key, right in passed.items()]
    *_, last = compare_students(students, [])
    assert (last["of"], last["key"]) == ("control", "dpo")
    assert (last["lines"][0]["fixed"], last["lines"][0]["broken"]) == (1, 2)
    assert ("control", "dpo") not in [(each["of"], each["key"]) for each in compare_students(students[:3], [])]


def test_p_values_of_several_comparisons_are_corrected():
    none, some, most = [False] * 40, [True] * 8 + [False] * 32, [True] * 16 + [False] * 24
    found = compare_students([student("base", none), student("sft", some), student("dpo", most)], ["test_seen"])
    assert [(each["of"], each["key"]) for each in found] == [("base", "sft"), ("sft", "dpo")]
    assert [each["corrected"] for each in found] == pytest.approx(holm([sign_test(8, 0)] * 2))
    assert [line["split"] for line in found[0]["lines"]] == ["test_seen", "all"]
    assert [
        each["corrected"] for each in compare_students([student("base", none), student("sft", some)], ["none"])
    ] == [
        sign_test(8, 0)  # that of all prompts, not of a split
    ]
