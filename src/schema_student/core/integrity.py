"""Vouch for files by their digests; find those that are missing or changed, and restore them from equal copies.

vouched = vouch(folder, ["*.jsonl"])       # {"train.jsonl": "9f86d0..."}, kept in a stamp or a manifest
damage = find_damage(folder, vouched)      # {"train.jsonl": "is missing"}
restore(folder, vouched, damage, [other], only_check=False)  # what stays damaged; the rest was found elsewhere
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from schema_student.core.files import make_folder
from schema_student.core.log import log
from schema_student.core.stamps import digest

Vouched = Mapping[str, str]  # a file's path in a folder, with "/" -> its sha256


def vouch(folder: Path, patterns: Sequence[str] = ("**/*",)) -> dict[str, str]:
    """Compute the digest of each file of a folder that matches one of the patterns, once it is safe on the disk."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    for file in files:
        flush(file)
    return {file.relative_to(folder).as_posix(): digest(file) for file in files}


def flush(file: Path) -> None:
    """Have the system write a file to the disk, so that what vouches for it does not outlive it at a loss of power."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def find_damage(folder: Path, vouched: Vouched) -> dict[str, str]:
    """Say of each vouched file that is not as it was what happened to it."""
    found = {}
    for name, known in vouched.items():
        file = folder / name
        if not file.is_file():
            found[name] = "is missing"
        elif digest(file) != known:
            found[name] = "has changed"
    return found


def restore(
    folder: Path, vouched: Vouched, damage: Mapping[str, str], elsewhere: Sequence[Path], only_check: bool
) -> dict[str, str]:
    """Copy each damaged file from one of the same name and digest, in the folder or elsewhere; returns what stays."""
    left = {}
    for name, what in damage.items():
        source = _find_copy(folder, name, vouched[name], elsewhere)
        if source is None:
            left[name] = what
        if source is None or only_check:
            continue
        target = folder / name
        make_folder(target.parent)
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.copyfile(source, draft)
        draft.replace(target)
        log.info(f"  {target} {what.replace('is ', 'was ').replace('has ', 'had ')}: restored from {source.parent}")
    return left


def _find_copy(folder: Path, name: str, known: str, elsewhere: Iterable[Path]) -> Path | None:
    if ".." in Path(name).parts or Path(name).is_absolute():  # a stamp that someone else wrote
        return None
    last = Path(name).name
    candidates = [*sorted(folder.rglob(last)), *(place / last for place in elsewhere)]
    return next((file for file in candidates if file.is_file() and digest(file) == known), None)
