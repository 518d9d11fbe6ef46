"""Define the verbs of reward models."""

from __future__ import annotations

from collections.abc import Sequence

from schema_student.cli.training import ROWS
from schema_student.core.artifacts import make
from schema_student.core.flags import load_settings
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings

REWARD = f"""Train a reward model on preference pairs -> student_runs/RUN-reward/checkpoint-final.

  train-reward                                                     # on the run's own pairs, from its SFT student
  train-reward --data-set prefs.jsonl --base-model models/mine --reward-epochs 1
  schema-student rollouts --rollout-scorer reward --reward-model outputs/student_runs/student-reward/checkpoint-final
  schema-student pairwise --judge reward --reward-model ... --adapters A,B

A scalar head and a LoRA on the student's base learn to give the chosen answer of each pair the greater score. Without
--data-set the pairs are those that `pairs` made. With --reward-merged the whole model is written too (merged/).

{ROWS}With --data-set and without --adapter the LoRA is a fresh one.
"""


def train_reward(argv: Sequence[str]) -> None:
    """Train a reward model on preference pairs -> student_runs/RUN-reward/checkpoint-final."""
    settings = load_settings(argv, REWARD, "train-reward", trainer="trl")
    where, imports_pairs = paths(settings), bool(settings.data.data_set)
    reads = [] if imports_pairs else [where.pairs, where.sft_checkpoint]
    writes = [*([where.pairs] if imports_pairs else []), where.reward_dir]
    if not make(lambda: _train(settings), settings, reads=reads, writes=writes) and imports_pairs:
        from schema_student.preference.imports import check_pairs

        check_pairs(settings)


def _train(settings: AnySettings) -> None:
    from schema_student.preference import imports
    from schema_student.training.reward import stage
    from schema_student.training.stage import run_first
    from schema_student.training.trackers import check_tracker

    check_tracker(settings)
    if settings.data.data_set:
        run_first(lambda: imports.import_pairs(settings))
    log.info(f"reward model: {stage.train_reward(settings)}")
