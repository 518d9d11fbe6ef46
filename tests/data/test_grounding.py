"""Which values of an answer nobody gave: invented ones are found, those that a request gives are not."""

import json
from pathlib import Path

import pytest

from schema_student.data.grounding import ignored_parts, leave_out_unsaid, ungrounded_values

BFCL = Path(__file__).parents[2] / "examples" / "bfcl"

TRIANGLE = {
    "type": "object",
    "properties": {
        "base": {"type": "number"},
        "height": {"type": "number"},
        "unit": {"type": "string", "description": "Unit of the sides. Defaults to cm."},
        "round": {"type": "boolean"},
        "on": {"type": "string", "format": "date"},
        "city": {"type": "string"},
        "kind": {"enum": ["right_angled", "isosceles"]},
    },
}


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        ("a base of ten and height of 5", {"base": 10, "height": 5}),
        ("base 10,000 and height 2.50", {"base": 10000, "height": 2.5}),
        ("base 2 million, height twenty five", {"base": 2_000_000, "height": 25}),
        ("at a rate of 5%", {"base": 0.05}),
        ("at 5 percent", {"base": 5}),
        ("two hours", {"base": 120}),
        ("half a meter, i.e. 1/4 of that", {"base": 0.5, "height": 0.25}),
        ("the best one", {"base": 1}),
        ("until 11 PM", {"base": 23}),
        ("at -74.0060", {"base": -74.006}),
        ("a triangle", {"unit": "cm", "round": True}),
        ("on 3 May 2024", {"on": "2024-05-03"}),
        ("May 3rd, 2024", {"on": "2024-05-03"}),
        ("le 3 mai 2024", {"on": "2024-05-03"}),
        ("next Friday", {"on": "2026-01-09"}),
        ("all of 2023", {"on": "2023-12-31"}),
        ("in Zürich", {"city": "Zurich"}),
        ("around New York", {"city": "NY"}),
        ("in Denver, Colorado", {"city": "Denver, CO"}),
        ("a right angled one", {"kind": "right_angled"}),
        ("the area under 3x^2 + 2", {"kind": "3x**2 + 2"}),
        ("integrate x squared", {"kind": "x^2"}),
    ],
)
def test_what_a_request_gives_is_grounded(request_text, answer):
    assert ungrounded_values(request_text, answer, TRIANGLE) == []


@pytest.mark.parametrize(
    ("request_text", "answer", "path"),
    [
        ("Calculate the area of a triangle given its base and height.", {"base": 10, "height": 5}, "/base"),
        ("a base of ten", {"base": 10, "height": 6}, "/height"),
        ("How is the area calculated by the schema?", {"base": 1}, "/base"),
        ("a triangle in feet", {"unit": "parsec"}, "/unit"),
        ("a triangle from Rome", {"unit": "m"}, "/unit"),
        ("a triangle", {"on": "2024-05-03"}, "/on"),
        ("on 4 June 2024", {"on": "2024-05-03"}, "/on"),
        ("a triangle", {"city": "Paris"}, "/city"),
        ("a triangle", {"kind": "isosceles"}, "/kind"),
        ("sides of 3, 4", {"base": [3, 4, 8.5]}, "/base/2"),
        ("for Mary", {"owner": {"name": "John"}}, "/owner/name"),
        ("the area under the curve from 0 to 1", {"kind": "x^2"}, "/kind"),
        ("the area under 2y^2 from 0 to 1", {"kind": "2x**2"}, "/kind"),
    ],
)
def test_what_nobody_gave_is_found(request_text, answer, path):
    assert path in [found for found, _ in ungrounded_values(request_text, answer, TRIANGLE)]


