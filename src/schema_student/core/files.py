"""Open files to write and folders to fill, never through a link; remove folders.

What lies in an output folder may come from others: an archive, a disk that several people share. A link there must not
decide which file is emptied, where rows go, or which folder is removed.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from schema_student.core.errors import UserError
from schema_student.core.processes import is_running


def open_to_write(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file to write, append or update, as `open` does; raises UserError for a link, a pipe or a device."""
    return open(path, mode, opener=_open_plain, **options)


def _open_plain(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # a pipe is not waited for
    except OSError as error:
        refuse_link(Path(path))
        if error.errno != errno.ENXIO:  # so says a pipe or a socket
            raise
        raise _not_plain(path) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _not_plain(path)


def _not_plain(path: str) -> UserError:
    return UserError(f"{path} is no plain file, so nothing is written to it; remove it, or name another --output-dir")


def refuse_link(path: Path | str) -> None:
    """Raise UserError where a path that is to be written is a link."""
    if os.path.islink(path):
        advice = "remove it, or name the place that you mean (--output-dir, --run)"
        raise UserError(f"{path} is a link, so nothing is written through it; {advice}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file; atomic: at any moment the old or the new one is there."""
    write_files(path.parent, {path.name: data})


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files of a folder; each is atomic, and the old ones stand until all new ones are written."""
    folder.mkdir(parents=True, exist_ok=True)
    drafts = {name: folder / f".{name}.{os.getpid()}.tmp" for name in files}
    for name in files:
        remove_drafts(folder, glob.escape(name))
    try:
        for name, draft in drafts.items():
            with open_to_write(draft, "wb") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
        for name, draft in drafts.items():
            draft.replace(folder / name)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def remove_drafts(folder: Path, pattern: str = "*") -> None:
    """Remove the drafts of files that processes left which were killed: `.NAME.PID.tmp`."""
    for draft in folder.glob(f".{pattern}.*.tmp"):
        pid = draft.name.split(".")[-2]
        if pid.isdigit() and not is_running(int(pid)):
            draft.unlink(missing_ok=True)


def make_folder(path: Path) -> Path:
    """Make a folder, where it is not there, and those above it; raises UserError for a link."""
    refuse_link(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def check_name(parent: Path, name: str) -> None:
    """Raise UserError for what names no file or folder of `parent` itself: a path, "..", ""."""
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"{name!r} is no name of a file or folder in {parent}, so nothing was removed or moved")


def remove_folder(parent: Path, name: str) -> None:
    """Remove a folder of `parent` with all that it holds, where there is one. Nothing else removes folders.

    Raises UserError for a name that may lead elsewhere (a path, "..", "") and for a link.
    """
    check_name(parent, name)
    refuse_link(parent / name)
    if (parent / name).is_dir():
        shutil.rmtree(parent / name)
