"""How far the teacher's requests are from the user's own, by a hand count."""

import json

import pytest

from schema_student.core.records import DatasetRow
from schema_student.data.likeness import LEAST, compare_with_own, say_far

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "object", "properties": {"c": {"type": "string"}}}},
    "required": ["a"],
}


def rows(source, query, answer, n=LEAST, split="train"):
    return [
        DatasetRow(
            schema_id="s",
            schema_json=json.dumps(SCHEMA),
            query=query.format(i=i),
            current_date="2026-01-01",
            is_valid=True,
            ast_json=json.dumps(answer),
            split=split,
            source=source,
        )
        for i in range(n)
    ]


def test_measures_are_counted():
    mine = rows("user", "take 5 for {i}", {"a": 5})
    theirs = rows("teacher", "please take number 5 with b of c Oslo for {i}", {"a": 5, "b": {"c": "Oslo"}})
    found = compare_with_own(mine + theirs)
    assert found["own"]["median_words"] == 4 and found["teacher"]["median_words"] == 11
    # own: optional at the top level alone, b: 0 of 1; teacher: b and c: 2 of 2
    assert (found["own"]["optional_share"], found["teacher"]["optional_share"]) == (0.0, 1.0)
    assert (found["own"]["values_said"], found["teacher"]["values_said"]) == (1.0, 1.0)
    assert found["own"]["distinct_words"] == round((3 + LEAST - 1) * 2000 / (4 * LEAST))  # 5 is among 0 to 19
    assert set(found["far"]) >= {"median_words", "optional_share"}
    sentences = say_far(found)
    assert "the teacher's requests are unlike your own: words of a request (median) 11, yours 4" in sentences


def test_values_that_nobody_said_are_counted():
    mine = rows("user", "take 5 for {i}", {"a": 5})
    theirs = rows("teacher", "take some for item", {"a": 77})
    found = compare_with_own(mine + theirs)
    assert found["teacher"]["values_said"] == 0.0 and "values_said" in found["far"]
    said = rows("teacher", "take 5 for {i}", {"a": 5})[:1]
    assert LEAST == 20 and compare_with_own(mine + theirs + said)["teacher"]["values_said"] == 0.048  # 1 of 21


def test_the_same_requests_are_not_far():
    found = compare_with_own(rows("user", "take 5 for {i}", {"a": 5}) + rows("teacher", "take 5 for {i}", {"a": 5}))
    assert found["far"] == [] and say_far(found) == []


@pytest.mark.parametrize("split", ["test_seen", "train"])
def test_tests_and_too_few_rows_are_no_comparison(split):
    n = LEAST if split == "test_seen" else LEAST - 1
    assert compare_with_own(rows("user", "take {i}", {"a": 5}, n, split) + rows("teacher", "x", {"a": 5})) == {}
