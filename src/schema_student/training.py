"""What SFT and DPO share: ids, batches, log-probabilities of completions, and the Trainer that saves and resumes.

Built on transformers.Trainer rather than trl's trainers: trl 1.14.0 tokenizes by itself (so prompts could differ from
those of generation), takes one fixed beta inside a loss of 300 lines, and copies an adapter to be its reference. Our
losses are a few lines each and equal trl's (tests/test_sft.py and tests/test_alignment.py hold that).

Shapes: B sequences, G groups that share a prefix, S columns of prefix, P of the rest of the prompt, C of completion,
V vocabulary.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import DynamicCache, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from schema_student import student as students
from schema_student.artifacts import digest, dump_row, read_json, read_jsonl, versions, write_json, write_jsonl
from schema_student.config import Settings, UserError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
METRICS = "training_metrics.jsonl"

# ---------------------------------------------------------------------------------------------------------------------
# Ids and batches


@dataclass(frozen=True)
class Ids:
    """A prompt and its completion as token ids; only the completion is supervised."""

    prompt_ids: list[int]
    completion_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def encode(tokenizer: Any, prompt: str, completion: str) -> Ids:
    """The ids trained on: those that generation reads and writes, because the same functions make them."""
    return Ids(students.encode_prompt(tokenizer, prompt), students.encode_completion(tokenizer, completion))


def find_fault(sequence: Ids, settings: Settings) -> str:
    """Empty for a sequence that can be trained on whole, else what is wrong with it."""
    if not sequence.completion_ids:
        return "no supervised token"
    if len(sequence.completion_ids) > settings.max_new_tokens:
        return "completion longer than max_new_tokens"
    return "longer than max_seq_length" if len(sequence) > settings.max_seq_length else ""


def keep_whole(fault: str, where: str, counts: dict[str, int], settings: Settings) -> bool:
    """True for a sequence without a fault; one with a fault is counted, or refused where `overlong` says so."""
    if fault and settings.overlong == "refuse":
        raise UserError(
            f"{where}: {fault}; raise that setting, shorten the row, or set --overlong drop to leave such rows out"
        )
    if fault:
        counts[fault] = counts.get(fault, 0) + 1
    return not fault


def collate(sequences: Sequence[Ids], pad_id: int, share: bool = False) -> dict[str, torch.Tensor]:
    """One batch, prompts padded on the left and completions on the right: all completions begin in one column.

    completion_ids and completion_mask are (B, C); input_ids, attention_mask and position_ids (B, P + C). With `share`,
    rows whose prompts begin alike (one schema) are a group: what they share stands once in prefix_ids (G, S), padded on
    the right, and input_ids hold the rest; group (B,) says whose prefix a row continues.
    """
    groups = share_prefixes([s.prompt_ids for s in sequences]) if share else [(0, [i]) for i in range(len(sequences))]
    start = {i: shared for shared, rows in groups for i in rows}
    rests = [s.prompt_ids[start[i] :] for i, s in enumerate(sequences)]
    P, C = max(map(len, rests)), max(len(s.completion_ids) for s in sequences)
    input_ids = [_pad(rest, s.completion_ids, P, C, pad_id, pad_id) for rest, s in zip(rests, sequences, strict=True)]
    seen = [_pad([1] * len(r), [1] * len(s.completion_ids), P, C, 0, 0) for r, s in zip(rests, sequences, strict=True)]
    attention_mask = torch.tensor(seen)
    starts = torch.tensor([start[i] for i in range(len(sequences))])
    batch = {
        "input_ids": torch.tensor(input_ids),
        "attention_mask": attention_mask,
        "position_ids": (starts[:, None] + attention_mask.cumsum(-1) - 1).clamp(min=0),
        "completion_ids": torch.tensor(input_ids)[:, P:],
        "completion_mask": attention_mask[:, P:],
    }
    if share:
        S = max(shared for shared, _ in groups)
        prefixes = [_pad([], sequences[rows[0]].prompt_ids[:shared], 0, S, pad_id, pad_id) for shared, rows in groups]
        member = {i: g for g, (_, rows) in enumerate(groups) for i in rows}
        batch |= {
            "prefix_ids": torch.tensor(prefixes),
            "prefix_lengths": torch.tensor([shared for shared, _ in groups]),
        }
        batch["group"] = torch.tensor([member[i] for i in range(len(sequences))])
    return batch


def _pad(left: list[int], right: list[int], P: int, C: int, left_pad: int, right_pad: int) -> list[int]:
    return [left_pad] * (P - len(left)) + left + right + [right_pad] * (C - len(right))


def share_prefixes(prompts: Sequence[list[int]]) -> list[tuple[int, list[int]]]:
    """(tokens shared, rows): rows whose prompts agree in at least half of their tokens; always short of the last token.

    >>> share_prefixes([[1, 2, 3], [9, 8], [1, 2, 4]])
    [(2, [0, 2]), (1, [1])]
    """
    groups: list[tuple[int, list[int]]] = []
    for i in sorted(range(len(prompts)), key=lambda i: prompts[i]):
        ids = prompts[i]
        if groups:
            shared, rows = groups[-1]
            first = prompts[rows[0]]
            common = min(shared, len(ids) - 1, _agree(first, ids))
            if 2 * common >= max(len(first), len(ids)):
                groups[-1] = (common, [*rows, i])
                continue
        groups.append((len(ids) - 1, [i]))
    return groups


def _agree(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first ids two sequences have in common."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def completion_logps(model: Any, batch: dict[str, torch.Tensor], autocast: torch.dtype | None = None) -> torch.Tensor:
    """log p of each completion token (B, C), 0 where padded. Logits are computed in completion columns only."""
    completion_ids = batch["completion_ids"]
    keep = completion_ids.shape[1] + 1  # the column before a completion predicts its first token
    with torch.autocast(completion_ids.device.type, autocast) if autocast else nullcontext():
        cache = _read_prefixes(model, batch) if "prefix_ids" in batch else None
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=_masks(model, batch) if cache else batch["attention_mask"],
            position_ids=batch["position_ids"],
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
        )
    logits_BCV = output.logits[:, -keep:-1].float()
    logps_BC = -torch.nn.functional.cross_entropy(logits_BCV.transpose(1, 2), completion_ids, reduction="none")
    return logps_BC * batch["completion_mask"]


def _read_prefixes(model: Any, batch: dict[str, torch.Tensor]) -> DynamicCache:
    """Keys and values of each group's prefix, with their gradients, one row for each row of the batch."""
    cache = DynamicCache()
    # Padding is on the right, where no token of a prefix looks: causal attention needs no mask.
    model(input_ids=batch["prefix_ids"], past_key_values=cache, use_cache=True, logits_to_keep=1)
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[batch["group"]], layer.values[batch["group"]]
    return cache


