"""What a person brings with --schemas: read in every form, refused with file, line and reason."""

import json
import re

import pytest
from schema_examples import BFCL, BFCL_ROWS

from schema_student.core.errors import UserError
from schema_student.schema.compiling import compile_schema
from schema_student.schema.drafts import DRAFT_NAMES
from schema_student.schema.judging import judge
from schema_student.schema.rendering import render_schema
from schema_student.schema.user_schemas import load_schemas, read_schema

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def row(schema=NUMBER, schema_id="a", **more):
    return {"schema_id": schema_id, "schema": schema, **more}


def test_real_requests_are_read_in_order_with_their_lines():
    rows = load_schemas(BFCL)
    assert [(r.query, r.answer, r.accepted) for r in rows] == [
        (r["query"], r["answer"], r["accepted"]) for r in BFCL_ROWS
    ]
    assert rows[1].source == f"{BFCL}:2"
    by_id = {}
    for loaded in rows:
        assert by_id.setdefault(loaded.schema_id, loaded.schema) == loaded.schema
    assert {loaded.schema_id for loaded in rows} >= {"math.gcd", "math.gcd-2", "math.gcd-3"}


def test_one_schema_keeps_one_id_and_no_number_is_taken_twice(tmp_path):
    other, third = {"type": "integer"}, {"type": "string"}
    lines = [row(), row(other), row(schema_id="a-2"), row(), row(other), row(third)]
    rows = load_schemas(write(tmp_path / "x.jsonl", *lines))
    assert [r.schema_id for r in rows] == ["a", "a-3", "a-2", "a", "a-3", "a-4"]


def test_a_directory_is_read_by_name(tmp_path):
    write(tmp_path / "b.json", NUMBER)
    write(tmp_path / "a.json", "\ufeff" + json.dumps(NUMBER))
    write(tmp_path / "notes.txt", "not a schema")
    rows = load_schemas(tmp_path)
    assert [(r.schema_id, r.query, r.answer, r.source) for r in rows] == [
        ("a", None, None, str(tmp_path / "a.json")),
        ("b", None, None, str(tmp_path / "b.json")),
    ]
    assert load_schemas(tmp_path / "b.json")[0].schema == NUMBER


def test_blank_lines_and_other_keys_are_passed_over(tmp_path):
    rows = load_schemas(write(tmp_path / "x.jsonl", "", row(id=7), "", row(query="q", answer={"n": 1})))
    assert [r.source[-1] for r in rows] == ["2", "4"]
    assert rows[1].answer == {"n": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"schema_id": "a", "schema": {', "x.jsonl:2: not JSON: .* at column"),
        ('{"schema_id": "a", "schema_id": "b"}', 'x.jsonl:2: not JSON: duplicate key "schema_id"'),
        ("[]", "x.jsonl:2: a row is an object {schema_id, schema, query"),
        ({"schema": {}}, 'x.jsonl:2: "schema_id" is missing; it is a string'),
        ({"schema_id": 3, "schema": {}}, 'x.jsonl:2: "schema_id" is not a string'),
        ({"schema_id": "a"}, 'x.jsonl:2: "schema" is missing'),
        (row("{}"), 'x.jsonl:2: "schema" is not an object'),
        (row(query=3), 'x.jsonl:2: "query" is not a string'),
        (row(accepted=[]), 'x.jsonl:2: "accepted" is not an object'),
        (row(current_date="soon"), 'x.jsonl:2: "current_date" is no day: "soon"; give it as YYYY-MM-DD'),
        (row(current_date=3), 'x.jsonl:2: "current_date" is no day: 3'),
        (row(split="holdout"), 'x.jsonl:2: "split" is "holdout"; it is train, validation'),
        (row(split=["test"]), 'x.jsonl:2: "split" is \\["test"\\]'),
        (row(accepted={"n": 3}), 'x.jsonl:2: accepted: "n" is not a list of alternatives'),
        (row(answer={"n": "3"}), "x.jsonl:2: the answer is not valid against its schema: /n: .* type"),
        (row({"type": "objet"}), "x.jsonl:2: not a JSON Schema: /type"),
        (row({"$schema": "draft-99"}), "x.jsonl:2: /.schema: unknown draft"),
        (row({"$ref": "https://example.com/x"}), "x.jsonl:2: /.ref: .* nothing is fetched"),
        (
            row({"type": "integer", "minimum": 3, "maximum": 1}),
            "x.jsonl:2: the schema contradicts itself: no JSON value",
        ),
        (
            row({"type": "object", "required": ["n", "m"], "properties": {"m": {"enum": ["x"], "type": "integer"}}}),
            'x.jsonl:2: the schema contradicts itself: .* the required property "m"',
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, line, message):
    path = write(tmp_path / "x.jsonl", row(), line)
    with pytest.raises(UserError, match=message):
        load_schemas(path)


def test_a_schema_that_no_instance_was_found_for_is_taken_with_a_warning(tmp_path, caplog):
    assert load_schemas(write(tmp_path / "x.jsonl", row(), row({"type": "string", "pattern": "^a$", "minLength": 4})))
    (warning,) = caplog.messages
    assert "x.jsonl:2: no valid instance found" in warning and "contradicts" not in warning


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (
            {"type": "object", "minProperties": 10**7},
            r"/minProperties: every answer .* 10,000,001 values",
        ),
        ({"minimum": 10**400}, "/minimum: a number of 401 digits is beyond a double"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, r'/\$defs/a/\$ref: "#/\$defs/a" comes back'),
    ],
)
def test_what_no_teacher_can_work_with_is_refused_by_line_and_keyword(tmp_path, schema, reason):
    with pytest.raises(UserError, match=rf"^{tmp_path}/x.jsonl:2: {reason}"):
        load_schemas(write(tmp_path / "x.jsonl", row(), row(schema)))


