"""Name the errors that a user can mend; scripts print them and leave with their exit code."""

from __future__ import annotations

import errno

# What a machine refuses and a person mends: a full disk, a folder that cannot be made or written.
UNWRITABLE = {errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC}
UNWRITABLE |= {errno.ENOTDIR, errno.EPERM, errno.EROFS}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SIGNS_OF_FULL = (  # in the words of those who do not pass the number on: safetensors, SQLite, numpy, torch's zip files
    *("(os error 28)", "(os error 122)", "(os error 27)", "database or disk is full"),
    *("requested and", "inline_container.cc", "iostream error"),
)


class UserError(ValueError):
    """An error that a user can mend, and what to do about it. Scripts print `error: ...` and exit with exit_code."""

    exit_code = 1


class SettingsError(UserError):
    """A setting that is unknown, ill-typed or out of bounds, or a command line that is wrong."""

    exit_code = 2


def is_of_full_disk(error: BaseException | None) -> bool:
    """Return whether an error comes of a full disk, or of a limit on what may be written."""
    while error:
        full = isinstance(error, OSError) and error.errno in FULL
        if full or any(sign in str(error) for sign in SIGNS_OF_FULL):
            return True
        error = error.__cause__ or error.__context__
    return False
