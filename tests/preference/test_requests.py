"""Requests of pairs and rollouts: of the alignment split, schema by schema in turn, and what is known of each."""

import json

import pytest

from schema_student.core.records import DatasetRow
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.preference.held_out import prompt_digest
from schema_student.preference.requests import anchor_of, anchors_beside, draw_requests, take_together
from schema_student.schema.prompts import render_row_prompt

SETTINGS = resolve_auto(default_settings(), "embedded")


def row(query, schema_id="a", split="alignment", is_valid=True):
    known = {"schema_json": '{"type":"object"}', "current_date": "2026-01-31", "ast_json": json.dumps({"q": query})}
    return DatasetRow(schema_id=schema_id, domain="hotels", query=query, split=split, is_valid=is_valid, **known)


MIXED = [
    *(row(f"{schema_id}{i}", schema_id) for schema_id, count in (("a", 4), ("b", 1), ("c", 2)) for i in range(count)),
    row("not valid", "d", is_valid=False),
    *(row(split, "d", split) for split in ("train", "validation", "test_seen", "test_unseen")),
]


def drawn(rows, **changes):
    return [each.row.query for each in draw_requests(rows, resolve_auto(default_settings(**changes), "embedded"))]


@pytest.mark.parametrize("seed", [13, 14])
def test_schemas_take_turns_in_the_alignment_split(seed):
    queries = drawn(MIXED, seed=seed)
    assert [sorted(query[0] for query in part) for part in (queries[:3], queries[3:5], queries[5:])] == [
        ["a", "b", "c"],
        ["a", "c"],
        ["a", "a"],
    ]
    assert sorted(queries) == ["a0", "a1", "a2", "a3", "b0", "c0", "c1"] and drawn(MIXED, seed=seed) == queries
    assert queries != drawn(MIXED, seed=seed + 2)


def test_without_that_split_valid_training_requests_are_drawn():
    assert drawn([each for each in MIXED if each.split != "alignment"]) == ["train"]
    assert drawn([row("not valid", is_valid=False), row("other", split="train")]) == ["other"]


def test_those_of_a_schema_are_taken_together():
    requests = draw_requests(MIXED, SETTINGS)
    taken = [each.row.query for each in take_together(requests, 5)]
    assert sorted(taken) == sorted(each.row.query for each in requests[:5])
    assert [query[0] for query in taken] == ["a", "a", "b", "c", "c"]


def test_an_anchor_is_a_training_row_of_the_answer(tmp_path):
    (request,) = draw_requests([row("two nights")], SETTINGS)
    assert request.prompt == render_row_prompt(request.row, SETTINGS.prompt.schema_rendering)
    assert request.digest == prompt_digest(request.prompt)
    assert anchor_of(request, "{}").as_json() == {
        "schema_id": "a",
        "domain": "hotels",
        "prompt": request.prompt,
        "completion": "{}",
        "is_valid": True,
        "split": "train",
    }
    assert anchors_beside(tmp_path / "dpo_pairs.jsonl") == tmp_path / "dpo_anchors.jsonl"


def test_a_part_of_them_is_what_is_drawn_first():
    assert drawn(MIXED, max_samples=3) == drawn(MIXED)[:3] and drawn(MIXED, max_samples=99) == drawn(MIXED)
