"""Align an adapter on pairs by DPO: encode them, run the loop, publish the checkpoint that is best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, open_to_write
from schema_student.core.jsonl import Row, write_json
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.processes import is_first_process
from schema_student.core.records import CorpusRow, DatasetRow, Pair, read_rows
from schema_student.core.settings import ResolvedSettings
from schema_student.core.splits import take_of_splits
from schema_student.core.tally import Tally
from schema_student.preference.requests import anchors_beside
from schema_student.student import batching
from schema_student.student.loading import Student, attach_adapter, load_student, train_only
from schema_student.training.alignment.link import publish, save_start
from schema_student.training.alignment.requests import encode_requests, validation_requests
from schema_student.training.alignment.validation import Validation
from schema_student.training.batches import Batches
from schema_student.training.checkpoints import Origin
from schema_student.training.dpo.beta import make_controller
from schema_student.training.dpo.encoding import add_anchors, count_cut, encode_pairs
from schema_student.training.dpo.metrics import TRACE
from schema_student.training.dpo.objective import DPO
from schema_student.training.dpo.reference import add_reference_logps, name_reference
from schema_student.training.dpo.selection import choose_checkpoint, describe_few
from schema_student.training.fine_tuning import encode_rows
from schema_student.training.local_workers import launched_count, share_step
from schema_student.training.loop import TrainingLoop
from schema_student.training.optimization import Schedule
from schema_student.training.stage import imported_facts, origin_of, run_facts, say_rows, say_template


def align(
    settings: ResolvedSettings, pairs: Path, dataset: Path | None, adapter: Path | None, run_dir: Path
) -> dict[str, Any]:
    """Align the adapter, or a fresh one, into the run's folder; returns which checkpoint is the final one."""
    loaded = load_student(settings, adapter=str(adapter) if adapter else None, trainable=True)
    loaded = loaded if adapter else attach_adapter(loaded, settings)
    train_only(loaded, settings.aligned_modules.align_modules)
    trees = batching.takes_trees(loaded.model, settings, make_controller(settings).wants_signs)
    tally = Tally()
    rows = _encode(pairs, loaded, settings, tally, trees)
    count = sum(row["split"] == "train" for row in rows)
    requests = _encode_validation(dataset, loaded, settings, tally, trees) if dataset else []
    share = share_step(_fit_step(count, settings, pairs))
    schedule = plan_dpo(share)
    held_out = f"{len(rows) - count} held out"
    log.info(f"  {count} pairs, {held_out}, {len(requests)} validation requests, {schedule.steps} steps")
    if few := describe_few(len(requests), len(rows) - count):
        log.info(f"  {few}: the last checkpoint will be taken")
    _warn_of_beta(settings, schedule.steps)
    make_folder(run_dir)
    facts = run_facts("dpo", settings, loaded, [pairs, dataset] if dataset else [pairs])
    facts["adapter"] = str(adapter) if adapter else None
    facts |= {
        "data_set": imported_facts(pairs),
        "pairs": count,
        "cut": count_cut(rows),
        "left_out": tally.counts,
        "steps": schedule.steps,
    }
    write_json(run_dir / "run_config.json", facts)
    origin = origin_of(facts, run_dir, adapter)
    if adapter is None:
        adapter = save_start(run_dir, loaded)
    batches = Batches.of(loaded, share, schedule.batch_size, trees)
    validation = Validation(batches, requests, settings)
    objective = DPO(batches, rows, validation, run_dir, share)
    reference = name_reference(loaded, adapter, settings)
    add_reference_logps([objective.held_out, objective.rows], batches, paths(settings).references, reference)
    _give_anchors(objective.rows, pairs, loaded, settings)
    open_to_write(run_dir / TRACE, "a").close()  # a beta that never moved has a trace too: an empty one
    loop = _make_loop(objective, batches, run_dir, share, schedule, origin)
    loop.run()
    if not is_first_process():
        return {}
    chosen = choose_checkpoint(run_dir, loop.keeping.saved_steps(origin))
    chosen |= {"stopped": objective.stop_reason()}
    published = publish(run_dir, adapter, loaded, facts, chosen, loop)
    say_rows(facts, count)
    return published


def _encode_validation(
    dataset: Path, loaded: Student, settings: ResolvedSettings, tally: Tally, trees: bool
) -> list[Row]:
    requests = validation_requests(read_rows(dataset, DatasetRow), settings)
    return encode_requests(requests, loaded.tokenizer, settings, tally, trees)