def test_a_dynamic_reference_is_loaded_as_the_plain_one_that_it_is(tmp_path, caplog):
    tree = {"$dynamicAnchor": "node", "type": "object", "properties": {"next": {"$dynamicRef": "#node"}}}
    assert load_schemas(write(tmp_path / "x.json", tree))[0].schema["properties"] == {"next": {"$ref": "#node"}}
    assert not caplog.messages
    inner = {name: {"$id": name, "$dynamicAnchor": "x", "$dynamicRef": "base#x"} for name in ("a", "b")}
    base = {"$id": "base", "$dynamicAnchor": "x", "type": "object"}
    load_schemas(write(tmp_path / "y.json", {"type": "object", "anyOf": [*inner.values(), base]}))
    assert 'y.json: what a "$dynamicRef" of it names depends on the way there' in caplog.text


def test_a_chain_of_definitions_that_overflows_the_proof_is_loaded(tmp_path):
    chain = {f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(2000)}
    schema = {"$ref": "#/$defs/d0", "$defs": chain | {"d2000": {}}}
    assert load_schemas(write(tmp_path / "x.jsonl", row(schema)))


def test_a_schema_that_no_instance_was_found_for_passes_with_a_valid_answer(tmp_path):
    schema = {"type": "string", "pattern": "^(?=.*q)(?=.*z)(?=.*x)[a-z]{9}$"}
    assert load_schemas(write(tmp_path / "x.jsonl", row(schema, answer="qzxqzxqzx")))


def test_a_broken_file_is_named_with_its_line(tmp_path):
    path = write(tmp_path / "bad.json", "{", '  "type": "integer",', "}")
    with pytest.raises(UserError, match=r"bad\.json:3: not JSON: .* at column 1"):
        load_schemas(path)
    with pytest.raises(UserError, match=r"bad\.json:3"):
        load_schemas(tmp_path)


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(row()).encode() + b'\n{"schema_id": "\xff"}')
    with pytest.raises(UserError, match=r"x\.jsonl:2: not UTF-8"):
        load_schemas(path)


@pytest.mark.parametrize("name", ["none.jsonl", "none.json", "none"])
def test_a_missing_path_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: No such file or directory; --schemas takes"):
        load_schemas(tmp_path / name)


def test_an_empty_directory_an_empty_file_and_another_kind_of_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="no schemas in it; --schemas takes"):
        load_schemas(tmp_path)
    with pytest.raises(UserError, match="no schemas in it"):
        load_schemas(write(tmp_path / "x.jsonl", "", ""))
    with pytest.raises(UserError, match=r"not a \.json or \.jsonl file"):
        load_schemas(write(tmp_path / "x.yaml", "a: 1"))


def test_the_files_of_a_folder_are_loaded_together(tmp_path):
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    write(tmp_path / "address.json", {"$id": "https://example.com/address.json", **city})
    order = {"type": "object", "properties": {"to": {"$ref": "address.json"}, "kind": {"$ref": "parts.json#/$defs/K"}}}
    write(tmp_path / "order.json", {"$id": "https://example.com/order.json", **order})
    write(tmp_path / "parts.json", {"$defs": {"K": {"enum": ["a"]}, "L": {}}})
    rows = {row.schema_id: row.schema for row in load_schemas(tmp_path)}
    assert list(rows) == ["address", "order"]  # parts.json only serves others
    validator = compile_schema(rows["order"]).validator
    assert validator.is_valid({"to": {"city": "Oslo"}, "kind": "a"}) and not validator.is_valid({"to": {}})
    assert not validator.is_valid({"kind": "b"})


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_envelopes_are_opened_and_said(tmp_path, suffix, capsys):
    tool = {"name": "f", "inputSchema": NUMBER}
    path = write(tmp_path / f"x.{suffix}", tool if suffix == "json" else row(tool))
    assert load_schemas(path)[0].schema == {"title": "f", **NUMBER}
    assert "taken out of an MCP tool" in capsys.readouterr().out


