"""Files of every common kind, folders and the hub: the same rows come out of all, each with its place."""

import builtins
import bz2
import gzip
import json
import lzma
from pathlib import Path
from unittest.mock import Mock

import pytest

from schema_student.core.errors import UserError
from schema_student.core.tally import Tally
from schema_student.preference import data_files
from schema_student.preference.data_files import find_data_files, load_rows

ROW = {"prompt": "two\u2028x", "chosen": "2", "rejected": "no"}
OTHER = {"prompt": "three", "chosen": "3", "rejected": "no"}
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (ROW, OTHER))


def rows_of(path, tally=None):
    return [row for _, row in load_rows(str(path), tally or Tally())]


def places_of(path):
    return [where.removeprefix(str(path)) for where, _ in load_rows(str(path), Tally())]


TEXTS = {
    "lines.jsonl": LINES,
    "lines.json": LINES,
    "lines": "\n " + LINES,
    "crlf.jsonl": LINES.replace("\n", "\r\n\r\n"),
    "bom.jsonl": "\ufeff" + LINES,
    "list.json": json.dumps([ROW, OTHER]),
    "pretty.json": json.dumps([ROW, OTHER], indent=2),
    "wrapped.json": json.dumps({"version": 1, "data": [ROW, OTHER]}, indent=1),
    "one_after_the_other.json": json.dumps(ROW, indent=2) + "\n" + json.dumps(OTHER, indent=2),
    "table.csv": "prompt,chosen,rejected\ntwo\u2028x,2,no\nthree,3,no\n",
    "table.tsv": "prompt\tchosen\trejected\ntwo\u2028x\t2\tno\nthree\t3\tno\n",
    "decimal_comma.csv": 'prompt;chosen;rejected\n"two\u2028x";2;no\nthree;3;no\n',
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_text_of_every_kind_and_encoding_holds_the_same_rows(tmp_path, name, encoding):
    (tmp_path / name).write_bytes(TEXTS[name].encode(encoding))
    assert rows_of(tmp_path / name) == [ROW, OTHER]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_packed_text_is_unpacked(tmp_path, suffix, pack):
    path = tmp_path / f"lines.jsonl{suffix}"
    path.write_bytes(pack(LINES.encode()))
    assert rows_of(path) == [ROW, OTHER]
    path.write_bytes(pack(LINES.encode())[:-9])
    with pytest.raises(UserError, match="cannot be unpacked"):
        rows_of(path)


def test_a_row_is_named_by_its_line_in_lines_and_by_its_number_elsewhere(tmp_path):
    for name, places in {
        "crlf.jsonl": [":1", ":3"],
        "list.json": [": row 1", ": row 2"],
        "wrapped.json": [": row 1", ": row 2"],
        "one_after_the_other.json": [":1", ":6"],
        "table.csv": [":2", ":3"],
    }.items():
        (tmp_path / name).write_text(TEXTS[name], newline="")
        assert places_of(tmp_path / name) == places
    (tmp_path / "long.csv").write_text('prompt,completion\n"two\nlines",2\nthree,3\n')
    assert places_of(tmp_path / "long.csv") == [":2", ":4"]
    (tmp_path / "one.json").write_text(json.dumps([ROW, OTHER]) + "\n")
    assert places_of(tmp_path / "one.json") == [": row 1", ": row 2"]
    (tmp_path / "single.json").write_text("\n" + json.dumps(ROW))
    assert places_of(tmp_path / "single.json") == [":2"]
    (tmp_path / "single.json").write_text(json.dumps(ROW, indent=1))
    assert places_of(tmp_path / "single.json") == [":1"]


def test_not_a_number_is_null_wherever_it_stands(tmp_path):
    path = tmp_path / "mine.json"
    for text in ('[{"a": NaN}]', '[\n{"a": NaN}\n]', '{"a": NaN}', '{\n"a": NaN}\n{"a":\nNaN}'):
        path.write_text(text)
        assert {json.dumps(row) for row in rows_of(path)} == {'{"a": null}'}


@pytest.mark.parametrize("name", ["data", "rows", "train", "examples", "instances", "items", "records"])
def test_a_list_of_rows_may_be_wrapped_in_an_object(tmp_path, name):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"version": 1, name: [ROW, OTHER]}))
    assert rows_of(path) == [ROW, OTHER]
    for value in ([], [1], "x"):  # no list of rows: the object is the row
        path.write_text(json.dumps({"version": 1, name: value}))
        assert rows_of(path) == [{"version": 1, name: value}]


def test_lines_of_which_one_is_broken_are_read_around_it(tmp_path):
    path, tally = tmp_path / "mine.jsonl", Tally()
    path.write_text(f'{{"a": \n{json.dumps(ROW)}\n[1, 2\n')
    assert rows_of(path, tally) == [ROW]
    assert [where.removeprefix(str(path)) for where in tally.first.values()] == [":1", ":3"]
    assert all(reason.startswith("broken line, not JSON: ") for reason in tally.counts)
    assert all(" at column " in reason for reason in tally.counts)
    (tmp_path / "empty.jsonl").write_text(" \n\n")
    assert rows_of(tmp_path / "empty.jsonl") == []


