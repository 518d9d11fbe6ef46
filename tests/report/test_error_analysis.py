"""Where answers fail: faults by keyword and path, examples."""

import json
from dataclasses import replace

from schema_student.core.records import EvaluationRow
from schema_student.report.error_analysis import (
    describe_faults,
    differing_paths,
    find_failures,
    list_weakest,
    pick_examples,
    tabulate_failures,
    tabulate_groups,
)
from schema_student.schema.canonical import canonical
from schema_student.schema.structure import general_pointer


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


def test_faults_are_named_by_keyword_and_general_pointer():
    twice = [{"path": f"/steps/{i}/name", "keyword": "type", "message": "no"} for i in (0, 11)]
    assert find_failures(row("q", False, schema_valid=False, rank=1, violations=twice)) == [("type", "/steps/*/name")]
    assert find_failures(row("q", False, parsed=False, rank=0)) == [("not JSON", "")]
    assert find_failures(row("q", False, parsed=False, rank=0, truncated=True)) == [("cut off", "")]
    assert find_failures(row("q", False, student_canonical='{"a":2}')) == [("not as asked", "/a")]
    assert find_failures(row("q", True)) == []
    unknown = {"student_canonical": None, "target_canonical": None, "target": None}
    assert find_failures(replace(row("q", False), **unknown)) == [("not as asked", "")]
    assert find_failures(replace(row("q", False), **unknown, semantic_pass=None)) == []
    assert find_failures(row("q", False)) == [("not as asked", "/prompt")]  # it means the same in other words
    refused = {"student_canonical": '{"refusal":1}', "target_canonical": '{"refusal":1}', "target": {"refusal": 1}}
    assert find_failures(row("q", False, **refused)) == [("not as asked", "/refusal/reason")]


def test_the_table_of_faults_puts_those_of_the_last_student_first():
    bad = row("q", False, parsed=False, rank=0)
    table = tabulate_failures(
        [student("base", [bad] * 3), student("sft", [row("q", False, student_canonical='{"a":2}')])]
    )
    assert [(line["keyword"], line["counts"]) for line in table] == [("not as asked", [0, 1]), ("not JSON", [3, 0])]


def test_differing_paths_name_what_is_missing_and_what_differs():
    assert list(differing_paths({"a": [1, 2], "b": 1}, {"a": [1, 3], "c": 1})) == ["/a/1", "/b", "/c"]
    assert list(differing_paths([1], [1, 2])) == [""]
    assert list(differing_paths(True, 1)) == [""]


def test_conditions_are_compared_by_their_field_wherever_they_stand():
    def meaning(*conditions):
        named = [dict(zip(("field", "operator", "value"), condition, strict=True)) for condition in conditions]
        return json.loads(canonical({"steps": [{"name": "s", "conditions": named}]}, {"x-dsl": "query"}))

    def paths(ours, target):
        return {general_pointer(path) for path in differing_paths(ours, target)}

    price, city, star = ("price", "above", 3), ("city", "is", "Lyon"), ("star", "is", 4)
    where = "/steps/*/conditions"
    assert paths(meaning(city, ("price", "above", 30)), meaning(price, city)) == {f"{where}/*/value"}
    assert paths(meaning(("aaa", "is", "Lyon"), price, star), meaning(city, price, star)) == {f"{where}/*/field"}
    assert paths(meaning(city, price, star), meaning(price, star)) == {where}
    assert paths(meaning(price), meaning(price, star)) == {where}


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


def test_schemas_of_which_the_largest_share_fails_come_first():
    right = {"half": [True, True, False, False], "two": [False] * 2, "none": [True] * 2, "four": [False] * 4}
    rows = [row(str(i), passed, schema_id=name) for name, some in right.items() for i, passed in enumerate(some)]
    found = [(each["schema_id"], each["failed"], each["asked"]) for each in list_weakest(student("sft", rows))]
    assert found == [("four", 4, 4), ("two", 2, 2), ("half", 2, 4)]
    assert list_weakest(student("sft", rows), most=1)[0]["split"] == "test_seen"


def test_groups_have_the_share_of_known_verdicts():
    rows = [row(str(i), passed, kind="no_field", language="fr") for i, passed in enumerate([True, None, False, False])]
    rows.append(row("q", True, kind="answerable"))
    found = tabulate_groups([student("sft", rows), student("dpo", rows[:1])], ("kind", "language"))
    assert [each["group"] for each in found] == [["answerable"], ["no field", "fr"]]
    assert [[(share["k"], share["n"]) for share in each["shares"]] for each in found] == [
        [(1, 1), (0, 0)],
        [(1, 3), (1, 1)],
    ]


def test_examples_are_of_the_last_student_that_fails_so_and_evenly_spread():
    base, sft = (student(key, [row(str(i), False) for i in range(5)]) for key in ("base", "sft"))
    (kind,) = pick_examples([base, sft])
    assert (kind["of"], kind["count"]) == ("the sft student", 5)
    assert len(kind["prompts"]) == 2 and len(pick_examples([base], each=4)[0]["prompts"]) == 4


def test_an_answer_that_is_valid_but_wrong_has_the_teachers_reason():
    assert describe_faults(row("q", False, teacher_reason="the date is missing")) == ["the date is missing"]
    assert describe_faults(row("q", False)) == ["not what the target means"]
    broken = [{"path": "", "keyword": "type", "message": "no object"}]
    assert describe_faults(row("q", False, schema_valid=False, violations=broken)) == ["/  type: no object"]
    assert describe_faults(row("q", True)) == []
