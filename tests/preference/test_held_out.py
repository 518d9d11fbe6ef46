"""Whichever way a prompt comes, it is held out or it is not: pairs, rollouts, imports, choice of a checkpoint."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_student.core.jsonl import write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import DatasetRow, StudentSamples, read_rows
from schema_student.core.settings import default_settings
from schema_student.core.stamps import digest
from schema_student.core.tally import Tally
from schema_student.preference import imports, rollouts
from schema_student.preference.held_out import as_text, is_held_out, prompt_digest, split_of
from schema_student.preference.pairs import pair_up
from schema_student.preference.requests import draw_requests
from schema_student.training.alignment.requests import validation_requests

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture
def settings(tmp_path):
    """Sixty requests for pairs, with mutations as the rejected answers."""
    made = default_settings(output_dir=str(tmp_path), pair_prompts=60, mutations_per_prompt=2)
    head = {"schema_id": "s", "schema_json": json.dumps(SCHEMA), "current_date": "2026-01-31", "is_valid": True}
    rows = [{**head, "query": f"n {i}", "ast_json": json.dumps({"n": i}), "split": "alignment"} for i in range(60)]
    write_jsonl(paths(made).dataset, rows)
    return made


def imported(rows, read):
    """{prompt: split} of rows that are imported from a file."""
    numbered = [(f"file:{i}", row) for i, row in enumerate(rows)]
    return {json.dumps(as_text(row.prompt)): row.split for row in read(numbered, Tally())}


def read_pairs(rows, tally):
    return imports.read_pairs(rows, tally, most=1)


def test_every_way_holds_out_the_same_prompts(settings):
    requests = draw_requests(read_rows(paths(settings).dataset, DatasetRow), settings)
    pairs = []
    for each in requests:
        right = each.row.ast_json
        samples = StudentSamples(prompt_digest=each.digest, greedy=[right, True], samples=[])
        pairs += pair_up(each, samples, settings, Counter())
    of_pairs = {json.dumps(pair.prompt): pair.split for pair in pairs}
    assert len(of_pairs) == 60 and set(of_pairs.values()) == {"train", "validation"}

    asked = [row["prompt"] for row in rollouts.read_prompts(settings)]
    judged = [{"prompt": p, "answers": [{"text": t, "score": s} for t, s in (("a", 1), ("b", 0))]} for p in asked]
    assert imported(judged, read_pairs) == of_pairs

    bare = [{"prompt": pair.prompt, "chosen": "a", "rejected": "b"} for pair in pairs]
    turns = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in bare]
    learned = [{"prompt": pair.prompt, "completion": "a"} for pair in pairs]
    for rows, read in ((bare, read_pairs), (turns, read_pairs), (learned, imports.read_examples)):
        assert imported(rows, read) == of_pairs

    rows = read_rows(paths(settings).dataset, DatasetRow)
    chosen_by = {json.dumps(each.prompt) for each in validation_requests(rows, settings.changed(align_requests=1000))}
    assert chosen_by == {prompt for prompt, split in of_pairs.items() if split == "validation"}


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text()}), min_size=1
)


@given(st.text() | MESSAGES)
def test_one_turn_of_the_user_is_its_text_and_nothing_else_is(prompt):
    other = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else as_text(prompt)
    assert prompt_digest(other) == prompt_digest(prompt)
    assert (split_of(prompt) == "validation") == is_held_out(prompt)
    if isinstance(prompt, list) and len(prompt) > 1:
        assert prompt_digest(prompt) != prompt_digest(prompt[:-1])


def test_about_a_tenth_is_held_out():
    held_out = [i for i in range(1000) if is_held_out(f"prompt {i}")]
    assert 60 < len(held_out) < 140 and held_out[:3] == [5, 26, 27]  # as by all releases
    assert prompt_digest("two nights") == digest(b"two nights")[:16]
    assert prompt_digest("p", tools=[{"name": "t"}]) == digest([{"prompt": "p", "tools": [{"name": "t"}]}])[:16]
    turns = [[{"role": "system", "content": ""}, {"role": "user", "content": str(i)}] for i in range(1000)]
    assert 60 < sum(map(is_held_out, turns)) < 140


def test_a_split_that_a_row_names_is_kept():
    row = {"prompt": "n 4", "chosen": "a", "rejected": "b"}
    for split in ("train", "validation"):
        assert list(imported([{**row, "split": split}], read_pairs).values()) == [split]
