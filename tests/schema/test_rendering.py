"""From the compact rendering a schema's verdicts can be told: a second reader rebuilds a schema that agrees."""

import copy
import json
import random
import re
import time

import pytest
from compact_reader import Reader
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_examples import BFCL_ROWS, QUERY_SCHEMA

from schema_student.core.resources import CHECKOUT, DATA_DIR
from schema_student.schema.compact.words import FORMATS
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.drafts import DRAFT_NAMES, is_format_checked
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.judging import find_violations
from schema_student.schema.mutations import mutate
from schema_student.schema.query_dsl import build_schema, draw_operators, operator_catalog
from schema_student.schema.rendering import render_schema
from schema_student.schema.structure import shape

PUBLIC = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((CHECKOUT / "tests" / "data" / "schemas").glob("*.json"))
}
LEXICON = json.loads((DATA_DIR / "lexicon.json").read_text(encoding="utf-8"))
BFCL_LINES = (CHECKOUT / "examples" / "bfcl" / "multiple.jsonl").read_text(encoding="utf-8").splitlines()
BFCL = list({json.dumps(row["schema"]): row["schema"] for row in [*BFCL_ROWS, *map(json.loads, BFCL_LINES)]}.values())


def dsl_schema(domain, seed=0):
    return build_schema(domain, draw_operators(operator_catalog(), domain, random.Random(seed)))


def minified(schema):
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def words_of(node):
    """All names and values of a schema: what a confused writer might put anywhere."""
    if isinstance(node, dict):
        return [word for key, child in node.items() for word in (key, *words_of(child))]
    return [word for child in node for word in words_of(child)] if isinstance(node, list) else [node]


def places(node, place=()):
    yield place
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(child, (*place, key))


def edited(value, pool, rng):
    """The value with a random part replaced, dropped or added."""
    value = copy.deepcopy(value)
    new = rng.choice([None, True, 1, 2.5, "", "1", [], {}, [1, 1], {"zz": 1}, rng.choice(pool)])
    place = rng.choice(list(places(value)))
    if not place:
        return new
    parent = value
    for key in place[:-1]:
        parent = parent[key]
    if rng.random() < 0.3:
        del parent[place[-1]]
    elif rng.random() < 0.4:
        parent[place[-1]] = new
    elif isinstance(parent, dict):
        parent[str(rng.choice(pool))] = new
    else:
        parent.append(rng.choice([*parent, new]))
    return value


