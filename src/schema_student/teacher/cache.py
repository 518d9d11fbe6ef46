"""Cache the teacher's answers on disk by the digest of their question, so that nothing is asked twice.

One SQLite file that several processes may use; what was put survives a kill. Beside the accepted answers it keeps the
rejected ones with their reasons, so that a resumed run can still list all of them. Exported as JSONL, the answers can
be given to others: whoever asks the same model the same questions then needs no teacher.

    with closing(AnswerCache(Path("outputs/teacher_cache.sqlite"))) as cache:
        cache.put(key, "answer", "gpt-oss:120b", {"value": {"city": "Oslo"}})
        export_answers(cache, Path("answers.jsonl"))
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.files import refuse_link
from schema_student.core.jsonl import Row, read_jsonl, write_jsonl
from schema_student.teacher.faults import TeacherError

COLUMNS = {
    "answers": "key TEXT PRIMARY KEY, role TEXT, model TEXT, answer TEXT, made_at REAL",
    "rejected": "key TEXT, try INTEGER, role TEXT, model TEXT, kind TEXT, reason TEXT, text TEXT, "
    "PRIMARY KEY (key, try)",
}
KEY = re.compile(r"[0-9a-f]{64}")
EXPORTED = ("key", "role", "model", "answer")
DAMAGED = "it is damaged: move it away, and the teacher is asked again"
MEND = {  # by what SQLite says; no answer is to be asked for again because a disk was full
    sqlite3.SQLITE_FULL: "free some space on its disk, then run the same command; the answers in it are kept",
    sqlite3.SQLITE_BUSY: "another process is writing it; run the same command again",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
LITTLE = 2**20  # bytes free on a disk that is full
KEYS_AT_ONCE = 500  # SQLite takes 999 parameters in older builds


class AnswerCache:
    """Answers by the digest of their question."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for ending in ("", "-wal", "-shm", "-journal"):  # SQLite follows links
            refuse_link(path.with_name(path.name + ending))
        self._path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            for table, columns in COLUMNS.items():
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def get(self, key: str) -> Any:
        """Return the answer to a question, or None."""
        rows = self._execute("SELECT answer FROM answers WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def put(self, key: str, role: str, model: str, answer: Any) -> None:
        """Keep an answer; it survives a kill from here on."""
        values = (key, role, model, json.dumps(answer, ensure_ascii=False), time.time())
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop answers that turned out to be another model's."""
        for key in keys:
            self._execute("DELETE FROM answers WHERE key = ?", (key,))

    def reject(self, key: str, number: int, role: str, model: str, kind: str, reason: str, text: str) -> None:
        """Keep a rejected answer: its number among those to this question, why it was rejected, and what it said."""
        values = (key, number, role, model, kind, reason, text)
        self._execute("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def rejected(self, keys: Sequence[str]) -> list[Row]:
        """List the rejected answers to these questions, in their order."""
        names = ("key", "try", "role", "teacher_model", "error_type", "reason", "answer")
        found: dict[str, list[Row]] = {}
        for start in range(0, len(keys), KEYS_AT_ONCE):
            some = tuple(keys[start : start + KEYS_AT_ONCE])
            marks = ", ".join("?" * len(some))
            for row in self._execute(f"SELECT * FROM rejected WHERE key IN ({marks}) ORDER BY key, try", some):
                found.setdefault(row[0], []).append(dict(zip(names, row, strict=True)))
        return [row for key in dict.fromkeys(keys) for row in found.get(key, [])]

    def rows(self) -> list[Row]:
        """List all accepted answers, by key."""
        found = self._execute("SELECT key, role, model, answer FROM answers WHERE role != 'probe' ORDER BY key", ())
        return [{**dict(zip(EXPORTED, row, strict=True)), "answer": json.loads(row[3])} for row in found]

    def _execute(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: sqlite3.Error) -> TeacherError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without its extension
        words = str(error)
        if code == sqlite3.SQLITE_IOERR and has_no_room(self._path.parent):  # for its index, or for one more page
            code, words = sqlite3.SQLITE_FULL, f"{error}: database or disk is full"
        advice = MEND.get(code, "mend that, then run the same command to continue; the answers in it are kept")
        return TeacherError(f"{self._path}: the cache of the teacher's answers cannot be used ({words}); {advice}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def has_no_room(folder: Path) -> bool:
    """Tell whether a disk is as good as full, or this process may write files of a limited size only (ulimit -f)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return limit != resource.RLIM_INFINITY or shutil.disk_usage(folder).free < LITTLE


def export_answers(cache: AnswerCache, path: Path) -> int:
    """Write all accepted answers as JSONL; how many. The same answers give the same bytes."""
    rows = cache.rows()
    write_jsonl(path, rows)
    return len(rows)


def import_answers(cache: AnswerCache, path: Path) -> tuple[int, int]:
    """Take in the answers of an exported file; (new ones, ones that were there already and stay as they are).

    Raises UserError that names file:line, before anything is taken in, where a row is no answer.
    """
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        answer = row.get("answer")
        texts = all(isinstance(row.get(name), str) for name in ("key", "role", "model"))
        if not texts or not KEY.fullmatch(row["key"]) or not isinstance(answer, dict) or "value" not in answer:
            advice = "give a file that scripts/export_teacher_answers.py wrote"
            raise UserError(f"{path}: row {number} is no teacher's answer; {advice}")
    new = [row for row in rows if cache.get(row["key"]) is None]
    for row in new:
        cache.put(row["key"], row["role"], row["model"], row["answer"])
    return len(new), len(rows) - len(new)
