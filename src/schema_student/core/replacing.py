"""Replace an artifact as a whole: the old one stands until the new one, made beside it, is swapped in.

The new one is made in `.new/` of the artifact's own folder. When it is whole its stamp is written there; from then on
the swap goes on wherever a kill stopped it, because each step is a rename that finds out whether it was done:

    dataset/d_03.jsonl, d_03.jsonl.meta.json      the old artifact, untouched while
    dataset/.new/d_03.jsonl                       the new one is made;
    dataset/.new/d_03.jsonl.meta.json             written when it is whole, and renamed last
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from schema_student.core.files import check_name, make_folder, remove_folder
from schema_student.core.jsonl import read_object
from schema_student.core.stamps import beside

NEW, OLD = ".new", ".old"


def draft_of(path: Path) -> Path:
    """Locate where the replacement of an artifact is made: a folder of the same file system, the same name."""
    return path.parent / NEW / path.name


def discard(path: Path) -> None:
    """Remove a file, a folder, or a link but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        remove_folder(path.parent, path.name)
    else:
        path.unlink(missing_ok=True)


def discard_draft(path: Path) -> None:
    """Remove a replacement that was begun; its stamp goes last, so that a kill leaves no rows without one."""
    draft = draft_of(path)
    discard(draft)
    beside(draft, "partial").unlink(missing_ok=True)


def complete_swap(path: Path) -> None:
    """Put a whole replacement in the place of the artifact, or go on where a kill left that; else do nothing."""
    draft, aside = draft_of(path), path.parent / OLD / path.name
    meta = beside(draft, "meta")
    if meta.exists():
        for name in read_object(meta, companions=list).get("companions") or []:
            check_name(path.parent, name)
            _move(draft.with_name(name), path.with_name(name))
        if draft.is_dir() and path.exists():
            make_folder(aside.parent)
            discard(aside)
            path.rename(aside)
        _move(draft, path)
        meta.replace(beside(path, "meta"))
    if path.exists():
        discard(aside)
        if not draft.exists():
            beside(draft, "partial").unlink(missing_ok=True)
    for folder in (draft.parent, aside.parent):
        with suppress(OSError):  # it is not there, or holds another artifact's
            folder.rmdir()


def _move(source: Path, target: Path) -> None:
    if source.exists():
        source.replace(target)
