"""Read the rows of a data set, each with its place: a file of a common kind, a folder of such files, or the hub's.

    load_rows("prefs.jsonl.gz", tally)      # [("prefs.jsonl.gz:1", {...}), ...]
    find_data_files("my_data/")             # [my_data/train.parquet, my_data/validation.parquet]

JSON Lines, JSON and tables of text are read here, Parquet, Arrow and the hub's through `datasets`. What is no row (a
broken line, a list) is counted and left out: a library that makes one table of a file gives the whole file up for one
such line, and knows no lines to name.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib
import importlib.util
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.hub_ids import split_revision
from schema_student.core.jsonl import Row
from schema_student.core.tally import Tally

Placed = tuple[str, Any]  # where a value stands, and the value

JSON_KINDS = (".jsonl", ".ndjson", ".jsonlines", ".json")
TABLES = {".csv": ",", ".tsv": "\t"}
COLUMNAR = {".parquet": "parquet", ".arrow": "arrow"}  # and which builder of `datasets` reads it
KINDS = (*JSON_KINDS, *TABLES, *COLUMNAR)
PACKED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
READ = "JSON Lines, JSON, CSV, TSV, Parquet, Arrow; text also .gz, .bz2, .xz, .zst"
UNREAD = {
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "unpack it and give the folder"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz"), "reading it can run code: save it as Parquet"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "export the table as CSV"),
}
NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json", "config.json"}
WRAPPERS = ("data", "rows", "train", "examples", "instances", "items", "records")  # {"data": [rows]}
SPLITS = {
    "train": "train",
    "test": "test",
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
}
FAULTS = (OSError, ValueError, RuntimeError, LookupError)  # of `datasets`, whose own ones derive from these


def load_rows(source: str, tally: Tally) -> list[tuple[str, Row]]:
    """Load the rows of a data set; what is no row is counted in `tally`, as are rows of a folder's test split.

    Raises UserError for a file that is not there, of a kind that is not read here, or in no Unicode encoding; and where
    the hub does not give the data set.
    """
    files = find_data_files(source)
    if not files:
        return [(f"{source}:{number}", _prune(row)) for number, row in enumerate(_load_from_hub(source), start=1)]
    folder, rows = Path(source).expanduser(), []
    for file in files:
        split = split_of_file(file.relative_to(folder)) if folder.is_dir() else None
        for where, value in read_file(file):
            if not isinstance(value, dict):
                tally.add(value if isinstance(value, NotARow) else NotARow("no JSON object"), where, malformed=True)
            elif split == "test":
                tally.add("of a test split, which is not trained on", where)
            else:
                rows.append((where, {"split": split, **value} if split else value))
    return rows


def find_data_files(source: str) -> list[Path]:
    """List the files of a data set that lies here; none where it is the hub's. Raises UserError as `load_rows` does."""
    if "://" in source:
        raise UserError(f"--data-set {source.split('://')[0]}://...: fetch it yourself and give the file or folder")
    path = Path(source).expanduser()
    if path.is_dir():
        return _files_of(path)
    if path.is_file():
        return [path]
    if source.startswith(("/", ".", "~")) or kind_of(path) in (*KINDS, *UNREAD):
        raise UserError(f"{path} is not there (--data-set takes a file, a folder, or the id of a data set of the hub)")
    return []


def _files_of(folder: Path) -> list[Path]:
    """The data files below a folder, as `save_to_disk`, the hub or a person leaves them."""
    inside = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    shown = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    files = [file for file in shown if kind_of(file) in KINDS and file.name not in NO_DATA]
    files = [file for file in files if not file.name.startswith("cache-") and not file.name.endswith(".meta.json")]
    kinds = sorted({kind_of(file) for file in files})
    if not files:
        raise UserError(f"{folder} has no file of data ({READ})")
    if len(kinds) > 1:
        raise UserError(f"{folder} has files of several kinds ({', '.join(kinds)}): name the file, or a folder of one")
    return files


