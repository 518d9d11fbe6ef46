"""Prompts that the student cannot read whole are said before the teacher is asked, and before training."""

import json

import pytest

from schema_student.core.settings import default_settings
from schema_student.data.lengths import check_lengths
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
