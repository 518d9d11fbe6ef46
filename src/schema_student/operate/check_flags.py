"""Check before a runner's first stage that each of its flags is read by one of its stages.

    python -m schema_student.operate.check_flags VERB [VERB ...] -- [FLAG ...]

Exit code 2 names a flag that none of these verbs reads. Each stage is given the runner's flags and takes its own.
"""

from __future__ import annotations

import sys

from schema_student.core.flags import refuse_unread
from schema_student.core.processes import run_script


def main() -> None:
    """Refuse what none of the verbs reads."""
    end = sys.argv.index("--")
    refuse_unread(sys.argv[1:end], sys.argv[end + 1 :])


if __name__ == "__main__":
    run_script(main)
