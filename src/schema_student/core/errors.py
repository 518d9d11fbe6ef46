"""Name the errors that a user can mend; scripts print them and leave with their exit code."""

from __future__ import annotations

import errno

# What a machine refuses and a person mends: a full disk, a folder that cannot be made or written.
UNWRITABLE = {errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC}
UNWRITABLE |= {errno.ENOTDIR, errno.EPERM, errno.EROFS}


class UserError(ValueError):
    """An error that a user can mend, and what to do about it. Scripts print `error: ...` and exit with exit_code."""

    exit_code = 1


class SettingsError(UserError):
    """A setting that is unknown, ill-typed or out of bounds, or a command line that is wrong."""

    exit_code = 2
