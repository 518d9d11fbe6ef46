"""What SFT and DPO share: run folders, processes, and the Trainer that takes planned batches, saves and resumes.

Built on transformers.Trainer rather than trl's trainers: trl 1.14.0 tokenizes by itself (so prompts could differ from
those of generation), takes one fixed beta inside a loss of 300 lines, and copies an adapter to be its reference. Our
losses are a few lines each and equal trl's (tests/test_sft.py and tests/test_alignment.py hold that).
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from schema_student.core.artifacts import open_artifact
from schema_student.core.errors import UserError
from schema_student.core.jsonl import append_row, read_json, truncate_log, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process, process_count
from schema_student.core.settings import AnySettings, ResolvedSettings
from schema_student.core.stamps import digest, versions
from schema_student.student import batching
from schema_student.student.loading import Student, write_adapter_record
from schema_student.training import local_workers

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
METRICS = "training_metrics.jsonl"

# Of several processes on a CPU accelerate calls the device cpu:0, cpu:1 ..., to which torch.load knows no way.
torch.serialization.register_package(5, lambda _: None, lambda storage, place: storage if place[:4] == "cpu:" else None)

# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints


def last_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint-N; each is whole, because it was renamed into place when it was."""
    found = [path for path in run_dir.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    return max(found, key=lambda path: int(path.name.split("-")[-1]), default=None)


def publish_adapter(source: Path, run_dir: Path, student: Student) -> Path:
    """Make checkpoint-final of an adapter; atomic."""
    draft, final = run_dir / ".checkpoint-final", run_dir / "checkpoint-final"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in ADAPTER_FILES:
        shutil.copyfile(source / name, draft / name)
    write_adapter_record(draft, student)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    return final


def run_facts(stage: str, settings: ResolvedSettings, student: Student, data: Sequence[Path]) -> dict[str, Any]:
    """What run_config.json says of any stage: settings, student, digests of the data, versions."""
    choice = student.choice
    who = {"name": choice.name, "kind": choice.kind, "base": choice.base, "backend": choice.backend}
    return {
        "stage": stage,
        "settings": settings.flat(),
        "student": {**who, "digest": student.digest, "reason": choice.reason},
        "data": {path.name: digest(path) for path in data},
        "versions": versions(),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Processes


def broadcast(value: Any) -> Any:
    """The first process's value, in every process."""
    if process_count() == 1 or local_workers.idle:
        return value
    PartialState(cpu=not torch.cuda.is_available())
    return broadcast_object_list([value])[0]


def main_process_first(action: Callable[[], Any]) -> None:
    """Do it in the first process; the others wait until it is done."""
    if is_first_process():
        action()
    broadcast(None)


def make_run(
    run_dir: Path, stamp: dict[str, Any], inputs: Sequence[Path], overwrite: bool, train: Callable[[], dict[str, Any]]
) -> Path:
    """Have all processes `train`, unless the run folder is finished; returns its checkpoint-final.

    The first process holds the lock and writes; the others hear from it whether there is anything to do. How many they
    are decides a step's batch, so a run goes on with as many as began it.
    """
    stamp = {**stamp, "processes": process_count()}
    with open_artifact(run_dir, stamp, inputs, overwrite) if is_first_process() else nullcontext() as artifact:
        if not broadcast(artifact.done if artifact else None):
            facts = train()
            if artifact:
                artifact.finish(facts)
    return run_dir / "checkpoint-final"


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Each process's gradients become their mean over all processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def check_tracker(settings: AnySettings) -> None:
    """Raise UserError, before anything is loaded, where the package of --report-to is not installed."""
    package = settings.tracker.report_to
    if package != "none" and importlib.util.find_spec(package) is None:
        advice = f"pip install {package} (with uv: uv pip install --python {sys.executable} {package})"
        raise UserError(f"--report-to {package} needs a package that is not installed here: {advice}")


def _open_tracker(run_dir: Path, settings: ResolvedSettings) -> dict[str, Any]:
    """transformers' arguments for --report-to; the files of a tracker lie in the run's folder."""
    if settings.tracker.report_to == "none":
        return {"report_to": []}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run_dir / "tensorboard")  # transformers has no argument for it
    os.environ["WANDB_DIR"] = str(run_dir)
    os.environ.setdefault("WANDB_PROJECT", "schema-student")
    if os.environ.get("WANDB_MODE") == "disabled":
        del os.environ["WANDB_MODE"]  # the flag asks for it by name
    # Nothing is published: trackio would else make a page of the hub at the end.
    local = {"project": "schema-student", "trackio_static_space_id": False}
    return {"report_to": [settings.tracker.report_to], "run_name": run_dir.name, **local}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: in optimizer steps."""

    steps: int
    learning_rate: float
    batch_size: int
    accumulation: int  # batches of a process in a step
    eval_every: int
    save_every: int


def make_arguments(
    run_dir: Path, settings: ResolvedSettings, schedule: Schedule, device: torch.device
) -> TrainingArguments:
    """transformers' arguments. Checkpoints go to .partial and are renamed from there."""
    return TrainingArguments(
        output_dir=str(run_dir / ".partial"),
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.batch_size,
        gradient_accumulation_steps=schedule.accumulation,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(settings.optimizer.warmup_ratio * schedule.steps),
        weight_decay=settings.optimizer.weight_decay,
        max_grad_norm=settings.optimizer.max_grad_norm,
        optim="adamw_torch_fused",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        seed=settings.run.seed,
        use_cpu=device.type == "cpu",
        disable_tqdm=True,
        **_open_tracker(run_dir, settings),
        remove_unused_columns=False,
    )


class _Flow(TrainerCallback):
    """Validate every so many steps and at the end; save then and every so many steps."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, last = state.global_step, state.global_step == self.schedule.steps
        control.should_evaluate = last or step % self.schedule.eval_every == 0
        control.should_save = control.should_evaluate or step % self.schedule.save_every == 0

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_evaluate = control.should_save = False  # else the last step's would be done twice


class StudentTrainer(Trainer):
    """transformers.Trainer with planned batches, whole checkpoints, a metrics file, and a stop at what is not finite.

    A stage gives `loss_denominator` (what a step's loss is divided by), `compute_loss` and `validate`.
    """

    def __init__(
        self,
        student: Student,
        dataset: Sequence[dict[str, Any]],
        sequences: Sequence[Sequence[batching.Ids]],
        together: int,
        run_dir: Path,
        settings: ResolvedSettings,
        schedule: Schedule,
        trees: bool,
    ) -> None:
        transformers_logging.set_verbosity_error()
        self.student, self.run_dir, self.schedule = student, run_dir, schedule
        self.autocast = batching.autocast_dtype(settings, student.model.device)
        self.trees = trees
        self.extra_logs: dict[str, float] = {}
        self.names: list[list[str]] = []  # of the rows of this step, by micro-batch
        self.started, self.first_step = time.monotonic(), 0
        arguments = make_arguments(run_dir, settings, schedule, student.model.device)
        super().__init__(model=student.model, args=arguments, train_dataset=dataset, data_collator=self.collate)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Flow(schedule))
        self.model_accepts_loss_kwargs = True  # our losses are divided by the step's own weight, not by micro-batches
        batches = schedule.steps * schedule.accumulation * self.args.world_size
        self.batch_tokens = settings.batching.batch_tokens
        self.plan = batching.Planner(
            rows=sequences,
            keys=[row["key"] for row in dataset],
            batch_size=schedule.batch_size,
            batch_tokens=settings.batching.batch_tokens,
            together=together,
            seed=settings.run.seed,
            trees=trees,
        ).plan(batches)

    # What a stage gives

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        raise NotImplementedError

    def loss_denominator(self, batch: dict[str, Any]) -> int:
        raise NotImplementedError

    def validate(self) -> dict[str, Any]:
        raise NotImplementedError

    # Batches

    def in_batches(
        self, rows: Sequence[dict[str, Any]], sequences: Sequence[Sequence[batching.Ids]]
    ) -> Iterator[list[dict[str, Any]]]:
        """Rows in their order, in batches that keep to the same limits as those of training."""
        order, size = range(len(rows)), self.schedule.batch_size
        for batch in batching.cut_batches(sequences, order, size, self.batch_tokens, self.trees):
            yield [rows[i] for i in batch]

    def in_shares(
        self, rows: Sequence[dict[str, Any]], sequences: Sequence[Sequence[batching.Ids]]
    ) -> list[list[dict[str, Any]]]:
        """This process's share of those batches."""
        return list(self.in_batches(rows, sequences))[self.args.process_index :: self.args.world_size]

    def get_train_dataloader(self) -> DataLoader:
        mine = self.plan[self.args.process_index :: self.args.world_size]
        return DataLoader(self.train_dataset, batch_sampler=mine, collate_fn=self.collate)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list, torch.Tensor]:
        """The micro-batches of one optimizer step, and what their loss is divided by, over all processes."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        self.names = [batch["names"] for batch in batches]
        weight = torch.tensor(sum(map(self.loss_denominator, batches)), device=device)
        return batches, self.accelerator.gather(weight).sum() / self.args.world_size

    # Steps

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.check_finite("loss", loss, inputs["names"])
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.trees and self.args.world_size > 1:  # trees go past the wrapper that averages gradients
            average_gradients(model.parameters())
        norm = super()._clip_grad_norm(model)
        self.check_finite("gradient", norm, [name for batch in self.names for name in batch])
        return norm

    def check_finite(self, what: str, value: Any, names: Sequence[str]) -> None:
        """Stop before a value that is not finite reaches the weights."""
        if not bool(torch.isfinite(torch.as_tensor(value)).all()):
            of = f" of {', '.join(names)}" if names else ""
            raise UserError(
                f"{what} is not finite at step {self.state.global_step + 1}{of}; "
                "lower the learning rate, or look at these rows. The weights of the last checkpoint are untouched"
            )

    # Logs

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """One row of training_metrics.jsonl, and now and then a line for people."""
        if "train_runtime" in logs:
            return
        step = self.state.global_step
        row = {"step": step, "epoch": self.epoch_of(step), **logs}
        if "loss" in logs:
            row |= self.extra_logs
            self.extra_logs = {}
        if self.is_world_process_zero():
            append_row(self.run_dir / METRICS, row)
            if "loss" not in logs or step % 10 == 0 or step == self.schedule.steps:
                log.info(self._line(row))
        numbers = {name: value for name, value in row.items() if not isinstance(value, str)}
        self.callback_handler.on_log(self.args, self.state, self.control, numbers)  # the tracker, where there is one

    def epoch_of(self, step: int) -> float:
        """Passes over the data by the end of a step."""
        micro_batches = step * self.args.gradient_accumulation_steps * self.args.world_size
        return round(sum(map(len, self.plan[:micro_batches])) / len(self.train_dataset), 4)

    def _line(self, row: dict[str, Any]) -> str:
        shown = (
            "loss",
            "eval_loss",
            "eval_semantic",
            "eval_valid",
            "learning_rate",
            "rewards/accuracies",
            "beta/effective",
        )
        values = "  ".join(f"{key} {row[key]:.4g}" for key in shown if key in row)
        done = row["step"] - self.first_step
        left = (time.monotonic() - self.started) / done * (self.schedule.steps - row["step"]) if done else 0
        return f"  step {row['step']}/{self.schedule.steps}  {values}" + (f"  {left:.0f} s left" if left else "")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation as the stage does it; nothing of training moves."""
        started = time.monotonic()
        self.model.eval()
        with torch.no_grad():
            metrics = self.validate()
        if bad := [name for name, value in metrics.items() if not isinstance(value, str) and not math.isfinite(value)]:
            raise UserError(
                f"{', '.join(bad)} not finite in the validation at step {self.state.global_step}; "
                "lower the learning rate, or look at the validation rows. The last checkpoint is untouched"
            )
        metrics["eval_runtime"] = round(time.monotonic() - started, 2)
        self.log(metrics)
        return metrics

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """transformers writes checkpoint-N bit by bit: let it do so in .partial, then rename the whole."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if not self.is_world_process_zero():
            return
        name = f"checkpoint-{self.state.global_step}"
        draft = self.run_dir / ".partial" / name
        (draft / "training_args.bin").unlink(missing_ok=True)
        (draft / "README.md").unlink(missing_ok=True)
        write_adapter_record(draft, self.student)
        write_json(draft / "stage_state.json", self.stage_state())
        shutil.rmtree(self.run_dir / name, ignore_errors=True)
        draft.rename(self.run_dir / name)

    def stage_state(self) -> dict[str, Any]:
        """What a stage keeps in a checkpoint beside the adapter, the optimizer, the schedule and the random state."""
        return {}

    def load_stage_state(self, state: dict[str, Any]) -> None:
        pass

    def run(self) -> None:
        """Train from the last whole checkpoint, else from the start, to the end."""
        checkpoint = last_checkpoint(self.run_dir)
        self.first_step = int(checkpoint.name.split("-")[-1]) if checkpoint else 0
        if self.is_world_process_zero():
            shutil.rmtree(self.run_dir / ".partial", ignore_errors=True)
            for name in (METRICS, "margins.jsonl", "beta_trace.jsonl"):
                truncate_log(self.run_dir / name, self.first_step if checkpoint else -1)
        self.accelerator.wait_for_everyone()
        if checkpoint:
            log.info(f"  continuing after {checkpoint}")
            self.load_stage_state(read_json(checkpoint / "stage_state.json"))
        else:
            self.evaluate()
        self.started = time.monotonic()
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.accelerator.wait_for_everyone()
        shutil.rmtree(self.run_dir / ".partial", ignore_errors=True)
