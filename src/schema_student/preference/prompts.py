"""Import the prompts of data of any origin, for training on the student's own answers to them (PPO).

Reads --data-set as the other imports do: rows of preferences, of answers, or of prompts alone; what a row answers is
not read. A row's schema, target and accepted are kept where it has them, by which an answer can be graded. Writes
ppo_prompts.jsonl, each prompt once; a tenth is held out (split "validation"), where rows do not say so themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.core.tally import Tally
from schema_student.preference.data_files import find_data_files, load_rows
from schema_student.preference.held_out import prompt_digest, split_of
from schema_student.preference.imports import limit_rows, take
from schema_student.preference.layouts import expand, read_named_split, read_row
from schema_student.preference.turns import Unusable, check_prompt, read_turns

NAME = "ppo_prompts.jsonl"
KEPT = ("schema", "target", "accepted")  # of a row, beside its prompt


def import_prompts(settings: AnySettings) -> Path:
    """Write ppo_prompts.jsonl of --data-set, {prompt, split, schema_id, ...}; raises UserError where none is left."""
    path, source = paths(settings).pairs.with_name(NAME), settings.data.data_set
    files = find_data_files(source)
    with open_artifact(path, make_stamp(settings, "data"), files, settings.run.overwrite) as artifact:
        if not artifact.done:
            rows, tally = read_prompts(source, limit_rows(settings))
            for row in rows[len(artifact.rows) :]:
                artifact.append(row)
            artifact.finish({"rows": len(rows), **tally.facts()})
    return path


def read_prompts(source: str, limit: int) -> tuple[list[Row], Tally]:
    """Read the prompts of a source, and say what became of its rows."""
    tally = Tally()
    found: dict[str, Row] = {}
    for where, row in take(load_rows(source, tally), limit):
        try:
            read = read_prompt(row)
            found.setdefault(read["schema_id"], read)
        except Unusable as reason:
            tally.add(str(reason), where)
    for line in tally.lines():
        log.info(f"  {line}")
    if not found:
        raise UserError(f"{source} has no prompt to answer; {'; '.join(tally.lines()) or 'it has no rows'}")
    held_out = sum(row["split"] != "train" for row in found.values())
    log.info(f"  {len(found)} prompts of {source}, {held_out} of them held out")
    return list(found.values()), tally


def read_prompt(row: Row) -> Row:
    """Read the prompt of a row of any layout, also of one without an answer; raises Unusable.

    >>> read_prompt({"prompt": "two nights in Oslo", "schema": {"type": "object"}})["schema"]
    {'type': 'object'}
    """
    prompt, split = _answered_prompt(row) or (_bare_prompt(row), read_named_split(row.get("split")))
    kept = {name: row[name] for name in KEPT if row.get(name) is not None}
    if "schema" in kept and not isinstance(kept["schema"], dict):
        raise Unusable("its schema is no object")
    return {"prompt": prompt, "split": split or split_of(prompt), "schema_id": prompt_digest(prompt), **kept}


def _answered_prompt(row: Row) -> tuple[Any, str] | None:
    """Prompt and split of a row that answers; None where the prompt stands alone."""
    if set(row) <= {"prompt", "split", "schema_id", *KEPT}:
        return None
    example = read_row(_first(expand({key: row[key] for key in row if key not in KEPT}, most=1)))
    if example.tools or example.chat_template_kwargs:
        raise Unusable("tools beside the prompt: answers are drawn to the prompt alone")
    return example.prompt, example.split


def _first(rows: Sequence[Row]) -> Row:
    return rows[0]


def _bare_prompt(row: Row) -> Any:
    if not row.get("prompt"):
        raise Unusable("no prompt")
    return check_prompt(read_turns(row["prompt"], "prompt"))