def instances(schema, rng, count=2, edits=30):
    """Valid instances where some are found, mutations of known kinds, random edits, and edits of nothing."""
    pool = words_of(schema) or [0]
    for _ in range(count):
        try:
            valid = example_instance(schema, rng, tries=10)
            yield from (json.loads(text) for text, kind in mutate(valid, schema, rng) if kind != "truncated")
        except SchemaError:
            valid = {}
        yield valid
        for _ in range(edits):
            yield edited(valid, pool, rng)
        for _ in range(edits // 3):
            yield edited(edited({"a": 1}, pool, rng), pool, rng)


def assert_told(schema, rng, **counts):
    """The rendering tells the verdicts of the schema on all these instances, and is no longer than it may be."""
    text = render_schema(schema)
    assert len(text) <= len(minified(schema)) + 64
    original, read = compile_schema(schema), Reader(text).schema
    rebuilt = compile_schema(read if isinstance(read, dict) else {"allOf": [read]})
    for value in instances(schema, rng, **counts):
        expected = not find_violations(value, original)
        assert (not find_violations(value, rebuilt)) is expected, f"{json.dumps(value)} is {expected}\n{text}\n{read}"


# Whole sets of schemas


@pytest.mark.parametrize("name", PUBLIC)
def test_the_verdicts_of_public_schemas_can_be_told(name):
    assert_told(PUBLIC[name], random.Random(1))


def test_the_verdicts_of_real_functions_can_be_told():
    rng = random.Random(2)
    for schema in BFCL[::12]:
        assert_told(schema, rng, count=1, edits=20)


def test_the_verdicts_of_the_query_dsl_can_be_told():
    rng = random.Random(3)
    for domain in LEXICON[::6]:
        assert_told(dsl_schema(domain), rng, count=2)
    for i, domain in enumerate(LEXICON):
        schema = dsl_schema(domain, i)
        assert shape(Reader(render_schema(schema)).schema) == shape(schema)
    assert_told(QUERY_SCHEMA, rng, count=2)


def test_a_schema_that_only_looks_like_the_query_dsl_is_told_apart():
    framed = dsl_schema(LEXICON[0])
    for change in ({"minLength": 2}, {"minLength": 0}):
        other = copy.deepcopy(framed)
        other["properties"]["prompt"] |= change
        assert render_schema(other) != render_schema(framed)
        assert_told(other, random.Random(4), count=1)
    unruled = {key: part for key, part in framed.items() if key != "x-rules"}
    assert render_schema(unruled) != render_schema(framed)
    loose = copy.deepcopy(framed)
    del loose["if"], loose["then"], loose["else"], loose["x-rules"]
    assert render_schema(loose).splitlines()[1].startswith("@root: object")


def test_at_most_a_tenth_of_all_characters_stands_as_json(capsys):
    shares = {}
    for name, schemas in (("BFCL", BFCL), ("public", PUBLIC.values()), ("query DSL", map(dsl_schema, LEXICON))):
        texts = [render_schema(schema) for schema in schemas]
        shares[name] = sum(Reader(text).json_characters for text in texts) / sum(map(len, texts))
    with capsys.disabled():
        print("\ncharacters that stand as JSON:", ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    assert max(shares.values()) <= 0.1


# Any schema

NAMES = st.sampled_from(
    ["a", "b", "kind", "option", "if", "of", "x y", "é", "a?", "b:", "*", "@id", "/p", "#", "", "part"]
)
STRINGS = NAMES | st.sampled_from(
    [
        "1",
        "true",
        "null",
        "string",
        "a|b",
        "one of",
        "x = y",
        "x # y",
        "x {y",
        "(z)",
        "date",
        "New York",
        "-",
        "1.5",
        "@a",
    ]
)
SCALARS = STRINGS | st.sampled_from([None, True, False, 0, 1, -2, 1.5])
SMALL = st.integers(0, 3)
NOTES = st.fixed_dictionaries({}, optional={"description": STRINGS | st.just("two\nlines # x"), "default": SCALARS})
TYPES = ["string", "integer", "number", "boolean", "null", "array", "object"]
SIMPLE = {
    "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True),
    "enum": st.lists(SCALARS | st.just([1]) | st.just({"a": 1}), min_size=1, max_size=4, unique_by=repr),
    "const": SCALARS,
    "minLength": SMALL,
    "maxLength": SMALL,
    "pattern": st.sampled_from(["^[a-z]", "1"]),
    "format": st.sampled_from(["date", "uuid", "int64"]),
    "minimum": SMALL,
    "exclusiveMinimum": SMALL,
    "maximum": SMALL,
    "exclusiveMaximum": st.just(2.5),
    "multipleOf": st.sampled_from([2, 0.5]),
    "minItems": SMALL,
    "maxItems": SMALL,
    "uniqueItems": st.booleans(),
    "required": st.lists(NAMES, max_size=2, unique=True),
    "minProperties": SMALL,
    "maxProperties": SMALL,
    "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=1),
    "$ref": st.sampled_from(["#/$defs/a", "#/$defs/x%20y", "#"]),
}


def _nested(inner):
    several, named = st.lists(inner, min_size=1, max_size=3), st.dictionaries(NAMES, inner, max_size=3)
    patterns = st.dictionaries(st.sampled_from(["^a", "/ x", "o"]), inner, max_size=1)
    return {
        **dict.fromkeys(("items", "additionalProperties", "not", "if", "then", "else", "contains"), inner),
        **dict.fromkeys(("propertyNames", "unevaluatedProperties", "unevaluatedItems"), inner),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), several),
        **{"properties": named, "patternProperties": patterns, "dependentSchemas": named},
    }


