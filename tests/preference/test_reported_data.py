"""Situations that people of the field reported of their data, rebuilt small: a row is used, or counted by name."""

from pathlib import Path

import pytest
import tiny

from schema_student.core.artifacts import read_meta
from schema_student.core.jsonl import read_jsonl
from schema_student.preference import imports

CASES = Path(__file__).parents[1] / "data" / "cases"


def imported(step, case, folder):
    settings = tiny.tiny_settings(folder, data_set=str(CASES / case))
    path = step(settings)
    return read_jsonl(path), read_meta(path)


@pytest.mark.parametrize(("step", "file"), [(imports.import_corpus, "sft.jsonl"), (imports.import_pairs, "dpo.jsonl")])
def test_30_rows_of_the_same_words_are_told_apart_by_their_tools(step, file, tmp_path):
    rows, _ = imported(step, f"30_tools_column/{file}", tmp_path)
    assert [row["tools"][0]["function"]["name"] for row in rows] == ["set_lamp", "open_door"]
    assert rows[0]["prompt"] == rows[1]["prompt"] and rows[0]["schema_id"] != rows[1]["schema_id"]


def test_31_a_system_column_is_read_and_an_instruction_beside_a_prompt_is_not_guessed(tmp_path):
    rows, _ = imported(imports.import_pairs, "31_system_column/dpo.jsonl", tmp_path)
    systems = [row["prompt"][0] for row in rows]
    assert [turn["content"] for turn in systems] == [
        'Answer with JSON of the schema {"n": integer}.',
        "Answer in words.",
    ]
    assert {turn["role"] for turn in systems} == {"system"}
    rows, meta = imported(imports.import_corpus, "31_system_column/sft.jsonl", tmp_path)
    assert len(rows) == 1 and rows[0]["prompt"][0] == systems[0]
    assert meta["left_out"] == {
        "instruction beside prompt: which of them asks is not said; join them into one column": 1
    }


def test_32_a_row_whose_answer_calls_a_tool_is_counted_and_the_others_are_learned(tmp_path):
    reason = {"the answer calls a tool: write the call as the text that is to be learned": 1}
    rows, meta = imported(imports.import_corpus, "32_tool_calls/last.jsonl", tmp_path)
    assert [row["completion"] for row in rows] == ["hi"] and meta["left_out"] == reason
    rows, meta = imported(imports.import_pairs, "32_tool_calls/dpo.jsonl", tmp_path)
    assert [row["chosen"] for row in rows] == ["hi"] and meta["left_out"] == reason
    rows, meta = imported(imports.import_corpus, "32_tool_calls/middle.jsonl", tmp_path)
    assert [row["completion"] for row in rows] == ["hi", "It is on."] and meta["left_out"] == {}
    assert [turn["role"] for turn in rows[1]["prompt"]] == ["user", "assistant", "tool"]
    assert rows[1]["prompt"][1]["tool_calls"][0]["function"] == {"name": "set_lamp", "arguments": {"on": True}}


def test_33_a_bad_answer_is_never_learned_as_a_right_one(tmp_path):
    rows, meta = imported(imports.import_corpus, "33_kto_label/kto.jsonl", tmp_path)
    assert [row["completion"] for row in rows] == ['{"n":2}']
    assert meta["left_out"] == {"label false: the answer is a bad one": 2}
    (pair,), meta = imported(imports.import_pairs, "33_kto_label/kto.jsonl", tmp_path)
    assert (pair["chosen"], pair["rejected"]) == ('{"n":2}', "Sure! Here is some JSON: n=2")
    assert sum(meta["left_out"].values()) == 1


def test_36_turns_are_read_and_what_is_no_pair_is_counted(tmp_path):
    rows, meta = imported(imports.import_pairs, "36_multi_turn/rows.jsonl", tmp_path)
    assert [(row["origin"], row["chosen"], row["rejected"]) for row in rows] == [
        ("rows.jsonl:1", "good", "bad"),
        ("rows.jsonl:7", "good", "bad"),
    ]
    assert [turn["role"] for turn in rows[0]["prompt"]] == ["system", "user", "assistant", "user"]
    assert meta["left_out"] == {
        "the first turn is not the user's": 1,
        "turns do not alternate between user and assistant": 1,
        "nothing answered": 1,
        "chosen equals rejected": 1,
        "chosen and rejected differ in white space only": 1,
        "the prompts of chosen and rejected differ": 1,
    }
