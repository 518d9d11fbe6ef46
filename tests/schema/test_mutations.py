"""A mutation has the kind and the rank that it claims."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_examples import BFCL_ROWS, QUERY_SCHEMA
from schema_strategies import SCHEMAS

from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import compile_schema
from schema_student.schema.instances.generator import example_instance
from schema_student.schema.instances.words import WORDS
from schema_student.schema.judging import judge
from schema_student.schema.mutations import MUTATIONS, mutate
from schema_student.schema.rendering import completion_text

QUERY = {
    "prompt": "p",
    "steps": [{"name": "s", "conditions": [{"field": "color", "operator": "is", "value": "red"}], "description": "d"}],
    "timeframe": {"start": "2024-01-01", "end": "2024-02-01"},
}


def check(value, schema, seed):
    compiled = compile_schema(schema)
    mutations = mutate(value, compiled, random.Random(seed))
    for text, kind in mutations:
        verdict = judge(text, compiled)
        rank, keywords = MUTATIONS[kind]
        assert verdict.rank == rank
        assert {violation.keyword for violation in verdict.violations} <= set(keywords)
        assert text != completion_text(value)
        if rank == 4:
            assert canonical(verdict.value, schema) != canonical(value, schema)
    kinds = [kind for _, kind in mutations]
    assert len(set(kinds)) == len(kinds)
    return set(kinds)


@given(SCHEMAS, st.integers(0, 2**16))
def test_each_mutation_has_its_rank_and_its_keywords(schema, seed):
    check(example_instance(schema, random.Random(seed)), schema, seed)


def test_a_query_can_be_broken_in_every_way_that_its_schema_forbids():
    assert set().union(*(check(QUERY, QUERY_SCHEMA, seed) for seed in range(5))) == set(MUTATIONS)


def test_every_real_answer_can_be_broken():
    for seed, row in enumerate(BFCL_ROWS):
        kinds = check(row["answer"], row["schema"], seed)
        assert {"truncated", "wrong_type", "missing", "unexpected", "other_value"} <= kinds, row["id"]


def test_the_same_seed_makes_the_same_mutations_and_another_others():
    assert mutate(QUERY, QUERY_SCHEMA, random.Random(3)) == mutate(QUERY, QUERY_SCHEMA, random.Random(3))
    assert mutate(QUERY, QUERY_SCHEMA, random.Random(3)) != mutate(QUERY, QUERY_SCHEMA, random.Random(4))


def test_the_value_itself_is_left_alone():
    before = json.dumps(QUERY)
    mutate(QUERY, QUERY_SCHEMA, random.Random(0))
    assert json.dumps(QUERY) == before


def test_null_and_empty_values_can_be_given():
    check(None, {"type": "null"}, 0)
    check({}, {"type": "object"}, 0)
    check([], {"type": "array"}, 0)
    check(0, {"type": "integer", "maximum": 5}, 0)


def test_a_text_is_never_just_emptied():
    schema = {"type": "object", "properties": {"name": {"type": "string", "minLength": 1}}, "required": ["name"]}
    texts = [text for seed in range(20) for text, _ in mutate({"name": "x"}, schema, random.Random(seed))]
    assert texts and '{"name":""}' not in texts


NUMBER = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 7}}, "required": ["n"]}
CLOSED = {"additionalProperties": False}
DAYS = {
    "properties": {"from": {"format": "date"}, "to": {"format": "date"}},
    "x-rules": [{"rule": "date_order", "path": "", "start": "from", "end": "to"}],
}
ADDED = [json.dumps(word) for word in WORDS] + ["1", "true"]


@pytest.mark.parametrize(
    ("value", "schema", "kind", "texts"),
    [
        ({"n": 5}, NUMBER, "truncated", ['{"n', '{"n"', '{"n":', '{"n":5']),
        ({"n": 5}, NUMBER, "wrong_type", ['"{\\"n\\":5}"', '{"n":"5"}']),
        ({"n": 5}, NUMBER, "missing", ["{}"]),
        ({"n": 5}, NUMBER, "unexpected", []),
        ({"n": 5}, NUMBER | CLOSED, "unexpected", [f'{{"n":5,"description":{word}}}' for word in ADDED]),
        (
            {"description": 1, "comment": 2, "name": 3, "type": 4, "n": 5},
            {"properties": {key: {} for key in ("description", "comment", "name", "type", "n")}} | CLOSED,
            "unexpected",
            [f'{{"description":1,"comment":2,"name":3,"type":4,"n":5,"descriptions":{word}}}' for word in ADDED],
        ),
        *(
            (
                value,
                {"properties": {key: {} for key in value}} | CLOSED,
                "unexpected",
                [f'{json.dumps(value, separators=(",", ":"))[:-1]},"{name}":{word}}}' for word in ADDED],
            )
            for value, name in (
                ({"description": 1}, "comment"),
                ({"description": 1, "comment": 2}, "name"),
                ({"description": 1, "comment": 2, "name": 3}, "type"),
            )
        ),
        ({"n": 5}, NUMBER, "out_of_bounds", ['{"n":15}']),
        ({"n": 5}, {"properties": {"n": {"minimum": -4}}}, "out_of_bounds", ['{"n":-5}']),
        ({"n": 5}, {"properties": {"n": {"minimum": -999}}}, "out_of_bounds", ['{"n":-999999995}']),
        ({"n": True}, {"properties": {"n": {"minimum": 0}}}, "out_of_bounds", []),
        ({"n": 5}, NUMBER, "other_value", ['{"n":6}', '{"n":4}', '{"n":-5}']),
        ({"n": 5}, NUMBER, "bad_format", []),
        ({"b": True}, {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}, "other_value", ['{"b":false}']),
        ({"b": 1}, {"properties": {"b": {"const": 1}}}, "other_value", ["{}"]),
        ("red", {"enum": ["red", "reds", "blue", 3]}, "other_value", ['"reds"', '"blue"']),
        ("red", {"enum": ["red", "blue"]}, "wrong_enum", ['"reds"']),
        ("x", {"type": "string"}, "other_value", ADDED[:-2]),
        ("s", {"anyOf": [{"const": "s"}, {"const": "ss"}]}, "wrong_enum", ['""']),
        (
            {"a": "x", "b": "y"},
            {"properties": {"a": {"enum": ["x", "z"]}, "b": {"const": "y"}}},
            "wrong_enum",
            ['{"a":"y","b":"y"}', '{"a":"x","b":"x"}', '{"a":"x","b":"z"}'],
        ),
        ([1], {"type": "array"}, "wrong_type", ["1"]),
        ([], {"type": "array"}, "wrong_type", ['""']),
        ([1, 2], {"type": "array", "minItems": 1}, "out_of_bounds", ["[]"]),
        ([1, 2], {"type": "array", "maxItems": 40}, "out_of_bounds", []),
        ([1, 2], {"type": "array", "maxItems": 39}, "out_of_bounds", [json.dumps([1, 2] * 20, separators=(",", ":"))]),
        ("ab", {"maxLength": 199}, "out_of_bounds", [f'"{"ab" * 100}"']),
        ("ab", {"maxLength": 200}, "out_of_bounds", []),
        ("2024-05-06", {"format": "date"}, "bad_format", ['"06/05/2024"', '"2024-05-32"', '"2024-05"']),
        (
            "2024-05-06T07:08:09Z",
            {"format": "date-time"},
            "bad_format",
            ['"06/05/2024T07:08:09Z"', '"2024-05-32T07:08:09Z"', '"2024-05T07:08:09Z"'],
        ),
        ("xy", {"pattern": "^(x|[a-z]{3,}| )"}, "bad_format", ['"y"']),
        ("xyz", {"pattern": "[a-z ]$"}, "bad_format", ['"xyz!"']),
        ({"from": "2024-05-06", "to": "2024-05-06"}, DAYS, "date_order", ['{"from":"2024-05-06","to":"1999-05-06"}']),
        ({"from": "2024-05-06", "to": "2024-05-07"}, DAYS, "date_order", ['{"from":"2024-05-07","to":"2024-05-06"}']),
    ],
)
def test_each_kind_of_fault_is_made_in_just_these_ways(value, schema, kind, texts):
    rngs = map(random.Random, range(300 if len(texts) > 10 else 60))
    found = {text for rng in rngs for text, made in mutate(value, schema, rng) if made == kind}
    assert found == {*texts}


def test_another_date_is_a_date():
    found = {text for seed in range(40) for text, _ in mutate("2024-05-06", {"type": "string"}, random.Random(seed))}
    assert {json.loads(text)[:2] for text in found if text.startswith('"')} == {"20"}
