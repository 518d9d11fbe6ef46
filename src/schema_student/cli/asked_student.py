"""Read the command line of a verb that asks a student: which adapter that is, and how its run asks it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schema_student.core.adapters import describe_adapters, suggest_adapters
from schema_student.core.errors import UserError
from schema_student.core.flags import Own, parse_command
from schema_student.core.paths import final_adapter, paths
from schema_student.core.settings import Settings

if TYPE_CHECKING:
    from schema_student.evaluation.deferral import Deferral

DEFER: Own = {
    "--defer-to": {
        "metavar": "TEACHER",
        "default": "",
        "help": "let this teacher answer where the student's confidence is below --below; each answer says who gave it",
    },
    "--below": {"metavar": "T", "type": float, "default": 0.0, "help": "confidence (0 to 1) below which --defer-to"},
}
BASE = "base"  # in --adapters: the base without an adapter
NeedsNone = Callable[[Settings, argparse.Namespace], bool]  # whether what is asked needs no student


def read_asked_student(
    argv: Sequence[str], description: str | None, verb: str, own: Own, needs_none: NeedsNone = lambda *_: False
) -> tuple[Settings, argparse.Namespace]:
    """Read the settings, with those of the run that trained the adapter where the command line does not say otherwise.

    The adapter is --adapter, else the one that the run ends with; --base-model without --run asks a base alone. Raises
    UserError where a run is named that has no adapter, unless `needs_none`.
    """
    settings, arguments = parse_command(argv, description, verb, own)
    named_base = settings.student.base_model != "auto"
    adapter = settings.student.adapter
    if not adapter and (settings.run.run or not named_base):
        adapter = final_adapter(settings)
    if not adapter and settings.run.run and not needs_none(settings, arguments):
        run_dir = paths(settings).run_dir
        advice = f"train it, name an --adapter, or leave --run out; {describe_adapters(settings)}"
        raise UserError(f"{run_dir} has no trained adapter: {advice}")
    decided = settings_as_trained(settings, adapter)
    if not decided:
        return settings, arguments
    settings, arguments = parse_command(argv, description, verb, own, **decided)
    return settings.changed(adapter=adapter), arguments


def settings_as_trained(settings: Settings, adapter: str) -> dict[str, Any]:
    """Find the settings that an adapter was trained with: its base, unless one is named, and how it reads prompts.

    {} where there is no adapter: loading says what is missing.
    """
    if not (Path(adapter) / "adapter_config.json").is_file():
        return {}

    from schema_student.student.loading import settings_of_adapter, settings_of_run

    named_base = settings.student.base_model != "auto"
    return settings_of_run(Path(adapter).parent) if named_base else settings_of_adapter(Path(adapter))


def read_named_model(argv: Sequence[str], description: str | None, verb: str, own: Own, name: str) -> Settings:
    """Read the settings of one of several models: "base", an adapter's folder, or the name of a run.

    "base" is that of --base-model, else of the adapter that the run ends with, whose prompts it reads. Raises UserError
    where there is no such adapter.
    """
    settings, _ = parse_command(argv, description, verb, own)
    final = paths(settings).run_dir.parent / name / "checkpoint-final"
    known = [folder for folder in (Path(name), final) if (folder / "adapter_config.json").is_file()]
    if name != BASE and not known:
        raise UserError(
            f"--adapters: there is no adapter in {name}, nor a run of that name ({final}){suggest_adapters(name)}"
        )
    adapter = str(known[0]) if name != BASE else final_adapter(settings)
    decided = settings_as_trained(settings, adapter)
    settings, _ = parse_command(argv, description, verb, own, **decided)
    return settings.changed(adapter="" if name == BASE else adapter)


def read_deferral(settings: Settings, arguments: argparse.Namespace) -> Deferral | None:
    """Read who answers what the student is not sure of (DEFER); None where nobody is named."""
    if not (arguments.defer_to or arguments.below):
        return None

    from schema_student.evaluation.deferral import open_deferral

    return open_deferral(settings, settings.student.adapter, arguments.defer_to, arguments.below)