def _schemas(inner):
    keywords = {**SIMPLE, **_nested(inner)}
    chosen = st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=4, unique=True)
    drawn = chosen.flatmap(lambda keys: st.fixed_dictionaries({key: keywords[key] for key in keys}))
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, min_size=1, max_size=3)},
        optional={"additionalProperties": st.just(False) | inner, "required": st.lists(NAMES, max_size=2, unique=True)},
    )
    return st.tuples(drawn | objects, NOTES).map(lambda parts: {**parts[0], **parts[1]})


SCHEMAS = st.recursive(st.booleans() | _schemas(st.booleans()), _schemas, max_leaves=6)
DRAFTS = ("http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#", None)


@given(root=_schemas(SCHEMAS), a=SCHEMAS, b=SCHEMAS, seed=st.integers(0, 9), draft=st.sampled_from(DRAFTS))
@settings(max_examples=150, deadline=None)
def test_the_verdicts_of_any_schema_can_be_told(root, a, b, seed, draft):
    schema = {**root, "$defs": {"a": a, "x y": b}} | ({"$schema": draft} if draft else {})
    try:
        compile_schema(schema)
    except SchemaError:  # as draft 4 has no boolean schemas
        return
    rng = random.Random(seed)
    text = render_schema(schema)
    read = Reader(text).schema
    original, rebuilt = compile_schema(schema), compile_schema(read if isinstance(read, dict) else {"allOf": [read]})
    pool = [*words_of(schema), "2024-01-31", "ab"]
    for start in ({"a": 1, "kind": "b"}, {"if": {"a": [1]}}, [1, "a"], "1"):
        for _ in range(12):
            value = edited(edited(start, pool, rng), pool, rng)
            expected = original.validator.is_valid(value)
            assert rebuilt.validator.is_valid(value) is expected, f"{json.dumps(value)} is {expected}\n{text}\n{read}"
    assert len(text) <= len(minified(schema)) + 64


