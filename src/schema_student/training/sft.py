"""Fine-tune a student: the training corpus -> a LoRA adapter that writes what the teacher wrote.

Reads d_04_training_corpus.jsonl, and d_03_dataset.jsonl where validation requests are answered; writes
student_runs/<run>/: checkpoint-N/, checkpoint-final/ (the best on validation), training_metrics.jsonl, run_config.json.
Killed and run again, it continues after the last checkpoint.
Under torchrun the processes share each step's batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import make_stamp
from schema_student.student.choice import base_digest, resolve_student, revision_facts
from schema_student.training.stage import make_run
from schema_student.training.trackers import check_tracker
from schema_student.training.trl_limits import check_trl

DECIDING = ("loading", "length", "generation", "batching", "lora", "sft", "optimizer")  # groups of settings


def train_sft(given: AnySettings) -> Path:
    """Train the student's adapter on the corpus; returns checkpoint-final."""
    check_tracker(given)
    choice, settings = resolve_student(given)
    check_trl(settings)
    where = paths(settings)
    asks = settings.sft.sft_eval_answers and not settings.data.data_set and where.dataset.exists()
    inputs = [where.corpus, where.dataset] if asks else [where.corpus]
    stamp = make_stamp(settings, *DECIDING, base_digest=base_digest(choice.base), **revision_facts(choice.base))

    def train(run_dir: Path) -> dict[str, Any]:
        from schema_student.training.fine_tuning import fine_tune  # loads torch, which a finished run does not need

        return fine_tune(settings, where.corpus, run_dir, where.dataset if asks else None)

    return make_run(where.run_dir, stamp, inputs, settings.run.overwrite, train)
