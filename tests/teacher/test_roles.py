"""What the teacher is asked."""

import json

import pytest

from schema_student.teacher.roles import INPUT_MARKER, INSTRUCTIONS, role_format, role_messages

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
