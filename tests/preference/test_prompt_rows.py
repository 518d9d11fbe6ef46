"""Prompts of data of any origin: each once, whatever its row answers; what is no prompt is counted."""

from __future__ import annotations

import pytest
import tiny

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.preference.prompts import import_prompts, read_prompt
from schema_student.preference.turns import Unusable


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "two nights"},
        {"prompt": [{"role": "user", "content": "two nights"}]},
        {"prompt": "two nights", "chosen": "a", "rejected": "b"},
        {"instruction": "two nights", "output": "a"},
        {"chosen": "\n\nHuman: two nights\n\nAssistant: a", "rejected": "\n\nHuman: two nights\n\nAssistant: b"},
        {"messages": [{"role": "user", "content": "two nights"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "two nights", "answers": [{"text": "a", "score": 1}, {"text": "b", "score": 0}]},
    ],
)
def test_a_row_of_any_layout_has_a_prompt(row):
    assert read_prompt(row)["prompt"] == "two nights"


def test_what_grades_an_answer_is_kept_and_so_is_the_split():
    row = {
        "prompt": "p",
        "schema": {"type": "object"},
        "target": {},
        "split": "validation",
        "chosen": "a",
        "rejected": "b",
    }
    assert {name: read_prompt(row)[name] for name in ("schema", "target", "split")} == {
        "schema": {"type": "object"},
        "target": {},
        "split": "validation",
    }


@pytest.mark.parametrize("row", [{"prompt": ""}, {"schema": {}}, {"prompt": "p", "schema": "no object"}])
def test_a_row_without_a_prompt_is_unusable(row):
    with pytest.raises(Unusable):
        read_prompt(row)


def test_each_prompt_stands_once_and_a_source_without_one_is_refused(tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": ""}])
    settings = tiny.tiny_settings(tmp_path, data_set=str(tmp_path / "mine.jsonl"))
    assert [row["prompt"] for row in read_jsonl(import_prompts(settings))] == ["a", "b"]
    write_jsonl(tmp_path / "none.jsonl", [{"prompt": ""}])
    with pytest.raises(UserError, match="has no prompt to answer; "):
        import_prompts(settings.changed(data_set=str(tmp_path / "none.jsonl")))
