"""What grade must say of an answer: rank, whether it is right, and which of its parts are."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_examples import BFCL_ROWS, QUERY_SCHEMA

from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade, grade_value, is_right
from schema_student.schema.judging import judge
from schema_student.schema.parts import Part, compare_parts

QUERY = compile_schema(QUERY_SCHEMA)
ANY = compile_schema({})
RED, CHEAP = ({"field": "color", "operator": "is", "value": "red"}, {"field": "price", "operator": "is", "value": 5})
BLUE = RED | {"value": "blue"}
DAYS, LATER = ({"start": "2024-03-01", "end": f"2024-03-0{day}"} for day in (2, 9))
FIRST = "=/steps/0/conditions/"
REFUSED = {"prompt": "p", "refusal": {"reason": "r", "suggestion": "s"}}


def query(*steps, **more):
    steps = [{"name": "s", "conditions": list(conditions), "description": "d"} for conditions in steps]
    return {"prompt": "p", "steps": steps, **more}


def told(value, target, schema=QUERY_SCHEMA):
    """Each part's path with "=" where it is right, "!" where it is not, "+" where only given, "-" where missing."""
    parts = compare_parts(value, target, schema)
    signs = {(True, True): "!", (True, False): "+", (False, True): "-"}
    return [("=" if part.right else signs[part.given, part.expected]) + part.path for part in parts]


@pytest.mark.parametrize(
    ("text", "rank", "why"),
    [
        ('{"n": 2}', 5, "meaning"),
        ('{"n": 3}', 4, "meaning"),
        ('{"n": "2"}', 1, "/n type"),
        ("{}", 2, "/ required"),
        ('{"n"', 0, "not JSON: Expecting ':' delimiter: line 1 column 5 (char 4)"),
    ],
)
def test_a_grade_has_a_rank_and_says_why(text, rank, why):
    schema = compile_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    graded = grade(text, schema, {"n": 2})
    assert (graded.rank, graded.why, graded.right) == (rank, why, rank == 5)


def test_why_names_the_worst_of_several_violations():
    schema = compile_schema({"properties": {"a": {"maximum": 1}, "b": {"type": "string"}}})
    assert grade('{"a": 2, "b": 2}', schema).why == "/b type"


def test_without_anything_known_no_answer_is_right():
    graded = grade("{}", ANY)
    assert (graded.rank, graded.right, graded.parts) == (4, False, ())


def test_accepted_alternatives_alone_tell_what_is_right():
    assert grade('{"unit": "Km"}', ANY, accepted={"unit": ["km"]}).rank == 5
    assert grade('{"unit": "m"}', ANY, accepted={"unit": ["km"]}).rank == 4


def test_an_invalid_answer_is_never_right_even_where_it_says_what_was_asked():
    answer = query([RED])
    del answer["prompt"]
    graded = grade_value(answer, QUERY, query([RED]))
    assert (graded.rank, graded.right) == (2, False)
    assert graded.parts == (Part("/steps/0/conditions/0", True, True, True),)


def test_fences_are_stripped_only_on_demand():
    text = '```json\n{"n": 2}\n```'
    assert grade(text, ANY, {"n": 2}).rank == 0
    assert grade(text, ANY, {"n": 2}, strip_fences=True).rank == 5


@pytest.mark.parametrize(
    ("value", "target", "parts"),
    [
        (query([CHEAP, RED]), query([RED, CHEAP]), [f"{FIRST}0", f"{FIRST}1"]),
        (query([BLUE, RED]), query([RED]), ["+/steps/0/conditions/0", f"{FIRST}1"]),
        (query([BLUE]), query([RED, CHEAP]), ["!/steps/0/conditions/0", "-/steps/0/conditions/1"]),
        (query([CHEAP]), query([RED]), ["+/steps/0/conditions/0", "-/steps/0/conditions/0"]),
        (query([RED], [CHEAP]), query([RED, CHEAP]), [f"{FIRST}0", "+/steps/1/conditions/0", "-/steps/0/conditions/1"]),
        (query([RED, RED]), query([RED]), [f"{FIRST}0"]),
        (query([RED], timeframe=DAYS), query([RED], timeframe=DAYS), [f"{FIRST}0", "=/timeframe"]),
        (query([RED], timeframe=DAYS), query([RED]), [f"{FIRST}0", "+/timeframe"]),
        (query([RED], timeframe=LATER), query([RED], timeframe=DAYS), [f"{FIRST}0", "!/timeframe"]),
        (REFUSED, REFUSED | {"refusal": {"reason": "r", "suggestion": "y"}}, ["=/refusal"]),
        (REFUSED, REFUSED | {"refusal": {"reason": "x", "suggestion": "s"}}, ["!/refusal"]),
        (REFUSED | {"prompt": "q"}, REFUSED, ["=/refusal", "!/prompt"]),
        (REFUSED, query([RED]), ["+/refusal", "-/steps/0/conditions/0"]),
        (query([RED]), REFUSED, ["+/steps/0/conditions/0", "-/refusal"]),
        ({"steps": [3, {"conditions": [None]}]}, query([RED]), ["+/steps/1/conditions/0", "-/steps/0/conditions/0"]),
        ([], query([RED]), ["-/steps/0/conditions/0"]),
    ],
)  # fmt: skip
def test_parts_of_a_query_are_its_conditions_its_timeframe_or_its_refusal(value, target, parts):
    assert told(value, target) == parts