# What must be told apart


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ({"enum": ["1"]}, {"enum": [1]}),
        ({"enum": ["true", "false"]}, {"enum": [True, False]}),
        ({"const": "null"}, {"type": "null"}),
        ({"const": "string"}, {"type": "string"}),
        ({"enum": ["a|b"]}, {"enum": ["a", "b"]}),
        ({"enum": ["list of string"]}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "string", "format": "date"}, {"format": "date"}),
        ({"type": "string", "minLength": 3}, {"type": "string"}),
        ({"type": "array", "minItems": 2, "maxItems": 2}, {"type": "array"}),
        (
            {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
            {"type": "array", "items": {"type": "integer"}},
        ),
        (
            {"type": "array", "items": {"type": ["string", "null"]}},
            {"type": ["array", "null"], "items": {"type": "string"}},
        ),
        ({"type": "array", "items": {"pattern": "^a"}}, {"type": "array"}),
        ({"type": "object", "additionalProperties": False}, {"type": "object"}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "object"}),
        ({"type": "object", "patternProperties": {"^a": False}}, {"type": "object"}),
        ({"type": "object", "minProperties": 1}, {"type": "object"}),
        ({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"type": "object"}),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, {"anyOf": [{"type": "integer"}, {"type": "number"}]}),
        ({"type": "number", "exclusiveMinimum": 1}, {"type": "number", "minimum": 1}),
        ({"type": "array", "prefixItems": [{"type": "integer"}]}, {"type": "array"}),
        ({"if": {"type": "integer"}, "then": {"minimum": 2}}, {}),
        ({"not": {"type": "integer"}}, {}),
        ({"allOf": [{"type": "integer"}, {"minimum": 2}]}, {"type": "integer"}),
        ({"$ref": "#/$defs/n"}, {"const": "n"}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
    ],
)
def test_schemas_with_other_verdicts_are_rendered_otherwise(part, other):
    definitions = {"$defs": {"n": {"type": "integer"}}}
    for wrap in (lambda schema: {"type": "object", "properties": {"x": schema, "y": {"$ref": "#/$defs/n"}}}, dict):
        first, second = ({**wrap(schema), **definitions} for schema in (part, other))
        assert render_schema(first) != render_schema(second)
        assert_told(first, random.Random(5))
        assert_told(second, random.Random(5))


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (True, "x? any"),
        (False, "x? never"),
        ({"type": "integer", "format": "int64", "description": "a count"}, "x? integer # a count (int64)"),
        ({"type": "string", "format": "int64"}, "x? string # (int64)"),
        ({"type": "string", "format": "date", "description": "a day"}, "x? date # a day"),
        ({"type": "string", "format": "date", "minLength": 3}, "x? date 3.. chars"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "x? integer|null"),
        ({"anyOf": [{"type": "array", "items": {"type": "null"}}, {"type": "string"}]}, "x? string|list of null"),
        ({"oneOf": [{"const": "a", "description": "one"}, {"enum": ["b"]}]}, "x? one of\n one: a\n b"),
        ({"oneOf": [{"const": 1}, {"const": 1}]}, "x? one of\n option 1 1\n option 2 1"),
        ({"anyOf": [{"const": 1}, {"const": 1}]}, "x? one of\n 1\n 1"),
        ({"type": ["integer", "number", "null"], "minimum": 1, "exclusiveMaximum": 5}, "x? number 1..<5|null"),
        ({"type": "number", "exclusiveMinimum": 1, "maximum": 5}, "x? number >1..5"),
        ({"type": "integer", "maximum": 5}, "x? integer ..5"),
        (
            {
                "type": "array",
                "items": {"type": ["string", "null"], "maxLength": 3},
                "minItems": 2,
                "uniqueItems": True,
            },
            "x? list 2.. unique of string ..3 chars|null",
        ),
        ({"not": {"type": "null"}}, 'x? {"not":{"type":"null"}}'),
        ({"enum": [1, "1", None, True, "a b"]}, 'x? 1|"1"|null|true|a b'),
        ({"enum": [1, 2.0, 2.5, "x"], "type": "integer"}, "x? 1|2.0"),
        ({"enum": ["a"], "type": "integer"}, "x? never"),
        ({"const": {"a": 1}, "default": {"a": 1}}, '#\nx? = {"a":1} {"const":{"a":1}}'),
        ({"type": "object", "minProperties": 1, "required": ["q"]}, 'x? object {"minProperties":1,"required":["q"]}'),
        (
            {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "required": ["q"]},
            'x? object {"required":["q"]}\n /^x/ integer\n * any',
        ),
        (
            {"type": "object", "patternProperties": {"y z": {"type": "integer"}}},
            'x? object {"patternProperties":{"y z":{"type":"integer"}}}',
        ),
        (
            {
                "type": "object",
                "properties": {"k": {}},
                "if": {"properties": {"k": {"const": "a"}}},
                "then": {"required": ["z"]},
            },
            'x? object\n k? any\n * any\n if any\n  k? a\n  * any\n then {"required":["z"]}',
        ),
    ],
)
def test_a_part_is_said_in_these_words(part, line):
    schema = {"type": "object", "properties": {"x": part}, "additionalProperties": False}
    assert render_schema(schema) == line


@pytest.mark.parametrize("draft", DRAFT_NAMES.values())
def test_a_format_stands_for_a_type_where_its_draft_checks_it_and_in_the_description_elsewhere(draft):
    for name in (*FORMATS, "int64", "password"):
        part = {"type": "string", "format": name}
        text = render_schema({"$schema": draft, "type": "object", "properties": {"x": part}})
        assert text == (f"x? {name}\n* any" if is_format_checked(name, draft) else f"x? string # ({name})\n* any")


def test_line_breaks_in_a_description_are_escaped():
    schema = {
        "title": "a\nb",
        "type": "object",
        "properties": {"n": {"type": "integer", "description": "Who.\r\nNot:\u2028age"}},
        "additionalProperties": False,
    }
    assert render_schema(schema) == "a\\nb\nn? integer # Who.\\nNot:\\nage"


