"""Alignment: validity-ranked pairs + a beta controller -> an adapter that prefers what is valid and was asked.

DPO (Rafailov et al. 2023, arXiv 2305.18290) that goes on training the SFT adapter; the reference is the SFT student,
whose log-probabilities are computed once before the first step and kept for later runs (alignment/reference_logps/).
Reads dpo_pairs.jsonl; writes student_runs/<run>-dpo/: as SFT, plus margins.jsonl, margins/*.npy, beta_trace.jsonl.
A low DPO loss does not mean better answers, so the checkpoint is chosen by greedy answers to validation requests;
step 0, the SFT student itself, is a candidate.

Shapes: B pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schema_student import beta as betas
from schema_student import student as students
from schema_student import training
from schema_student.artifacts import digest, make_stamp, open_step, paths, read_jsonl, write_json, write_jsonl
from schema_student.config import Settings, UserError, resolve_auto
from schema_student.generation import generate
from schema_student.prompts import render_prompt
from schema_student.schemas import compile_schema, judge, matches

DECIDING = (
    *(
        "base_model",
        "load_in_4bit",
        "dtype",
        "max_seq_length",
        "max_new_tokens",
        "overlong",
        "schema_rendering",
        "strip_fences",
    ),
    *(
        "beta_controller",
        "beta",
        "beta_min",
        "beta_max",
        "beta_delta",
        "beta_lambda",
        "beta_alpha",
        "beta_gamma",
        "beta_warmup",
    ),
    *(
        "dpo_learning_rate",
        "dpo_max_steps",
        "dpo_batch_size",
        "dpo_eval_every",
        "gradient_accumulation",
        "warmup_ratio",
    ),
    *("weight_decay", "max_grad_norm"),
)
VALIDATION_PROMPTS = 96  # greedy answers a validation; more would cost more than the training between two of them
TOGETHER = 4  # pairs of one schema that follow each other: they share its computation
SEEN = 8  # margins of a step that margins.jsonl shows; all of them are in the .npy

# ---------------------------------------------------------------------------------------------------------------------
# Formulas


def dpo_margins(
    policy_chosen_logps: Any, policy_rejected_logps: Any, reference_chosen_logps: Any, reference_rejected_logps: Any
) -> Any:
    """M = (log pi - log ref)(chosen) - (log pi - log ref)(rejected), each summed over completion tokens; (B,)."""
    return (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)


def dpo_losses(margins: Any, beta: float) -> Any:
    """-log sigmoid(beta M), equation 7 of the paper; beta carries no gradient; (B,)."""
    return -torch.nn.functional.logsigmoid(beta * margins)


# ---------------------------------------------------------------------------------------------------------------------
# The stage


def train_dpo(settings: Settings) -> Path:
    """Align the SFT adapter on the pairs; returns checkpoint-final."""
    choice = students.choose_student(settings)
    settings = resolve_auto(settings, choice.kind)
    where = paths(settings)
    students.check_adapter(str(where.sft_checkpoint), choice)
    stamp = make_stamp(settings, *DECIDING, base=choice.base)
    inputs = [where.pairs, where.dataset, where.sft_checkpoint / "adapter_model.safetensors"]
    with open_step(where.dpo_dir, stamp, inputs, settings.overwrite) as step:
        if not step.done:
            step.finish(_train(settings, where.pairs, where.dataset, where.sft_checkpoint, where.dpo_dir))
    return where.dpo_dir / "checkpoint-final"


def _train(settings: Settings, pairs: Path, dataset: Path, adapter: Path, run_dir: Path) -> dict[str, Any]:
    loaded = students.load_student(settings, adapter=str(adapter), trainable=True)
    counts: dict[str, int] = {}
    rows = encode_pairs(read_jsonl(pairs), loaded.tokenizer, settings, counts, pairs)
    for fault, count in counts.items():
        print(f"  left out {count} pairs: {fault}")
    train = [row for row in rows if row["split"] == "train"]
    if not train:
        advice = training.explain_nothing(counts, "sample more (--pair-prompts, --samples-per-prompt)")
        raise UserError(f"{pairs} has no pair to train on; {advice}")
    requests = read_requests(dataset, "validation", VALIDATION_PROMPTS, settings.schema_rendering)
    schedule = plan_dpo(settings)
    held_out = len(rows) - len(train)
    print(f"  {len(train)} pairs, {held_out} held out, {len(requests)} validation requests, {schedule.steps} steps")
    if settings.beta_controller == "risk" and settings.beta_warmup >= schedule.steps:
        print(f"  beta_warmup {settings.beta_warmup} is not shorter than the run: beta will stay at {settings.beta}")
    run_dir.mkdir(parents=True, exist_ok=True)
    facts = training.run_facts("dpo", settings, loaded, [pairs, dataset])
    facts |= {"adapter": str(adapter), "pairs": len(train), "left_out": counts, "steps": schedule.steps}
    write_json(run_dir / "run_config.json", facts)
    trainer = DPOTrainer(loaded, rows, requests, run_dir, settings, schedule)
    reference = digest([loaded.digest, digest(adapter / "adapter_model.safetensors")])
    trainer.add_reference_logps(paths(settings).references, reference)
    (run_dir / "beta_trace.jsonl").touch()  # a beta that never moved has a trace too: an empty one
    trainer.run()
    facts |= choose_checkpoint(run_dir)
    training.publish_adapter(adapter if facts["sft_was_better"] else run_dir / facts["checkpoint"], run_dir, loaded)
    write_json(run_dir / "run_config.json", facts)
    last = {"step": schedule.steps, "epoch": trainer.epoch_of(schedule.steps)}
    last |= {k: facts[k] for k in ("checkpoint", "why", "sft_was_better")}
    training.append_row(run_dir / training.METRICS, last)
    print(f"  checkpoint-final is {facts['checkpoint']}: {facts['why']}")
    return {"checkpoint": facts["checkpoint"], "sft_was_better": facts["sft_was_better"]}


def encode_pairs(
    pairs: Sequence[dict[str, Any]], tokenizer: Any, settings: Settings, counts: dict[str, int], path: Path
) -> list[dict[str, Any]]:
    """Pairs as {chosen, rejected, name, split} of ids; those with nothing to supervise or no room are counted."""
    rows = []
    for number, pair in enumerate(pairs, start=1):
        chosen, rejected = (training.encode(tokenizer, pair["prompt"], pair[side]) for side in ("chosen", "rejected"))
        fault = training.find_fault(chosen, settings) or training.find_fault(rejected, settings)
        fault = fault or ("chosen equals rejected" if chosen == rejected else "")
        name = f"{path.name}:{number}"
        if training.keep_whole(fault, name, counts, settings):
            sides = {"chosen": chosen, "rejected": rejected, "key": pair["schema_id"]}
            rows.append({**sides, "name": name, "split": pair.get("split", "train")})
    return rows


def read_requests(dataset: Path, split: str, limit: int, rendering: str) -> list[dict[str, Any]]:
    """Up to `limit` valid rows of a split of d_03, evenly spread: {prompt, schema, target, accepted}."""
    rows = [row for row in read_jsonl(dataset) if row["split"] == split and row["is_valid"]]
    step = max(1, -(-len(rows) // limit))
    requests = []
    for row in rows[::step]:
        schema = json.loads(row["schema_json"])
        prompt = render_prompt(schema, row["query"], row["current_date"], rendering)
        requests.append(
            {"prompt": prompt, "schema": schema, "target": json.loads(row["ast_json"]), "accepted": row.get("accepted")}
        )
    return requests


def plan_dpo(settings: Settings) -> training.Schedule:
    """DPO's steps; each validation is a checkpoint too."""
    every = settings.dpo_eval_every
    return training.Schedule(settings.dpo_max_steps, settings.dpo_learning_rate, settings.dpo_batch_size, every, every)


