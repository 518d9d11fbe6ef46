"""Define the verbs of preferences: the student's answers -> pairs -> DPO, of the pipeline's pairs or of any data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from schema_student.cli.training import ROWS, require_data_set
from schema_student.core.artifacts import Checked, dry_run, make, only_check
from schema_student.core.errors import SettingsError
from schema_student.core.flags import load_settings
from schema_student.core.links import CONTROL
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.processes import is_first_process, process_count
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.training.chain import (
    DPO_STEP,
    Link,
    begin_with,
    give_checkpoint,
    go_on_from_latest,
    links_of,
    make_pairs,
    train,
    train_control_in_workers,
)
from schema_student.training.local_workers import run_apart, train_in_workers

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
    """Rank a student's samples by verdict -> chosen and rejected -> student_runs/alignment/dpo_pairs.jsonl.

    schema-student pairs --samples-per-prompt 4
    schema-student pairs --pair-prompts 500 --mutations-per-prompt 1

    The student is that of --adapter, else the one that DPO begins with in the chain of --align, else SFT's. Of more
    requests than --pair-prompts those are taken that it would get wrong: it reads each with its answer.
    """
    settings = begin_with(load_settings(argv, pairs.__doc__, "pairs"), "dpo")
    where = paths(settings)
    reads = [where.dataset, where.sft_checkpoint]
    if make(lambda: _build_pairs(settings), settings, reads=reads, writes=[where.pairs]):
        log.info(f"pairs: {where.pairs}")


def correct(argv: Sequence[str]) -> None:
    """Have the teacher correct a student's answers to requests that nobody answered -> corrections/RUN/.

    schema-student correct --requests asked.jsonl --teacher-questions 200
    schema-student correct --requests asked.jsonl --adapter outputs/student_runs/mine-rloo/checkpoint-final --run round2

    What the schema rejects the teacher answers; of the valid answers it judges as many as the questions allow.
    Both become rows (answered_requests.jsonl, as --requests takes them) and pairs (corrected_pairs.jsonl).
    """
    settings = load_settings(argv, correct.__doc__, "correct")
    where = paths(settings)
    reads = [*map(Path, filter(None, [settings.open_requests.requests])), where.sft_checkpoint]
    answered = where.corrections / "answered_requests.jsonl"
    if make(lambda: _correct_requests(settings), settings, reads=reads, writes=[answered]):
        log.info(f"answered requests: {answered}")


def rollouts(argv: Sequence[str]) -> None:
    """Sample k answers a prompt and score them -> rollouts/RUN/: rollout_{responses,judged}.jsonl, manifest.json.

    schema-student rollouts --adapter outputs/student_runs/student/checkpoint-final
    schema-student rollouts --data-set prompts.jsonl --rollout-scorer reward --reward-model models/rm
    schema-student rollouts --rollout-source teacher --teacher-model qwen3:32b --samples-per-prompt 8
    schema-student rollouts --push-to-hub OWNER/NAME     # then to a hub, with a card; private unless --hub-public
    train-beta-dpo --data-set outputs/rollouts/student/rollout_judged.jsonl --run on-policy
    """
    settings = load_settings(argv, rollouts.__doc__, "rollouts")
    where = paths(settings)
    judged = where.rollouts / "rollout_judged.jsonl"
    reads = [] if settings.data.data_set else [where.dataset]
    if make(lambda: _make_rollouts(settings), settings, reads=reads, writes=[judged]):
        log.info(f"judged rollouts: {judged}")
        _push("rollouts", settings)


def align(argv: Sequence[str]) -> None:
    """Align the SFT student by a chain of objectives, each going on from the one before -> student_runs/RUN-OBJECTIVE/.

    schema-student align --align dpo --beta-controller calibrated
    schema-student align --align expected_reward,dpo --adapter outputs/student_runs/mine/checkpoint-final

    dpo makes its pairs of the student before it (`pairs` and `dpo` do either alone). The student before a link is kept
    where reading right answers to validation requests says that the aligned one is not better. --control trains what
    the chain is compared with as well: SFT that goes on.
    """
    settings = load_settings(argv, align.__doc__, "align")
    for link in give_checkpoint(links_of(settings)):
        if not _dry_run_link(link, settings):
            if link.name == "dpo":
                _run_unless_done(make_pairs, link.settings)
            _run_unless_done(partial(train, link.name), link.settings)
            log.info(f"aligned student: {paths(link.settings).link_checkpoint(link.name)}")
    if settings.asked_control.control and not settings.run.dry_run:
        _run_unless_done(train_control_in_workers, go_on_from_latest(settings))
        log.info(f"control: {paths(settings).link_checkpoint(CONTROL)}")


S = TypeVar("S", bound=AnySettings)


def _dry_run_link(link: Link, given: AnySettings) -> bool:
    """With --dry-run say what a link would read and write, check what can be checked, and return True."""
    where = paths(link.settings)
    begins = [] if link.settings.student.adapter != given.student.adapter else [where.sft_checkpoint]
    writes = [*([where.pairs] if link.name == "dpo" else []), where.link_dir(link.name)]
    if not dry_run(given, reads=[where.dataset, *begins], writes=writes):
        return False
    if where.dataset.exists() and where.sft_checkpoint.exists():
        with only_check(), suppress(Checked):
            if link.name == "dpo":
                make_pairs(link.settings)
            train(link.name, link.settings)
    return True


def _run_unless_done(stage: Callable[[S], None], settings: S) -> None:
    """Run a stage in a process of its own, but where it is done say so here; what it refuses is raised here as well.

    Under torchrun each process runs it: they meet in it, so one cannot look ahead alone.
    """
    if process_count() > 1:
        stage(settings)
        return
    with suppress(Checked):
        with only_check():
            stage(settings)
        stage(settings)
        return
    run_apart(stage, settings)


def dpo(argv: Sequence[str]) -> None:
    """Align a student by DPO with a dynamic beta on pairs that are there -> student_runs/RUN-dpo/.

    schema-student dpo --beta-controller calibrated
    schema-student dpo --adapter outputs/student_runs/mine/checkpoint-final --dpo-max-steps 200
    schema-student dpo --push-to-hub OWNER/NAME          # pairs, margins and betas to a hub, with a card

    The student is that of --adapter, else the one that DPO begins with in the chain of --align, else SFT's.
    """
    settings = begin_with(load_settings(argv, dpo.__doc__, "dpo"), "dpo")
    where = paths(settings)
    reads = [where.pairs, where.sft_checkpoint]
    if make(lambda: train("dpo", settings), settings, reads=reads, writes=[where.dpo_dir]):
        log.info(f"aligned student: {where.dpo_checkpoint}")
        _push("margins", settings)


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
    if settings.dpo.anchors_per_pair:
        raise SettingsError("anchors are of the pipeline's own pairs, not of --data-set: give --anchors-per-pair 0")
    where = paths(settings)
    stage = partial(train_in_workers, _import_and_align, settings, where.dpo_dir, *DPO_STEP)
    if make(stage, settings, reads=[], writes=[where.pairs, where.dpo_dir]):
        _push("margins", settings)
        return
    from schema_student.preference.imports import check_pairs

    check_pairs(settings)


def _push(what: str, settings: AnySettings) -> None:
    """With --push-to-hub push rollouts, or the margins of DPO with their pairs, as a data set with its card."""
    if settings.push.push_to_hub and is_first_process():
        from schema_student.preference import hub

        publish = hub.publish_rollouts if what == "rollouts" else hub.publish_margins
        log.info(f"pushed to {publish(settings)}")


def _build_pairs(settings: AnySettings) -> None:
    from schema_student.preference.pairs import build_pairs

    build_pairs(settings)


def _correct_requests(settings: AnySettings) -> None:
    from schema_student.preference.corrections import correct_requests

    correct_requests(settings)


def _make_rollouts(settings: AnySettings) -> None:
    from schema_student.preference.rollouts import make_rollouts
    from schema_student.training.stage import join_ranks

    make_rollouts(settings, join_ranks())


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
