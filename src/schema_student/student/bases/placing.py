"""Place a base in models/NAME/ as a whole: it is made in a hidden folder beside it, which is then renamed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from schema_student.core.errors import UserError, is_of_full_disk
from schema_student.core.locks import hold_lock
from schema_student.core.log import log
from schema_student.core.resources import models_dir
from schema_student.student.bases.record import BaseRecord, read_record


def safe_name(name: str) -> str:
    """Make a folder's name of any text: letters, digits, dots and dashes, and no way out of models/.

    >>> safe_name("../../etc/passwd")
    'etc-passwd'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100] or "base"


def find_fetched(sha256: str) -> Path | None:
    """Find the folder of models/ that was made of a GGUF file, by its SHA-256."""
    for folder in sorted(models_dir().glob("*/")):
        record = read_record(folder)
        if record is not None and record.sha256 == sha256:
            return folder
    return None


def place_base(
    target: Path, make: Callable[[Path, Path], BaseRecord], sha256: str = "", overwrite: bool = False
) -> Path:
    """Make a folder of models/ by `make(folder, downloads)`; at any moment it is whole or not there.

    A folder that was made of the same SHA-256 is done already. What was downloaded stays for the next try, but on a
    full disk. Raises UserError where it is there and of something else.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with hold_lock(target, wait=True):
        if target.exists() and not overwrite:
            record = read_record(target)
            if record is not None and record.sha256 == sha256:
                log.info(f"done already: {target}")
                return target
            raise UserError(f"{target} is there already; give --overwrite to make it again, or another --name")
        shutil.rmtree(partial / "base", ignore_errors=True)
        (partial / "downloads").mkdir(parents=True, exist_ok=True)
        try:
            make(partial / "base", partial / "downloads")
        except Exception as error:
            if is_of_full_disk(error):
                shutil.rmtree(partial, ignore_errors=True)
                raise UserError(f"the disk is full: {target} was not made, and nothing is left of it") from None
            raise
        if target.exists():
            shutil.rmtree(target)
        (partial / "base").replace(target)
        shutil.rmtree(partial)
    log.info(f"base: {target}")
    return target


def check_room(needed: int) -> None:
    """Raise UserError where the disk of models/ has less than these bytes free."""
    folder = models_dir()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed; free some")
