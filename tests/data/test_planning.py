"""How many rows of what, and which schema and request are of which split, by counts worked out by hand."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from schema_examples import QUERY_SCHEMA

from schema_student.core.errors import UserError
from schema_student.core.settings import default_settings
from schema_student.data.quotas import (
    Quota,
    answered_splits,
    kind_of_sizes,
    plan_extra_tests,
    plan_quotas,
    size_dataset,
)
from schema_student.data.sources import Source, say_own_splits
from schema_student.data.splits import split_own_queries, split_schemas
from schema_student.schema.user_schemas import SchemaRow

PLAIN = {"train_queries": 5, "eval_queries": 6, "pair_queries": 2, "teacher_model": "embedded"}
EMBEDDED, NAMED = SimpleNamespace(embedded=True), SimpleNamespace(embedded=False)


def source(name, schema=None, own=(), given=()):
    """A schema of its own shape, unless it is given one."""
    return Source(name, name, [], {"const": name} if schema is None else schema, tuple(own), frozenset(given))


def asked(name, split=None, answer=1):
    return SchemaRow("s", {}, name, answer, None, "f:1", None, split)


def planned(sources, splits, answered=(), **changes):
    quotas = plan_quotas(sources, splits, set(answered), default_settings(**{**PLAIN, **changes}))
    assert all((quota.kind, quota.language) == ("answerable", "en") for quota in quotas)
    return {f"{quota.source.schema_id} {quota.split}": n for quota, n in quotas.items()}


A, B, V, U = map(source, "abvu")
SPLITS = {"a": "train", "b": "train", "v": "validation", "u": "test_unseen"}


def test_training_schemas_serve_pairs_and_seen_tests_and_validation_has_half_as_many():
    assert planned([A, B, V, U], SPLITS) == {
        **{"a train": 5, "a alignment": 2, "a test_seen": 3, "b train": 5, "b alignment": 2, "b test_seen": 3},
        **{"v validation": 3, "u test_unseen": 6},
    }
    assert planned([A, V, U], SPLITS, eval_queries=7) == {
        **{"a train": 5, "a alignment": 2, "a test_seen": 4},
        **{"v validation": 3, "u test_unseen": 7},
    }
    two = {**SPLITS, "w": "test_unseen"}
    found = planned([A, U, source("w")], two, eval_queries=7)
    assert (found["u test_unseen"], found["w test_unseen"]) == (4, 4)


def test_without_a_schema_of_validation_training_schemas_serve_it_a_tenth_and_32_at_least():
    splits = {"a": "train", "b": "train"}
    assert planned([A, B], splits)["a validation"] == planned([A, B], splits)["b validation"] == 16
    assert planned([A, B], splits, train_queries=165)["a validation"] == 17  # ceil(33 / 2)
    assert "a validation" not in planned([A, B, V], {**splits, "v": "validation"})


@pytest.mark.parametrize(
    ("splits", "answered", "given", "quotas"),
    [
        (
            "train",
            ["a train"],
            (),
            {"a train": 5, "a alignment": 2, "a test_seen": 6, "a validation": 32},
        ),
        ("train", ["a train", "a test_seen"], (), {"a train": 5, "a alignment": 2, "a validation": 32}),
        ("train", ["a train", "a test_seen"], ("test", None), {"a train": 5, "a alignment": 2, "a validation": 32}),
        ("train", ["a test_unseen"], ("test", None), {"a train": 5, "a alignment": 2, "a validation": 32}),
        (
            "train",
            ["a test_unseen"],
            (),
            {"a train": 5, "a alignment": 2, "a validation": 32, "a test_seen": 6},
        ),
        ("train", ["a train", "a test_seen", "a validation"], (), {"a train": 5, "a alignment": 2}),
        ("validation", ["a validation"], (), {}),
    ],
)
def test_the_teacher_fills_the_splits_of_a_schema_that_its_own_requests_leave_empty(splits, answered, given, quotas):
    pairs = [tuple(each.split()) for each in answered]
    own = source("a", given=given)
    if splits == "validation":
        found = planned([own, B], {"a": splits, "b": "train"}, pairs)
        assert not any(name.startswith("a ") for name in found)
    else:
        assert planned([own], {"a": splits}, pairs) == quotas


def test_a_training_schema_without_own_requests_fills_the_others_tests():
    found = planned([A, B], {"a": "train", "b": "train"}, [("a", "train")])
    assert found == {
        **{"a train": 5, "a alignment": 2},
        **{"b train": 5, "b alignment": 2, "b test_seen": 3, "b validation": 16},
    }


def test_refusals_and_french_come_evenly_and_each_kind_of_refusal_in_turn():
    dsl = source("q", QUERY_SCHEMA)
    settings = default_settings(**{**PLAIN, "train_queries": 16, "refusal_fraction": 0.25, "french_fraction": 0.5})
    quotas = plan_quotas([dsl, V], {"q": "train", "v": "validation"}, set(), settings)
    train = {(quota.kind, quota.language): n for quota, n in quotas.items() if quota.split == "train"}
    assert train == {
        ("answerable", "en"): 6,
        ("answerable", "fr"): 6,
        **{("missing_field", language): 1 for language in ("en", "fr")},
        **{("unsupported_operator", language): 1 for language in ("en", "fr")},
    }
    order = [(quota.kind, quota.language) for quota in quotas if quota.split == "train"]
    assert order == [
        *(("answerable", "en"), ("answerable", "fr"), ("missing_field", "en")),
        *(("unsupported_operator", "en"), ("missing_field", "fr"), ("unsupported_operator", "fr")),
    ]


def test_extra_tests_are_half_of_training_schemas_and_half_of_unseen_ones_as_many_of_each():
    settings = default_settings(extra_tests=10)

    def extra(sources, splits):
        quotas = plan_extra_tests(sources, splits, settings)
        return {f"{quota.source.schema_id} {quota.split}": n for quota, n in quotas.items()}

    assert extra([A, B, V, U], SPLITS) == {"a test_seen": 3, "b test_seen": 2, "u test_unseen": 5}
    assert extra([A, V], SPLITS) == {"a test_seen": 10}
    assert plan_extra_tests([A], SPLITS, settings) == {Quota(A, "test_seen", "answerable", "en"): 10}


def test_the_sizes_of_a_data_set_are_of_who_writes_it_and_of_what_trains_on_it():
    settings = default_settings(base_model="embedded")
    assert (kind_of_sizes(settings, EMBEDDED), kind_of_sizes(settings, NAMED)) == ("embedded", "gemma")


@pytest.mark.parametrize(
    ("schemas", "own", "each"), [(12, 0, 100), (12, 20, 90), (3, 0, 300), (1000, 0, 2), (8, 1, 150)]
)
def test_of_many_own_schemas_each_gets_its_share_of_1200_training_rows(schemas, own, each):
    sources = [source(f"s{i}", own=[asked(f"q{j}") for j in range(own)]) for i in range(schemas)]
    splits = {one.schema_id: "train" for one in sources} | {"v": "validation"}
    settings = default_settings(schemas="own.jsonl", train_queries="auto")
    made = size_dataset(settings, "embedded", [*sources, V], splits)
    assert made.dataset.train_queries == each
    assert size_dataset(settings.changed(train_queries=7), "embedded", [*sources, V], splits).dataset.train_queries == 7


def test_of_own_schemas_six_requests_are_asked_for_each_prompt_of_pairs():
    settings = default_settings(schemas="own.jsonl", pair_queries="auto", pair_prompts=100, train_queries=1)
    for count, each in ((100, 6), (90, 7), (601, 1)):
        sources = [source(f"s{i}") for i in range(count)]
        made = size_dataset(settings, "embedded", sources, {one.schema_id: "train" for one in sources})
        assert made.dataset.pair_queries == each


def test_a_request_without_an_answer_counts_where_a_teacher_can_be_asked_for_it():
    own = {"train": [(A, asked("x")), (B, asked("y", answer=None))], "test_seen": [(B, asked("z"))]}
    assert answered_splits(own, EMBEDDED) == {("a", "train"), ("b", "test_seen")}
    assert answered_splits(own, NAMED) == {("a", "train"), ("b", "train"), ("b", "test_seen")}


# Splits


@pytest.mark.parametrize(
    ("count", "train", "validation", "unseen"),
    [(1, 1, 0, 0), (2, 1, 0, 1), (3, 1, 1, 1), (4, 2, 1, 1), (9, 6, 1, 2), (10, 7, 1, 2), (30, 20, 3, 7)],
)
def test_schemas_are_drawn_into_splits_with_one_at_least_for_training_then_unseen_then_validation(
    count, train, validation, unseen
):
    sources = [source(f"s{i}") for i in range(count)]
    drawn = Counter(split_schemas(sources, default_settings()).values())
    assert (drawn["train"], drawn["validation"], drawn["test_unseen"]) == (train, validation, unseen)


def test_the_draw_is_by_seed_and_not_by_order_and_schemas_of_one_shape_stay_together():
    sources = [source(f"s{i}") for i in range(12)]
    drawn = split_schemas(sources, default_settings())
    assert list(drawn) == [f"s{i}" for i in range(12)] and split_schemas(sources[::-1], default_settings()) == drawn
    assert split_schemas(sources, default_settings(seed=99)) != drawn
    twins = [source(f"{one.schema_id}{letter}", {**one.schema, "title": letter}) for one in sources for letter in "xy"]
    together = split_schemas(twins, default_settings())
    assert all(together[f"s{i}x"] == together[f"s{i}y"] for i in range(12))
    none = default_settings(train_share=1.0, validation_share=0.0)
    assert set(split_schemas(sources, none).values()) == {"train"}


def test_a_schema_is_of_the_split_that_its_rows_name():
    given = {"t": ["train", "test"], "v": ["validation", "test"], "u": ["test"]}
    named = [source(name, given=splits) for name, splits in given.items()]
    free = [source(f"f{i}", given=["test", None]) for i in range(3)]
    splits = split_schemas([*named, *free], default_settings())
    assert {name: splits[name] for name in given} == {"t": "train", "v": "validation", "u": "test_unseen"}
    assert sorted(splits[one.schema_id] for one in free) == ["test_unseen", "train", "validation"]
    with pytest.raises(UserError, match="nothing is left to train on: all your rows are of split validation or test"):
        split_schemas(named[1:], default_settings())


def test_own_requests_are_of_the_split_that_they_name_else_half_trained_on_and_half_tests():
    rows = [asked(f"q{i}") for i in range(21)] + [asked("t", "test"), asked("v", "validation"), asked("r", "train")]
    sources = [source("a", own=rows), source("u", own=[asked("x"), asked("y", "test")]), source("v", own=[asked("z")])]
    splits = {"a": "train", "u": "test_unseen", "v": "validation"}
    own = split_own_queries(sources, splits, 1)
    found = {split: {row.query for _, row in pairs} for split, pairs in own.items()}
    assert {split: len(queries) for split, queries in found.items()} == {
        **{"train": 12, "test_seen": 11, "validation": 2, "test_unseen": 2}
    }
    assert "r" in found["train"] and "t" in found["test_seen"] and found["validation"] == {"v", "z"}
    assert found["test_unseen"] == {"x", "y"}
    other = split_own_queries(sources, splits, 2)
    assert {row.query for _, row in other["train"]} != found["train"]


def test_where_nothing_is_of_validation_a_tenth_of_the_requests_is():
    own = split_own_queries([source("a", own=[asked(f"q{i}") for i in range(21)])], {"a": "train"}, 1)
    assert {split: len(rows) for split, rows in own.items()} == {"train": 11, "validation": 2, "test_seen": 8}
    assert split_own_queries([source("a")], {"a": "train"}, 1) == {}


def test_what_own_rows_say_of_splits_is_said_and_what_fills_the_others(capsys):
    say_own_splits([asked("q"), asked("r")])
    assert capsys.readouterr() == ("", "")
    say_own_splits([asked("q", "train"), asked("r", "train"), asked("s", "test"), asked("t"), asked(None, "train")])
    said = capsys.readouterr()
    assert "in the splits that they name: train 2, validation 0, test 1; without a split 1" in said.out
    assert said.err.count("none of your requests is of split") == 1
    assert "none of your requests is of split validation: checkpoints are chosen by rows without a split" in said.err
