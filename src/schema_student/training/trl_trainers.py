"""Train by trl's own SFTTrainer, DPOTrainer and RewardTrainer instead of our steps: `--trainer trl`.

Theirs are padding, forward pass, loss, backward pass, accumulation, clipping and the update; where the base is loaded
through Unsloth, that is what it speeds up. Rows, token ids, which rows share a batch and in which order, the optimizer
with its learning rate, validation, logs and checkpoints are those of loop.py: a run of either leaves the same files,
and losses can be compared step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback

from schema_student.core.errors import UserError
from schema_student.core.settings import ResolvedSettings
from schema_student.student.loading import Student
from schema_student.training.batches import Batches, Row
from schema_student.training.checkpoints import Origin, random_state, set_random_state
from schema_student.training.checks import require_finite
from schema_student.training.keeping import Choose
from schema_student.training.loop import Objective, TrainingLoop
from schema_student.training.optimization import Schedule

IGNORED = -100  # the label of a token that is not supervised


@dataclass(frozen=True)
class TrlTrainer:
    """One of trl's trainers as this loop uses it."""

    make: Callable[..., Any]  # of a student, options, and what else its constructor takes
    row: Callable[[Row], Row]  # an objective's row as the trainer's collator reads it
    metrics: Callable[[Row, int], Row]  # what it logged of a step -> what our log holds beside the loss


class TrlLoop(TrainingLoop):
    """A run of one objective whose steps are those of one of trl's trainers."""

    def __init__(
        self,
        objective: Objective,
        batches: Batches,
        run_dir: Path,
        settings: ResolvedSettings,
        schedule: Schedule,
        origin: Origin,
        choose: Choose,
        kind: TrlTrainer,
    ) -> None:
        super().__init__(objective, batches, run_dir, settings, schedule, origin, choose)
        self.kind, self.bfloat16 = kind, batches.autocast == torch.bfloat16

    def train_from(self, first: int) -> None:
        """Let trl's trainer take the steps after step `first`, on the batches that are planned for them."""
        state = random_state()  # a trainer sets the seed anew
        trainer = self.kind.make(
            self.student,
            self._options(first),
            optimizers=(self.optimizer, self.scheduler),
            callbacks=[_Recorder(self, first)],
        )
        trainer.remove_callback(PrinterCallback)
        if self.stops():
            return
        loader: DataLoader[Any] = DataLoader(
            [self.kind.row(row) for row in self.objective.rows],  # type: ignore[arg-type]
            batch_sampler=self.plan[first * self.micro_batches :],
            collate_fn=trainer.data_collator,
            generator=torch.Generator(),  # else it draws from the generator of dropout, once a run
        )
        trainer.get_train_dataloader = lambda: trainer.accelerator.prepare(loader)
        set_random_state(state)
        trainer.train()

    def record_step(self, number: int, logs: Row) -> None:
        """Log a step that trl's trainer has done, then validate and save where it is time to."""
        planned = self.plan[(number - 1) * self.micro_batches : number * self.micro_batches]
        names = [self.objective.rows[i]["name"] for indices in planned for i in indices]
        require_finite("loss", logs["loss"], number, names)
        require_finite("gradient", logs["grad_norm"], number, names)
        row = {"step": number, "epoch": self.epoch_of(number)}
        row |= {name: logs[name] for name in ("loss", "grad_norm", "learning_rate")}
        self.log.write({**row, **self.kind.metrics(logs, number)})
        with _without_autocast(self.student.model):
            self.end_step(number)
            self.end_if_asked(number)

    def _options(self, first: int) -> dict[str, Any]:
        """The configuration of the trainer; what it does not name is trl's default."""
        return {
            "output_dir": str(self.run_dir),
            "max_steps": self.schedule.steps - first,
            "per_device_train_batch_size": self.schedule.batch_size,
            "gradient_accumulation_steps": self.schedule.accumulation,
            "max_grad_norm": self.settings.optimizer.max_grad_norm,
            "seed": self.settings.run.seed,
            "bf16": self.bfloat16,
            "use_cpu": self.student.model.device.type == "cpu",
            "max_length": None,  # rows that are too long were left out or refused: nothing is cut
            "gradient_checkpointing": False,  # the loop has enabled it where it is asked for
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "save_strategy": "no",
            "report_to": [],
        }


@contextmanager
def _without_autocast(model: Any) -> Iterator[None]:
    """Let the model compute as it is loaded: a trainer lets every forward pass be one in bfloat16."""
    wrapped = model.forward
    model.forward = getattr(model, "_original_forward", wrapped)
    try:
        yield
    finally:
        model.forward = wrapped


class _Recorder(TrainerCallback):
    """Gives each step's logs to the loop."""

    def __init__(self, loop: TrlLoop, first: int) -> None:
        self.loop, self.first = loop, first

    def on_log(self, args: Any, state: Any, control: Any, logs: Row, **kwargs: Any) -> None:
        if "loss" in logs:  # the last one sums up the run
            self.loop.record_step(self.first + state.global_step, logs)
            control.should_training_stop = control.should_training_stop or self.loop.stops()


# SFT


def trl_sft() -> TrlTrainer:
    """Describe SFTTrainer."""
    return TrlTrainer(_make_sft, _sft_row, lambda logs, number: {})


