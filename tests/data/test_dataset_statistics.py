"""What is counted of a dataset is what stands in its rows."""

from __future__ import annotations

import json

import pytest
from schema_examples import QUERY_SCHEMA
from small_datasets import small_settings

from schema_student.core.records import DatasetRow, read_rows
from schema_student.data.dataset import write_dataset
from schema_student.data.dataset_statistics import compute_statistics
from schema_student.report.figures import show_balance

TREE = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}},
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/node"}, "names": {"type": "array", "items": {"type": "string"}}},
}


def row(query, answer, schema, split="train", **changes):
    facts = {"schema_id": "s", "query": query, "split": split, "language": "en", "kind": "answerable"}
    made = {**facts, "schema_json": json.dumps(schema), "ast_json": json.dumps(answer), **changes}
    return DatasetRow(**{"current_date": "2026-01-31", "is_valid": True, **made})


def step(*conditions):
    return {
        "name": "s",
        "description": "",
        "conditions": [dict(zip(("field", "operator", "value"), c, strict=True)) for c in conditions],
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return read_rows(write_dataset(small_settings(tmp_path_factory.mktemp("described"))), DatasetRow)


def test_sums_agree_with_the_rows(rows):
    facts = compute_statistics(rows)
    sizes = {
        "training": sum(not row.split.startswith("test") for row in rows),
        "tests": sum(row.split.startswith("test") for row in rows),
    }
    for what in ("languages", "kinds", "words"):
        assert {s: sum(n[s] for n in facts["balance"][what].values()) for s in sizes} == sizes
    answers = [json.loads(row.ast_json) for row in rows]
    conditions = [c for answer in answers for step in answer.get("steps", ()) for c in step["conditions"]]
    for what in ("operators", "field types"):
        assert sum(sum(n.values()) for n in facts["balance"][what].values()) == len(conditions)
    known = {operator["canonical"] for row in rows for operator in row.operators}
    assert set(facts["balance"]["operators"]) <= known
    assert facts["rows"] == len(rows) and facts["schemas"] == 8
    for side, found in facts["diversity"].items():
        assert found["requests"] == sizes[side]
        assert 0 < found["distinct_1"] < found["distinct_2"] < found["distinct_3"] <= 1
        assert 0 < found["fields"]["asked"] <= found["fields"]["there"]


def test_a_query_is_counted_by_its_parts():
    answer = {
        "prompt": "p",
        "steps": [step(("color", "is", "red"), ("color", "is", "blue")), step(("color", "is", "red"))],
    }
    refused = {"prompt": "p", "refusal": {"reason": "r", "suggestion": "s"}}
    framed = {**answer, "steps": answer["steps"][1:], "timeframe": {"start": "2024-01-01", "end": "2024-02-01"}}
    made = [
        row("red or blue, then red", answer, QUERY_SCHEMA),
        row("rouge", framed, QUERY_SCHEMA, "test_unseen", language="fr"),
        row("by moon", refused, QUERY_SCHEMA, kind="missing_field"),
    ]
    balance = compute_statistics(made)["balance"]
    assert balance["conditions"] == {"1": {"training": 0, "tests": 1}, "3": {"training": 1, "tests": 0}}
    assert balance["steps"] == {"1": {"training": 0, "tests": 1}, "2": {"training": 1, "tests": 0}}
    assert balance["timeframe"] == {"with": {"training": 0, "tests": 1}, "without": {"training": 1, "tests": 0}}
    assert balance["kinds"]["missing field"] == {"training": 1, "tests": 0}
    assert balance["languages"] == {"en": {"training": 2, "tests": 0}, "fr": {"training": 0, "tests": 1}}
    assert list(balance)[:3] == ["languages", "kinds", "words"]


def test_all_is_counted_as_by_hand():
    two = {
        "prompt": "p",
        "steps": [step(("color", "is", "red"), ("price", "over", 5)), step(("day", "is", "2024-01-01"))],
    }
    one = {"prompt": "p", "steps": [step(("color", "odd", "red"))], "timeframe": {"start": "a", "end": "b"}}
    refused = {"prompt": "p", "refusal": {"reason": "r", "suggestion": "s"}}
    tree = {"root": {"n": 1, "next": {"n": True}}, "names": ["a", None, 2.5]}
    facts = compute_statistics(
        [
            row("red red boats", two, QUERY_SCHEMA),
            row("red boats by the moon of one", one, QUERY_SCHEMA, language=None, kind=None),
            row("le bateau rouge", refused, QUERY_SCHEMA, "test_seen", language="fr", kind="missing_field"),
            row("x", tree, TREE, "alignment", schema_id="t"),
        ]
    )
    assert (facts["rows"], facts["schemas"], facts["likeness"]) == (4, 2, {})
    assert facts["diversity"] == {
        "training": {
            **{"requests": 3, "median_words": 3, "vocabulary": 8},
            **{"distinct_1": 0.7273, "distinct_2": 0.875, "distinct_3": 1.0},  # 8 of 11, 7 of 8, 6 of 6
            "fields": {"asked": 5, "there": 5},
        },
        "tests": {
            **{"requests": 1, "median_words": 3, "vocabulary": 3},
            **{"distinct_1": 1.0, "distinct_2": 1.0, "distinct_3": 1.0},
            "fields": {"asked": 0, "there": 3},
        },
    }
    counts = {
        what: {case: (n["training"], n["tests"]) for case, n in cases.items()}
        for what, cases in facts["balance"].items()
    }
    assert counts == {
        "languages": {"en": (3, 0), "fr": (0, 1)},
        "kinds": {"answerable": (2, 0), "missing field": (0, 1)},
        "words": {"1-5": (2, 1), "6-10": (1, 0)},
        "operators": {"is": (2, 0), "odd": (1, 0), "over": (1, 0)},
        "field types": {"enum": (2, 0), "string": (2, 0)},
        "conditions": {"1": (1, 0), "3": (1, 0)},
        "steps": {"1": (1, 0), "2": (1, 0)},
        "timeframe": {"with": (1, 0), "without": (1, 0)},
        "value types": {"boolean": (1, 0), "integer": (1, 0), "null": (1, 0), "number": (1, 0), "string": (1, 0)},
        "properties of the schema": {"2": (1, 0)},
        "properties given": {"2": (1, 0)},
        "schema depth": {"2": (1, 0)},
    }
    assert list(counts) == [
        *("languages", "kinds", "words", "operators", "field types", "conditions", "steps", "timeframe"),
        *("value types", "properties of the schema", "properties given", "schema depth"),
    ]
    assert all(list(cases) == sorted(cases) for cases in counts.values())


def test_words_and_numbers_fall_into_bands_that_stand_in_their_order():
    bands = {5: "1-5", 6: "6-10", 10: "6-10", 11: "11-15", 16: "16-20", 21: "21-30", 30: "21-30", 31: "31+"}
    rows = [row(" ".join(["w"] * n), [0] * n, {}) for n in sorted(bands, reverse=True)]
    assert list(compute_statistics(rows)["balance"]["words"]) == ["1-5", "6-10", "11-15", "16-20", "21-30", "31+"]
    for n, band in bands.items():
        assert list(compute_statistics([row(" ".join(["w"] * n), 1, {})])["balance"]["words"]) == [band]
    given = [row("x", {str(i): 0 for i in range(n)}, {}) for n in (7, 6, 5)]
    assert compute_statistics(given)["balance"]["properties given"] == {
        "5": {"training": 1, "tests": 0},
        "6+": {"training": 2, "tests": 0},
    }


def test_the_most_frequent_case_stands_first():
    said = [row("x", {}, {}, language=language) for language in ("de", "fr", "fr", "en")]
    assert list(compute_statistics(said)["balance"]["languages"]) == ["fr", "de", "en"]


def test_a_plain_object_is_counted_by_properties_types_and_depth():
    answer = {"root": {"n": 1, "next": {"n": 2}}, "names": ["a", "b"]}
    facts = compute_statistics([row("a tree", answer, TREE), row("nothing", {}, TREE)])
    balance = facts["balance"]
    assert balance["value types"] == {
        "integer": {"training": 2, "tests": 0},
        "string": {"training": 2, "tests": 0},
    }
    assert balance["properties given"] == {"0": {"training": 1, "tests": 0}, "2": {"training": 1, "tests": 0}}
    assert balance["schema depth"] == {"2": {"training": 2, "tests": 0}}  # itself, and a node once around
    assert balance["properties of the schema"] == {"2": {"training": 2, "tests": 0}}
    assert facts["diversity"]["training"]["fields"] == {"asked": 2, "there": 2}
    assert "operators" not in balance


@pytest.mark.parametrize("schema", [True, {}, {"type": "array", "items": True}, {"enum": [1, None]}, {"$ref": "#"}])
def test_schemas_without_properties_are_described_too(schema):
    facts = compute_statistics([row("?", None, schema), row("!", [1, {"a": [True, 2.5]}], schema, "test_seen")])
    assert facts["rows"] == 2 and facts["balance"]["value types"]["null"] == {"training": 1, "tests": 0}


def test_no_rows_are_described_and_draw_nothing():
    facts = compute_statistics([])
    assert facts["rows"] == 0 and facts["balance"] == {} and facts["diversity"]["tests"]["distinct_1"] == 0
    assert show_balance(facts["balance"]) is None


def test_the_figure_has_a_panel_for_each_question(rows):
    figure = show_balance(compute_statistics(rows)["balance"])
    assert len(figure.panels) > 1 and all(panel.groups for panel in figure.panels)
    (languages,) = show_balance(
        {"languages": {"en": {"training": 3, "tests": 1}, "fr": {"training": 1, "tests": 0}}}
    ).panels
    assert [[bar.share for bar in bars] for _, bars in languages.groups] == [[0.75, 1.0], [0.25, 0.0]]
