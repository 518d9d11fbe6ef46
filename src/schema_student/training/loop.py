"""Run the training loop of every stage: planned batches, optimizer steps, validation, checkpoints.

A stage gives an Objective: its rows, how they become a batch, and the losses of a step's micro-batches. `losses` is a
generator, and the loop runs the backward pass of each loss before it asks for the next one, so that an objective may
do what it needs before the first loss of a step: DPO reads the margins of the whole step, feeds its controller, and
only then gives losses.

Our own loop rather than transformers.Trainer, whose private hooks it had to override, and rather than trl's trainers,
which tokenize by themselves (so that prompts could differ from those of generation) and take one fixed beta. Losses
equal trl's (tests/training).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import set_seed

from schema_student.core.log import log
from schema_student.core.processes import Delayed, Interrupted, delay_interrupts, is_first_process, process_count
from schema_student.core.settings import ResolvedSettings
from schema_student.student import batching
from schema_student.training.batches import Batch, Batches, Row, inference_mode
from schema_student.training.checkpoints import (
    Origin,
    remove_drafts,
    save_checkpoint,
)
from schema_student.training.checks import require_finite, require_finite_metrics
from schema_student.training.distributed import gather, own_share
from schema_student.training.keeping import Choose, Keeping
from schema_student.training.metrics_log import MetricsLog
from schema_student.training.optimization import Schedule, make_optimizer, make_scheduler
from schema_student.training.resuming import Trained, resume
from schema_student.training.sharding import average_and_clip, divide_gradients, gather_weights, shard, trained_weights

DELAYED = "this step is finished and saved first; once more, and it ends at once"


@dataclass(frozen=True)
class Step:
    """One optimizer step as its objective sees it."""

    number: int  # from 1
    epoch: float  # passes over the rows by its end
    denominator: float  # what each loss is divided by, so that gradients that processes average are those of the step


class Objective(Protocol):
    """What a stage trains: the loop's only view of it."""

    rows: Sequence[Row]  # to train on; the `key` of each (its schema) says which ones belong together
    rows_per_key: int  # rows of one key that follow each other and share its computation
    logs: Sequence[str]  # files of the run's folder with a row a step, which a resume cuts back

    def sequences(self, row: Row) -> list[batching.Ids]:
        """Return the token sequences of a row, which share a batch."""

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Collate a batch of rows; its `names` say which they are."""

    def loss_denominator(self, batch: Batch) -> int:
        """Count what a batch adds to the denominator of its step's loss: tokens, or pairs."""

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """Yield the loss of each micro-batch of a step in turn, divided by the step's denominator."""

    def step_metrics(self, step: Step) -> dict[str, float]:
        """Return what the last step adds to its row of the log."""

    def validate(self) -> dict[str, Any]:
        """Compute the metrics of validation, named eval_...; no state of training changes."""

    def stop_reason(self) -> str:
        """Say why training should stop after the last validation; "" where it should not."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the objective itself."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class TrainingLoop:
    """A run of one objective, from its last whole checkpoint to its last step."""

    def __init__(
        self,
        objective: Objective,
        batches: Batches,
        run_dir: Path,
        settings: ResolvedSettings,
        schedule: Schedule,
        origin: Origin,
        choose: Choose,
    ) -> None:
        set_seed(settings.run.seed)
        self.origin, self.asked_to_end = origin, Delayed()
        self.keeping = Keeping(run_dir, schedule, choose, settings)
        self.objective, self.run_dir, self.settings, self.schedule = objective, run_dir, settings, schedule
        self.student = batches.student
        if settings.checkpoints.gradient_checkpointing:
            self.student.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.parameters = trained_weights(self.student.model)
        self.optimizer = make_optimizer(self.parameters, settings, schedule.learning_rate)
        self.scheduler = make_scheduler(self.optimizer, settings, schedule.steps)
        self.micro_batches = schedule.accumulation * process_count()  # of a step, over all processes
        self.plan = batching.Planner(
            rows=[objective.sequences(row) for row in objective.rows],
            keys=[row["key"] for row in objective.rows],
            batch_size=batches.batch_size,
            batch_tokens=batches.batch_tokens,
            together=objective.rows_per_key,
            seed=settings.run.seed,
            trees=batches.trees,
        ).plan(math.ceil(schedule.steps / schedule.steps_per_batch) * self.micro_batches)

    def run(self) -> None:
        """Train from the last whole checkpoint, else from the start, to the end."""
        state = Trained(self.student, self.optimizer, self.scheduler, self.objective)
        first = resume(state, self.run_dir, self.origin, self.settings.checkpoints.resume_from_checkpoint)
        self.parameters = shard(self.student.model, self.optimizer)
        self.log = MetricsLog(self.run_dir, self.settings, self.schedule.steps, first)
        if first == 0:
            self._validate(0)
        self.log.start_clock()
        with delay_interrupts(DELAYED) as self.asked_to_end:
            self.train_from(first)
        self.log.close()
        remove_drafts(self.run_dir)

    def train_from(self, first: int) -> None:
        """Train the steps after step `first`, until the objective says to stop."""
        for number in range(first + 1, self.schedule.steps + 1):
            if self.stops():
                self._keep(number - 1, first)
                break
            self.train_step(number)
            self.end_step(number)
            self.end_if_asked(number)

    def end_if_asked(self, number: int) -> None:
        """Save after a step and raise Interrupted where a signal has asked a process of the run to end.

        Not between steps that learn from the same draw of answers, which no checkpoint keeps.
        """
        signal = max(gather([self.asked_to_end.number]))
        if not signal or number % self.schedule.steps_per_batch:
            return
        if not self.schedule.saves_after(number):
            self._save(number)
        self.log.close()
        log.info(f"  stopped after step {number}, which is saved: {self.run_dir / f'checkpoint-{number}'}")
        raise Interrupted(signal)

    def _keep(self, number: int, first: int) -> None:
        """Validate and save after a step at which training stopped, where that was not time to."""
        if number > first and not self.schedule.saves_after(number):
            self._validate(number)
            self._save(number)

    def stops(self) -> bool:
        """Return whether the objective says to stop; says why."""
        if reason := self.objective.stop_reason():
            log.info(f"  stopped: {reason}")
        return bool(reason)

    def end_step(self, number: int) -> None:
        """Validate and save where it is time to."""
        if self.schedule.validates_after(number):
            self._validate(number)
        if self.schedule.saves_after(number):
            self._save(number)

    def epoch_of(self, number: int) -> float:
        """Compute the passes over the rows by the end of a step."""
        done = self.plan[: math.ceil(number / self.schedule.steps_per_batch) * self.micro_batches]
        return round(sum(map(len, done)) / len(self.objective.rows), 4)

    def train_step(self, number: int) -> None:
        """Take one optimizer step over its micro-batches and log it."""
        batches = self.collate_step(number)
        step = Step(number, self.epoch_of(number), self._denominator(batches))
        self.student.model.train()
        total = torch.zeros((), device=self.student.model.device)
        for i, (loss, batch) in enumerate(zip(self.objective.losses(step, batches), batches, strict=True), 1):
            require_finite("loss", loss, number, batch["names"])
            divide_gradients(self.student.model, i == len(batches))
            loss.backward()
            total += loss.detach()
        norm = self.clip_gradients(number, [name for batch in batches for name in batch["names"]])
        learning_rate = self._update_weights()
        losses = gather([float(total)])
        row = {"step": number, "epoch": step.epoch, "loss": sum(losses) / len(losses), "grad_norm": float(norm)}
        self.log.write({**row, "learning_rate": learning_rate, **self.objective.step_metrics(step)})

    def collate_step(self, number: int) -> list[Batch]:
        """Collate the micro-batches that this process has of a step."""
        begin = (number - 1) // self.schedule.steps_per_batch * self.micro_batches
        planned = self.plan[begin : begin + self.micro_batches]
        return [self.objective.collate([self.objective.rows[i] for i in indices]) for indices in own_share(planned)]

    def _denominator(self, batches: Sequence[Batch]) -> float:
        return sum(gather([sum(map(self.objective.loss_denominator, batches))])) / process_count()

    def clip_gradients(self, number: int, names: Sequence[str]) -> torch.Tensor:
        """Average gradients over processes and scale them to max_grad_norm; returns the norm they had."""
        norm = average_and_clip(self.parameters, self.settings.optimizer.max_grad_norm or math.inf)
        require_finite("gradient", norm, number, names)
        return norm

    def _update_weights(self) -> float:
        """Move the weights; returns the learning rate that moved them."""
        self.optimizer.step()
        gather_weights(self.student.model)
        learning_rate = float(self.scheduler.get_last_lr()[0])
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return learning_rate

    def _validate(self, number: int) -> None:
        started = time.monotonic()
        with inference_mode(self.student.model):
            metrics = self.objective.validate()
        require_finite_metrics(metrics, number)
        seconds = round(time.monotonic() - started, 2)
        self.log.write({"step": number, "epoch": self.epoch_of(number), **metrics, "eval_runtime": seconds})

    def _save(self, number: int) -> None:
        state = self.objective.state_dict()
        save_checkpoint(self.run_dir, number, self.student, self.optimizer, self.scheduler, state, self.origin)
        if is_first_process():
            self.keeping.remove_others(number)
