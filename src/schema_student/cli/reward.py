"""Define the verbs of learning from rewards: reward models, and PPO."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from schema_student.cli.training import ROWS
from schema_student.core.artifacts import make
from schema_student.core.flags import load_settings
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.preference.prompts import NAME as PROMPTS
from schema_student.preference.prompts import import_prompts
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.chain import train as train_link
from schema_student.training.local_workers import train_in_workers

REWARD = f"""Train a reward model on preference pairs -> student_runs/RUN-reward/checkpoint-final.

  train-reward                                                     # on the run's own pairs, from its SFT student
  train-reward --data-set prefs.jsonl --base-model models/mine --reward-epochs 1
  schema-student rollouts --rollout-scorer reward --reward-model outputs/student_runs/student-reward/checkpoint-final
  schema-student pairwise --judge reward --reward-model ... --adapters A,B

A scalar head and a LoRA on the student's base learn to give the chosen answer of each pair the greater score. Without
--data-set the pairs are those that `pairs` made. With --reward-merged the whole model is written too (merged/).

{ROWS}With --data-set and without --adapter the LoRA is a fresh one.
"""
PPO = """Align by PPO: the student's own answers, rewarded -> student_runs/RUN-ppo/checkpoint-final.

  train-ppo                                                        # on the run's requests, rewarded by their grades
  train-ppo --ppo-reward-model outputs/student_runs/student-reward/checkpoint-final
  train-ppo --data-set prompts.jsonl --adapter CKPT --ppo-reward-model RUN-reward/checkpoint-final

Each draw has answers sampled to a batch of prompts; --ppo-epochs optimizer steps learn from them. A value head expects
the rewards; the clipped ratio and a penalty for each token hold the student near the one before. It stops by itself
where it goes too far (--ppo-kl-limit), answers hardly vary any more (--ppo-entropy-share), or validation falls.

Without --data-set it is the link ppo of `align`: requests of the alignment split, validated by reading right answers.
--data-set is data of any origin and layout (train-dpo --help): preferences, answers, or prompts alone; what a row says
of answers is not read. A tenth of the prompts is held out, and the checkpoint of the greatest mean reward there is
taken. A row's "schema" (with "target") grades answers where no reward model is named. Without --adapter a fresh LoRA is
trained.
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


def train_ppo(argv: Sequence[str]) -> None:
    """Align by PPO: the student's own answers, rewarded -> student_runs/RUN-ppo/checkpoint-final."""
    settings = load_settings(argv, PPO, "train-ppo")
    where = paths(settings)
    if settings.data.data_set:
        stage = partial(train_in_workers, _train_on_prompts, settings, where.link_dir("ppo"), *RECIPES["ppo"].step)
        made = make(stage, settings, reads=[], writes=[where.pairs.with_name(PROMPTS), where.link_dir("ppo")])
    else:
        reads = [where.dataset, where.sft_checkpoint]
        made = make(lambda: train_link("ppo", settings), settings, reads=reads, writes=[where.link_dir("ppo")])
    if made:
        log.info(f"aligned student: {where.link_checkpoint('ppo')}")


def _train_on_prompts(settings: ResolvedSettings) -> None:
    from schema_student.training.alignment.stage import train_ppo_on_prompts
    from schema_student.training.stage import run_first
    from schema_student.training.trackers import check_tracker

    check_tracker(settings)
    run_first(lambda: import_prompts(settings))
    train_ppo_on_prompts(settings)
