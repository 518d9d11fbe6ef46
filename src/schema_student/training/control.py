"""Train what an alignment is compared with: SFT that goes on, on the same requests for the same steps and rows.

Its learning rate is tuned over a grid by reading validation requests, as an alignment's checkpoint is chosen. Each rate
has a folder of the control's, rate-R; the best checkpoint of all becomes checkpoint-final, whether or not it is better
than the student that it began with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder
from schema_student.core.jsonl import Row, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process
from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.student.loading import load_student, read_weights, train_only
from schema_student.training.alignment.link import encode_dataset
from schema_student.training.alignment.objective import Alignment, AlignmentObjective
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.alignment.selection import read_validations
from schema_student.training.alignment.validation import Validation
from schema_student.training.batches import Batch, Batches
from schema_student.training.checkpoints import publish_adapter
from schema_student.training.dpo.alignment import plan_dpo
from schema_student.training.fine_tuning import sft_loss
from schema_student.training.local_workers import share_step
from schema_student.training.loop import Step, TrainingLoop
from schema_student.training.metrics_log import METRICS
from schema_student.training.optimization import Schedule
from schema_student.training.stage import origin_of, run_facts


class ContinuedSFT(AlignmentObjective):
    """The objective of SFT on the requests of an alignment: cross-entropy of each one's target."""

    def sequences(self, row: Row) -> list[batching.Ids]:
        """Return the target of a request."""
        return super().sequences(row)[:1]

    def loss_denominator(self, batch: Batch) -> int:
        """Count the supervised tokens."""
        return int(batch["completion_mask"].sum())

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Yield the loss of each micro-batch."""
        for batch in batches:
            yield sft_loss(self.batches.completion_logps(batch), step.denominator)


def train_rates(settings: ResolvedSettings, link: str, dataset: Path, adapter: Path, run_dir: Path) -> dict[str, Any]:
    """Train the control of a link at each rate into its folder; returns which checkpoint is the final one."""
    loaded = load_student(settings, adapter=str(adapter), trainable=True)
    train_only(loaded, settings.aligned_modules.align_modules)
    trees = batching.takes_trees(loaded.model, settings)
    share = share_step(settings)
    schedule, rates = plan_link(share, link), settings.control.control_learning_rates
    rows, validation, tally = encode_dataset(dataset, loaded, settings, trees)
    log.info(f"control of {link}: {len(rows)} requests, {schedule.steps} steps at each of {len(rates)} rates")
    make_folder(run_dir)
    facts = run_facts("control", settings, loaded, [dataset])
    facts |= {"adapter": str(adapter), "control_of": link, "requests": len(rows), "left_out": tally.counts}
    facts["steps"] = schedule.steps
    write_json(run_dir / "run_config.json", facts)
    batches, origin = Batches.of(loaded, share, schedule.batch_size, trees), origin_of(facts, run_dir, adapter)
    found: list[tuple[float, Row]] = []
    for rate in rates:
        folder = make_folder(run_dir / f"rate-{rate:g}")
        read_weights(loaded.model, adapter)
        reading = Validation(batches, validation, settings)
        objective = ContinuedSFT(Alignment(share, batches, rows, reading, folder))
        planned = replace(schedule, learning_rate=rate)
        loop = TrainingLoop(objective, batches, folder, share, planned, origin, _choose_likeliest)
        loop.run()
        if is_first_process():
            found += [(rate, row) for row in _read_likelihoods(folder, loop.keeping.saved_steps(origin))]
    if not is_first_process():
        return {}
    if not found:
        raise UserError("a control's rate is tuned on validation requests, of which there are none (--align-requests)")
    rate, best = max(found, key=lambda each: each[1]["eval_p_truth"])
    return _publish(run_dir, rate, best, facts, loaded)


def _read_likelihoods(folder: Path, steps: Sequence[int]) -> list[Row]:
    """The validations after these steps that read right answers."""
    return [row for row in read_validations(folder, steps) if "eval_p_truth" in row]


def _choose_likeliest(folder: Path, steps: Sequence[int]) -> Row:
    """Choose of a rate's steps the one after which right answers are the likeliest."""
    rows = _read_likelihoods(folder, steps)
    best = max(rows, key=lambda row: row["eval_p_truth"])["step"] if rows else max(steps)
    return {"checkpoint": f"checkpoint-{best}"}


def _publish(run_dir: Path, rate: float, best: Row, facts: Row, loaded: Any) -> dict[str, Any]:
    """Publish the best checkpoint of the best rate, with that rate's log."""
    folder, checkpoint = run_dir / f"rate-{rate:g}", f"checkpoint-{best['step']}"
    change = f"{best['eval_p_truth_change']:+.2%} +- {best['eval_p_truth_error']:.2%}"
    why = f"P(truth) of {best['eval_requests']} validation requests {best['eval_p_truth']:.1%} ({change})"
    chosen = {"checkpoint": checkpoint, "rate": rate, "why": f"{why} at a learning rate of {rate:g}"}
    publish_adapter(folder / checkpoint, run_dir, loaded)
    shutil.copyfile(folder / METRICS, run_dir / METRICS)
    write_json(run_dir / "run_config.json", facts | chosen)
    log.info(f"  checkpoint-final is {checkpoint}: {chosen['why']}")
    return {"checkpoint": checkpoint, "rate": rate}


def plan_link(settings: ResolvedSettings, link: str) -> Schedule:
    """Plan the steps and rows of a link."""
    return plan_dpo(settings) if link == "dpo" else RECIPES[link].load().plan(settings)
