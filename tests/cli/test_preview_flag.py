"""--preview shows rows as the model sees them, and nothing is written or trained."""

import json

import pytest
import tiny
from training_runs import corpus_rows, dataset_rows

from schema_student.cli.main import dispatch
from schema_student.core.errors import SettingsError
from schema_student.core.jsonl import write_jsonl


@pytest.fixture
def place(tmp_path):
    tiny.save_tiny(tmp_path / "base")
    return tmp_path, ["--base-model", str(tmp_path / "base"), "--output-dir", str(tmp_path / "outputs")]


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_of_the_corpus_before_it_is_written(place, capsys):
    folder, flags = place
    rows = [{**row, "split": "train"} for row in dataset_rows()]
    write_jsonl(folder / "outputs" / "d_03_dataset.jsonl", rows)
    before = files_of(folder)
    dispatch(["corpus", *flags, "--preview", "2"])
    said = capsys.readouterr().out
    assert said.count("d_04_training_corpus.jsonl:") == 2 and '> {"n":3}<end_of_turn>' in said
    assert "lengths of 3 rows" in said and files_of(folder) == before


def test_of_what_would_be_trained_on(place, capsys):
    folder, flags = place
    write_jsonl(folder / "outputs" / "d_04_training_corpus.jsonl", corpus_rows(4, 1))
    before = files_of(folder)
    dispatch(["train", *flags, "--preview", "1", "--preview-tokens"])
    said = capsys.readouterr().out
    assert "'<start_of_turn>'" in said and "| number 0" not in said and files_of(folder) == before


def test_of_data_of_any_origin(place, capsys):
    folder, flags = place
    rows = [{"prompt": f"say {i}", "completion": f"it is {i}"} for i in range(30)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = files_of(folder)
    dispatch(["train-sft", "--data-set", str(folder / "mine.jsonl"), *flags, "--preview", "3"])
    said = capsys.readouterr().out
    assert "mine.jsonl:1, schema" in said and "> it is 0<end_of_turn>" in said and files_of(folder) == before


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "all"])
def test_a_number_that_is_none_is_refused(place, number):
    with pytest.raises(SettingsError, match=r"--preview: .* is not a whole number >= 1"):
        dispatch(["train", *place[1], f"--preview={number}"])