def _make_sft(student: Student, options: dict[str, Any], **more: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    never_read = Dataset.from_list([{"input_ids": [0], "labels": [0]}])  # its batches come from our plan
    config = SFTConfig(**options, dataset_kwargs={"skip_prepare_dataset": True})
    return SFTTrainer(student.model, args=config, train_dataset=never_read, processing_class=student.tokenizer, **more)


def _sft_row(row: Row) -> Row:
    ids = row["ids"]
    return {"input_ids": ids.tokens, "labels": [IGNORED] * len(ids.prompt_ids) + ids.completion_ids}


# DPO


def trl_dpo(settings: ResolvedSettings, alarm: Any) -> TrlTrainer:
    """Describe DPOTrainer with a fixed beta and the loss that the settings name, for SimPO CPOTrainer.

    `alarm` (dpo.metrics.ChosenFallAlarm) hears how chosen answers fare.
    """
    if settings.dpo.loss_type == "simpo":
        return TrlTrainer(partial(_make_simpo, settings), _simpo_row, partial(_simpo_metrics, settings.beta.beta))
    return TrlTrainer(partial(_make_dpo, settings), _dpo_row, partial(_dpo_metrics, settings.beta.beta, alarm))


def _make_dpo(settings: ResolvedSettings, student: Student, options: dict[str, Any], **more: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    if not hasattr(student.model, "peft_config"):
        raise UserError("trl's DPOTrainer is only given a LoRA here: give --trainer own with --fine-tuning full")
    dpo = settings.dpo
    loss = {"loss_type": [dpo.loss_type], "label_smoothing": dpo.label_smoothing, "f_divergence_type": dpo.f_divergence}
    never_read = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = DPOTrainer(
        student.model,
        args=DPOConfig(**options, **loss, beta=settings.beta.beta),
        train_dataset=never_read,
        processing_class=student.tokenizer,
        **more,
    )
    trainer.precompute_ref_logps = True  # they stand in our rows, computed once and kept
    if "ref" in student.model.peft_config:
        student.model.delete_adapter("ref")  # its copy of the adapter for a reference
    return trainer


def _dpo_row(row: Row) -> Row:
    chosen, rejected = row["chosen"], row["rejected"]
    reference = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), row["reference"], strict=True))
    ids = {"prompt_ids": chosen.prompt_ids, "chosen_ids": chosen.completion_ids}
    return {**ids, "rejected_ids": rejected.completion_ids, **reference}


def _dpo_metrics(beta: float, alarm: Any, logs: Row, number: int) -> Row:
    """The names of dpo.metrics.step_metrics, by trl's means over the step's pairs."""
    gains = [[logs["rewards/chosen"] / beta], [logs["rewards/rejected"] / beta], [0.0], [0.0]]
    margin = {"margin": logs["rewards/margins"] / beta, "beta/effective": beta}
    return {**_rewards(logs), **margin, **alarm.update(torch.tensor(gains), number)}


def _rewards(logs: Row) -> Row:
    return {name: value for name, value in logs.items() if name.startswith(("rewards/", "logps/"))}


def _make_simpo(settings: ResolvedSettings, student: Student, options: dict[str, Any], **more: Any) -> Any:
    """SimPO (Meng et al. 2024, arXiv 2405.14734): mean log p a token as reward, no reference."""
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    never_read = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    longest = settings.length.max_seq_length
    config = CPOConfig(**{**options, "max_length": longest}, loss_type="simpo", cpo_alpha=0.0, beta=settings.beta.beta)
    return CPOTrainer(student.model, args=config, train_dataset=never_read, processing_class=student.tokenizer, **more)


def _simpo_row(row: Row) -> Row:
    found: Row = {}
    for side in ("chosen", "rejected"):
        ids = row[side]
        found[f"{side}_input_ids"], found[f"{side}_attention_mask"] = ids.tokens, [1] * len(ids)
        found[f"{side}_labels"] = [IGNORED] * len(ids.prompt_ids) + ids.completion_ids
    return found


def _simpo_metrics(beta: float, logs: Row, number: int) -> Row:
    """Rewards and mean log p a token; there is no reference, so no margin, nor a fall of chosen answers."""
    return {**_rewards(logs), "beta/effective": beta}


# Reward models


def trl_reward(center: float) -> TrlTrainer:
    """Describe RewardTrainer; `center` weighs its term that keeps scores about 0."""
    return TrlTrainer(partial(_make_reward, center), _reward_row, _reward_metrics)


def _make_reward(center: float, student: Student, options: dict[str, Any], **more: Any) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    return RewardTrainer(
        student.model,
        args=RewardConfig(**options, center_rewards_coefficient=center),
        train_dataset=Dataset.from_list([{"chosen_ids": [0], "rejected_ids": [0]}]),  # never read
        processing_class=student.tokenizer,
        **more,
    )


def _reward_row(row: Row) -> Row:
    return {"chosen_ids": row["chosen"].tokens, "rejected_ids": row["rejected"].tokens, "margin": row["margin"]}


def _reward_metrics(logs: Row, number: int) -> Row:
    return {name: logs[name] for name in ("accuracy", "margin", "min_reward", "mean_reward", "max_reward")}
