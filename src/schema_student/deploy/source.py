"""Find which student of a run is exported, how it is asked, and what is known of its base and of its test rates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_json
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import final_adapter, paths
from schema_student.core.settings import AnySettings, ResolvedSettings, default_settings
from schema_student.core.stamps import digest
from schema_student.student.bases.catalog import known_bases
from schema_student.student.bases.record import BaseRecord, read_record
from schema_student.student.choice import StudentChoice, resolve_student
from schema_student.student.full_weights import KIND, is_full
from schema_student.student.loading import RUN_DECIDES, WEIGHTS, check_adapter, find_base, settings_of_run

FRONT_LICENCE = re.compile(r"\A---\n(?:.*\n)*?license: *([^\n]+)\n")


@dataclass(frozen=True)
class Source:
    """The student that is exported: its run, its adapter, its base, and the settings that it is asked with."""

    run: str
    adapter: Path
    choice: StudentChoice
    settings: ResolvedSettings

    @property
    def is_full(self) -> bool:
        """Return whether all weights were trained: there is no adapter beside the base's."""
        return is_full(self.adapter)

    @property
    def weights(self) -> Path:
        """Return the file of the adapter's weights."""
        return self.adapter / WEIGHTS

    @cached_property
    def base_record(self) -> BaseRecord | None:
        """Read what the base was made of; None where it was not fetched by us."""
        return read_record(Path(self.choice.base))

    @property
    def base_name(self) -> str:
        """Name the base without the folders of this machine: where it was had from, else its hub id or folder."""
        if self.base_record:
            return Path(self.base_record.source).name
        folder = Path(self.choice.base)
        return folder.resolve().name if folder.is_dir() else self.choice.base

    @property
    def base_licence(self) -> str:
        """Find the base's licence: by its record, the known bases, or its card; "unknown" otherwise."""
        if self.base_record and self.base_record.licence:
            return self.base_record.licence
        named = [base.licence for base in known_bases().values() if self.choice.base.split("@")[0] == base.hub]
        card = Path(self.choice.base) / "README.md"
        if not named and card.is_file() and (found := FRONT_LICENCE.match(card.read_text(encoding="utf-8"))):
            named = [found[1].strip("\"' ")]
        return named[0] if named and named[0] else "unknown"


def find_source(given: AnySettings) -> Source:
    """Find the student to export: --adapter, else the run's DPO student, else its SFT student.

    It is asked as its run was: rendering and lengths are those of the run_config.json beside it. Raises UserError for
    an adapter that is missing, pickled, of another kind than LoRA, or of another base than the one that is named.
    """
    adapter = exported_adapter(given)
    base = given.student.base_model
    if base == "auto" and adapter.is_dir():
        base = find_base(adapter)
    default = default_settings()
    asked = {name: default.value(name) for name in RUN_DECIDES} | settings_of_run(adapter.parent)
    loaded = {"base_model": base, "dtype": "float32", "load_in_4bit": False}
    choice, settings = resolve_student(given.changed(**asked, **loaded))
    check_adapter(str(adapter), choice)
    _check_kind(adapter)
    return Source(resolve_run(given), adapter, choice, settings)


def exported_adapter(settings: AnySettings) -> Path:
    """Return the folder of the adapter that is exported."""
    found = "" if settings.student.adapter else final_adapter(settings)
    return Path(found) if found else paths(settings).sft_checkpoint


def _check_kind(adapter: Path) -> None:
    config = adapter / "adapter_config.json"
    kind = read_json(config).get("peft_type") if config.is_file() else "LORA"
    if kind not in ("LORA", KIND):
        raise UserError(f"adapter {adapter} is of the kind {kind}, not LORA, and cannot become part of its base")


def find_evaluation(source: Source, settings: AnySettings) -> Row | None:
    """Find the summary of the evaluation of these weights; None where they were not evaluated."""
    wanted = digest(source.weights)
    for summary in sorted(paths(settings).evals.glob("*/evaluation_summary.json")):
        meta = read_meta(summary.with_name("evaluation_results.jsonl")) or {}
        found: Row = read_json(summary)
        if meta.get("inputs", {}).get(WEIGHTS) == wanted and not found.get("eval_data"):
            return found
    log.info("these weights were not evaluated: the card has no rates (schema-student evaluate)")
    return None
