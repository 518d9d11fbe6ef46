"""Split ID@COMMIT: which version of a model or data set of the hub is meant."""

from __future__ import annotations

import re
from pathlib import Path

from schema_student.core.errors import UserError

REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def split_revision(source: str) -> tuple[str, str | None]:
    """Split ID@COMMIT into the id and its commit, branch or tag; a folder that is there, and an id alone, have none.

    >>> split_revision("google/gemma-3-270m-it@ac82b4e8")
    ('google/gemma-3-270m-it', 'ac82b4e8')
    """
    name, mark, revision = source.rpartition("@")
    if not mark or not name or source.startswith(("/", ".", "~")) or Path(source).is_dir():
        return source, None
    if not REVISION.fullmatch(revision) or ".." in revision:
        raise UserError(f"{source!r}: what follows the @ of a hub id is a commit (or a branch, or a tag)")
    return name, revision
