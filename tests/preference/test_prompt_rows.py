"""Prompts of data of any origin: each once, whatever its row answers; what is no prompt is counted."""

from __future__ import annotations

import pytest
import tiny

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import paths
from schema_student.preference.held_out import prompt_digest, split_of
from schema_student.preference.prompts import import_prompts, read_prompt, read_prompts
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
    kept = {"schema": {"type": "object"}, "target": {}, "schema_id": prompt_digest("p")}
    assert read_prompt(row) == {**kept, "prompt": "p", "split": "validation"}
    alone = {"prompt": "p", "schema": {"type": "object"}, "target": {}, "accepted": {"n": [1]}, "schema_id": "s"}
    assert read_prompt(alone) == {**kept, "prompt": "p", "split": split_of("p"), "accepted": {"n": [1]}}
    for split in ("train", "validation"):
        assert read_prompt({"prompt": "p", "split": split})["split"] == split


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": ""}, "no prompt"),
        ({"schema": {}}, "no prompt"),
        ({"prompt": "p", "schema": "no object"}, "its schema is no object"),
        ({"prompt": [{"role": "assistant", "content": "a"}]}, "the first turn is not the user's"),
        ({"prompt": "p", "chosen": "a", "tools": [{"name": "t"}]}, "tools beside the prompt: answers are drawn to"),
        ({"prompt": "p", "chosen": "a", "chat_template_kwargs": {"t": 1}}, "tools beside the prompt: answers"),
        ({"prompt": "p", "split": "test", "chosen": "a"}, "of a test split"),
        ({"prompt": "p", "split": "test"}, "of a test split"),
        ({"prompt": 3}, "prompt is neither text nor a list of messages"),
    ],
)
def test_a_row_without_a_prompt_is_unusable(row, reason):
    with pytest.raises(Unusable, match=f"^{reason}"):
        read_prompt(row)


def test_each_prompt_stands_once_and_a_source_without_one_is_refused(tmp_path, capsys):
    write_jsonl(tmp_path / "mine.jsonl", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": ""}])
    settings = tiny.tiny_settings(tmp_path, data_set=str(tmp_path / "mine.jsonl"))
    path = import_prompts(settings)
    assert path == paths(settings).pairs.with_name("ppo_prompts.jsonl")
    rows = read_jsonl(path)
    assert rows == [{"prompt": each, "split": split_of(each), "schema_id": prompt_digest(each)} for each in "ab"]
    held_out = sum(row["split"] == "validation" for row in rows)
    said = capsys.readouterr().out
    assert f"  left out 1: no prompt (first: {tmp_path}/mine.jsonl:4)\n" in said
    assert f"  2 prompts of {tmp_path}/mine.jsonl, {held_out} of them held out\n" in said
    meta = read_meta(path)
    assert (meta["rows"], meta["left_out"], meta["settings"]) == (2, {"no prompt": 1}, settings.dump("data"))
    assert import_prompts(settings) == path and "done already" in capsys.readouterr().out
    with pytest.raises(UserError, match="data_limit was 0, now 2"):
        import_prompts(settings.changed(data_limit=2))
    part = settings.changed(max_samples=1, overwrite=True)
    assert [row["prompt"] for row in read_jsonl(import_prompts(part))] == ["a"]
    assert [row["prompt"] for row in read_prompts(settings.data.data_set, 1)[0]] == ["a"]
    for rows, why in (([{"prompt": ""}], "left out 1: no prompt .first: "), ([], "it has no rows")):
        write_jsonl(tmp_path / "none.jsonl", rows)
        with pytest.raises(UserError, match=f"none.jsonl has no prompt to answer; {why}"):
            import_prompts(settings.changed(data_set=str(tmp_path / "none.jsonl")))
