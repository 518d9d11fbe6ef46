"""Lock an artifact for one writer, by a file beside it that the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from schema_student.core.errors import UserError
from schema_student.core.files import open_to_write


@contextmanager
def hold_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold `<path>.lock` in this process; where another has it, wait, or raise UserError that names the holder."""
    lock = path.with_name(path.name + ".lock")
    file = _acquire(path, lock, wait)
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


def _acquire(path: Path, lock: Path, wait: bool) -> IO[Any]:
    while True:
        file = open_to_write(lock, "a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            file.close()
            advice = "wait for it, or name another --run"
            raise UserError(f"{path} is being written by process {holder}; {advice}") from None
        # Its last holder may have removed the file between our open and our flock.
        if lock.exists() and os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            return file
        file.close()
