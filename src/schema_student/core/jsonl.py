"""Read and write JSON and JSONL: atomic writes, and errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn

from schema_student.core.errors import UserError
from schema_student.core.files import open_to_write, write_bytes
from schema_student.core.links import split_link

Row = dict[str, Any]


# Which script makes what, for the message about an input that is not there.
MADE_BY = {
    "d_01_domain_specs.jsonl": "generate_domain_specs.py",
    "d_02_final_schemas.jsonl": "build_schemas.py",
    "d_03_dataset.jsonl": "generate_dataset.py",
    "d_03_extra_tests.jsonl": "generate_dataset.py",
    "d_04_training_corpus.jsonl": "build_training_corpus.py",
    "dpo_pairs.jsonl": "build_alignment_pairs.py",
    "dpo_anchors.jsonl": "build_alignment_pairs.py",
    "evaluation_results.jsonl": "evaluate_student.py",
    "evaluation_summary.json": "evaluate_student.py",
    "eval": "evaluate_student.py",
    "teacher_answers.jsonl": "export_teacher_answers.py",
    "checkpoint-final": "train_student.py",
}


def read_json(path: Path) -> Any:
    """Read one JSON document; raises UserError that names the file, and the line where it is broken."""
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def read_object(path: Path, **kinds: type) -> Row:
    """Read one JSON object; raises UserError that names the file, and the field, where it holds anything else.

    `kinds` are the types of those of its fields that are used, where they are there.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object, not {type(value).__name__}; remove it, or put it back")
    for name, kind in kinds.items():
        if not isinstance(value.get(name), (kind, NoneType)):
            found = type(value[name]).__name__
            raise UserError(f"{path}: {name} must be {kind.__name__}, not {found}; remove the file, or put it back")
    return value


def read_jsonl(path: Path) -> list[Row]:
    """Read the objects of a JSONL file, blank lines skipped; raises UserError that names file:line of a broken one."""
    return [row for _, row in number_rows(path)]


def number_rows(path: Path) -> list[tuple[int, Row]]:
    """Read the rows of a JSONL file, each with the number of its line."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(number, parse_row(line, f"{path}:{number}")) for number, line in lines if line.strip()]


def parse_row(line: str, where: str) -> Row:
    """Parse one line of JSONL as an object; raises UserError that begins with `where`."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: broken line, not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: broken line, not JSON: {error}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be a JSON object, not {type(row).__name__}")
    return row


def dump_row(row: Any) -> str:
    """Write a value as one line of JSON. NaN raises ValueError; text that UTF-8 cannot hold is escaped."""
    return _dumps(row)


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON document; atomic: at any moment the old or the new one is there."""
    write_text(path, dump_json(value))


def update_json(path: Path, value: Any) -> None:
    """Write a value as write_json does, unless it stands there already."""
    if not path.exists() or path.read_bytes() != dump_json(value).encode():
        write_json(path, value)


def dump_json(value: Any) -> str:
    """Write a value as the text of an indented JSON document, as write_json does."""
    return _dumps(value, indent=2) + "\n"


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write rows; atomic."""
    write_text(path, "".join(dump_row(row) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file; atomic."""
    write_bytes(path, text.encode())


def _dumps(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def read_text(path: Path) -> str:
    """Read a text file in UTF-8; raises UserError that names it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is not there" + name_maker(path)) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def name_maker(path: Path) -> str:
    """Name the script that makes a file, as advice where it is not there; "" where none is known."""
    script = maker(path)
    return f"; scripts/{script} makes it (or check --run, --data-dir and --output-dir)" if script else ""


def maker(path: Path) -> str:
    """Return the script that makes a file; "" where none is known."""
    return "align_student.py" if split_link(path.parent.name)[1] else MADE_BY.get(path.name, "")


def truncate_log(path: Path, step: int) -> None:
    """Drop the rows of a log after a step; a killed run computes anew what it wrote since its last checkpoint."""
    if path.exists():
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        lines = enumerate(whole.decode(errors="replace").split("\n"), start=1)
        rows = [parse_row(line, f"{path}:{number}") for number, line in lines if line.strip()]
        write_jsonl(path, [row for row in rows if row.get("step", 0) <= step and "checkpoint" not in row])


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one row to a log."""
    with open_to_write(path, "a", encoding="utf-8") as file:
        file.write(dump_row(row) + "\n")
