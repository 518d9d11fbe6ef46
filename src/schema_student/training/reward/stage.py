"""Train a reward model on preference pairs: a score for each answer, greater where it is the better one of a prompt.

A scalar head on the student's base with a LoRA (InstructGPT, Ouyang et al. 2022, arXiv 2203.02155), trained by trl's
RewardTrainer on our batches, or by our own loop (--trainer own, to the same losses). It begins with the SFT adapter of
the run, which knows what answers look like; on data of any origin with --adapter, else with a fresh LoRA.
Reads dpo_pairs.jsonl; writes student_runs/<run>-reward/: checkpoint-N/, checkpoint-final/ (that which orders most
held-out pairs rightly), training_metrics.jsonl, run_config.json. Killed and run again, it continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.student.choice import base_digest, resolve_student, revision_facts
from schema_student.student.loading import check_adapter
from schema_student.training.stage import make_run
from schema_student.training.trackers import check_tracker
from schema_student.training.trl_limits import check_trl_runs

# Groups of settings that decide the reward model; "lora" too where it is a fresh one.
DECIDING = ("loading", "length", "generation", "batching", "optimizer", "reward")


def train_reward(given: AnySettings) -> Path:
    """Train a reward model on the pairs; returns checkpoint-final."""
    check_tracker(given)
    choice, settings = resolve_student(given)
    check_trl_runs(settings)
    where = paths(settings)
    own = bool(settings.data.data_set)
    adapter = None if own and not settings.student.adapter else where.sft_checkpoint
    if adapter:
        check_adapter(str(adapter), choice)
    base = base_digest(choice.base)
    groups = (*DECIDING, *(() if adapter else ("lora",)))
    stamp = make_stamp(settings, *groups, base_digest=base, **revision_facts(choice.base))
    inputs = [where.pairs, *([adapter / "adapter_model.safetensors"] if adapter else [])]

    def train(run_dir: Path) -> dict[str, Any]:
        from schema_student.training.reward.fitting import fit  # loads torch, which a finished run does not need

        return fit(settings, where.pairs, adapter, run_dir)

    return make_run(where.reward_dir, stamp, inputs, settings.run.overwrite, train)
