"""Files that refer to each other by name stand alone afterwards."""

import itertools

import pytest

from schema_student.schema.bundling import bundle
from schema_student.schema.compiling import compile_schema
from schema_student.schema.rendering import render_schema

DRAFTS = {
    "id": "http://json-schema.org/draft-04/schema#",
    "$id": "http://json-schema.org/draft-07/schema#",
    "$id ": "https://json-schema.org/draft/2020-12/schema",
}
IDS = [
    ("", ""),
    ("https://e.com/order.json", "https://e.com/address.json"),
    ("", "https://e.com/x/address.json"),
    ("https://e.com/order.json", ""),
    ("https://e.com/a/order", "https://e.com/b/address"),
]


@pytest.mark.parametrize(
    ("key", "ids", "ref"), list(itertools.product(DRAFTS, IDS, ["address.json", "./address.json#/definitions/c"]))
)
def test_a_reference_to_another_file_is_followed_by_its_id_or_its_place(key, ids, ref):
    def named(number, schema):
        return {"$schema": DRAFTS[key], **schema} | ({key.strip(): ids[number]} if ids[number] else {})

    city = {"properties": {"city": {"$ref": "#/definitions/c"}}, "definitions": {"c": {"type": "string"}}}
    files = {
        "order.json": named(0, {"type": "object", "properties": {"to": {"$ref": ref}}}),
        "address.json": named(1, city | {"type": "object", "required": ["city"]}),
    }
    schema = bundle(files)["order.json"]
    validator = compile_schema(schema).validator
    good, bad = ({"to": "x"}, {"to": {"city": "x"}}) if "#" in ref else ({"to": {"city": "x"}}, {"to": {}})
    assert validator.is_valid(good) and not validator.is_valid(bad)
    assert "string" in render_schema(schema)
    assert bundle(files)["address.json"] == files["address.json"]


def test_files_may_refer_to_each_other_in_a_circle_and_through_others():
    files = {
        "a.json": {"type": "object", "properties": {"b": {"$ref": "b.json"}}, "required": ["b"]},
        "b.json": {"type": "object", "properties": {"c": {"$ref": "parts/c.json"}}},
        "parts/c.json": {"type": "object", "properties": {"a": {"$ref": "../a.json"}, "n": {"$ref": "d.json"}}},
        "parts/d.json": {"type": "integer"},
        "e.json": {"type": "null"},
    }
    bundled = bundle(files)
    validator = compile_schema(bundled["a.json"]).validator
    assert validator.is_valid({"b": {"c": {"n": 1, "a": {"b": {}}}}})
    assert not validator.is_valid({"b": {"c": {"n": "1"}}}) and not validator.is_valid({"b": {"c": {"a": {}}}})
    assert bundled["e.json"] == {"type": "null"}