@pytest.mark.parametrize(
    ("value", "target", "parts"),
    [
        ({"a": 1.0, "b": 2}, {"a": 1, "b": 3}, ["=/a", "!/b"]),
        ({"a": 1, "c": 2}, {"b": 3, "a": 1}, ["=/a", "+/c", "-/b"]),
        ({"o": {"x/y": 1, "z": 2}}, {"o": {"x/y": 1, "z": 3}}, ["=/o/x~1y", "!/o/z"]),
        ({"o": {}}, {"o": {}}, ["=/o"]),
        ({"xs": [1, 2]}, {"xs": [2, 1]}, ["!/xs"]),
        ({"a": True}, {"a": 1}, ["!/a"]),
        ([1], [1], ["="]),
        ([1], {"a": 1}, ["!"]),
    ],
)
def test_parts_of_another_answer_are_its_properties(value, target, parts):
    assert told(value, target, {}) == parts


def test_a_property_that_equals_its_default_is_no_part():
    schema = {"properties": {"unit": {"default": "m"}, "n": {}}}
    assert told({"unit": "m", "n": 1}, {"n": 1}, schema) == ["=/n"]


def test_parts_that_an_alternative_accepts_are_right():
    accepted = {"unit": ["km", "m"], "n": [3], "round": ["", 2]}
    graded = grade('{"unit": "Km", "n": 4}', ANY, {"unit": "m", "n": 3, "round": 2}, accepted)
    assert [(part.path, part.right) for part in graded.parts] == [("/unit", True), ("/n", False)]


@pytest.mark.parametrize(
    ("value", "accepted", "ok"),
    [
        ({"a": 1.0}, {"a": [1]}, True),
        ({"a": True}, {"a": [1]}, False),
        ({"a": "1"}, {"a": [1]}, False),
        ({"city": "New York,NY"}, {"city": ["new york, ny"]}, True),
        ({"city": "Boston"}, {"city": ["new york, ny"]}, False),
        ({}, {"unit": ["km", ""]}, True),
        ({}, {"unit": ["km"]}, False),
        ({"unit": "km", "extra": 1}, {"unit": ["km"]}, False),
        ({"xs": ["G", "C"]}, {"xs": [["C", "G"], ["G", "C"]]}, True),
        ({"xs": ["G"]}, {"xs": [["C", "G"], ["G", "C"]]}, False),
        ({"t": [[1, 2], [3, 4]]}, {"t": [[[1, 2], [3, 4]]]}, True),
        ({"o": {"k": "v1"}}, {"o": [{"k": ["v0", "V1"], "j": ["", 3]}]}, True),
        ({"o": {"k": "v2"}}, {"o": [{"k": ["v0", "v1"]}]}, False),
        ({"l": [{"k": "a"}, {"k": "b"}]}, {"l": [[{"k": ["a"]}, {"k": ["b"]}]]}, True),
        ([], {"a": [1]}, False),
    ],
)
def test_accepted_alternatives(value, accepted, ok):
    assert is_right(value, None, {}, accepted) is ok


def test_a_match_needs_the_target_or_an_alternative():
    assert is_right({"a": 1}, {"a": 1.0}, {})
    assert not is_right({"a": 1}, {"a": 2}, {})
    assert is_right({"a": 1}, {"a": 2}, {}, {"a": [1, 2]})
    assert not is_right({"a": 1}, None, {})


