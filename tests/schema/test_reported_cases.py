"""Situations that people of the field reported in public, rebuilt small: each does what is right, the whole way."""

import json
import random
from pathlib import Path

import pytest
from compact_reader import Reader
from pipeline import read_rows, run

from schema_student.core.errors import UserError
from schema_student.schema.compiling import compile_schema
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations, is_valid
from schema_student.schema.rendering import render_schema
from schema_student.schema.user_schemas import load_schemas

CASES = Path(__file__).parents[1] / "data" / "cases"
DRAFTS = ("http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#")
NEWEST = "https://json-schema.org/draft/2020-12/schema"
RAW_NAMES = ("Page<Order>", "Order Details", "Straße", "Page`1", "A|B")
FORECAST = "city string\ndays? integer\n* any"


def case(path):
    return json.loads((CASES / path).read_text(encoding="utf-8"))


def generate(schemas, output, *flags):
    """Write a small dataset by the embedded teacher."""
    sizes = ("--train-queries", 4, "--pair-queries", 1, "--eval-queries", 2)
    return run("generate_dataset", *to_embedded(schemas, output), *sizes, *flags)


def to_embedded(schemas, output):
    return "--schemas", schemas, "--output-dir", output, "--teacher-model", "embedded", "--base-model", "embedded"


def load(schemas, output, *flags):
    """A dry run: what is said of the schemas before anything is made."""
    return generate(schemas, output, "--dry-run", *flags)


def assert_told(schema, valid, invalid):
    """Schema, its compact rendering read by a second reader, and instances agree."""
    compiled, text = compile_schema(schema), render_schema(schema)
    rebuilt = compile_schema(Reader(text).schema)
    for judge in (compiled, rebuilt):
        assert [value for value in valid if not is_valid(value, judge)] == [], text
        assert [value for value in invalid if is_valid(value, judge)] == [], text
    for seed in range(10):
        instance = example_instance(schema, random.Random(seed))
        assert is_valid(instance, compiled) and is_valid(instance, rebuilt)


def assert_dataset(name, output):
    """A dataset is written, and each answer in it is valid."""
    ended = generate(CASES / name, output)
    assert ended.code == 0 and "Traceback" not in ended.err
    rows = read_rows(next(output.glob("data/*/d_03_dataset.jsonl")))
    assert len(rows) > 4
    for row in rows:
        assert is_valid(json.loads(row["ast_json"]), compile_schema(json.loads(row["schema_json"])))


def test_02_a_nested_model_that_pydantic_wraps_in_all_of_is_read_as_the_model(tmp_path):
    schema = case("02_allof_ref/schema.json")
    assert render_schema(schema) == (
        "Booking\nroom object # the room to book\n floor integer\n kind single|double\n * any\n"
        "color? blue|green = blue\nguest object\n name string\n * any\n* any"
    )
    room, guest = {"floor": 1, "kind": "single"}, {"name": "Ada"}
    assert_told(
        schema,
        [{"room": room, "guest": guest}, {"room": room, "guest": guest, "color": "green"}],
        [{"room": {}, "guest": guest}, {"room": room, "guest": guest, "color": "red"}, {"room": room, "guest": 1}],
    )
    assert_dataset("02_allof_ref/schema.json", tmp_path)


def test_03_bounds_of_lists_and_texts_are_told(tmp_path):
    schema = case("03_hidden_bounds/schema.json")
    assert render_schema(schema) == (
        "names list 2..2 of string\ncode string 3..5 chars\nip ipv4\nwait? duration\n"
        'tags list unique of string {"items":{"pattern":"^[a-z]{4}$"}}\n'
        'scores list of integer 0..5 {"items":{"multipleOf":5}}'
    )
    good = {"names": ["a", "b"], "code": "abc", "ip": "10.0.0.1", "tags": ["abcd"], "scores": [0, 5]}
    wrong = (
        *({"names": ["a"]}, {"names": ["a", "b", "c"]}, {"code": "ab"}, {"code": "abcdef"}, {"ip": "10.0.0.x"}),
        *({"wait": "soon"}, {"tags": ["abcd", "abcd"]}, {"tags": ["abc"]}, {"scores": [3]}, {"scores": [10]}),
    )
    assert_told(schema, [good, {**good, "wait": "PT5M"}], [{**good, **change} for change in wrong])
    assert_dataset("03_hidden_bounds/schema.json", tmp_path)