def test_semicolons_of_the_header_part_cells_that_hold_commas(tmp_path):
    (tmp_path / "mine.csv").write_text("prompt;completion\nx;1,5\ny;2,5\n")
    assert rows_of(tmp_path / "mine.csv") == [
        {"prompt": "x", "completion": "1,5"},
        {"prompt": "y", "completion": "2,5"},
    ]


def test_a_header_with_commas_is_one_of_commas_though_a_semicolon_stands_in_it(tmp_path):
    for name, text in (("mine.csv", "prompt;a,completion\nx,y\n"), ("mine.tsv", "prompt;a\tcompletion\nx\ty\n")):
        (tmp_path / name).write_text(text)
        assert rows_of(tmp_path / name) == [{"prompt;a": "x", "completion": "y"}]


def test_what_is_no_row_is_counted_with_its_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"a": 1}\n{"a": \n[1]\n"x"\n{"a": NaN, "b": Infinity}\n' + "[" * 200_000 + "\n")
    tally = Tally()
    assert rows_of(path, tally) == [{"a": 1}, {"a": None, "b": None}]
    assert tally.malformed == 4 and tally.counts["no JSON object"] == 2
    assert tally.first["no JSON object"] == f"{path}:3"
    assert f"{path}:2" in tally.first.values() and f"{path}:6" in tally.first.values()


def test_a_table_s_cell_too_many_is_counted_and_a_long_cell_is_read(tmp_path):
    path, tally, text = tmp_path / "mine.csv", Tally(), "x" * 200_000
    path.write_text(f"prompt,completion\na,{text}\nb,c,d\ne\n")
    assert rows_of(path, tally) == [{"prompt": "a", "completion": text}, {"prompt": "e", "completion": None}]
    assert tally.first == {"more cells than the header has": f"{path}:3"}


def of_arrow(folder, kind, rows):
    import datasets

    datasets.disable_progress_bars()
    made = datasets.Dataset.from_list(rows)
    if kind == "saved":
        datasets.DatasetDict({"train": made, "test": made}).save_to_disk(folder / "saved")
        return folder / "saved"
    made.to_parquet(folder / "mine.parquet")
    return folder / "mine.parquet"


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_parquet_and_saved_data_sets_are_read_without_the_nulls_of_their_types(tmp_path, kind):
    tools = (
        [{"name": "a", "parameters": {"x": {"type": "string"}}}],
        [{"name": "b", "parameters": {"y": {"type": "string"}}}],
    )
    rows = [{"prompt": "p", "completion": "c", "tools": each} for each in tools]
    path, tally = of_arrow(tmp_path, kind, rows), Tally()
    assert rows_of(path, tally) == [{**row, "split": "train"} if kind == "saved" else row for row in rows]
    test_rows = {"of a test split, which is not trained on": 2} if kind == "saved" else {}
    assert tally.counts == test_rows and not list(tmp_path.rglob("*.lock"))


def test_a_folder_s_splits_are_kept_and_its_test_rows_are_not_trained_on(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "README.md").write_text("# Data")
    (tmp_path / ".hidden.jsonl").write_text("{")
    no_data = "dataset_info dataset_infos dataset_dict state package config".split()
    for name in (*(f"{each}.json" for each in no_data), "cache-1.jsonl", "train.jsonl.meta.json", ".git/x.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{")
    tally = Tally()
    assert [row["split"] for row in rows_of(tmp_path, tally)] == ["validation", "train", "train"]
    assert tally.counts == {"of a test split, which is not trained on": 1} and tally.malformed == 0
    assert tally.first == {"of a test split, which is not trained on": f"{tmp_path}/test.jsonl:1"}
    (tmp_path / "more.csv").write_text("prompt\n")
    with pytest.raises(UserError, match=r"files of several kinds \(.csv, .jsonl\)"):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "validation") for name in ("validation-00000-of-00001", "valid", "val2", "DEV", "eval", "a/dev/rows")),
        ("train_sft", "train"),
        ("test/rows", "test"),
        ("test-train", "train"),  # the last word counts
        ("trained", None),
    ],
)
def test_a_split_is_named_by_a_word_of_the_place(name, split):
    assert data_files.split_of_file(Path(f"{name}.jsonl")) == split


def test_a_row_that_names_its_split_keeps_it(tmp_path):
    (tmp_path / "train.ndjson").write_text(json.dumps({**ROW, "split": "validation"}))
    assert rows_of(tmp_path) == [{**ROW, "split": "validation"}]


@pytest.mark.parametrize("kind", [".jsonl", ".ndjson", ".jsonlines", ".json", ".JSONL"])
def test_lines_of_json_go_by_several_names(tmp_path, kind):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"mine{kind}").write_text(LINES)
    assert rows_of(tmp_path / "folder") == [ROW, OTHER]


ADVICE = {
    ".zip .tar .tgz .7z .rar": "unpack it and give the folder",
    ".xlsx .xls .ods": "save the sheet as CSV",
    ".pkl .pickle .pt .pth .npy .npz": "reading it can run code: save it as Parquet",
    ".db .sqlite .sqlite3": "export the table as CSV",
}