def test_what_is_no_schema_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"x\.json: no keyword of JSON Schema among compilerOptions"):
        load_schemas(write(tmp_path / "x.json", {"compilerOptions": {}, "include": []}))


def test_nullable_is_said_and_translated_where_asked(tmp_path, capsys):
    schema = {"type": "object", "properties": {"until": {"type": "string", "nullable": True}}, "required": ["until"]}
    path = write(tmp_path / "x.jsonl", row(schema, query="q", answer={"until": None}))
    with pytest.raises(UserError, match=r"/until: .*; --openapi-nullable allows null"):
        load_schemas(path)
    assert '"nullable" stands once and says nothing' in capsys.readouterr().err
    assert load_schemas(path, openapi_nullable=True)[0].schema["properties"]["until"]["type"] == ["string", "null"]


def test_references_are_encoded_where_they_are_not(tmp_path):
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/Page<X>"}}, "$defs": {"Page<X>": {"enum": [1]}}}
    loaded = load_schemas(write(tmp_path / "x.json", schema))[0].schema
    assert loaded["properties"]["x"]["$ref"] == "#/$defs/Page%3CX%3E"


@pytest.mark.parametrize("boolean", [True, False])
def test_boolean_conditions_are_rendered(boolean):
    number = {"properties": {"n": {"minimum": 5}}}
    for schema in ({"if": number, "then": number, "else": boolean}, {"allOf": [{"if": boolean, "then": number}]}):
        assert render_schema({**NUMBER, **schema})


# ---- --draft

OPEN_ABOVE = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 5, "exclusiveMinimum": True}}}
BESIDE = {
    "type": "object",
    "properties": {"a": {"$ref": "#/definitions/a", "maxLength": 1}},
    "definitions": {"a": {"type": "string"}},
}


def is_valid(answer, schema):
    return judge(json.dumps(answer), compile_schema(schema)).schema_valid


def test_a_boolean_exclusive_minimum_is_read_by_draft_4_alone(tmp_path):
    path = write(tmp_path / "x.json", OPEN_ABOVE)
    with pytest.raises(UserError, match=r"read as 2020-12, but has a boolean exclusiveMinimum .*; --draft says"):
        load_schemas(path)
    with pytest.raises(UserError, match=r"exclusiveMinimum"):
        load_schemas(path, draft="7")
    for schema in (load_schemas(path, draft="4")[0].schema, read_schema(path, draft="4")):
        assert [is_valid({"n": n}, schema) for n in (5, 6)] == [False, True]
        assert ">5" in render_schema(schema)


def test_keywords_beside_a_reference_are_read_by_the_named_draft(tmp_path, capsys):
    path = write(tmp_path / "x.jsonl", row(BESIDE))
    assert not is_valid({"a": "long"}, load_schemas(path)[0].schema)
    assert re.search(r'keywords beside a \$ref are read, but has "definitions" .*; --draft', capsys.readouterr().err)
    by_draft = {draft: load_schemas(path, draft=draft)[0].schema for draft in DRAFT_NAMES}
    assert [draft for draft, schema in by_draft.items() if is_valid({"a": "long"}, schema)] == ["4", "6", "7"]
    assert "older drafts" not in capsys.readouterr().err


def test_a_draft_is_of_schemas_that_name_none(tmp_path):
    named = {"$schema": DRAFT_NAMES["2020-12"], **BESIDE}
    tool = {"name": "f", "parameters": BESIDE}
    openapi = {"openapi": "3.0.0", "components": {"schemas": {"A": NUMBER}}}
    documents = {"a": named, "b": tool, "c": openapi}
    rows = write(tmp_path / "x.jsonl", *(row(document, name) for name, document in documents.items()))
    for name, document in documents.items():
        write(tmp_path / f"{name}.json", document)
    for path in (rows, tmp_path):
        loaded = [each.schema["$schema"].rstrip("#") for each in load_schemas(path, draft="7")]
        assert loaded == [DRAFT_NAMES["2020-12"], DRAFT_NAMES["7"], DRAFT_NAMES["4"]]


def test_files_that_refer_to_each_other_are_read_by_the_named_draft(tmp_path):
    write(tmp_path / "a.json", {"type": "object", "properties": {"n": {"$ref": "b.json#/properties/n"}}})
    write(tmp_path / "b.json", OPEN_ABOVE)
    write(tmp_path / "c.json", {"name": "f", "description": "of a tool", "parameters": OPEN_ABOVE})
    for loaded in load_schemas(tmp_path, draft="4"):
        part = "f" if loaded.schema_id == "c" else None
        assert loaded.schema.get("title") == part
        assert [is_valid({"n": n}, loaded.schema) for n in (5, 6)] == [False, True]
