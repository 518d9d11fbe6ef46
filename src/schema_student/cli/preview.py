"""Show rows as the model sees them before anything is trained: --preview of the verbs that make or read a corpus."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from schema_student.core.errors import UserError
from schema_student.core.flags import Own
from schema_student.core.log import log
from schema_student.core.settings import Settings

if TYPE_CHECKING:
    from schema_student.core.records import CorpusRow


def read_count(text: str) -> int:
    """Read how many of something a flag asks for, at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


PREVIEW: Own = {
    "--preview": {
        "metavar": "N",
        "type": read_count,
        "default": 0,
        "help": "show N rows as the model sees them and the lengths of all rows, and stop: nothing is written",
    },
    "--preview-tokens": {"action": "store_true", "help": "with --preview: a line a token, with its id"},
}


def show_rows(rows: Mapping[str, CorpusRow], settings: Settings, arguments: argparse.Namespace) -> None:
    """Show as many of the named rows as --preview asks for, and the lengths of all."""
    from schema_student.data.preview import preview_rows

    try:
        for line in preview_rows(rows, settings, arguments.preview, arguments.preview_tokens):
            log.info(line)
    except OSError as error:
        base = settings.student.base_model
        raise UserError(f"the tokenizer of --base-model {base} is not in reach: {error}") from None