# ---------------------------------------------------------------------------------------------------------------------
# The trainer


class DPOTrainer(training.StudentTrainer):
    """Batches of pairs {chosen, rejected, name, reference logps}; beta from a controller fed once an optimizer step."""

    def __init__(
        self,
        student: students.Student,
        rows: Sequence[dict[str, Any]],
        requests: Sequence[dict[str, Any]],
        run_dir: Path,
        settings: Settings,
        schedule: training.Schedule,
    ) -> None:
        self.settings, self.requests = settings, requests
        rows = sorted(rows, key=lambda row: (row["key"], pair_length(row)))
        self.held_out = [row for row in rows if row["split"] != "train"]
        train = [row for row in rows if row["split"] == "train"]
        self.controller = betas.make_controller(settings)
        self.beta = settings.beta
        self.parts: list[torch.Tensor] = []
        for module in student.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # the reference was computed without it: with it a margin would be noise at step 0
        super().__init__(student, train, [pair_length(row) for row in train], TOGETHER, run_dir, settings, schedule)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Chosen sequences first, then rejected ones: 2 B rows."""
        sequences = [row[side] for side in ("chosen", "rejected") for row in rows]
        batch = training.collate(sequences, self.student.tokenizer.pad_token_id, self.trees)
        if "reference" in rows[0]:
            batch["reference_logps"] = torch.tensor([row["reference"] for row in rows]).T.reshape(-1)
        return {**batch, "names": [row["name"] for row in rows]}

    def weigh(self, batch: dict[str, Any]) -> int:
        return len(batch["names"])

    def sequence_logps(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """log p of whole completions, chosen then rejected (2 B,)."""
        return training.completion_logps(model, batch, self.autocast).sum(-1)

    def add_reference_logps(self, folder: Path, reference: str) -> None:
        """Give each pair the reference's log p of its two completions; computed once and kept in `folder`.

        The file is named by the digest of what decides the numbers: the reference (`reference` is its digest), the
        pairs as token ids, and how they are computed. So a resumed run reads it, and so does any later run on the same
        pairs, with whatever beta, controller or learning rate. Held-out pairs are computed in the batches of
        `validate`, so that the SFT student's margins there are exactly 0.
        """
        rows = [*self.held_out, *self.train_dataset]
        sides = [
            [row["name"], *([row[s].prompt_ids, row[s].completion_ids] for s in ("chosen", "rejected"))] for row in rows
        ]
        key = digest([reference, str(self.autocast), self.trees, self.schedule.batch_size, sides])
        path = folder / f"{key[:16]}.jsonl"
        if path.exists():
            print(f"  reference log-probabilities: {path}, computed before")
        else:
            write_jsonl(path, [*self._reference_rows(self.held_out), *self._reference_rows(self.train_dataset)])
        known = {row["name"]: [row["chosen"], row["rejected"]] for row in read_jsonl(path)}
        for row in rows:
            row["reference"] = known[row["name"]]

    def _reference_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        self.model.eval()
        found = []
        for start in range(0, len(rows), self.schedule.batch_size):
            part = list(rows[start : start + self.schedule.batch_size])
            with torch.no_grad():
                logps = self.sequence_logps(self.model, self._prepare_inputs(self.collate(part)))
            for row, chosen, rejected in zip(part, *logps.chunk(2), strict=True):
                found.append({"name": row["name"], "chosen": float(chosen), "rejected": float(rejected)})
        return found

    # Steps

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """With several micro-batches their margins are needed before the first loss: one more forward pass of each."""
        batches, weight = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.parts, self.early = [], len(batches) > 1
        if self.early:
            self.model.eval()
            with torch.no_grad():
                found = [self.margins_of(self.model, self._prepare_inputs(batch))[0] for batch in batches]
            self.set_beta(torch.cat(found), [name for batch in batches for name in batch["names"]])
        return batches, weight

    def margins_of(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Margins (B,), and policy and reference log p of chosen and rejected (4, B)."""
        parts = torch.cat([self.sequence_logps(model, batch), batch["reference_logps"]]).reshape(4, -1)
        return dpo_margins(*parts), parts

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], *args: Any, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        margins, parts = self.margins_of(model, inputs)
        if not self.early:
            self.set_beta(margins.detach(), inputs["names"])
        self.parts.append(parts.detach())
        return dpo_losses(margins, self.beta).sum() / num_items_in_batch

    def set_beta(self, margins: torch.Tensor, names: Sequence[str]) -> None:
        """Feed the controller the margins of this optimizer step, over all processes, and log what it says."""
        self.check_finite("margin", margins, names)
        gathered = self.accelerator.gather(margins)
        self.beta = self.controller.update(gathered.double().tolist())
        if self.is_world_process_zero():
            self._log_margins(gathered.double().cpu())

    def _log_margins(self, margins: torch.Tensor) -> None:
        import numpy as np

        step = self.state.global_step + 1
        path = self.run_dir / "margins" / f"step_{step:06d}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, margins.numpy())
        row = {"step": step, "epoch": self.epoch_of(step), **describe_margins(margins.tolist())}
        row |= {"npy": str(path.relative_to(self.run_dir)), "sample": margins[:SEEN].tolist()}
        training.append_row(self.run_dir / "margins.jsonl", row)
        for traced in self.controller.trace:
            training.append_row(self.run_dir / "beta_trace.jsonl", traced)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self.extra_logs = self._step_metrics()
        super().log(logs, start_time)

    def _step_metrics(self) -> dict[str, float]:
        """trl's names for what a step saw; risk/* from the controller's trace, where it has one."""
        chosen, rejected, reference_chosen, reference_rejected = torch.cat(self.parts, 1).double()
        rewards = self.beta * (chosen - reference_chosen), self.beta * (rejected - reference_rejected)
        margins = rewards[0] - rewards[1]
        found = {
            "rewards/chosen": rewards[0].mean(),
            "rewards/rejected": rewards[1].mean(),
            "rewards/margins": margins.mean(),
        }
        found |= {
            "rewards/accuracies": (margins > 0).double().mean(),
            "logps/chosen": chosen.mean(),
            "logps/rejected": rejected.mean(),
        }
        traced = (
            {f"risk/{name}": self.controller.trace[-1].get(name) for name in ("p_hat", "tau", "u", "s")}
            if self.controller.trace
            else {}
        )
        known = {name: value for name, value in traced.items() if value is not None}
        return {
            **{name: float(value) for name, value in found.items()},
            "margin": float((margins / self.beta).mean()),
            "beta/effective": self.beta,
            **known,
        }

    # Validation and checkpoints

    def validate(self) -> dict[str, float]:
        """Greedy answers to validation requests, and held-out pairs at beta_0; the controller is not fed."""
        metrics: dict[str, float] = {}
        if self.requests:
            metrics |= score_answers(self.student, self.requests, self.settings)
        if self.held_out:
            margins = torch.cat(
                [self._held_out_margins(start) for start in range(0, len(self.held_out), self.schedule.batch_size)]
            )
            metrics["eval_loss"] = float(dpo_losses(margins, self.settings.beta).mean())
            metrics["eval_margin"] = float(margins.mean())
            metrics["eval_rewards/accuracies"] = float((margins > 0).double().mean())
        return metrics

    def _held_out_margins(self, start: int) -> torch.Tensor:
        part = self.held_out[start : start + self.schedule.batch_size]
        return self.margins_of(self.model, self._prepare_inputs(self.collate(part)))[0]

    def stage_state(self) -> dict[str, Any]:
        return {"controller": self.controller.state_dict()}

    def load_stage_state(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])


