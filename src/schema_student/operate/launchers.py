"""Quote the path of Python in the launchers of a .venv: a folder's name is a name to the shell, never a command.

pip writes a launcher whose path has a blank, or is long, as a shell script with that path between double quotes, or
none; and venv its `activate` likewise. scripts/bootstrap.sh calls this where a checkout's path has such letters.

    python -m schema_student.operate.launchers .venv/bin
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from schema_student.core.files import write_bytes

EXEC = re.compile(rb"\A(#!/bin/sh\n'''exec' ).*( \"\$0\" \"\$@\"\n' ''')")
ACTIVATE = re.compile(rb"(?m)^(\s*VIRTUAL_ENV=).*$")


def quote_launchers(folder: Path) -> list[str]:
    """Quote the path in each launcher of a .venv's bin, and in activate; returns the names of those that changed."""
    python, venv = (shlex.quote(str(path)).encode() for path in (folder / "python", folder.parent))
    changed = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        before = path.read_bytes()
        after = EXEC.sub(lambda found: found[1] + python + found[2], before)
        if path.name == "activate":
            after = ACTIVATE.sub(lambda found: found[1] + venv, after)
        if after != before:
            mode = path.stat().st_mode
            write_bytes(path, after)
            path.chmod(mode)
            changed.append(path.name)
    return changed


if __name__ == "__main__":
    quote_launchers(Path(sys.argv[1]).absolute())
