"""Answered training requests stand before the one that is asked, as many as fit; none of them is a test's."""

import pytest
from alignment_runs import settings_with_requests

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.jsonl import read_jsonl, write_jsonl
from schema_student.core.paths import evaluated, paths
from schema_student.core.records import DatasetRow
from schema_student.core.settings import default_settings
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.evaluation.examples import add_examples, check_examples, read_examples

PROMPT = "Write JSON.\nSchema:\nn integer\nDate: 2026-01-31\nRequest: number 9"


def example(i, split="train"):
    return {
        "schema_id": "s", "schema_json": "{}", "query": f"number {i}", "current_date": "2026-01-30",
        "ast_json": f'{{"n": {i}}}', "is_valid": True, "split": split,
    }  # fmt: skip


def test_examples_stand_between_the_schema_and_the_date_as_many_as_fit():
    rows = [DatasetRow(**example(i)) for i in (1, 2, 3)]
    shown = add_examples(PROMPT, rows, lambda text: True)
    assert shown.startswith('Write JSON.\nSchema:\nn integer\nDate: 2026-01-30\nRequest: number 1\nAnswer: {"n":1}\n')
    assert shown.endswith("\nDate: 2026-01-31\nRequest: number 9") and shown.count("Answer:") == 3
    one = add_examples(PROMPT, rows[:1], lambda text: True)
    assert one == PROMPT.replace("\nDate: ", '\nDate: 2026-01-30\nRequest: number 1\nAnswer: {"n":1}\n\nDate: ')
    twice = PROMPT.replace("n integer", "n integer\nDate: no date of a request")
    assert add_examples(twice, rows[:1], lambda text: True).startswith(twice.rpartition("\nDate: ")[0])
    few = add_examples(PROMPT, rows, lambda text: len(text) < len(shown))
    assert few.count("Answer:") == 2 and "number 2" in few and "number 3" not in few
    assert add_examples(PROMPT, rows, lambda text: False) == add_examples(PROMPT, [], lambda text: True) == PROMPT


def test_only_training_requests_of_the_same_schema_are_shown(tmp_path):
    settings = settings_with_requests(tmp_path, judge_valid=False).changed(examples=2, eval_student="base")
    where = paths(settings)
    rows = read_jsonl(where.dataset)
    others = [{**example(18), "is_valid": False}, example(19, "validation"), {**example(99), "schema_id": "other"}]
    write_jsonl(where.dataset, [*rows, *others, *map(example, range(20, 24))])
    found = read_examples(settings)
    assert {name: [row.query for row in some] for name, some in found.items()} == {
        "other": ["number 99"],
        "s": ["number 20", "number 22"],
    }
    name, adapter = evaluated(settings)
    assert (name, adapter) == ("student-base-2-examples", "")
    evaluate_student(settings, name, adapter)
    asked = read_jsonl(where.eval_dir(name) / "evaluation_results.jsonl")
    assert all(row["prompt_text"].count("Answer: ") == 2 for row in asked) and asked
    assert not any("number 200" in row["prompt_text"].rpartition("Date:")[0] for row in asked)
    with pytest.raises(UserError, match="examples"):
        evaluate_student(settings.changed(examples=1), name, adapter)  # another number is another evaluation


def test_examples_that_no_prompt_can_show_are_refused(tmp_path):
    settings = default_settings(output_dir=str(tmp_path), examples=2)
    with pytest.raises(UserError, match="missing"):
        read_examples(settings)
    for wrong in ({"endpoint": "http://127.0.0.1:1"}, {"eval_student": "teacher"}):
        with pytest.raises(SettingsError, match="--examples"):
            check_examples(settings.changed(**wrong))
    assert read_examples(settings.changed(examples=0)) == {}
    with pytest.raises(SettingsError, match="--examples"):
        check_examples(settings, samples=2)
    check_examples(settings)
    check_examples(settings.changed(examples=0, eval_student="teacher"), samples=2)
