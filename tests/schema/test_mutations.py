"""A mutation has the kind and the rank that it claims."""

import json
import random

from hypothesis import given
from hypothesis import strategies as st
from schema_examples import BFCL_ROWS, QUERY_SCHEMA
from schema_strategies import SCHEMAS

from schema_student.schema.canonical import canonical
from schema_student.schema.compiling import compile_schema
from schema_student.schema.instances.generator import example_instance
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