def pair_length(row: dict[str, Any]) -> int:
    """Tokens of a pair's two sequences."""
    return len(row["chosen"]) + len(row["rejected"])


def describe_margins(margins: Sequence[float]) -> dict[str, float]:
    """The statistics of margins.jsonl; the deviation is the population's."""
    n = len(margins)
    mean = sum(margins) / n
    found = {"n": n, "mean": mean, "std": (sum((m - mean) ** 2 for m in margins) / n) ** 0.5, "min": min(margins)}
    found |= {name: betas.quantile(margins, q) for name, q in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))}
    return {**found, "max": max(margins), "pos_frac": sum(m > 0 for m in margins) / n}


def score_answers(
    student: students.Student, requests: Sequence[dict[str, Any]], settings: Settings
) -> dict[str, float]:
    """Shares of greedy answers that are valid, and that mean what was asked."""
    prompts = [request["prompt"] for request in requests]
    answers = generate(student, prompts, settings.max_new_tokens, settings.eval_batch_size)
    valid = right = 0
    for request, (answer,) in zip(requests, answers, strict=True):
        verdict = judge(answer.text, compile_schema(request["schema"]), settings.strip_fences)
        valid += verdict.schema_valid
        right += verdict.schema_valid and matches(
            verdict.value, request["target"], request["schema"], request["accepted"]
        )
    return {"eval_valid": valid / len(requests), "eval_semantic": right / len(requests)}


def choose_checkpoint(run_dir: Path) -> dict[str, Any]:
    """The step with the most right answers, then valid ones, then held-out pairs in order; step 0 is SFT itself.

    Without validation requests the held-out pairs decide; without either the last checkpoint is taken.
    """
    saved = {0, *(int(path.name.split("-")[1]) for path in run_dir.glob("checkpoint-[0-9]*"))}
    rows = [row for row in read_jsonl(run_dir / training.METRICS) if "eval_runtime" in row and row["step"] in saved]

    def merit(row: dict[str, Any]) -> tuple[float, ...]:
        names = ("eval_semantic", "eval_valid", "eval_rewards/accuracies")
        return (*(row.get(name, 0.0) for name in names), -row.get("eval_loss", -row["step"]))

    best, start = max(rows, key=merit), rows[0]
    better = best["step"] == 0
    if "eval_semantic" in best:
        scores = f"right answers {best['eval_semantic']:.1%} on validation (SFT {start['eval_semantic']:.1%})"
    else:
        scores = "by held-out pairs, as there are no validation requests"
    why = f"SFT was better than every DPO checkpoint: {scores}" if better else scores
    return {"checkpoint": f"checkpoint-{best['step']}", "why": why, "sft_was_better": better}
