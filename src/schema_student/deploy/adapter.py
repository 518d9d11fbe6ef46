"""Export an adapter alone, for PEFT: its own files, the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_object, write_json
from schema_student.core.places import shown_place
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.deploy.merging import Merged
from schema_student.deploy.source import Source
from schema_student.deploy.trial import Made
from schema_student.student.loading import RECORD, WEIGHTS

CONFIG = "adapter_config.json"
USAGE = "`Student.load(FOLDER)` of schema-student, or PEFT's `PeftModel.from_pretrained(base, FOLDER)`."


def export_adapter(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Copy an adapter with the record of its base, in which no folder of this machine is told."""
    made = copy_adapter(merged.source, folder, (CONFIG, WEIGHTS))
    record = merged.source.adapter / RECORD
    if record.is_file():
        made_for = read_object(record, base=str)
        write_json(folder / RECORD, {**made_for, "base": shown_place(made_for["base"])})
    answered = sum(answer.valid for answer in merged.adapter_answers)
    line = f"it answered {answered} of {len(merged.adapter_answers)} test prompts validly"
    return Made(made.facts, [*made.lines, line], USAGE)


def copy_adapter(source: Source, folder: Path, names: Sequence[str]) -> Made:
    """Copy these files of the adapter, byte by byte; raises UserError where all weights were trained."""
    if source.is_full:
        raise UserError(f"{source.adapter} holds all weights, no adapter: export it as merged, gguf, ollama or vllm")
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(source.adapter / name, folder / name)
    assert digest(folder / WEIGHTS) == digest(source.weights), "the adapter changed while it was copied"
    return Made({"tried": None}, ["the adapter's own files, the same bytes"], "")