def kind_of(path: Path) -> str:
    """Find the kind of a file by its name, without what says how it is packed.

    >>> kind_of(Path("prefs.jsonl.gz"))
    '.jsonl'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (*PACKED, ".zst"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def split_of_file(path: Path) -> str | None:
    """Find the split that the name of a file or of its folder says; the last word counts.

    >>> split_of_file(Path("data/validation-00000-of-00001.parquet"))
    'validation'
    """
    words = re.split(r"[^a-z]+", str(path).lower())
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), None)


# ---------------------------------------------------------------------------------------------------------------------
# Files


class NotARow(str):
    """Why a line is no row."""


def read_file(file: Path) -> Iterator[Placed]:
    """Read the values of one file: rows, and a NotARow for what is none."""
    kind = kind_of(file)
    if kind in COLUMNAR:
        return _read_columns(file, COLUMNAR[kind])
    if kind in UNREAD:
        raise UserError(f"{file}: {UNREAD[kind]} (read here: {READ})")
    text = decode(_read_bytes(file), file)
    if kind in TABLES:
        return read_table(text, file, TABLES[kind])
    if kind in JSON_KINDS or text.lstrip()[:1] in ("{", "["):
        return read_json_values(text, file)
    raise UserError(f"{file} is of no kind that is read here ({READ}): write its rows as JSON Lines, one object a line")


def _read_bytes(file: Path) -> bytes:
    packing = file.suffix.lower()
    try:
        if packing == ".zst":
            return _open_zst(file)
        with PACKED[packing](file) if packing in PACKED else file.open("rb") as stream:
            return bytes(stream.read())
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{file} cannot be unpacked ({error}): make it again") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None


def _open_zst(file: Path) -> bytes:
    if importlib.util.find_spec("zstandard") is None:
        raise UserError(
            f"{file}: to read it needs a package (pip install zstandard); or unpack it: zstd -d {file.name}"
        )
    with importlib.import_module("zstandard").open(file, "rb") as stream:
        return bytes(stream.read())


def decode(data: bytes, file: Path) -> str:
    """Decode UTF-8, -16 or -32, with or without a byte order mark; raises UserError for what is none of them."""
    try:
        return data.decode(json.detect_encoding(data)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        advice = "save it as UTF-8 (iconv -f ITS-ENCODING -t UTF-8)"
        raise UserError(f"{file}: not UTF-8 at byte {error.start}: {advice}") from None


def read_json_values(text: str, file: Path) -> Iterator[Placed]:
    """Read JSON Lines, a JSON list, an object that wraps a list, or objects that follow each other over many lines."""
    lines = [(f"{file}:{number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        return iter(())
    first = parse_json(lines[0][1])
    if isinstance(first, NotARow):
        return _read_documents(text, file, lines)
    if len(lines) == 1:
        return _unwrap(first, lines[0][0], file)
    return ((where, parse_json(line)) for where, line in lines)


def _read_documents(text: str, file: Path, lines: Sequence[tuple[str, str]]) -> Iterator[Placed]:
    """What is written over several lines: one list or object, or objects after each other; else lines, some broken."""
    whole = parse_json(text)
    if not isinstance(whole, NotARow):
        return _unwrap(whole, f"{file}:1", file)
    if text.lstrip().startswith("[") and text.rstrip().endswith("]"):
        raise UserError(f"{file}: {whole}")
    values, at, decoder = [], 0, json.JSONDecoder(parse_constant=lambda _: None)
    try:
        while rest := text[at:].lstrip():
            begin = len(text) - len(rest)
            value, at = decoder.raw_decode(text, begin)
            values.append((f"{file}:{text.count(chr(10), 0, begin) + 1}", value))
    except (ValueError, RecursionError):
        return ((where, parse_json(line)) for where, line in lines)
    return iter(values)


def _unwrap(value: Any, where: str, file: Path) -> Iterator[Placed]:
    if isinstance(value, dict):
        value = next((value[name] for name in WRAPPERS if _is_list_of_rows(value.get(name))), value)
    if not isinstance(value, list):
        return iter([(where, value)])
    return ((f"{file}: row {number}", each) for number, each in enumerate(value, start=1))


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def parse_json(text: str) -> Any:
    """Parse a JSON value, or say in a NotARow why it is none; NaN, which Python and pandas write, is read as null."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column" if error.lineno > 1 else "column"
        return NotARow(f"broken line, not JSON: {error.msg} at {at} {error.colno}")
    except (ValueError, RecursionError) as error:
        return NotARow(f"broken line, not JSON: {error}")


def read_table(text: str, file: Path, delimiter: str) -> Iterator[Placed]:
    """Read CSV or TSV with a header; every cell is text: whether "2" is a number, the column's reader knows."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # its own is 128 KiB, less than some answers
    header = text.split("\n", 1)[0]
    if delimiter == "," and ";" in header and "," not in header:
        delimiter = ";"  # spreadsheets of countries with a decimal comma
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = 1
    try:
        for row in reader:
            where, line = f"{file}:{line + 1}", reader.line_num
            yield where, NotARow("more cells than the header has") if None in row else row
    except csv.Error as error:
        raise UserError(f"{file}:{line + 1}: no CSV: {error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# Through `datasets`


def _read_columns(file: Path, builder: str) -> Iterator[Placed]:
    """Read Parquet or Arrow; streamed, so that no copy is left in a cache."""
    from datasets import load_dataset

    try:
        rows = load_dataset(builder, data_files=str(file), split="train", streaming=True).decode(False)
        found = [(f"{file}: row {number}", _prune(row)) for number, row in enumerate(rows, start=1)]
    except FAULTS as error:
        raise UserError(f"{file} cannot be read as {builder}: {_first_line(error)}") from None
    return iter(found)


def _prune(value: Any) -> Any:
    """Drop the members that a column's type gives to every object of it: {"role": ..., "tool_calls": None}."""
    if isinstance(value, dict):
        return {key: _prune(each) for key, each in value.items() if each is not None}
    return [_prune(each) for each in value] if isinstance(value, list) else value


def _load_from_hub(source: str) -> Any:
    """ID, ID:CONFIG, ID:CONFIG:SPLIT or ID::SPLIT, with ID@COMMIT for ID; without a split that is "train".

    Raises UserError where `datasets` or the data set is not to be had.
    """
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"{source} is no file here, and to read it from the hub needs a package: pip install datasets")
    from datasets import load_dataset

    name, config, split = [*source.split(":", 2), "", ""][:3]
    name, revision = split_revision(name)
    try:
        return load_dataset(name, config or None, split=split or "train", revision=revision)
    except FAULTS as error:
        raise UserError(
            f"{source} is no file here, and the hub does not give it as a data set: {_first_line(error)}. Give "
            "--data-set a file, a folder, or ID, ID@COMMIT, ID:CONFIG, ID:CONFIG:SPLIT or ID::SPLIT of one in reach"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
