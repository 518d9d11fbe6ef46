"""Align a student: validity-ranked pairs + a beta controller -> an adapter that prefers what is valid and was asked.

DPO (Rafailov et al. 2023, arXiv 2305.18290) that goes on training the SFT adapter; the reference is the SFT student,
whose log-probabilities are computed once before the first step and kept for later runs (alignment/reference_logps/).
Reads dpo_pairs.jsonl; writes student_runs/<run>-dpo/: as SFT, plus margins.jsonl, margins/*.npy, beta_trace.jsonl.
A low DPO loss does not mean better answers, so the checkpoint is chosen by greedy answers to validation requests;
step 0, the SFT student itself, is a candidate.
With --data-set the pairs are of any origin (preference/imports.py): there are no requests to answer, held-out pairs
choose the checkpoint, and without --adapter a fresh LoRA is aligned, whose reference is the base.
Guards: an alarm, an SFT term and DPO-positive where chosen answers become less likely; a stop where no margin moves and
where a value is not finite. Under torchrun the processes share each step's batch, and its beta.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.preference.requests import anchors_beside
from schema_student.student.choice import base_digest, resolve_student, revision_facts
from schema_student.student.loading import check_adapter
from schema_student.training.stage import make_run
from schema_student.training.trackers import check_tracker
from schema_student.training.trl_limits import check_trl

# Groups of settings that decide the aligned adapter; "lora" too where a fresh one is aligned.
DECIDING = (
    "loading",
    "length",
    "generation",
    "batching",
    "prompt",
    "optimizer",
    "aligned_modules",
    "validation",
    "dpo",
    "beta",
)


def train_dpo(given: AnySettings) -> Path:
    """Align the SFT adapter on the pairs; returns checkpoint-final."""
    check_tracker(given)
    choice, settings = resolve_student(given)
    check_trl(settings, aligns=True)
    where = paths(settings)
    own = bool(settings.data.data_set)
    dataset = None if own else where.dataset
    adapter = None if own and not settings.student.adapter else where.sft_checkpoint
    if adapter:
        check_adapter(str(adapter), choice)
    base = base_digest(choice.base)
    stamp = make_stamp(
        settings, *DECIDING, *(() if adapter else ("lora",)), base_digest=base, **revision_facts(choice.base)
    )
    weights = adapter / "adapter_model.safetensors" if adapter else None
    anchors = anchors_beside(where.pairs) if settings.dpo.anchors_per_pair and not own else None
    inputs = [path for path in (where.pairs, anchors, dataset, weights) if path]

    def train(run_dir: Path) -> dict[str, Any]:
        from schema_student.training.dpo.alignment import align  # loads torch, which a finished run does not need

        return align(settings, where.pairs, dataset, adapter, run_dir)

    return make_run(where.dpo_dir, stamp, inputs, settings.run.overwrite, train)
