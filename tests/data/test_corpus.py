"""The corpus: trained splits only, no prompt twice, no leak of what is tested."""

from __future__ import annotations

import json

import pytest

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, DatasetRow
from schema_student.core.settings import default_settings
from schema_student.data.corpus import build_rows, write_corpus
from schema_student.schema.prompts import render_prompt
from schema_student.training.fine_tuning import teachers

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
OTHER = {"type": "object", "properties": {"m": {"type": "integer"}}, "required": ["m"]}


def row(query, split="train", schema=SCHEMA, answer=None, **changes):
    facts = {"schema_id": "s", "domain": "d", "operators": [], "schema_json": json.dumps(schema), "query": query}
    rest = {"current_date": "2026-01-01", "is_valid": True, "split": split, "kind": "answerable", "language": "en"}
    return {
        **facts,
        **rest,
        "ast_json": json.dumps(answer or {"n": 1}),
        "accepted": None,
        "source": "teacher",
        **changes,
    }


def corpus_of(tmp_path, rows, **changes):
    settings = default_settings(output_dir=str(tmp_path), **changes)
    write_jsonl(paths(settings).dataset, rows)
    return read_jsonl(write_corpus(settings))


def test_rows_become_prompts_and_completions_of_the_trained_splits(tmp_path, capsys):
    rows = [row("one"), row("two", "validation"), row("three", "test_seen"), row("four", "test_unseen", OTHER)]
    made = corpus_of(tmp_path, rows)
    assert [(r["query"], r["split"]) for r in made] == [("one", "train"), ("two", "validation")]
    assert made[0]["prompt"] == render_prompt(SCHEMA, "one", "2026-01-01", "compact")
    assert made[0]["completion"] == '{"n":1}'
    assert {"schema_id", "domain", "prompt", "completion", "is_valid", "split"} <= set(made[0])
    assert "corpus: 1 train, 1 validation (none dropped)" in capsys.readouterr().out


def test_the_corpus_says_who_wrote_it(tmp_path):
    rows = [row("one", teacher_model="gpt-oss:120b"), row("two", teacher_model="user"), row("three")]
    assert teachers([CorpusRow.from_json(row) for row in corpus_of(tmp_path, rows)]) == ["gpt-oss:120b", "user"]


def test_the_rendering_is_a_setting(tmp_path):
    made = corpus_of(tmp_path, [row("one")], schema_rendering="json")
    assert made[0]["prompt"] == render_prompt(SCHEMA, "one", "2026-01-01", "json")


def test_several_schemas_by_heart_are_warned_of_and_one_is_not(tmp_path, capsys):
    corpus_of(tmp_path / "one", [row("one"), row("two")], schema_rendering="none")
    assert capsys.readouterr().err == ""
    made = corpus_of(tmp_path / "two", [row("one"), row("two", schema=OTHER, schema_id="t")], schema_rendering="none")
    assert "--schema-rendering none shows no schema, and there are 2" in capsys.readouterr().err
    assert [r["prompt"] for r in made] == [render_prompt({}, query, "2026-01-01", "none") for query in ("one", "two")]


def test_a_prompt_that_stands_there_already_is_dropped_and_counted():
    rows = [row("one"), row("one"), row("one", answer={"n": 2}), row("two", is_valid=False)]
    made, dropped = build_rows([DatasetRow.from_json(row) for row in rows], "compact")
    assert [r.completion for r in made] == ['{"n":1}']
    assert dropped == {"repeated": 1, "contradictory": 1, "invalid": 1}


@pytest.mark.parametrize(
    ("leak", "said"),
    [
        ([row("One "), row("one.", "test_seen")], "the request 'One ' stands in train and in test_seen"),
        ([row("one", "validation"), row("ONE?", "test_unseen", OTHER)], "stands in validation and in test_unseen"),
        ([row("one"), row("two", "test_unseen", {**SCHEMA, "title": "new"}, schema_id="t")], "schema t of test_unseen"),
    ],
)
def test_a_leak_is_refused(leak, said, tmp_path):
    with pytest.raises(UserError, match="test data leaks into training") as caught:
        corpus_of(tmp_path, leak)
    assert said in str(caught.value)


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(UserError, match="no valid training row"):
        corpus_of(tmp_path, [row("one", "test_seen")])


def test_a_missing_dataset_names_the_script(tmp_path):
    with pytest.raises(UserError, match=r"generate_dataset\.py"):
        write_corpus(default_settings(output_dir=str(tmp_path)))


def test_a_finished_corpus_is_left_alone_and_another_rendering_is_refused(tmp_path, capsys):
    corpus_of(tmp_path, [row("one")])
    settings = default_settings(output_dir=str(tmp_path))
    write_corpus(settings)
    assert "done already" in capsys.readouterr().out
    with pytest.raises(UserError, match='schema_rendering was "compact", now "json"'):
        write_corpus(settings.changed(schema_rendering="json"))
