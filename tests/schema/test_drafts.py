"""What is said of a schema's draft."""

import pytest

from schema_student.schema.drafts import list_remarks

DRAFT_4, DRAFT_7 = (f"http://json-schema.org/draft-0{n}/schema#" for n in (4, 7))
OLD = {"definitions": {"a": {"type": "string"}}, "properties": {"a": {"$ref": "#/definitions/a"}}}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (OLD, 'has "definitions" as older drafts do'),
        ({"properties": {"d": {"dependencies": {"a": ["b"]}}}}, 'has "dependencies" as older drafts do'),
        (OLD | {"properties": {"a": {"$ref": "#/definitions/a", "maxLength": 3}}}, "keywords beside a $ref are read"),
        ({"$schema": DRAFT_4, "items": {"format": "uuid"}}, 'does not check "uuid"'),
        ({"$schema": DRAFT_7, "properties": {"a": {"format": "duration"}, "b": {"format": "date"}}}, '"duration"'),
        ({"properties": {"n": {"format": "int32"}}}, 'does not check "int32"'),
    ],
)
def test_what_is_read_otherwise_than_it_may_be_meant_is_said(schema, said):
    (remark,) = list_remarks(schema)
    assert said in remark


@pytest.mark.parametrize(
    "schema",
    [
        OLD | {"$schema": DRAFT_7},
        {"$defs": {"a": {}}, "properties": {"a": {"$ref": "#/$defs/a", "maxLength": 3}}},
        {"properties": {"definitions": {"type": "object"}, "format": {"format": "uuid"}}},
        {"default": {"definitions": {}}, "enum": [{"items": [1]}]},
        {
            "properties": {
                "a": {"format": "date-time"},
                "b": {"format": "json-pointer"},
                "c": {"format": "uri-reference"},
            }
        },
    ],
)
def test_nothing_is_said_where_all_is_read_as_it_stands(schema):
    assert list_remarks(schema) == []