def test_05_values_of_a_map_are_told(tmp_path):
    schema, top = case("05_map_values/schema.json"), case("05_map_values/top.json")
    assert render_schema(schema) == (
        'ports object {"minProperties":1}\n * integer 1..65535\nlabels? object\n /^[a-z]+$/ boolean'
    )
    assert_told(
        schema,
        [{"ports": {"web": 80}}, {"ports": {"web": 80, "x y": 1}, "labels": {"a": True}}],
        [{"ports": {}}, {"ports": {"web": "80"}}, {"ports": {"web": 0}}, {"ports": {"a": 1}, "labels": {"A": True}}],
    )
    assert render_schema(top) == 'Prices\n@root: object {"minProperties":2}\n /^[A-Z]{3}$/ number'
    assert_told(top, [{"EUR": 1, "USD": 2.5}], [{"EUR": 1}, {"EUR": 1, "usd": 2}, {"EUR": 1, "USD": "2"}])
    assert_dataset("05_map_values/schema.json", tmp_path)


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("schema", [{"n": 1}, {"n": 1, "extra": [], "list": ["a", 1]}], [{"n": 1, "none": 1}, {"n": 1, "list": 2}]),
        ("else_false", [{"kind": "a", "n": 5}, {"kind": "b", "n": 1}], [{"kind": "a", "n": 4}]),
        ("then_false", [{"kind": "b", "n": 1}], [{"kind": "a", "n": 1}]),
        ("if_true", [{"n": 5}], [{"n": 4}]),
    ],
)
def test_07_parts_that_are_true_or_false_are_schemas(tmp_path, name, valid, invalid):
    assert_told(case(f"07_boolean_parts/{name}.json"), valid, invalid)
    assert_dataset(f"07_boolean_parts/{name}.json", tmp_path)


def test_07_a_branch_that_is_true_goes_the_whole_way(tmp_path):
    assert_dataset("07_boolean_parts/else_false.json", tmp_path)
    ended = run("build_training_corpus", *to_embedded(CASES / "07_boolean_parts" / "else_false.json", tmp_path))
    assert (ended.code, "none dropped" in ended.out + ended.err) == (0, True)


@pytest.mark.parametrize(
    ("name", "envelope", "heading"),
    [
        ("openai_tool", "an OpenAI tool", "forecast # Weather."),
        ("openai_function", "an OpenAI function", "forecast # Weather."),
        ("mcp_tool", "an MCP tool", "forecast # Weather."),
        ("response_format", "an OpenAI response format", "forecast"),
        ("openapi", "an OpenAPI 3.1.0 document", "Forecast"),
    ],
)
def test_08_the_schema_is_taken_out_of_its_envelope(tmp_path, name, envelope, heading):
    path = CASES / "08_tool_envelope" / f"{name}.json"
    ended = load(path, tmp_path)
    assert ended.code == 0 and f"taken out of {envelope}" in ended.out + ended.err
    schema = load_schemas(path)[0].schema
    assert render_schema(schema) == f"{heading}\n{FORECAST}"
    assert_told(
        schema, [{"city": "Oslo"}, {"city": "Oslo", "days": 2}], [{}, {"city": 1}, {"city": "Oslo", "days": "2"}]
    )


def test_08_data_of_a_tool_answer_with_its_arguments(tmp_path):
    assert_dataset("08_tool_envelope/mcp_tool.json", tmp_path)
    rows = read_rows(next(tmp_path.glob("data/*/d_03_dataset.jsonl")))
    assert all("city" in json.loads(row["ast_json"]) for row in rows)


def test_08_a_configuration_is_no_schema(tmp_path):
    ended = load(CASES / "08_tool_envelope" / "not_a_schema.json", tmp_path)
    assert ended.code == 1
    assert "no keyword of JSON Schema among compilerOptions, include: as a schema it would accept" in ended.err


