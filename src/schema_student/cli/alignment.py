"""Define the verbs of preferences: the student's answers -> pairs -> DPO, of the pipeline's pairs or of any data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from schema_student.cli.training import ROWS, require_data_set
from schema_student.core.artifacts import dry_run, make
from schema_student.core.errors import SettingsError
from schema_student.core.flags import load_settings
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.training.local_workers import train_in_workers

DPO_STEP = ("dpo_gradient_accumulation", "dpo_batch_size")  # the settings by which a step is shared

DPO = f"""Align by DPO with a fixed beta on any preference data -> student_runs/RUN-dpo/checkpoint-final.

  train-dpo --data-set prefs.jsonl --base-model models/mine --beta 0.1
  train-dpo --data-set prefs.jsonl --adapter outputs/student_runs/prefs/checkpoint-final    # after train-sft
  train-dpo --data-set openai/summarize_from_feedback:comparisons --dpo-max-steps 400 --run tldr-fixed

{ROWS}Without --adapter a fresh LoRA is trained, and the base is its reference.
"""
BETA_DPO = f"""Align by DPO with a dynamic beta on any preference data -> student_runs/RUN-dpo/checkpoint-final.

  train-beta-dpo --data-set prefs.jsonl --base-model models/mine --run calibrated
  train-beta-dpo --data-set prefs.jsonl --base-model models/mine --run risk --beta-controller risk --beta-warmup 50
  train-beta-dpo --data-set Anthropic/hh-rlhf --data-limit 20000 --beta-controller beta_dpo --dpo-batch-size 64
  schema-student replay-beta --run risk; schema-student compare --runs calibrated,risk

{ROWS}Without --adapter a fresh LoRA is trained, and the base is its reference.
"""


def pairs(argv: Sequence[str]) -> None:
    """Rank the SFT student's samples by verdict -> chosen and rejected -> student_runs/alignment/dpo_pairs.jsonl.

    schema-student pairs --samples-per-prompt 4
    schema-student pairs --pair-prompts 500 --mutations-per-prompt 1

    Of more requests than --pair-prompts those are taken that the student would get wrong: it reads each with its
    answer.
    """
    settings = load_settings(argv, pairs.__doc__, "pairs")
    where = paths(settings)
    reads = [where.dataset, where.sft_checkpoint]
    if make(lambda: _build_pairs(settings), settings, reads=reads, writes=[where.pairs]):
        log.info(f"pairs: {where.pairs}")


def rollouts(argv: Sequence[str]) -> None:
    """Sample k answers a prompt and score them -> rollouts/RUN/: rollout_{responses,judged}.jsonl, manifest.json.

    schema-student rollouts --adapter outputs/student_runs/student/checkpoint-final
    schema-student rollouts --data-set prompts.jsonl --rollout-scorer reward --reward-model models/rm
    schema-student rollouts --rollout-source teacher --teacher-model qwen3:32b --samples-per-prompt 8
    train-beta-dpo --data-set outputs/rollouts/student/rollout_judged.jsonl --run on-policy
    """
    settings = load_settings(argv, rollouts.__doc__, "rollouts")
    where = paths(settings)
    judged = where.rollouts / "rollout_judged.jsonl"
    reads = [] if settings.data.data_set else [where.dataset]
    if make(lambda: _make_rollouts(settings), settings, reads=reads, writes=[judged]):
        log.info(f"judged rollouts: {judged}")


def align(argv: Sequence[str]) -> None:
    """Align the SFT student by DPO with a dynamic beta on the pairs -> student_runs/RUN-dpo/.

    schema-student align --beta-controller calibrated
    schema-student align --adapter outputs/student_runs/mine/checkpoint-final --dpo-max-steps 200
    """
    settings = load_settings(argv, align.__doc__, "align")
    where = paths(settings)
    stage = partial(train_in_workers, _train_dpo, settings, where.dpo_dir, *DPO_STEP)
    if make(stage, settings, reads=[where.pairs, where.sft_checkpoint], writes=[where.dpo_dir]):
        log.info(f"aligned student: {where.dpo_checkpoint}")


def train_dpo(argv: Sequence[str]) -> None:
    """Align by DPO with a fixed beta on any preference data -> student_runs/RUN-dpo/checkpoint-final."""
    settings = load_settings(argv, DPO, "train-dpo", beta_controller="fixed")
    if settings.beta.beta_controller != "fixed":
        raise SettingsError(f"train-dpo keeps beta fixed; for {settings.beta.beta_controller} run train-beta-dpo")
    _align_on_any_data(settings)


def train_beta_dpo(argv: Sequence[str]) -> None:
    """Align by DPO with a dynamic beta on any preference data -> student_runs/RUN-dpo/checkpoint-final."""
    _align_on_any_data(load_settings(argv, BETA_DPO, "train-beta-dpo"))


def _align_on_any_data(settings: AnySettings) -> None:
    require_data_set(settings)
    where = paths(settings)
    stage = partial(train_in_workers, _import_and_align, settings, where.dpo_dir, *DPO_STEP)
    if not make(stage, settings, reads=[], writes=[where.pairs, where.dpo_dir]):
        from schema_student.preference.imports import check_pairs

        check_pairs(settings)


def _build_pairs(settings: AnySettings) -> None:
    from schema_student.preference.pairs import build_pairs

    build_pairs(settings)


def _make_rollouts(settings: AnySettings) -> None:
    from schema_student.preference.rollouts import make_rollouts

    make_rollouts(settings)


def _train_dpo(settings: ResolvedSettings) -> None:
    from schema_student.training.dpo.stage import train_dpo

    train_dpo(settings)


def _import_and_align(settings: ResolvedSettings) -> None:
    from schema_student.preference import imports
    from schema_student.training.dpo.stage import train_dpo
    from schema_student.training.stage import run_first
    from schema_student.training.trackers import check_tracker

    check_tracker(settings)
    run_first(lambda: imports.import_pairs(settings))
    log.info(f"aligned student: {train_dpo(settings)}")


def replay_beta(argv: Sequence[str]) -> None:
    """Recompute a DPO run's beta_trace.jsonl from its margins.jsonl; exit 1 at the first difference.

    schema-student replay-beta
    schema-student replay-beta --run risk
    """
    settings = load_settings(argv, replay_beta.__doc__, "replay-beta")
    run_dir = paths(settings).dpo_dir
    if not dry_run(settings, reads=[run_dir / "margins.jsonl", run_dir / "beta_trace.jsonl"], writes=[]):
        from schema_student.training.dpo.beta import replay_run

        log.info(f"replayed: {replay_run(run_dir)} rows of {run_dir / 'beta_trace.jsonl'}, no difference")