def _make_loop(
    objective: DPO, batches: Batches, run_dir: Path, settings: ResolvedSettings, schedule: Schedule, origin: Origin
) -> TrainingLoop:
    """Our loop, or the one of trl's DPOTrainer where the settings say so."""
    if settings.optimizer.trainer == "own":
        return TrainingLoop(objective, batches, run_dir, settings, schedule, origin, choose_checkpoint)
    from schema_student.training.trl_trainers import TrlLoop, trl_dpo  # loads transformers' Trainer

    kind = trl_dpo(settings, objective.alarm)
    return TrlLoop(objective, batches, run_dir, settings, schedule, origin, choose_checkpoint, kind)


def _encode(pairs: Path, loaded: Student, settings: ResolvedSettings, tally: Tally, trees: bool) -> Sequence[Row]:
    """The pairs that can be trained on; raises UserError where there are too few."""
    read = take_of_splits(read_rows(pairs, Pair), settings.part.max_samples)
    say_template(loaded.tokenizer, read)
    if settings.dpo.rejected_cut and all(pair.rejected_end is None for pair in read):
        unknown = "say where their rejected answers go wrong (rejected_end)"
        raise UserError(f"{pairs} has no pairs that {unknown}, so that they cannot be cut: give --no-rejected-cut")
    rows = encode_pairs(read, loaded.tokenizer, settings, tally, pairs, trees)
    for line in tally.lines():
        log.info(f"  {line}")
    if cut := count_cut(rows):
        log.info(f"  {cut} of {len(rows)} rejected answers are cut after their first wrong value")
    to_train = sum(row["split"] == "train" for row in rows)
    if not to_train:
        more = "sample more (--pair-prompts, --samples-per-prompt)"
        advice = batching.explain_nothing(tally, f"all of them are held out; {more}" if rows else more)
        raise UserError(f"{pairs} has no pair to train on; {advice}")
    return rows


def _give_anchors(rows_to_train: Sequence[Row], pairs: Path, loaded: Student, settings: ResolvedSettings) -> None:
    """Give each pair its anchors, of the file beside the pairs; raises UserError where there are none."""
    if not settings.dpo.anchors_per_pair:
        return
    path = anchors_beside(pairs)
    rows = encode_rows(read_rows(path, CorpusRow), "train", loaded.tokenizer, settings, Tally(), path)
    if not rows:
        raise UserError(f"{path} has no request that the student answers right: give --anchors-per-pair 0")
    log.info(f"  {settings.dpo.anchors_per_pair} anchors a pair, of {len(rows)} requests that it answers right")
    add_anchors(rows_to_train, rows, settings.dpo.anchors_per_pair)


def _fit_step(pairs: int, settings: ResolvedSettings, path: Path) -> ResolvedSettings:
    """Refuse fewer pairs than a step takes: some would stand in it twice, and beta would be fed a smaller step.

    A step of a part of the pairs (--max-samples) is as small as these are few.
    """
    batches = settings.dpo.dpo_gradient_accumulation * launched_count()
    step = settings.dpo.dpo_batch_size * batches
    if pairs >= step:
        return settings
    size, what = max(1, pairs // batches), f"{pairs} pairs to train on, fewer than the {step} of an optimizer step"
    if not settings.part.max_samples:
        raise UserError(f"{path} has {what}: give --dpo-batch-size {size}, or more pairs")
    log.info(f"  {what}: --max-samples is tried with --dpo-batch-size {size}")
    return settings.changed(dpo_batch_size=size)


def _warn_of_beta(settings: ResolvedSettings, steps: int) -> None:
    """Say where the settings leave the controller no room to move beta."""
    warmup, beta = getattr(make_controller(settings), "warmup", 0), settings.beta
    if warmup >= steps:
        stays = f"beta will stay at {beta.beta}"
        log.info(f"  the {beta.beta_controller} warm-up of {warmup} steps is not shorter than the run: {stays}")
    if beta.beta_controller == "calibrated" and 4 * beta.beta > beta.beta_max:
        bounds = f"beta_max {beta.beta_max} is under 4 times beta {beta.beta}"
        log.info(
            f"  {bounds}: calibrated hardly moves (not at all where they are equal); raise --beta-max, or lower --beta"
        )


def plan_dpo(settings: ResolvedSettings) -> Schedule:
    """Plan DPO's steps; each validation is a checkpoint too."""
    dpo, every = settings.dpo, settings.dpo.dpo_eval_every
    batches = dpo.dpo_batch_size, dpo.dpo_gradient_accumulation
    return Schedule(dpo.dpo_max_steps, dpo.dpo_learning_rate, *batches, every, every)