def test_09_nullable_is_said_and_translated_where_asked(tmp_path):
    rows, schema = CASES / "09_nullable" / "rows.jsonl", CASES / "09_nullable" / "schema.json"
    ended = load(rows, tmp_path)
    assert ended.code == 1 and "null is not valid there; --openapi-nullable reads it as OpenAPI" in ended.err
    assert '/until: null is not of type "string"; --openapi-nullable allows null' in ended.err
    assert load(rows, tmp_path, "--openapi-nullable").code == 0
    ended = load(schema, tmp_path)
    assert ended.code == 0 and '"nullable" stands once and says nothing in JSON Schema' in ended.err
    null, given = {"id": 7, "until": None}, {"id": 7, "until": "2024-01-31"}
    assert_told(load_schemas(schema)[0].schema, [given], [null])
    assert_told(load_schemas(schema, openapi_nullable=True)[0].schema, [given, null], [{"id": 7, "until": "later"}])


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("schema", "#\nunit kg|lb\namount? number", {"unit": "kg", "amount": "1"}),
        ("relative", "unit @Unit\nback? @Unit\n@Unit: kg|lb", {"unit": "kg", "back": "g"}),
    ],
)
def test_11_a_plain_name_and_a_reference_relative_to_the_id_are_followed(tmp_path, name, text, wrong):
    schema = case(f"11_plain_name_id/{name}.json")
    assert render_schema(schema) == text
    assert_told(schema, [{"unit": "kg"}, {"unit": "lb"}], [{}, {"unit": "g"}, wrong])
    assert_dataset(f"11_plain_name_id/{name}.json", tmp_path)


def test_13_doubling_references_are_loaded_rendered_and_drawn_from(tmp_path):
    levels = {
        f"L{i}": {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/L{i + 1}"} for name in "ab"},
            "minProperties": 0,
        }
        for i in range(22)
    }
    properties = {"x": {"$ref": "#/$defs/L0"}, "n": {"type": "integer"}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["n"],
        "$defs": levels | {"L22": {"type": "integer"}},
    }
    path = tmp_path / "fanout.json"
    path.write_text(json.dumps(schema))
    assert load(path, tmp_path).code == 0
    assert len(render_schema(schema)) <= len(json.dumps(schema, separators=(",", ":"))) + 64
    for seed in range(5):
        assert is_valid(example_instance(schema, random.Random(seed)), compile_schema(schema))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "schema",
            '/properties/lint/$ref: "https://example.com/lint.json" is not in this schema and nothing is fetched',
        ),
        ("nothere", '/properties/lint/$ref: "#/$defs/Lint" points at nothing in this schema'),
    ],
)
def test_15_the_reference_at_fault_is_blamed_and_not_the_one_to_the_root(tmp_path, name, reason):
    ended = load(CASES / "15_self_ref_message" / f"{name}.json", tmp_path)
    assert ended.code == 1 and reason in ended.err and '"#" ' not in ended.err


def test_19_a_prompt_that_is_too_long_is_said_before_the_teacher_and_before_training(tmp_path):
    names = [f"product-{i:04}-blue" for i in range(700)]
    properties = {"product": {"enum": names}, "count": {"type": "integer"}}
    path = tmp_path / "long.json"
    path.write_text(
        json.dumps({"title": "Ticket", "type": "object", "properties": properties, "required": ["product"]})
    )
    made = generate(path, tmp_path)
    corpus = run("build_training_corpus", *to_embedded(path, tmp_path))
    for ended in (load(path, tmp_path / "dry"), made):
        assert "too long for the student: the prompts of 1 of 1 schemas: long (" in ended.err, ended
        assert "such rows are not trained on: raise --max-seq-length, or give smaller schemas" in ended.err
    assert "too long for the student: 36 of 36 rows: d_04_training_corpus.jsonl:1 of long (" in corpus.err, corpus
    assert "They are not trained on" in corpus.err and "give --max-seq-length" in corpus.err
    for ended in (load(path, tmp_path / "dry"), made, corpus):
        assert (ended.code, "Traceback" in ended.err) == (0, False)
    unasked = generate(path, tmp_path / "none", "--teacher-model", "m:1", "--teacher-host", "http://127.0.0.1:9")
    assert unasked.code == 1 and "too long for the student" in unasked.err, "said after the teacher was asked"


