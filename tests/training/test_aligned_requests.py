"""The requests of an alignment as token ids, which of them validate, and what is published of a link."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import tiny
from alignment_runs import dataset_rows

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, read_jsonl, write_jsonl
from schema_student.core.records import DatasetRow
from schema_student.core.settings import default_settings, resolve_auto
from schema_student.core.tally import Tally
from schema_student.preference.held_out import is_held_out
from schema_student.preference.requests import Request
from schema_student.student.tokens import encode_completion, encode_prompt
from schema_student.training.alignment import link, requests
from schema_student.training.alignment.requests import encode_requests, learning_requests, validation_requests

TOKENIZER = tiny.tiny_tokenizer()
PROMPT = len(encode_prompt(TOKENIZER, "p"))


def settings_of(**changes):
    return resolve_auto(default_settings(**changes), "embedded")


def request_of(target, accepted=None):
    row = DatasetRow(
        schema_id="s", schema_json="{}", query="q", current_date="2026-01-31", ast_json=json.dumps(target),
        is_valid=True, split="alignment", accepted=accepted,
    )  # fmt: skip
    return Request(row, "p")


def encoded(request, tally=None, trees=False, tokenizer=TOKENIZER, **limits):
    limits = {"max_new_tokens": 20, "max_seq_length": 4096, "batch_tokens": 4096, **limits}
    return encode_requests([request], tokenizer, settings_of(**limits), tally or Tally(), trees)


def texts_of(row):
    assert all(ids.prompt_ids == encode_prompt(TOKENIZER, "p") for ids in row["answers"])
    return [TOKENIZER.decode(ids.completion_ids[:-1]) for ids in row["answers"]]


THREE = {"n": [2, 3, 44]}


def test_a_request_has_the_ids_of_all_its_right_answers_the_targets_first():
    request = request_of({"n": 3}, THREE)
    (row,) = encoded(request)
    assert texts_of(row) == ['{"n":3}', '{"n":2}', '{"n":44}']
    assert row["answers"][0].completion_ids == encode_completion(TOKENIZER, '{"n":3}')
    assert (row["name"], row["key"], row["request"]) == (request.digest, "s", request) and len(row) == 4


def test_answers_that_are_too_long_are_left_out_and_a_request_whose_target_is_is_counted(capsys):
    tally = Tally()
    (row,) = encoded(request_of({"n": 3}, THREE), tally, max_new_tokens=8)
    assert texts_of(row) == ['{"n":3}', '{"n":2}'] and tally.counts == {}
    assert encoded(request_of({"n": 44}, THREE), tally, max_new_tokens=8) == []
    assert tally.counts == {"completion longer than max_new_tokens": 1}


@pytest.mark.parametrize(("spare", "count"), [(0, 3), (-1, 2), (-PROMPT - 9, 2), (-PROMPT - 10, 1)])
def test_as_many_answers_are_kept_as_a_batch_holds(spare, count):
    (row,) = encoded(request_of({"n": 30}, {"n": [30, 31, 32]}), batch_tokens=3 * (PROMPT + 9) + spare)
    assert len(row["answers"]) == count


def test_in_a_tree_the_prompt_of_several_answers_counts_once():
    (row,) = encoded(request_of({"n": 30}, {"n": [30, 31, 32]}), trees=True, batch_tokens=PROMPT + 20)
    assert len(row["answers"]) == 3


def test_of_too_many_right_answers_it_is_said_that_some_are_not_read(capsys):
    (row,) = encoded(request_of({"n": 0}, {"n": [*range(64)]}))
    assert len(row["answers"]) == 64 and capsys.readouterr().out == ""
    (row,) = encoded(request_of({"n": 0}, {"n": [*range(65)]}))
    said = "  1 requests have more than 64 right answers, of which so many are read\n"
    assert len(row["answers"]) == 64 and capsys.readouterr().out == said


def test_a_prompt_that_the_template_refuses_is_counted():
    tokenizer, tally = tiny.tiny_tokenizer.__wrapped__(), Tally()
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    assert encoded(request_of(3), tally, tokenizer=tokenizer) == []
    assert tally.counts == {"the base's chat template refuses turns of user: never": 1}


def rows_of(**counts):
    head = {name: value for name, value in dataset_rows()[0].items() if name not in ("query", "split")}
    named = [(split, f"{split} {i}") for split, count in counts.items() for i in range(count)]
    return [DatasetRow(**head, split=split, query=query) for split, query in named]


@pytest.mark.parametrize(
    ("others", "limit", "of_others"), [(50, 10, 5), (50, 11, 6), (3, 10, 3), (0, 4, 0), (50, 100, 50), (50, 0, 0)]
)
def test_half_of_what_validates_is_of_validation_schemas_and_the_rest_is_held_out(others, limit, of_others):
    dataset = rows_of(alignment=300, validation=others, test_seen=9)
    settings = settings_of(align_requests=limit)
    learning = learning_requests(dataset, settings)
    held_out = 300 - len(learning)
    assert held_out > 20 and not any(is_held_out(request.prompt) for request in learning)
    splits = [request.row.split for request in validation_requests(dataset, settings)]
    of_held_out = min(held_out, limit - of_others)
    assert splits == ["validation"] * of_others + ["alignment"] * of_held_out
    assert all(is_held_out(each.prompt) for each in validation_requests(dataset, settings)[of_others:])


def test_few_held_out_requests_are_filled_up_by_those_of_validation():
    dataset = rows_of(alignment=300, validation=50)
    held_out = [request.row for request in validation_requests(dataset, settings_of(align_requests=1000))[50:]]
    few = [*held_out[:2], *dataset[300:]]
    assert len(validation_requests(few, settings_of(align_requests=10))) == 10
    splits = [request.row.split for request in validation_requests(few, settings_of(align_requests=10))]
    assert splits == ["validation"] * 8 + ["alignment"] * 2


def test_a_dataset_without_requests_to_learn_from_is_refused_with_the_reason(tmp_path):
    student = SimpleNamespace(tokenizer=TOKENIZER)
    path = tmp_path / "d_03.jsonl"
    write_jsonl(path, [row for row in dataset_rows() if row["split"] == "validation"])
    with pytest.raises(UserError, match=r"d_03\.jsonl has no request to align on; generate more of them"):
        link.encode_dataset(path, student, settings_of(), True)
    write_jsonl(path, dataset_rows())
    with pytest.raises(UserError, match=r"has no request to align on; left out: \d+ completion longer than"):
        link.encode_dataset(path, student, settings_of(max_new_tokens=2), True)
    rows, validation, tally = link.encode_dataset(path, student, settings_of(max_seq_length=4096), True)
    assert rows and validation and tally.counts == {} and requests.MOST == 64


@pytest.mark.parametrize(("better", "source"), [(False, "checkpoint-4"), (True, "before")])
def test_what_is_chosen_is_published_and_said_in_the_configuration_and_in_the_log(
    tmp_path, monkeypatch, capsys, better, source
):
    published = []
    monkeypatch.setattr(link, "publish_adapter", lambda *given: published.append(given))
    loop = SimpleNamespace(schedule=SimpleNamespace(steps=6), epoch_of=lambda step: step / 4)
    chosen = {"checkpoint": "checkpoint-4", "why": "so", "sft_was_better": better, "stopped": ""}
    facts = {"stage": "rloo", "steps": 6}
    found = link.publish(tmp_path, tmp_path / "before", "student", facts, chosen, loop)
    assert found == {"checkpoint": "checkpoint-4", "sft_was_better": better}
    assert published == [(tmp_path / source, tmp_path, "student")]
    assert read_json(tmp_path / "run_config.json") == {**facts, **chosen}
    assert read_jsonl(tmp_path / "training_metrics.jsonl") == [{"step": 6, "epoch": 1.5, **chosen}]
    assert capsys.readouterr().out == "  checkpoint-final is checkpoint-4: so\n"
