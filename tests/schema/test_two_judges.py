"""Verdicts of jsonschema-rs, which judges here, are those of Python's jsonschema but for named differences."""

import json
import random
from itertools import chain

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_strategies import NAMES, SMALL

from schema_student.schema.compiling import compile_schema
from schema_student.schema.drafts import DRAFT_NAMES
from schema_student.schema.judging import is_valid, judge

PEERS = {
    "4": jsonschema.Draft4Validator,
    "6": jsonschema.Draft6Validator,
    "7": jsonschema.Draft7Validator,
    "2019-09": jsonschema.Draft201909Validator,
    "2020-12": jsonschema.Draft202012Validator,
}
# Formats that jsonschema checks without packages of its own extras; a text that is one, texts that are near it.
FORMATS = {
    "date": ["2024-02-29", "2023-02-29", "2024-2-9", "20240229", "2024-W01-1"],
    "email": ["a@b.co", "a.b.co", ""],
    "ipv4": ["127.0.0.1", "127.0.0.256", "127.0.1", "::1"],
    "ipv6": ["::1", "12::34::5", "1:2:3:4:5:6:7:8", "127.0.0.1"],
    "regex": ["^a+$", "a(", "[", "a{2,1}"],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08aa9811eab4aa73b441d16380", "2eb8"],
}
TEXTS = ["", "a", "ab", "abc", "kind", "size", "A1", "\u00e9", "e\u0301", "\U0001f600", *chain(*FORMATS.values())]
NUMBERS = [*range(-2, 6), 0.0, 1.0, -0.5, 2.5, 0.1, 2**53, 2**53 + 1, 2**63]
SCALARS = [None, False, True, *NUMBERS, *TEXTS]
# Of these some are asked of every schema, beside values that hypothesis draws.
KNOWN = [*SCALARS, *([scalar] for scalar in SCALARS), *({"a": scalar} for scalar in SCALARS)]
PATTERNS = ["^[A-Z]", "^a", "b$", "^(ab|cd)*$", "[^a-z]", "."]
VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(NAMES, inside, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
REFERENCE = st.just({"$ref": "#/definitions/part"})
# What a keyword may be given, by what stands under it: the schemas `inside` or nothing.
PLAIN = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
    "enum": st.lists(VALUES, min_size=1, max_size=3, unique_by=json.dumps),
    **dict.fromkeys(["minimum", "maximum"], st.sampled_from(NUMBERS)),
    "multipleOf": st.sampled_from([1, 2, 3, 0.5]),
    **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"], SMALL),
    "pattern": st.sampled_from(PATTERNS),
    "uniqueItems": st.booleans(),
    "required": st.lists(NAMES, min_size=1, max_size=2, unique=True),
}
SINCE_6 = {"const": VALUES, **dict.fromkeys(["exclusiveMinimum", "exclusiveMaximum"], st.sampled_from(NUMBERS))}
SINCE_2019 = {"dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2)}
SINCE_2019 |= {"minContains": SMALL, "maxContains": SMALL}


def applying(inside, draft):
    """Keywords that apply schemas, as a draft has them."""
    many, named = st.lists(inside, min_size=1, max_size=3), st.dictionaries(NAMES, inside, max_size=3)
    found = {"items": inside, "additionalProperties": inside, "properties": named, "not": inside}
    found |= {"allOf": many, "anyOf": many, "oneOf": many}
    found["patternProperties"] = st.dictionaries(st.sampled_from(PATTERNS), inside, max_size=2)
    if draft in ("4", "6", "7"):
        found |= {"items": inside | many, "additionalItems": inside, "dependencies": named}
    if draft != "4":
        found |= {"contains": inside, "propertyNames": inside}
    if draft not in ("4", "6"):
        found |= {"if": inside, "then": inside, "else": inside}
    if draft.startswith("20"):
        found |= {"dependentSchemas": named, "unevaluatedProperties": inside, "unevaluatedItems": inside}
    if draft == "2020-12":
        found["prefixItems"] = many
    return found


def schemas(draft):
    """Schemas of a draft: up to four keywords an object, and a part that any of them may refer to."""
    formats = PEERS[draft].FORMAT_CHECKER.checkers.keys() & FORMATS.keys()
    plain = PLAIN | {"format": st.sampled_from(sorted(formats))}
    plain |= (SINCE_6 if draft != "4" else {}) | (SINCE_2019 if draft.startswith("20") else {})

    def of(keywords):
        names = st.lists(st.sampled_from(sorted(keywords)), min_size=1, max_size=4, unique=True)
        return names.flatmap(lambda chosen: st.fixed_dictionaries({name: keywords[name] for name in chosen}))

    leaves = of(plain) | (st.booleans() if draft != "4" else st.just({}))
    parts = st.recursive(leaves | REFERENCE, lambda inside: of(plain | applying(inside, draft)), max_leaves=6)
    objects = parts.filter(lambda schema: isinstance(schema, dict))
    return st.tuples(objects, leaves).map(
        lambda drawn: {"$schema": DRAFT_NAMES[draft], "allOf": [drawn[0]], "definitions": {"part": drawn[1]}}
    )


@pytest.mark.parametrize("draft", PEERS)
@settings(max_examples=40)
@given(st.data())
def test_two_judges_agree(draft, data):
    schema, seed = data.draw(schemas(draft)), data.draw(st.integers(0, 999))
    compiled = compile_schema(schema)
    peer = PEERS[draft](schema, format_checker=PEERS[draft].FORMAT_CHECKER)
    values = [*random.Random(seed).sample(KNOWN, 20), *data.draw(st.lists(VALUES, max_size=3))]
    ours = [judge(json.dumps(value), compiled).schema_valid for value in values]
    assert ours == [peer.is_valid(value) for value in values]
    assert ours == [is_valid(value, compiled) for value in values]


ECMA = "a pattern is of ECMA 262 here, of Python's re there"
EXACT = "a multiple is reckoned in decimals here, in doubles there"
ITS_EXTRAS = "jsonschema checks it with packages that it does not bring along"
DIFFERENCES = [  # schema, value, our verdict, why jsonschema's is the other one
    ({"pattern": "b$"}, "ab\n", False, f"{ECMA}: $ is the end alone"),
    ({"pattern": r"^\d$"}, "\u0663", False, f"{ECMA}: a digit is one of ASCII"),
    ({"pattern": r"^\w$"}, "\u00e9", False, f"{ECMA}: a letter of a word is one of ASCII"),
    ({"pattern": r"^\s$"}, "\ufeff", True, f"{ECMA}: a byte order mark is white space"),
    ({"format": "regex"}, r"^\p{Lu}", True, ECMA),
    ({"format": "regex"}, "(?<a>x)", True, ECMA),
    ({"format": "regex"}, "(?P<a>x)", False, ECMA),
    ({"format": "regex"}, r"a\Z", False, ECMA),
    ({"format": "regex"}, "a++", False, ECMA),
    ({"multipleOf": 0.1}, 0.3, True, EXACT),
    ({"multipleOf": 0.01}, 19.99, True, EXACT),
    ({"multipleOf": 2.5}, 2**53, False, EXACT),
    ({"multipleOf": 3}, 1e300, False, EXACT),
    ({"format": "email"}, "@", False, "jsonschema looks for an @ alone"),
    ({"format": "email"}, "a b@c", False, "jsonschema looks for an @ alone"),
    ({"format": "idn-email"}, "@", False, "jsonschema looks for an @ alone"),
    ({"format": "date"}, "0000-01-01", True, "RFC 3339 has a year 0, Python's datetime has none"),
    ({"format": "hostname"}, "-a", False, ITS_EXTRAS),
    ({"format": "time"}, "25:00:00Z", False, ITS_EXTRAS),
    ({"format": "date-time"}, "2024-02-30T00:00:00Z", False, ITS_EXTRAS),
    ({"format": "duration"}, "1D", False, ITS_EXTRAS),
    ({"format": "uri"}, "a b", False, ITS_EXTRAS),
    ({"format": "uri-reference"}, "\\", False, ITS_EXTRAS),
    ({"format": "uri-template"}, "{", False, ITS_EXTRAS),
    ({"format": "iri"}, " ", False, ITS_EXTRAS),
    ({"format": "iri-reference"}, "\\", False, ITS_EXTRAS),
    ({"format": "json-pointer"}, "a", False, ITS_EXTRAS),
    ({"format": "relative-json-pointer"}, "a", False, ITS_EXTRAS),
]


@pytest.mark.parametrize(("schema", "value", "ours", "why"), DIFFERENCES)
def test_they_differ_where_it_is_known_why(schema, value, ours, why):
    peer = jsonschema.Draft202012Validator
    assert is_valid(value, compile_schema(schema)) is ours, why
    assert peer(schema, format_checker=peer.FORMAT_CHECKER).is_valid(value) is not ours, "they agree now"