@pytest.mark.parametrize(("kind", "advice"), [(kind, said) for kinds, said in ADVICE.items() for kind in kinds.split()])
def test_a_kind_that_is_not_read_has_its_advice(tmp_path, kind, advice):
    (tmp_path / f"mine{kind}").write_bytes(b"[")
    with pytest.raises(UserError, match=rf"mine{kind}: {advice} \(read here: JSON Lines, "):
        rows_of(tmp_path / f"mine{kind}")
    with pytest.raises(UserError, match=f"gone{kind} is not there"):
        find_data_files(f"gone{kind}")


def test_what_is_packed_by_zstd_is_read_where_its_package_is_there(tmp_path, monkeypatch):
    (tmp_path / "mine.jsonl.zst").write_text(LINES)
    monkeypatch.setattr(data_files.importlib.util, "find_spec", lambda name: name if name == "zstandard" else None)
    monkeypatch.setattr(data_files.importlib, "import_module", lambda name: {"zstandard": builtins}[name])
    assert rows_of(tmp_path / "mine.jsonl.zst") == [ROW, OTHER]


def test_a_test_file_that_is_named_itself_is_read(tmp_path):
    (tmp_path / "test.jsonl").write_text(LINES)
    assert rows_of(tmp_path / "test.jsonl") == [ROW, OTHER]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("mine.pkl", b"", "reading it can run code: save it as Parquet"),
        ("mine.xlsx", b"PK", "save the sheet as CSV"),
        ("mine.zip", b"PK", "unpack it and give the folder"),
        ("mine.txt", b"hello", "of no kind that is read here"),
        ("mine.jsonl.zst", b"(\xb5/\xfd", "zstd -d mine.jsonl.zst"),
        ("mine.jsonl", '{"a": "caf\xe9"}'.encode("latin-1"), "not UTF-8 at byte 10: save it as UTF-8"),
        ("mine.json", b'[\n{"a": 1},\n{"a" }\n]', "not JSON: .* at line 3 column 6"),
        ("spaced.json", b' [\n{"a": 1},\n{"a" }\n] \n', "not JSON: .* at line 3 column 6"),
        ("mine.parquet", b"PAR1 no", "cannot be read as parquet"),
    ],
)
def test_what_is_not_read_is_refused_with_what_to_do(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said):
        rows_of(tmp_path / name)


def test_a_folder_without_data_an_address_and_a_file_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no file of data"):
        find_data_files(str(tmp_path))
    with pytest.raises(UserError, match="fetch it yourself"):
        find_data_files("https://example.org/mine.jsonl")
    with pytest.raises(UserError, match=r"^--data-set s3://\.\.\.: fetch it yourself"):
        find_data_files("s3://user:secret@bucket/mine.jsonl://x")
    for name in ("./nowhere", "/nowhere", "~/nowhere"):
        with pytest.raises(UserError, match="is not there"):
            find_data_files(name)
    assert find_data_files("some/set") == []
    with pytest.raises(UserError, match=r"gone.jsonl cannot be read: No such file or directory$"):
        data_files.read_file(tmp_path / "gone.jsonl")
    for name in ("nowhere.jsonl", "nowhere.parquet", "nowhere.csv.gz"):
        with pytest.raises(UserError, match=f"{name} is not there"):
            find_data_files(str(tmp_path / name))
        with pytest.raises(UserError, match=f"{name} is not there"):
            find_data_files(name)


def test_the_hub_is_asked_for_a_data_set_its_configuration_and_split(monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or [ROW, null])
    null = {"a": None, "turns": [{"role": "user", "tool_calls": None}], "n": 0}
    assert load_rows("some/set:part", Tally()) == [
        ("some/set:part:1", ROW),
        ("some/set:part:2", {"turns": [{"role": "user"}], "n": 0}),
    ]
    load_rows("some/set", Tally())
    train = {"split": "train", "revision": None}
    assert asked == [(("some/set", "part"), train), (("some/set", None), train)]
    load_rows("some/set:part:test", Tally())
    load_rows("some/set@0123abcd::train[:100]", Tally())
    assert asked[2][1] == {"split": "test", "revision": None}
    assert asked[3] == (("some/set", None), {"split": "train[:100]", "revision": "0123abcd"})


def test_a_data_set_out_of_reach_and_a_missing_package_are_said(monkeypatch):
    with pytest.raises(UserError, match=r"nobody/nothing is no file here, and the hub does not give it"):
        load_rows("nobody/nothing", Tally())  # HF_HUB_OFFLINE is set in tests
    for error, said in ((ValueError("\nno such set.\nmore"), "no such set"), (LookupError(), "LookupError")):
        monkeypatch.setattr("datasets.load_dataset", Mock(side_effect=error))
        with pytest.raises(UserError, match=f"give it as a data set: {said}\\. Give --data-set a file"):
            load_rows("nobody/nothing", Tally())
    monkeypatch.setattr(data_files.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install datasets"):
        load_rows("nobody/nothing", Tally())
