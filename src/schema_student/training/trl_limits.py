"""Refuse what trl's trainers cannot do where `--trainer trl` asks for them, and what only they can do elsewhere."""

from __future__ import annotations

import importlib.util

from schema_student.core.errors import UserError
from schema_student.core.processes import process_count
from schema_student.core.settings import ResolvedSettings, kebab_case

# Settings of our loss of pairs, with the values that trl's trainers have.
OWN_TERMS = {"dpo_sft_weight": 0, "anchors_per_pair": 0, "dpo_credit": "whole", "dpo_positive_weight": 0}
# Settings of trl's losses of pairs, with the values that our loop has.
TRL_TERMS = {"loss_type": "sigmoid", "label_smoothing": 0, "f_divergence": "reverse_kl"}
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")  # losses that label_smoothing is in
OF_DIVERGENCES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop")


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
    """Raise UserError for a setting that trl's SFTTrainer, or DPOTrainer where it `aligns`, has nothing for.

    Where our own loop aligns, for one that only trl's trainers have.
    """
    if settings.optimizer.trainer != "trl":
        _check_values(settings, TRL_TERMS if aligns else {}, "our own loop", "trl")
        return
    check_trl_runs(settings)
    if aligns:
        controller = settings.beta.beta_controller
        if controller != "fixed":
            raise UserError(f"trl's DPOTrainer keeps beta fixed, {controller} does not: give --beta-controller fixed")
        _check_values(settings, OWN_TERMS, "trl's DPOTrainer", "own")
        _check_loss(settings)


def _check_values(settings: ResolvedSettings, known: dict[str, object], who: str, other: str) -> None:
    for name, value in known.items():
        if settings.value(name) != value:
            given = "" if isinstance(value, int) else f" {settings.value(name)}"
            raise UserError(f"{who} has no {name}{given}: give --{kebab_case(name)} {value}, or --trainer {other}")


def _check_loss(settings: ResolvedSettings) -> None:
    """Refuse what would change nothing in trl's loss, or that it stops at."""
    loss, smoothing, divergence = (settings.value(name) for name in TRL_TERMS)
    if smoothing and loss not in SMOOTHED:
        raise UserError(f"label_smoothing is in the losses {', '.join(SMOOTHED)}, not in {loss}: give it as 0")
    if loss == "exo_pair" and not smoothing:
        raise UserError("the loss exo_pair needs a label_smoothing above 0: give --label-smoothing 0.001")
    if divergence != "reverse_kl" and loss not in OF_DIVERGENCES:
        raise UserError(
            f"f_divergence {divergence} is in the losses {', '.join(OF_DIVERGENCES)}, not in {loss}: give reverse_kl"
        )
