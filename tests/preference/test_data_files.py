"""Files of every common kind, folders and the hub: the same rows come out of all, each with its place."""

import bz2
import gzip
import json
import lzma

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
    "lines": LINES,
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
        "table.csv": [":2", ":3"],
    }.items():
        (tmp_path / name).write_text(TEXTS[name], newline="")
        assert places_of(tmp_path / name) == places
    (tmp_path / "long.csv").write_text('prompt,completion\n"two\nlines",2\nthree,3\n')
    assert places_of(tmp_path / "long.csv") == [":2", ":4"]


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
    tally = Tally()
    assert [row["split"] for row in rows_of(tmp_path, tally)] == ["validation", "train", "train"]
    assert tally.counts == {"of a test split, which is not trained on": 1}
    (tmp_path / "more.csv").write_text("prompt\n")
    with pytest.raises(UserError, match=r"files of several kinds \(.csv, .jsonl\)"):
        rows_of(tmp_path)


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
    for name in ("nowhere.jsonl", "nowhere.parquet", "nowhere.csv.gz"):
        with pytest.raises(UserError, match=f"{name} is not there"):
            find_data_files(str(tmp_path / name))
        with pytest.raises(UserError, match=f"{name} is not there"):
            find_data_files(name)


def test_the_hub_is_asked_for_a_data_set_its_configuration_and_split(monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or [ROW])
    assert load_rows("some/set:part", Tally()) == [("some/set:part:1", ROW)]
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
    monkeypatch.setattr(data_files.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install datasets"):
        load_rows("nobody/nothing", Tally())
