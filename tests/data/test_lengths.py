"""Prompts that the student cannot read whole are said before the teacher is asked, and before training."""

import json

import pytest

from schema_student.core.settings import default_settings
from schema_student.data.lengths import check_lengths, describe_length
from schema_student.data.sources import check_own_schemas

LONG = {"type": "object", "properties": {"product": {"enum": [f"product-{i:04}-blue" for i in range(700)]}}}
SHORT = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.fixture
def settings(tmp_path):
    return default_settings(base_model="embedded", output_dir=str(tmp_path))


def test_the_schemas_whose_prompts_are_too_long_are_named(settings, capsys):
    overlong = check_lengths({"ticket": LONG, "count": SHORT}, settings)
    said = capsys.readouterr().err
    assert list(overlong) == ["ticket"] and overlong["ticket"] > settings.length.max_seq_length
    assert f"1 of 2 schemas: ticket ({overlong['ticket']:,} tokens)" in said and "--max-seq-length" in said


def test_a_prompt_may_be_as_long_as_the_room_beside_an_answer(settings):
    length, most = check_lengths({"ticket": LONG}, settings)["ticket"], 100
    for room, overlong in ((length, {}), (length - 1, {"ticket": length})):
        changed = settings.changed(max_new_tokens=most, max_seq_length=room + most)
        assert check_lengths({"ticket": LONG}, changed) == overlong


def test_the_five_longest_are_named_and_the_others_counted(settings, capsys):
    def enum(n):
        return {"type": "object", "properties": {"x": {"enum": ["a" * 400 * n]}}}

    def said(count):
        near = settings.changed(base_model="nowhere/nothing", max_seq_length=300, max_new_tokens=200)
        lengths = check_lengths({f"s{n}": enum(n) for n in range(2, 2 + count)}, near)
        text = capsys.readouterr().err.split("schemas: ")[1].split(". 100 tokens fit beside an answer")[0]
        return text, [f"s{n} ({lengths[f's{n}']:,} tokens)" for n in range(1 + count, 1, -1)]

    for count, more in ((5, ""), (7, " and 2 more")):
        text, longest_first = said(count)
        assert text == ", ".join(longest_first[:5]) + more


def test_a_prompt_s_length_is_said_with_what_fits(settings):
    changed = settings.changed(base_model="nowhere/nothing", max_seq_length=1300, max_new_tokens=100)
    said = describe_length("\u00e9" * 4000, changed)
    assert said.startswith("4,000 characters, 2,000 tokens of ") and said.endswith("; 1,200 fit beside an answer")


def test_nothing_is_said_where_all_fit(settings, capsys):
    assert check_lengths({"count": SHORT}, settings) == {}
    assert check_lengths({"ticket": LONG}, settings.changed(max_seq_length=100_000)) == {}
    assert capsys.readouterr().err == ""


def test_a_dry_run_says_it(settings, tmp_path, capsys):
    (tmp_path / "long.json").write_text(json.dumps(LONG))
    check_own_schemas(settings.changed(schemas=str(tmp_path / "long.json")))
    assert "too long for the student" in capsys.readouterr().err


def test_a_tokenizer_that_is_not_in_reach_is_estimated(settings, capsys):
    assert check_lengths({"ticket": LONG}, settings.changed(base_model="nowhere/nothing", max_seq_length=2000))