def test_every_answer_to_a_real_request_is_valid_and_accepted():
    for row in BFCL_ROWS:
        verdict = judge(json.dumps(row["answer"]), compile_schema(row["schema"], row["id"]))
        assert (row["id"], verdict.rank, verdict.violations) == (row["id"], 4, ())
        assert is_right(verdict.value, None, row["schema"], row["accepted"]), row["id"]


def test_no_answer_to_a_real_request_is_accepted_for_another_one():
    for one, other in pairwise(BFCL_ROWS):
        if one["answer"] != other["answer"]:
            assert not is_right(one["answer"], other["answer"], other["schema"], other["accepted"]), one["id"]


CONDITIONS = st.lists(st.sampled_from([RED, BLUE, CHEAP]), min_size=1, max_size=3)
QUERIES = st.just(REFUSED) | st.builds(
    lambda steps, days: query(*steps, **days),
    st.lists(CONDITIONS, min_size=1, max_size=2),
    st.sampled_from([{}, {"timeframe": DAYS}, {"timeframe": LATER}]),
)


@given(QUERIES, QUERIES)
def test_a_valid_query_is_right_where_all_its_parts_are(value, target):
    graded = grade_value(value, QUERY, target)
    assert graded.verdict.schema_valid
    assert graded.right == all(part.right for part in graded.parts)
    mirrored = compare_parts(target, value, QUERY_SCHEMA)
    assert sum(part.right for part in mirrored) == sum(part.right for part in graded.parts)


OBJECTS = st.recursive(
    st.sampled_from([0, 1, 1.0, True, "a", None]),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.sampled_from("ab"), children, max_size=2),
    max_leaves=6,
)


@given(OBJECTS, OBJECTS.filter(lambda value: value is not None))
def test_another_answer_is_right_where_all_its_parts_are(value, target):
    graded = grade_value(value, ANY, target)
    assert graded.right == all(part.right for part in graded.parts)


def test_every_part_of_a_real_answer_is_right():
    for row in BFCL_ROWS:
        graded = grade(json.dumps(row["answer"]), compile_schema(row["schema"]), row["answer"], row["accepted"])
        assert graded.rank == 5 and graded.parts and all(part.right for part in graded.parts), row["id"]


ALTITUDE = {"prompt": "Reefers above 3 in altitude", "refusal": {"reason": "no field for altitude", "suggestion": "s"}}


@pytest.mark.parametrize(
    ("reason", "right"),
    [
        ("no field for altitude", True),
        ("The schema has no field for the Altitude.", True),
        ("no field for reefer", False),
        ("no field for appointments", False),
        ("no operator for altitude", False),
        ("", False),
    ],
)
def test_a_refusal_is_right_where_its_reason_names_what_is_missing(reason, right):
    graded = grade_value(ALTITUDE | {"refusal": {"reason": reason, "suggestion": "s"}}, QUERY, ALTITUDE)
    assert (graded.right, [part.right for part in graded.parts]) == (right, [right])


def test_a_query_that_garbles_the_request_is_not_right():
    target = query([RED]) | {"prompt": "Cars in red, à Paris"}
    assert grade_value(target | {"prompt": "cars in red,  à paris"}, QUERY, target).right
    for garbled in ("Cars in red, a Paris", "Cars in red", "", "Cars in red, à Paris Paris"):
        assert not grade_value(target | {"prompt": garbled}, QUERY, target).right


@pytest.mark.parametrize("value", [0, -1, 10**6, 9007199254740993, 123456789012345678901234567890])
def test_numbers_that_a_double_merges_are_told_apart(value):
    texts = (f'{{"n": {value}}}', f'{{"n": {value}.0}}', f'{{"n": {value + 1}}}', f'{{"n": {value + 1}.0}}')
    assert [grade(text, ANY, {"n": value}).right for text in texts] == [True, True, False, False]


def test_a_repeated_condition_and_another_name_of_a_zone_say_the_same():
    moments = [{"start": f"2024-03-01T09:00:00{zone}", "end": "2024-03-02"} for zone in ("Z", "+00:00", "+01:00")]
    one, same, other = (
        query([RED, *repeated], timeframe=moment) for repeated, moment in zip(([], [RED], [RED]), moments, strict=True)
    )
    assert is_right(same, one, QUERY_SCHEMA) and not is_right(other, one, QUERY_SCHEMA)
