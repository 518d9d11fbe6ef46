"""Read the requests of --eval-data, which need no run: rows as --schemas takes them, or those of a d_03 file.

A request without an answer (no `answer` and no `accepted`) is judged by its schema, and by a teacher that is a language
model; the embedded teacher judges by known answers alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.records import DatasetRow, EvaluationRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.splits import TESTS, spread, take_part
from schema_student.data.dataset import draw_date
from schema_student.schema.rendering import completion_text
from schema_student.schema.user_schemas import SchemaRow, load_schemas
from schema_student.teacher.choice import TeacherChoice

FORM = "rows {schema_id, schema, query, answer?, accepted?, current_date?, split?}, or a d_03 file"
DAYS = ("date_start", "date_end")  # settings that a day is drawn by where a row names none
TEST = "test"  # the split of rows that name none


def read_eval_data(settings: AnySettings) -> list[DatasetRow]:
    """Read the requests of --eval-data: of --eval-splits, and those without a split; at most --eval-limit, and
    --max-samples, of each.

    Raises UserError where there are none, and for rows that --schemas would refuse.
    """
    path = Path(settings.evaluated.eval_data)
    if not path.exists():
        raise UserError(f"--eval-data {path} is not there; it takes {FORM}")
    rows = _read_dataset(path) if _is_dataset(path) else _read_own(path, settings)
    wanted = [row for row in rows if row.split in _wanted_splits(settings.eval.eval_splits)]
    if not wanted:
        named = ", ".join(sorted({row.split for row in rows}))
        why = f"its requests are of split {named}: give --eval-splits" if rows else f"it takes {FORM}"
        raise UserError(f"--eval-data {path} has no request to answer; {why}")
    if len(wanted) < len(rows):
        log.info(f"--eval-data {path}: {len(wanted)} of {len(rows)} requests are of --eval-splits, or of no split")
    kept = _drop_repeated(wanted, path)
    splits = list(dict.fromkeys(row.split for row in kept))
    return limit_splits(kept, splits, settings.eval.eval_limit, settings.part.max_samples)


def limit_splits(rows: Sequence[DatasetRow], splits: Sequence[str], limit: int, max_samples: int) -> list[DatasetRow]:
    """Take up to `limit` (--eval-limit) and --max-samples rows of each split, evenly spread; 0 = all."""
    found = []
    for split in splits:
        mine = [row for row in rows if row.split == split]
        found += take_part(spread(mine, limit or len(mine)), max_samples, f"requests of {split}")
    return found


def stamp_eval_data(settings: AnySettings) -> Row:
    """Dump the settings by which --eval-data is read; {} without one."""
    if not settings.evaluated.eval_data:
        return {}
    return settings.dump("own_schemas") | {name: settings.value(name) for name in DAYS}


def _wanted_splits(splits: Sequence[str]) -> set[str]:
    """The splits that are answered: a user's "test" where any of ours is."""
    return {*splits, *([TEST] if {*splits} & {*TESTS} else [])}


def _is_dataset(path: Path) -> bool:
    """Whether a file's first row is one of d_03."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and "schema_json" in row and "schema" not in row


def _read_dataset(path: Path) -> list[DatasetRow]:
    return [row for row in read_rows(path, DatasetRow) if row.is_valid]


def _read_own(path: Path, settings: AnySettings) -> list[DatasetRow]:
    own = settings.own_schemas
    rows = load_schemas(path, own.openapi_nullable, own.draft)
    return [_as_request(row, settings) for row in rows if row.query]


def _as_request(row: SchemaRow, settings: AnySettings) -> DatasetRow:
    """A request as the dataset would hold it, on the day that it would draw: the prompts of a run of this file."""
    return DatasetRow(
        schema_id=row.schema_id,
        domain=str(row.schema.get("title") or row.schema_id),
        schema_json=json.dumps(row.schema, ensure_ascii=False),
        query=str(row.query),
        current_date=row.current_date or draw_date(settings, row.schema_id, row.query),
        ast_json=None if row.answer is None else completion_text(row.answer),
        is_valid=True,
        split=row.split or TEST,
        accepted=row.accepted,
        source="user",
    )


def _drop_repeated(rows: Sequence[DatasetRow], path: Path) -> list[DatasetRow]:
    """The first row of each request: which of several answers to one request is right, nobody could say."""
    known: dict[tuple[str, str, str], DatasetRow] = {}
    for row in rows:
        known.setdefault((row.schema_id, row.current_date, row.query), row)
    if len(known) < len(rows):
        log.warning(f"--eval-data {path}: {len(rows) - len(known)} requests stand there twice, and are taken once")
    return [*known.values()]


def describe_eval_data(settings: AnySettings, rows: Sequence[EvaluationRow], teacher: TeacherChoice | None) -> Row:
    """Describe for a summary the requests that are not those of a run; {} where they are."""
    if not settings.evaluated.eval_data:
        return {}
    count = sum(row.semantic_match_target is None for row in rows)
    said = {"without_answer": say_without_answer(count, len(rows), teacher)} if count else {}
    return {"eval_data": Path(settings.evaluated.eval_data).name, **said}


def say_without_answer(count: int, total: int, teacher: TeacherChoice | None) -> str:
    """Say how requests without an answer are judged.

    >>> say_without_answer(3, 9, None)
    '3 of 9 requests have no answer: validity alone is judged'
    """
    who = "validity alone is judged" if teacher is None or teacher.embedded else "as asked is the teacher's word"
    return f"{count} of {total} requests have no answer: {who}"