def _masks(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    """What a token after the prefix sees (B, 1, P + C, S + P + C): its prefix, then earlier tokens of its row.

    A sliding window reaches back by position, not by column.
    """
    config = model.config.get_text_config()
    columns = torch.arange(batch["prefix_ids"].shape[1], device=batch["group"].device)
    prefix_BS = columns < batch["prefix_lengths"][batch["group"]][:, None]
    key_position = torch.cat([columns.expand_as(prefix_BS), batch["position_ids"]], 1)
    exists = torch.cat([prefix_BS, batch["attention_mask"].bool()], 1)
    distance = batch["position_ids"][:, :, None] - key_position[:, None, :]
    seen = exists[:, None] & (distance >= 0)
    layer_types = getattr(config, "layer_types", None) or ["full_attention"]
    masks = {"full_attention": seen[:, None]}
    if "sliding_attention" in layer_types:
        masks["sliding_attention"] = (seen & (distance < config.sliding_window))[:, None]
    return masks if getattr(config, "layer_types", None) else masks["full_attention"]


def plan_batches(
    lengths: Sequence[int], keys: Sequence[str], batch_size: int, count: int, seed: int, together: int
) -> list[list[int]]:
    """`count` batches of indices, as many passes over the data as that takes; each pass shuffled by the seed.

    `together` rows of one key (a schema, whose tokens they share) follow each other, and rows of like length share a
    batch (sorted within windows of 16 batches), so that little is padded.
    """
    rng = random.Random(f"batches {seed}")
    plan: list[list[int]] = []
    while len(plan) < count:
        runs = _cut_runs(lengths, keys, together, rng)
        window = max(1, 16 * batch_size // together)
        order: list[int] = []
        for start in range(0, len(runs), window):
            for run in sorted(runs[start : start + window], key=lambda run: max(lengths[i] for i in run)):
                order += run
        one_pass = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        rng.shuffle(one_pass)
        plan += one_pass
    return plan[:count]


def _cut_runs(lengths: Sequence[int], keys: Sequence[str], together: int, rng: random.Random) -> list[list[int]]:
    """All indices, in shuffled runs of up to `together` of one key and of like length (sorted in windows of 4 runs)."""
    by_key: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        by_key.setdefault(key, []).append(i)
    runs = []
    for members in by_key.values():
        rng.shuffle(members)
        for start in range(0, len(members), 4 * together):
            window = sorted(members[start : start + 4 * together], key=lambda i: lengths[i])
            runs += [window[i : i + together] for i in range(0, len(window), together)]
    rng.shuffle(runs)
    return runs


def autocast_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """What matrices are multiplied in while training: bfloat16, or None for the weights' own type.

    "auto" takes bfloat16 where it is faster: on a GPU, and on a CPU that multiplies it natively (1.6 times as fast).
    """
    able = torch.cpu.get_capabilities()
    native = device.type != "cpu" or able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16")
    wanted = settings.dtype in ("bfloat16", "float16") or (settings.dtype == "auto" and native)
    return torch.bfloat16 if wanted else None


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints


def last_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint-N; each is whole, because it was renamed into place when it was."""
    found = [path for path in run_dir.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()]
    return max(found, key=lambda path: int(path.name.split("-")[-1]), default=None)


def publish_adapter(source: Path, run_dir: Path, student: students.Student) -> Path:
    """Make checkpoint-final of an adapter; atomic."""
    draft, final = run_dir / ".checkpoint-final", run_dir / "checkpoint-final"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in ADAPTER_FILES:
        shutil.copyfile(source / name, draft / name)
    students.write_adapter_record(draft, student)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    return final


def run_facts(stage: str, settings: Settings, student: students.Student, data: Sequence[Path]) -> dict[str, Any]:
    """What run_config.json says of any stage: settings, student, digests of the data, versions."""
    choice = student.choice
    who = {"name": choice.name, "kind": choice.kind, "base": choice.base, "backend": choice.backend}
    return {
        "stage": stage,
        "settings": settings.model_dump(exclude={"dry_run"}),
        "student": {**who, "digest": student.digest, "reason": choice.reason},
        "data": {path.name: digest(path) for path in data},
        "versions": versions(),
    }


def forget_after(path: Path, step: int) -> None:
    """Drop the rows of a log after a step: what a killed run wrote since its last checkpoint is computed again."""
    if path.exists():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)
        rows = read_jsonl(path)
        write_jsonl(path, [row for row in rows if row.get("step", 0) <= step and "checkpoint" not in row])


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one row to a log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(dump_row(row) + "\n")


# ---------------------------------------------------------------------------------------------------------------------
# The loop


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: in optimizer steps."""

    steps: int
    learning_rate: float
    batch_size: int
    eval_every: int
    save_every: int


def make_arguments(run_dir: Path, settings: Settings, schedule: Schedule, device: torch.device) -> TrainingArguments:
    """transformers' arguments. Checkpoints go to .partial and are renamed from there."""
    return TrainingArguments(
        output_dir=str(run_dir / ".partial"),
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(settings.warmup_ratio * schedule.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        seed=settings.seed,
        use_cpu=device.type == "cpu",
        disable_tqdm=True,
        report_to=[],
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

    A stage gives `weigh` (what a step's loss is divided by), `compute_loss` and `validate`.
    """

    def __init__(
        self,
        student: students.Student,
        dataset: Sequence[dict[str, Any]],
        lengths: Sequence[int],
        together: int,
        run_dir: Path,
        settings: Settings,
        schedule: Schedule,
    ) -> None:
        transformers_logging.set_verbosity_error()
        self.student, self.run_dir, self.schedule = student, run_dir, schedule
        self.autocast = autocast_dtype(settings, student.model.device)
        # Unsloth's attention takes no masks of ours, and gradients of several processes need one forward a step.
        self.share = student.choice.backend == "transformers" and int(os.environ.get("WORLD_SIZE", "1")) == 1
        self.extra_logs: dict[str, float] = {}
        self.started, self.first_step = time.monotonic(), 0
        arguments = make_arguments(run_dir, settings, schedule, student.model.device)
        super().__init__(model=student.model, args=arguments, train_dataset=dataset, data_collator=self.collate)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Flow(schedule))
        self.model_accepts_loss_kwargs = True  # our losses are divided by the step's own weight, not by micro-batches
        batches = schedule.steps * settings.gradient_accumulation * self.args.world_size
        keys = [row["key"] for row in dataset]
        self.plan = plan_batches(lengths, keys, schedule.batch_size, batches, settings.seed, together)

    # What a stage gives

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        raise NotImplementedError

    def weigh(self, batch: dict[str, Any]) -> int:
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        raise NotImplementedError

    # Batches

    def get_train_dataloader(self) -> DataLoader:
        mine = self.plan[self.args.process_index :: self.args.world_size]
        return DataLoader(self.train_dataset, batch_sampler=mine, collate_fn=self.collate)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list, torch.Tensor]:
        """The micro-batches of one optimizer step, and what their loss is divided by, over all processes."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        weight = torch.tensor(sum(map(self.weigh, batches)), device=device)
        return batches, self.accelerator.gather(weight).sum() / self.args.world_size

    # Steps

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.check_finite("loss", loss, inputs["names"])
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self.check_finite("gradient", norm, [])
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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
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
                print(self._line(row))

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
        students.write_adapter_record(draft, self.student)
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
        shutil.rmtree(self.run_dir / ".partial", ignore_errors=True)
        checkpoint = last_checkpoint(self.run_dir)
        self.first_step = int(checkpoint.name.split("-")[-1]) if checkpoint else 0
        for name in (METRICS, "margins.jsonl", "beta_trace.jsonl"):
            forget_after(self.run_dir / name, self.first_step if checkpoint else -1)
        if checkpoint:
            print(f"  continuing after {checkpoint}")
            self.load_stage_state(read_json(checkpoint / "stage_state.json"))
        else:
            self.evaluate()
        self.started = time.monotonic()
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        shutil.rmtree(self.run_dir / ".partial", ignore_errors=True)