@pytest.mark.parametrize("title", ["name string", "# x", "@a: b", '"q" string', "n? 1", "option 1", "* any", "one of"])
def test_a_heading_that_looks_like_a_line_is_told_apart(title):
    schema = {"title": title, "type": "object", "properties": {"n": {"enum": ["x"]}}, "additionalProperties": False}
    assert render_schema(schema) == f"# {title}\nn? x"
    del schema["title"]
    assert render_schema(schema) == "#\nn? x"
    assert Reader(render_schema(schema)).schema["properties"] == {"n": {"const": "x"}}


def test_a_wrapped_model_is_rendered_as_the_model():
    room = {"type": "object", "properties": {"floor": {"type": "integer"}}, "additionalProperties": False}
    wrapped = {"allOf": [{"$ref": "#/$defs/Room"}], "description": "the room"}
    schema = {"type": "object", "properties": {"room": wrapped}, "additionalProperties": False, "$defs": {"Room": room}}
    assert render_schema(schema) == "room? object # the room\n floor? integer"


def test_shared_and_recursive_parts_stand_once_under_a_name():
    node = {"type": "object", "properties": {"left": {"$ref": "#/$defs/Node"}, "right": {"$ref": "#/$defs/Node"}}}
    schema = {"type": "object", "properties": {"tree": {"$ref": "#/$defs/Node"}, "again": {"$ref": "#"}}}
    assert render_schema({**schema, "$defs": {"Node": node}}).splitlines() == [
        *("tree? @Node", "again? @root", "* any"),
        *("@Node: object", " left? @Node", " right? @Node", " * any"),
    ]


@pytest.mark.parametrize("levels", [22, 400])
def test_doubling_references_are_rendered_once_each(levels):
    def level(i):
        ref = {"$ref": f"#/$defs/L{i + 1}"}
        return {"type": "object", "properties": {"a": ref, "b": ref}}

    last = {f"L{levels}": {"type": "integer"}}
    schema = {**level(-1), "$defs": {f"L{i}": level(i) for i in range(levels)} | last}
    began = time.thread_time()
    assert len(render_schema(schema)) <= len(minified(schema)) + 64
    assert time.thread_time() - began < 4


def test_a_long_chain_of_definitions_is_rendered():
    chain = {f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(1600)}
    schema = {"$ref": "#/$defs/d0", "$defs": chain | {"d1600": {"type": "integer"}}}
    text = render_schema(schema)
    assert len(text) <= len(minified(schema)) + 64 and "integer" in text


def test_what_depends_on_the_way_to_it_is_rendered_as_json():
    parts = {name: {"$id": name, "$dynamicAnchor": "n", "type": "object"} for name in ("a", "b")}
    parts["a"]["properties"] = {"child": {"$dynamicRef": "#n"}}
    schema = {"anyOf": [{"$ref": "a"}, {"$ref": "b"}], "$defs": parts}
    assert json.loads(render_schema(schema)) == schema


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (
            {"$dynamicAnchor": "n", "properties": {"child": {"$dynamicRef": "#n"}, "size": {"type": "integer"}}},
            "@root: any\n child? @root\n size? integer\n * any",
        ),
        (
            {"$schema": DRAFT_NAMES["2019-09"], "items": {"$recursiveRef": "#"}, "type": "array"},
            "@root: list of @root",
        ),
        (
            {"items": {"$dynamicRef": "#n"}, "type": "array", "$defs": {"n": {"$dynamicAnchor": "n", "enum": [1, 2]}}},
            "@root: list of 1|2",
        ),
    ],
)  # fmt: skip
def test_a_dynamic_reference_whose_target_is_known_is_told_as_a_plain_one(schema, text):
    assert render_schema(schema) == text
    assert_told(schema, random.Random(3))