@pytest.mark.parametrize(
    ("request_text", "answer", "ignored"),
    [
        ("the norm of (2, 3, 0)", {"x": 2, "y": 3}, ["0"]),
        ("12 eggs and 3 pumpkins", {"items": ["eggs", "pumpkins"], "quantity": [12]}, ["3"]),
        ("$1,500 for 'Blue Bird'", {"amount": 1500}, ["Blue Bird"]),
        ('the record of "Ann Lee"', {"name": "record"}, ["Ann Lee"]),
    ],
)
def test_what_an_answer_leaves_out_of_its_request_is_found(request_text, answer, ignored):
    assert ignored_parts(request_text, answer, TRIANGLE) == ignored


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        ("a base of 10,000 and 2.50 of height", {"base": 10000, "height": 2.5}),
        ("5% of 2 million", {"rate": 0.05, "of": 2_000_000}),
        ("open until 11 PM, for less than 30 dollars", {"hour": 23, "price": 29}),
        ("9.8 m/s^2 for a distance of 300 meters", {"acceleration": 9.8, "distance": 300}),
        ("3 nights from 1st June 2022", {"from": "2022-06-01", "to": "2022-06-04"}),
        ("C6H12O6 in 3D, case no. 12-345", {"formula": "C6H12O6", "case": "12345"}),
        ("the price of 'yen' near 'Madison, Wisconsin'", {"currency": "JPY", "city": "Madison, WI"}),
        ("set 'name' to 'John Doe'", {"name": "John Doe"}),
        ("'Give me the stock of Apple'", {"company": "Apple"}),
    ],
)
def test_what_is_answered_in_another_form_is_not_left_out(request_text, answer):
    assert ignored_parts(request_text, answer, TRIANGLE) == []


def test_what_describes_the_schema_is_no_value():
    assert ignored_parts("the risk of diabetes type 2", {}, {"description": "Risk of diabetes type 2."}) == []


@pytest.mark.parametrize("name", ["simple", "multiple"])
def test_right_answers_to_real_requests_leave_nothing_out(name):
    rows = map(json.loads, (BFCL / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    assert [row["query"] for row in rows if ignored_parts(row["query"], row["answer"], row["schema"])] == []


def test_of_accepted_answers_the_one_without_unsaid_values_is_chosen():
    accepted = {
        "days": [3],
        "unit": ["", "km"],
        "deep": ["", True],
        "kind": ["", "open"],
        "at": ["", 9.81],
        "sort": ["x"],
    }
    answer = {"days": 3, "unit": "km", "deep": True, "kind": "open", "at": 9.81, "sort": "x"}
    chosen = leave_out_unsaid("3 days, open ones", answer, accepted, {"required": ["unit"]})
    assert chosen == {"days": 3, "unit": "km", "kind": "open", "sort": "x"}


def test_words_of_a_step_may_be_free():
    answer = {"steps": [{"description": "whatever", "value": "Oslo"}]}
    assert ungrounded_values("in Oslo", answer, {}, may_skip=("description",)) == []
    assert [path for path, _ in ungrounded_values("in Oslo", answer, {})] == ["/steps/0/description"]


def test_a_choice_among_tools_is_read_by_the_tool_that_the_answer_names():
    tools = [
        {"properties": {"name": {"const": name}, "arguments": {"properties": {"n": {"default": default}}}}}
        for name, default in (("a", 7), ("b", 9))
    ]
    schema = {"oneOf": tools}
    assert ungrounded_values("run b", {"name": "b", "arguments": {"n": 9}}, schema) == []
    assert ungrounded_values("run b", {"name": "b", "arguments": {"n": 7}}, schema) == [("/arguments/n", 7)]


@pytest.mark.parametrize(("name", "share"), [("simple", 0.08), ("multiple", 0.06)])
def test_few_answers_to_real_requests_are_found(name, share):
    """The right answers of real requests; what is found there asks for knowledge (a deck has 52 cards)."""
    lines = (BFCL / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found = sum(bool(ungrounded_values(row["query"], row["answer"], row["schema"])) for row in rows)
    assert found / len(rows) < share
