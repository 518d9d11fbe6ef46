"""Rows are measured as training encodes them; those that it leaves out are named, with the flags that keep them."""

from __future__ import annotations

import pytest
import tiny

from schema_student.core.jsonl import write_jsonl
from schema_student.core.paths import paths
from schema_student.core.records import CorpusRow, name_rows
from schema_student.core.settings import resolve_auto
from schema_student.data.corpus import write_corpus
from schema_student.data.preview import preview_rows
from schema_student.data.row_lengths import check_rows, describe_overlong, find_needed, list_lengths, measure_row
from schema_student.student import batching

BUDGETS = {"max_new_tokens": 40, "max_seq_length": 200, "batch_tokens": 150}  # tokens; of the tiny base one is a byte


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return tiny.tiny_settings(tmp_path_factory.mktemp("lengths"), **BUDGETS)


def example(prompt: str, completion: str, schema_id: str = "s", **more) -> CorpusRow:
    return CorpusRow(
        schema_id=schema_id, prompt=prompt, completion=completion, is_valid=True, split="train", extra={}, **more
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows that fit, and one for each budget that is exceeded."""
    found = [example("a" * n, "b" * (n // 4)) for n in range(10, 60, 10)]
    found += [example("a", "\u00e9" * 30, "wordy"), example("a" * 200, "b", "long"), example("a" * 140, "b", "wide")]
    return name_rows(found, tmp_path_factory.getbasetemp() / "d_04.jsonl")


def measure_all(rows, settings):
    tokenizer, resolved = tiny.tiny_tokenizer(), resolve_auto(settings, "gemma")
    return [measure_row(name, row, tokenizer, resolved) for name, row in rows.items()], resolved


def test_a_row_is_as_long_as_training_encodes_it(rows, settings):
    for measured, row in zip(measure_all(rows, settings)[0], rows.values(), strict=True):
        ids = batching.encode(tiny.tiny_tokenizer(), row.prompt, row.completion)
        assert (measured.prompt.tokens, measured.completion.tokens) == (len(ids.prompt_ids), len(ids.completion_ids))
        assert measured.completion.characters == len(row.completion)
        assert measured.completion.bytes == len(row.completion.encode())


def test_rows_that_are_too_long_are_named_with_the_flags_that_keep_them(rows, settings):
    measured, resolved = measure_all(rows, settings)
    said = describe_overlong(measured, resolved)
    assert said.startswith("too long for the student: 3 of 8 rows: d_04.jsonl:6 of wordy (")
    assert "61 tokens: completion longer than max_new_tokens" in said and "d_04.jsonl:7 of long" in said
    assert "d_04.jsonl:8 of wide" in said and " more." not in said
    needed = find_needed(measured, resolved)
    assert all(f"--{name.replace('_', '-')} {value}" in said for name, value in needed.items())
    kept = settings.changed(**needed)
    assert describe_overlong(*measure_all(rows, kept)) == ""
    for name, value in needed.items():  # and no less would do
        assert describe_overlong(*measure_all(rows, kept.changed(**{name: value - 1})))


def test_only_the_first_three_are_named(settings):
    rows = name_rows([example("a" * 300, "b", f"s{i}") for i in range(5)], paths(settings).corpus)
    said = describe_overlong(*measure_all(rows, settings))
    assert "5 of 5 rows" in said and " and 2 more" in said and "of s2" in said and "of s3" not in said


def test_rows_that_surely_fit_are_not_counted_and_the_same_ones_are_said(rows, settings, capsys):
    quick = check_rows(rows, settings)
    said = capsys.readouterr().err
    assert len(quick) < len(rows)
    check_rows(rows, settings, table=True)
    assert capsys.readouterr().err == said != ""


def test_the_table_has_each_percentile_of_each_unit_and_the_budgets(rows, settings):
    measured, resolved = measure_all(rows, settings)
    lines = list_lengths(measured, resolved)
    assert lines[0].split() == ["lengths", "of", "8", "rows", "p50", "p90", "p99", "max", "at", "most"]
    table = {tuple(line.split()[:2]): line.split()[2:] for line in lines[1:]}
    assert table["prompt", "characters"] == ["30", "200", "200", "200"]
    assert table["completion", "bytes"][3] == "60" and table["completion", "characters"][3] == "30"
    assert table["completion", "tokens"][4:] == ["40", "(max_new_tokens)"]
    assert table["both", "tokens"][4:] == ["200", "(max_seq_length),", "150", "(batch_tokens)"]


def test_a_tokenizer_that_is_not_in_reach_is_said(rows, settings, capsys):
    assert check_rows(rows, settings.changed(base_model="nowhere/nothing")) == []
    assert "lengths in tokens are not known" in capsys.readouterr().err


def test_the_corpus_says_at_once_which_rows_will_be_too_long(tmp_path, capsys):
    settings = tiny.tiny_settings(tmp_path, max_new_tokens=12)
    facts = {"domain": "d", "schema_json": '{"type": "object"}', "current_date": "2026-01-01", "is_valid": True}
    answers = {"short": '{"n": 1}', "long": '{"n": "a number of many words"}'}
    made = [{**facts, "schema_id": q, "query": q, "ast_json": a, "split": "train"} for q, a in answers.items()]
    write_jsonl(paths(settings).dataset, made)
    write_corpus(settings)
    said = capsys.readouterr()
    assert "lengths of 2 rows" in said.out
    assert "1 of 2 rows: d_04_training_corpus.jsonl:2 of long" in said.err and "--max-new-tokens 31, or" in said.err


# ---- rows as the model sees them


def test_a_preview_shows_the_text_of_all_tokens_and_marks_the_supervised_ones(rows, settings):
    lines = list(preview_rows(rows, settings, 2))
    first = example("a" * 10, "bb")
    ids = batching.encode(tiny.tiny_tokenizer(), first.prompt, first.completion)
    read, supervised = (tiny.tiny_tokenizer().decode(part) for part in (ids.prompt_ids, ids.completion_ids))
    begin = lines.index(next(line for line in lines if line.startswith("d_04.jsonl:1,")))
    shown = lines[begin + 1 : lines.index("", begin)]
    assert "\n".join(line[2:] for line in shown if line[0] == "|") == read.removesuffix("\n")
    assert [line[2:] for line in shown if line[0] == ">"] == [supervised] == ["bb<end_of_turn>"]
    assert f"{len(ids)} tokens ({len(ids.prompt_ids)} read, 3 supervised); whole" in lines[begin]
    assert any(line.startswith("lengths of 8 rows") for line in lines) and "too long" in lines[-1]


def test_a_preview_of_tokens_has_a_line_a_token_with_its_id(rows, settings):
    row = next(iter(rows.values()))
    ids = batching.encode(tiny.tiny_tokenizer(), row.prompt, row.completion)
    lines = [line for line in preview_rows({"r": row}, settings, 1, tokens=True) if line[:2] in ("| ", "> ")]
    assert [int(line.split()[2]) for line in lines] == ids.tokens
    assert [int(line.split()[1]) for line in lines] == list(range(len(ids)))
    assert [line[0] for line in lines] == ["|"] * len(ids.prompt_ids) + [">"] * len(ids.completion_ids)


@pytest.mark.parametrize(("overlong", "fate"), [("drop", "left out"), ("refuse", "refused")])
def test_a_preview_says_what_becomes_of_a_row_that_is_too_long(rows, settings, overlong, fate):
    lines = list(preview_rows(rows, settings.changed(overlong=overlong), len(rows)))
    said = {line.split(",")[0]: line for line in lines if line.startswith("d_04.jsonl:")}
    assert said["d_04.jsonl:7"].endswith(f"; {fate}: longer than max_seq_length")
    assert said["d_04.jsonl:1"].endswith("; whole")


def test_a_row_that_is_not_valid_is_shown_as_left_out(settings):
    row = CorpusRow(schema_id="s", prompt="a", completion="b", is_valid=False, split="train")
    assert any(line.endswith("left out: its answer is not valid") for line in preview_rows({"r": row}, settings, 1))
