"""What the teacher is asked."""

import json

import pytest

from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import is_valid
from schema_student.teacher.roles import INPUT_MARKER, INSTRUCTIONS, repair_messages, role_format, role_messages

SHOP = {
    "type": "object",
    "properties": {"name": {"type": "string", "description": "what to buy"}},
    "required": ["name"],
}


@pytest.mark.parametrize("role", INSTRUCTIONS)
def test_every_role_ends_with_its_payload_as_json(role):
    payload = {"schema": SHOP, "query": "é"}
    content = role_messages(role, payload)[-1]["content"]
    assert json.loads(content.split(INPUT_MARKER)[1]) == payload
    assert role_format(role, payload)["type"] == "object"


def test_a_question_names_its_role_and_a_repair_shows_the_answer_and_what_is_wrong():
    system, user = role_messages("judge", {"query": "\u00e9"})
    assert system == {"role": "system", "content": f"Role: judge\n{INSTRUCTIONS['judge']}"}
    assert user == {"role": "user", "content": 'Input:\n{"query": "\u00e9"}'}
    assert repair_messages([user], "no", ["/a: x", "/b: y"]) == [
        user,
        {"role": "assistant", "content": "no"},
        {
            "role": "user",
            "content": "This answer is not valid:\n- /a: x\n- /b: y\n"
            "Write the whole JSON object again, corrected, and nothing else.",
        },
    ]


VALUE = {"const": "a", "description": "d"}
SPEC = {
    **{"schema_id": "shop_1", "domain": "d", "noun": {"en": "things", "fr": "choses"}, "description": "d"},
    "fields": [{**VALUE, "const": f"f{i}", "type": "string"} for i in range(4)],
    "example_queries": ["q"],
}
ANSWERS = {
    "domain_spec": SPEC,
    "query": {"queries": ["q"]},
    "judge": {"is_good": True, "reason": ""},
    "compare": {"better": "tie", "reason": ""},
}


def with_field(**changes):
    return SPEC | {"fields": [*SPEC["fields"][1:], {**SPEC["fields"][0], **changes}]}


@pytest.mark.parametrize("role", ANSWERS)
def test_an_answer_of_a_role_has_all_its_properties_and_no_others(role):
    compiled, answer = compile_schema(role_format(role, {})), ANSWERS[role]
    assert is_valid(answer, compiled) and not is_valid(answer | {"more": 1}, compiled) and not is_valid([], compiled)
    for name in answer:
        assert not is_valid({key: part for key, part in answer.items() if key != name}, compiled)


@pytest.mark.parametrize(
    ("role", "answer", "valid"),
    [
        ("judge", {"is_good": "yes", "reason": ""}, False),
        ("judge", {"is_good": False, "reason": None}, False),
        ("compare", {"better": "first", "reason": "x"}, True),
        ("compare", {"better": "second", "reason": "x"}, True),
        ("compare", {"better": "both", "reason": "x"}, False),
        ("compare", {"better": "tie", "reason": 1}, False),
        ("query", {"queries": []}, False),
        ("query", {"queries": [""]}, False),
        ("query", {"queries": "q"}, False),
        ("domain_spec", SPEC | {"schema_id": "Shop"}, False),
        ("domain_spec", SPEC | {"schema_id": "1shop"}, False),
        ("domain_spec", SPEC | {"domain": ""}, False),
        ("domain_spec", SPEC | {"noun": {"en": "x"}}, False),
        ("domain_spec", SPEC | {"noun": {"fr": "x"}}, False),
        ("domain_spec", SPEC | {"noun": {"en": "x", "fr": ""}}, False),
        ("domain_spec", SPEC | {"fields": SPEC["fields"][:3]}, False),
        ("domain_spec", SPEC | {"fields": SPEC["fields"] * 3}, True),
        ("domain_spec", SPEC | {"fields": SPEC["fields"] * 3 + SPEC["fields"][:1]}, False),
        ("domain_spec", SPEC | {"example_queries": []}, False),
        ("domain_spec", SPEC | {"example_queries": "q"}, False),
        ("domain_spec", SPEC | {"noun": "x"}, False),
        ("domain_spec", SPEC | {"fields": ["x"] * 4}, False),
        ("domain_spec", SPEC | {"fields": "x"}, False),
        ("domain_spec", with_field(enum=["x", "y"]), False),
        ("domain_spec", with_field(enum="x"), False),
        *(("domain_spec", with_field(type=kind), True) for kind in "string number integer boolean date enum".split()),
        ("domain_spec", with_field(type="text"), False),
        ("domain_spec", with_field(const="A"), False),
        ("domain_spec", with_field(description=""), False),
        ("domain_spec", with_field(more=1), False),
        ("domain_spec", with_field(examples=[1, "x"]), True),
        ("domain_spec", with_field(examples="x"), False),
        ("domain_spec", with_field(enum=[VALUE | {"const": "Any Text"}, VALUE]), True),
        ("domain_spec", with_field(enum=[VALUE]), False),
        ("domain_spec", with_field(enum=[VALUE, {"const": "b"}]), False),
        ("domain_spec", with_field(enum=[VALUE, VALUE | {"more": 1}]), False),
        *(
            (
                "domain_spec",
                SPEC | {"fields": [*SPEC["fields"], {k: v for k, v in SPEC["fields"][0].items() if k != name}]},
                False,
            )
            for name in ("const", "description", "type")
        ),
    ],
)
def test_what_an_answer_of_a_role_may_hold(role, answer, valid):
    assert is_valid(answer, compile_schema(role_format(role, {}))) is valid
