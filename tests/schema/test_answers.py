"""Right answers to a request as texts: the target, and what its accepted alternatives come to."""

from schema_student.schema.answers import MOST, list_right_answers
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade

SCHEMA = compile_schema(
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "n": {"type": "integer"},
            "at": {"type": "object", "properties": {"hour": {"type": "integer"}}, "additionalProperties": False},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
)


def test_every_combination_of_alternatives_is_an_answer_in_the_order_of_the_target_s_keys():
    target = {"n": 2, "city": "Oslo"}
    found = list_right_answers(SCHEMA, target, {"city": ["Oslo", "Oslo, Norway"], "n": [2, ""], "at": [""]})
    assert found.complete and found.texts == [
        '{"n":2,"city":"Oslo"}',
        '{"city":"Oslo"}',
        '{"n":2,"city":"Oslo, Norway"}',
        '{"city":"Oslo, Norway"}',
    ]
    assert all(
        grade(text, SCHEMA, target, {"city": ["Oslo", "Oslo, Norway"], "n": [2, ""]}).right for text in found.texts
    )


def test_nested_objects_and_lists_have_alternatives_of_their_own():
    free = compile_schema({"type": "object"})
    accepted = {"at": [{"hour": [9, 21]}], "days": [["mo", "tu"], ["we"]]}
    found = list_right_answers(free, {"at": {"hour": 9}, "days": ["we"]}, accepted)
    assert set(found.texts) == {
        f'{{"at":{{"hour":{hour}}},"days":{days}}}' for hour in (9, 21) for days in ('["mo","tu"]', '["we"]')
    }


def test_what_the_schema_does_not_allow_is_no_right_answer():
    found = list_right_answers(SCHEMA, {"city": "Oslo"}, {"city": ["Oslo", 7], "n": ["", "two", 2]})
    assert found.texts == ['{"city":"Oslo"}', '{"city":"Oslo","n":2}']


def test_no_more_than_the_most_are_listed_and_that_is_said():
    found = list_right_answers(SCHEMA, {"city": "0"}, {"city": [str(i) for i in range(100)], "n": ["", 1]})
    assert len(found.texts) == MOST and not found.complete and found.texts[0] == '{"city":"0"}'
    assert list_right_answers(SCHEMA, {"city": "0"}).texts == ['{"city":"0"}']
