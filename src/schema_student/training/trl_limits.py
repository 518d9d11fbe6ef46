"""Refuse what trl's trainers cannot do, where `--trainer trl` asks for them."""

from __future__ import annotations

import importlib.util

from schema_student.core.errors import UserError
from schema_student.core.processes import process_count
from schema_student.core.settings import ResolvedSettings, kebab_case

OWN_TERMS = {
    "dpo_sft_weight": 0,
    "anchors_per_pair": 0,
    "dpo_credit": "whole",
    "dpo_positive_weight": 0,
}  # as trl has them


def check_trl_runs(settings: ResolvedSettings) -> None:
    """Raise UserError where trl is to train and is not installed, or is one of several processes."""
    if settings.optimizer.trainer != "trl":
        return
    if importlib.util.find_spec("trl") is None:
        raise UserError(
            "--trainer trl needs trl, which is not installed: pip install 'trl>=1.14,<1.15', or give --trainer own"
        )
    if process_count() > 1:
        raise UserError(f"--trainer trl runs in one process, not in {process_count()}: start it without torchrun")


def check_trl(settings: ResolvedSettings, aligns: bool = False) -> None:
    """Raise UserError for a setting that trl's SFTTrainer, or DPOTrainer where it `aligns`, has nothing for."""
    if settings.optimizer.trainer != "trl":
        return
    check_trl_runs(settings)
    controller = settings.beta.beta_controller
    if aligns and controller != "fixed":
        raise UserError(f"trl's DPOTrainer keeps beta fixed, {controller} does not: give --beta-controller fixed")
    for name, theirs in OWN_TERMS.items() if aligns else ():
        if settings.value(name) != theirs:
            raise UserError(f"trl's DPOTrainer has no {name}: give --{kebab_case(name)} {theirs}, or --trainer own")
