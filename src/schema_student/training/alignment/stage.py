"""Align a student by one objective: an adapter and requests with right answers -> student_runs/RUN-OBJECTIVE/.

Reads d_03_dataset.jsonl and the adapter that it begins with; writes what SFT writes. The checkpoint is chosen by
reading right answers to validation requests, and the student before it is kept where none is better.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.stamps import make_stamp
from schema_student.preference.prompts import NAME as PROMPTS
from schema_student.student.choice import base_digest, resolve_student, revision_facts
from schema_student.student.loading import check_adapter
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.stage import make_run
from schema_student.training.trackers import check_tracker

# Groups of settings that decide any aligned adapter, beside those of its objective.
DECIDING = ("loading", "length", "generation", "batching", "prompt", "optimizer", "aligned_modules", "validation")


def train_link(name: str, given: AnySettings) -> Path:
    """Align the adapter that the settings begin with by an objective; returns checkpoint-final."""
    check_tracker(given)
    choice, settings = resolve_student(given)
    where = paths(settings)
    adapter = where.sft_checkpoint
    check_adapter(str(adapter), choice)
    base = base_digest(choice.base)
    groups = (*DECIDING, *RECIPES[name].groups)
    stamp = make_stamp(settings, *groups, base_digest=base, **revision_facts(choice.base))

    def train(run_dir: Path) -> dict[str, Any]:
        from schema_student.training.alignment.link import align  # loads torch, which a finished run does not need

        return align(settings, name, where.dataset, adapter, run_dir)

    inputs = [where.dataset, adapter / "adapter_model.safetensors", *_further_inputs(name, settings)]
    return make_run(where.link_dir(name), stamp, inputs, settings.run.overwrite, train)


def train_ppo_on_prompts(given: AnySettings) -> Path:
    """Align --adapter, or a fresh one, by PPO on the prompts of --data-set; returns checkpoint-final."""
    check_tracker(given)
    choice, settings = resolve_student(given)
    where = paths(settings)
    prompts = where.pairs.with_name(PROMPTS)
    adapter = where.sft_checkpoint if settings.student.adapter else None
    if adapter:
        check_adapter(str(adapter), choice)
    groups = (*DECIDING, *RECIPES["ppo"].groups, *(() if adapter else ("lora",)))
    stamp = make_stamp(settings, *groups, base_digest=base_digest(choice.base), **revision_facts(choice.base))

    def train(run_dir: Path) -> dict[str, Any]:
        from schema_student.training.alignment.prompt_link import align_on_prompts  # loads torch

        return align_on_prompts(settings, prompts, adapter, run_dir)

    weights = [adapter / "adapter_model.safetensors"] if adapter else []
    inputs = [prompts, *weights, *_further_inputs("ppo", settings)]
    return make_run(where.link_dir("ppo"), stamp, inputs, settings.run.overwrite, train)


def _further_inputs(name: str, settings: ResolvedSettings) -> list[Path]:
    """The files and the weights of models that settings of an objective name."""
    recipe = RECIPES[name]
    files = [Path(settings.value(setting)) for setting in recipe.files if settings.value(setting)]
    models = [Path(settings.value(setting)) for setting in recipe.models if settings.value(setting)]
    return [*files, *(file for model in models for file in sorted(model.glob("*.safetensors")))]