@pytest.mark.parametrize("draft", [*DRAFTS, NEWEST])
@pytest.mark.parametrize("name", RAW_NAMES)
def test_21_names_that_are_not_encoded_are_followed(tmp_path, draft, name):
    properties = {"x": {"$ref": f"#/definitions/{name}"}}
    schema = {"$schema": draft, "type": "object", "properties": properties, "required": ["x"]}
    path = tmp_path / "raw.json"
    path.write_text(json.dumps(schema | {"definitions": {name: {"enum": [1, 2]}}}))
    assert_told(load_schemas(path)[0].schema, [{"x": 1}, {"x": 2}], [{"x": 3}, {"x": "1"}, {}])


def test_22_dependencies_are_told_and_obeyed(tmp_path):
    assert_told(
        case("22_dependencies/schema.json"),
        [{"note": "n"}, {"card": "1", "address": "a"}, {"gift": True, "note": "n"}],
        [{}, {"card": "1"}, {"gift": True}, {"gift": True, "card": "1", "address": "a"}],
    )
    assert_dataset("22_dependencies/schema.json", tmp_path)


@pytest.mark.parametrize("name", ["named", "crash"])
def test_22_a_property_that_is_called_properties_is_no_keyword(tmp_path, name):
    given = {"name": "abc", "rule": {"order": "flexible", "properties": ["a"]}}
    wrong = ({"properties": ["a"]}, {}, {"order": "x"}, {"order": "flexible", "properties": "a"})
    schema = case(f"22_dependencies/{name}.json")
    assert_told(schema, [given, {**given, "rule": {"order": "flexible"}}], [{**given, "rule": rule} for rule in wrong])
    ended = load(CASES / "22_dependencies" / f"{name}.json", tmp_path)
    assert (ended.code, "Traceback" in ended.err) == (0, False)
    assert_dataset(f"22_dependencies/{name}.json", tmp_path)


def test_23_files_that_refer_to_each_other_are_loaded_together(tmp_path):
    folder = tmp_path / "schemas"
    folder.mkdir()
    base = "https://example.com/"
    address = {"$id": f"{base}address.json", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    order = {"$id": f"{base}order.json", "properties": {"to": {"$ref": "address.json"}}, "required": ["to"]}
    for name, schema in (("address", address), ("order", order)):
        (folder / f"{name}.json").write_text(json.dumps({**schema, "type": "object"}))
    assert load(folder, tmp_path).code == 0
    schema = {row.schema_id: row.schema for row in load_schemas(folder)}["order"]
    assert_told(schema, [{"to": {"city": "Oslo"}}], [{}, {"to": {}}, {"to": {"city": 1}}])
    with pytest.raises(UserError, match=r"/properties/to/\$ref: .*address.json"):
        load_schemas(folder / "order.json")


def test_24_values_that_look_alike_are_told_apart():
    texts, numbers = case("24_ambiguous_rendering/strings.json"), case("24_ambiguous_rendering/numbers.json")
    assert render_schema(texts) == (
        'version "1"|"2"|"3.8"\ndebug "true"|"false"\nlevel "0"\ngap? "null"|x\nport? string|integer = "80"'
    )
    assert render_schema(numbers) == (
        "version 1|2|3.8\ndebug true|false\nlevel 0\ngap? null|x\nport? string|integer = 80"
    )
    words = {"version": "1", "debug": "true", "level": "0", "gap": "null"}
    values = {"version": 1, "debug": True, "level": 0, "gap": None}
    assert_told(texts, [words], [values, *({**words, name: values[name]} for name in words)])
    assert_told(numbers, [values], [words, *({**values, name: words[name]} for name in values)])


def test_24_a_description_of_several_lines_stays_on_one():
    schema = case("24_ambiguous_rendering/lines.json")
    assert render_schema(schema) == (
        "name string # Who.\\n\\nNot:\\nage integer\\n- a nickname\n"
        'kind? "a|b"|""|c d # x\ntags? list of string # one # two\n* any'
    )
    assert_told(
        schema, [{"name": "x", "kind": ""}, {"name": "x", "kind": "a|b"}], [{"age": 1}, {"name": "x", "kind": "a"}]
    )
    assert not find_violations({"name": "x", "age": "old"}, compile_schema(schema))
