"""Start the command and its verbs: what console scripts and scripts/ import, light enough to meet a Ctrl-C at once."""

from __future__ import annotations

from typing import NoReturn

from schema_student.core.processes import watch_interrupts


def main() -> NoReturn:
    """Run the verb that this program is called by (train-sft), or that its first argument names."""
    watch_interrupts()
    from schema_student.cli import main as command

    command.main()


def run_verb(verb: str, *flags: str) -> NoReturn:
    """Run a verb with these flags and those of the program's own command line: what a script does."""
    watch_interrupts()
    from schema_student.cli import main as command

    command.run_verb(verb, *flags)