def test_simple_schemas_are_rendered_as_the_embedded_student_was_pretrained_on(capsys):
    changed, added, total = 0, 0, 0
    for schema in BFCL:
        expected = plain_lines(schema)
        text = render_schema(schema)
        changed, added, total = changed + (text != expected), added + len(text) - len(expected), total + len(expected)
    with capsys.disabled():
        print(f"\nBFCL: {changed} of {len(BFCL)} prompts changed by quotes, {added} characters of {total} added")
    assert changed <= len(BFCL) * 0.03 and added < total * 0.001
    assert render_schema(dsl_schema(LEXICON[0], 0)) == HOTELS


def test_the_example_of_the_documentation_is_in_the_language():
    text = (CHECKOUT / "docs" / "own_schemas.md").read_text(encoding="utf-8")
    example = text.partition("one line a property:\n\n")[2].partition("\n\n")[0].splitlines()
    schema = Reader("\n".join(re.sub(r"(?<! #) {4,}\S.*", "", line[4:]) for line in example)).schema
    assert list(schema["properties"]) == ["to", "seats", "class", "meals", "code", "seat", "pay"]
    validator = compile_schema(schema).validator
    assert validator.is_valid({"to": "Oslo", "pay": {"card": "1"}, "seat": {"row": 1, "x-a": "b"}, "class": "1"})
    assert not validator.is_valid({"to": "Oslo", "pay": {"card": "1"}, "seat": {"row": 1, "x-a": 2}})
    assert not validator.is_valid({"to": "Os", "pay": {"card": "1"}})


def plain_lines(schema):
    """The lines of closed objects of plain types, nothing quoted: what pretraining data looks like."""
    heading = " # ".join(schema[key] for key in ("title", "description") if schema.get(key))
    lines = [heading] if heading else []
    for i, option in enumerate(schema.get("oneOf", ()), 1):
        said = f" # {option['description']}" if option.get("description") else ""
        lines += [f"option {i}{said}", *plain_members(option, 1)]
    return "\n".join(lines + plain_members(schema, 0))


def plain_members(schema, depth):
    lines = []
    for name, part in schema.get("properties", {}).items():
        default = f" = {plain(part['default'])}" if "default" in part else ""
        said = f" # {part['description']}" if part.get("description") else ""
        optional = "" if name in schema.get("required", ()) else "?"
        lines.append(f"{' ' * depth}{name}{optional} {plain_type(part)}{default}{said}")
        while "items" in part:
            part = part["items"]
        lines += plain_members(part, depth + 1)
    return lines


def plain_type(part):
    if "enum" in part or "const" in part:
        return "|".join(map(plain, part.get("enum", [part.get("const")])))
    if "items" in part:
        return f"list of {plain_type(part['items'])}"
    low, high = part.get("minimum", ""), part.get("maximum", "")
    bounds = f" {low}..{high}" if (low, high) != ("", "") else ""
    return part.get("format", part.get("type", "any")).replace("array", "list") + bounds


def plain(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


HOTELS = """\
hotel bookings # Room bookings of a city hotel.
prompt string # the request as asked
steps list of object # applied in order
 name string
 conditions list of object # all must hold
  field one of
   guest: guest_name / client: guest_name string
   agency: travel_agency / agence: travel_agency string
   night rate: nightly_rate / tarif par nuit: nightly_rate number
   nights: nights_count / nuits: nights_count integer
   breakfast: breakfast_option / petit-déjeuner: breakfast_option boolean
   arrival: arrival_date / arrivée: arrival_date date
   room type: room_kind / type de chambre: room_kind (single: single / simple: single\
|double: double / double: double|suite: suite / suite: suite|family: family / familiale: family)
  operator one of
   begins with this text: opens_with / commence par ce texte: opens_with
   is exactly this: exactly / est exactement: exactly
   is none of these: outside_list / n'est aucun de ceux-ci: outside_list
   ends with this text: suffix / finit par ce texte: suffix
   is one of these: is_in / est un de ceux-ci: is_in
   has this text inside: has_text / contient ce texte: has_text
   looks like this text: similar_to / ressemble à ce texte: similar_to
  value any
 description string
timeframe? object # period, both days included
 start date
 end date
refusal? object # only when the schema cannot express the request
 reason string
 suggestion string"""
