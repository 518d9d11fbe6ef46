"""Alignment: validity-ranked pairs + a beta controller -> an adapter that prefers what is valid and was asked.

DPO (Rafailov et al. 2023, arXiv 2305.18290) that goes on training the SFT adapter; the reference is the SFT student,
whose log-probabilities are computed once before the first step and kept for later runs (alignment/reference_logps/).
Reads dpo_pairs.jsonl; writes student_runs/<run>-dpo/: as SFT, plus margins.jsonl, margins/*.npy, beta_trace.jsonl.
A low DPO loss does not mean better answers, so the checkpoint is chosen by greedy answers to validation requests;
step 0, the SFT student itself, is a candidate.
With --data-set the pairs are of any origin (preferences.py): there are no requests to answer, held-out pairs choose the
checkpoint, and without --adapter a fresh LoRA is aligned, whose reference is the base.
Guards: an alarm, an SFT term and DPO-positive where chosen answers become less likely; a stop where no margin moves and
where a value is not finite. Under torchrun the processes share each step's batch, and its beta.

Shapes: B pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from schema_student.core.errors import UserError
from schema_student.core.jsonl import append_row, read_jsonl, write_json, write_jsonl
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.processes import is_first_process, process_count
from schema_student.core.records import DatasetRow, Pair, read_rows
from schema_student.core.settings import AnySettings, ResolvedSettings, resolve_auto
from schema_student.core.stamps import digest, make_stamp
from schema_student.core.statistics import sign_test
from schema_student.preference.held_out import is_held_out
from schema_student.schema.compiling import compile_schema
from schema_student.schema.grading import grade
from schema_student.schema.prompts import render_row_prompt
from schema_student.student import batching
from schema_student.student.choice import base_digest, choose_student
from schema_student.student.generation import generate
from schema_student.student.loading import Student, attach_lora, check_adapter, load_student
from schema_student.training.dpo import beta as betas
from schema_student.training.loop import (
    ADAPTER_FILES,
    METRICS,
    Schedule,
    StudentTrainer,
    check_tracker,
    main_process_first,
    make_run,
    publish_adapter,
    run_facts,
)

# Groups of settings that decide the aligned adapter; "lora" too where a fresh one is aligned.
DECIDING = ("loading", "length", "generation", "batching", "prompt", "verdict", "optimizer", "dpo", "beta")
VALIDATION_PROMPTS = 96  # greedy answers a validation; more would cost more than the training between two of them
TOGETHER = 4  # pairs of one schema that follow each other: they share its computation
ZERO_STEPS = 3  # steps in a row whose margins are all exactly 0 before the run stops: one may be chance
SEEN = 8  # margins of a step that margins.jsonl shows (all of them are in the .npy), and bad rows that are named

# ---------------------------------------------------------------------------------------------------------------------
# Formulas


def dpo_margins(
    policy_chosen_logps: Any, policy_rejected_logps: Any, reference_chosen_logps: Any, reference_rejected_logps: Any
) -> Any:
    """M = (log pi - log ref)(chosen) - (log pi - log ref)(rejected), each summed over completion tokens; (B,)."""
    return (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)


def dpo_losses(margins: Any, beta: Any) -> Any:
    """-log sigmoid(beta M), equation 7 of the paper; beta (one, or one a pair) carries no gradient; (B,)."""
    return -torch.nn.functional.logsigmoid(beta * margins)


def positive_margins(margins: Any, policy_chosen_logps: Any, reference_chosen_logps: Any, weight: float) -> Any:
    """M less a penalty for a chosen answer that has become less likely: DPO-positive; (B,).

    M - lambda max(0, log ref(chosen) - log pi(chosen)), Pal et al. 2024, arXiv 2402.13228; weight is their lambda.
    """
    return margins - weight * (reference_chosen_logps - policy_chosen_logps).clamp(min=0)


def sft_losses(policy_chosen_logps: Any, chosen_tokens: Any) -> Any:
    """-log pi(chosen) a token, added to DPO's loss with a weight (Pang et al. 2024, arXiv 2404.19733); (B,)."""
    return -policy_chosen_logps / chosen_tokens


def perturbed_logps(policy_CV: Any, reference_CV: Any, ids_C: Any, mask_C: Any, epsilon: float) -> list[float]:
    """log p of a completion where the policy's logits are epsilon toward the reference, here, and away (epsilon-DPO).

    In float64: near the reference, float32 would round the move away.
    """
    policy = policy_CV.double()
    move = epsilon * (policy - reference_CV.double())
    logps = (torch.log_softmax(policy + side * move, -1).gather(1, ids_C[:, None])[:, 0] for side in (-1, 0, 1))
    return [float((logps_C * mask_C).sum()) for logps_C in logps]


# ---------------------------------------------------------------------------------------------------------------------
# The stage


def train_dpo(given: AnySettings) -> Path:
    """Align the SFT adapter on the pairs; returns checkpoint-final."""
    check_tracker(given)
    choice = choose_student(given)
    settings = resolve_auto(given, choice.kind)
    where = paths(settings)
    own = bool(settings.data.data_set)
    dataset = None if own else where.dataset
    adapter = None if own and not settings.student.adapter else where.sft_checkpoint
    if adapter:
        check_adapter(str(adapter), choice)
    base = base_digest(choice.base)
    stamp = make_stamp(settings, *DECIDING, *(() if adapter else ("lora",)), base_digest=base)
    weights = adapter / "adapter_model.safetensors" if adapter else None
    inputs = [path for path in (where.pairs, dataset, weights) if path]
    train = partial(_train, settings, where.pairs, dataset, adapter, where.dpo_dir)
    return make_run(where.dpo_dir, stamp, inputs, settings.run.overwrite, train)


def _train(
    settings: ResolvedSettings, pairs: Path, dataset: Path | None, adapter: Path | None, run_dir: Path
) -> dict[str, Any]:
    loaded = load_student(settings, adapter=str(adapter) if adapter else None, trainable=True)
    loaded = loaded if adapter else attach_lora(loaded, settings)
    trees = batching.supports_prompt_trees(loaded.model, betas.make_controller(settings).wants_signs)
    counts: dict[str, int] = {}
    rows = encode_pairs(read_rows(pairs, Pair), loaded.tokenizer, settings, counts, pairs, trees)
    for fault, count in counts.items():
        log.info(f"  left out {count} pairs: {fault}")
    train = [row for row in rows if row["split"] == "train"]
    if not train:
        more = "sample more (--pair-prompts, --samples-per-prompt)"
        advice = batching.explain_nothing(counts, f"all of them are held out; {more}" if rows else more)
        raise UserError(f"{pairs} has no pair to train on; {advice}")
    _check_enough(len(train), settings, pairs)
    requests = read_requests(dataset, VALIDATION_PROMPTS, settings.prompt.schema_rendering) if dataset else []
    schedule = plan_dpo(settings)
    held_out = len(rows) - len(train)
    log.info(f"  {len(train)} pairs, {held_out} held out, {len(requests)} validation requests, {schedule.steps} steps")
    warmup = getattr(betas.make_controller(settings), "warmup", 0)
    if warmup >= schedule.steps:
        name = settings.beta.beta_controller
        stays = f"beta will stay at {settings.beta.beta}"
        log.info(f"  the {name} warm-up of {warmup} steps is not shorter than the run: {stays}")
    if settings.beta.beta_controller == "calibrated" and 4 * settings.beta.beta > settings.beta.beta_max:
        bounds = f"beta_max {settings.beta.beta_max} is under 4 times beta {settings.beta.beta}"
        log.info(
            f"  {bounds}: calibrated hardly moves (not at all where they are equal); raise --beta-max, or lower --beta"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    facts = run_facts("dpo", settings, loaded, [pairs, dataset] if dataset else [pairs])
    facts |= {
        "adapter": str(adapter) if adapter else None,
        "pairs": len(train),
        "left_out": counts,
        "steps": schedule.steps,
    }
    write_json(run_dir / "run_config.json", facts)
    if adapter is None:
        adapter = run_dir / "start"
        main_process_first(partial(loaded.model.save_pretrained, adapter))  # kept where no checkpoint is better
    trainer = DPOTrainer(loaded, rows, requests, run_dir, settings, schedule, trees)
    trainer.add_reference_logps(paths(settings).references, name_reference(loaded, adapter, settings))
    (run_dir / "beta_trace.jsonl").touch()  # a beta that never moved has a trace too: an empty one
    trainer.run()
    if not is_first_process():
        return {}
    facts |= choose_checkpoint(run_dir)
    publish_adapter(adapter if facts["sft_was_better"] else run_dir / facts["checkpoint"], run_dir, loaded)
    write_json(run_dir / "run_config.json", facts)
    last = {"step": schedule.steps, "epoch": trainer.epoch_of(schedule.steps)}
    last |= {k: facts[k] for k in ("checkpoint", "why", "sft_was_better")}
    append_row(run_dir / METRICS, last)
    log.info(f"  checkpoint-final is {facts['checkpoint']}: {facts['why']}")
    return {"checkpoint": facts["checkpoint"], "sft_was_better": facts["sft_was_better"]}


def _check_enough(pairs: int, settings: ResolvedSettings, path: Path) -> None:
    """Refuse fewer pairs than a step takes: some would stand in it twice, and beta would be fed a smaller step."""
    batches = settings.dpo.dpo_gradient_accumulation * process_count()
    step = settings.dpo.dpo_batch_size * batches
    if pairs < step:
        what = f"{path} has {pairs} pairs to train on, fewer than the {step} of an optimizer step"
        raise UserError(f"{what}: give --dpo-batch-size {max(1, pairs // batches)}, or more pairs")


def name_reference(student: Student, adapter: Path, settings: ResolvedSettings) -> str:
    """Digest of what decides the reference's log-probabilities: base and adapter, and how they are loaded."""
    files = [digest(adapter / name) for name in ADAPTER_FILES]
    loaded = [student.choice.backend, str(student.model.dtype), settings.loading.load_in_4bit]
    return digest([student.digest, *files, *loaded])


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: Any,
    settings: ResolvedSettings,
    counts: dict[str, int],
    path: Path,
    trees: bool,
) -> list[dict[str, Any]]:
    """Pairs as {chosen, rejected, name, split} of ids; those with nothing to supervise or no room are counted."""
    rows = []
    for number, pair in enumerate(pairs, start=1):
        chosen, rejected = (batching.encode(tokenizer, pair.prompt, side) for side in (pair.chosen, pair.rejected))
        fault = batching.find_fault(chosen, settings) or batching.find_fault(rejected, settings)
        fault = fault or ("chosen equals rejected" if chosen == rejected else "")
        too_long = not fault and batching.count_tokens([chosen, rejected], trees) > settings.batching.batch_tokens
        fault = "pair longer than batch_tokens" if too_long else fault
        name = f"{path.name}:{number}"
        if batching.keep_whole(fault, name, counts, settings):
            sides = {"chosen": chosen, "rejected": rejected, "key": pair.schema_id}
            rows.append({**sides, "name": name, "split": pair.split})
    return rows


def read_requests(dataset: Path, limit: int, rendering: str) -> list[dict[str, Any]]:
    """Up to `limit` valid rows of d_03 that choose the checkpoint: {prompt, schema, target, accepted}.

    Half are of validation schemas, half those requests for pairs on training schemas that are held out of them: the
    tests have both kinds of schemas too, and DPO may help on one and harm on the other. Each evenly spread.
    """
    kinds: dict[str, list[dict[str, Any]]] = {"validation": [], "alignment": []}
    for row in read_rows(dataset, DatasetRow):
        if row.split not in kinds or not row.is_valid:
            continue
        prompt = render_row_prompt(row, rendering)
        if row.split == "validation" or is_held_out(prompt):
            answer = {"target": row.target, "accepted": row.accepted}
            kinds[row.split].append({"prompt": prompt, "schema": row.schema, **answer})
    return [row for rows in kinds.values() for row in rows[:: max(1, -(-len(rows) // (limit // 2)))]]


def plan_dpo(settings: ResolvedSettings) -> Schedule:
    """DPO's steps; each validation is a checkpoint too."""
    size, accumulation, every = (
        settings.dpo.dpo_batch_size,
        settings.dpo.dpo_gradient_accumulation,
        settings.dpo.dpo_eval_every,
    )
    return Schedule(settings.dpo.dpo_max_steps, settings.dpo.dpo_learning_rate, size, accumulation, every, every)


# ---------------------------------------------------------------------------------------------------------------------
# The trainer


class DPOTrainer(StudentTrainer):
    """Batches of pairs {chosen, rejected, name, reference logps}; beta from a controller fed once an optimizer step."""

    def __init__(
        self,
        student: Student,
        rows: Sequence[dict[str, Any]],
        requests: Sequence[dict[str, Any]],
        run_dir: Path,
        settings: ResolvedSettings,
        schedule: Schedule,
        trees: bool,
    ) -> None:
        self.settings, self.requests = settings, requests
        rows = sorted(rows, key=lambda row: (row["key"], pair_length(row)))
        self.held_out = [row for row in rows if row["split"] != "train"]
        train = [row for row in rows if row["split"] == "train"]
        self.controller = betas.make_controller(settings)
        self.beta = settings.beta.beta
        self.parts: list[torch.Tensor] = []
        self.margins: list[torch.Tensor] = []
        self.shares: list[tuple[Any, Any]] = []
        self.zero_steps = 0
        self.fallen = False
        for module in student.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # the reference was computed without it: with it a margin would be noise at step 0
        super().__init__(student, train, both_sides(train), TOGETHER, run_dir, settings, schedule, trees)
        self.reference: list[tuple[torch.Tensor, torch.Tensor]] = []
        if self.controller.wants_signs:
            weights = [weight for weight in student.model.parameters() if weight.requires_grad]
            self.reference = [(weight, weight.detach().clone()) for weight in weights]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Chosen sequences first, then rejected ones: 2 B rows."""
        sequences = [row[side] for side in ("chosen", "rejected") for row in rows]
        batch = batching.collate(sequences, self.student.tokenizer.pad_token_id, self.trees)
        if "reference" in rows[0]:
            batch["reference_logps"] = torch.tensor([row["reference"] for row in rows]).T.reshape(-1)
        return {**batch, "names": [row["name"] for row in rows]}

    def loss_denominator(self, batch: dict[str, Any]) -> int:
        return len(batch["names"])

    def sequence_logps(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """log p of whole completions, chosen then rejected (2 B,)."""
        return batching.completion_logps(model, batch, self.autocast).sum(-1)

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
        key = digest([reference, str(self.autocast), self.trees, self.schedule.batch_size, self.batch_tokens, sides])
        path = folder / f"{key[:16]}.jsonl"
        if path.exists():
            log.info(f"  reference log-probabilities: {path}, computed before")
            found = read_jsonl(path)
        else:
            found = [*self._reference_rows(self.held_out), *self._reference_rows(self.train_dataset)]
            if self.is_world_process_zero():
                write_jsonl(path, found)
        known = {row["name"]: [row["chosen"], row["rejected"]] for row in found}
        for row in rows:
            row["reference"] = known[row["name"]]

    def _reference_rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        self.model.eval()
        found = []
        for part in self.in_shares(rows, both_sides(rows)):
            with torch.no_grad():
                logps = self.sequence_logps(self.model, self._prepare_inputs(self.collate(part)))
            for row, chosen, rejected in zip(part, *logps.chunk(2), strict=True):
                found.append({"name": row["name"], "chosen": float(chosen), "rejected": float(rejected)})
        found = gather_object(found)
        if bad := [row["name"] for row in found if not math.isfinite(row["chosen"] + row["rejected"])]:
            raise UserError(
                f"log-probabilities of the reference are not finite for {', '.join(bad[:SEEN])} ({len(bad)} in all); "
                "look at these rows, or give --dtype float32"
            )
        return found

    # Steps

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """With several micro-batches their margins are needed before the first loss: one more forward pass of each.

        With signs to find: one of the policy and one of the reference. With a beta that no margin moves: none.
        """
        batches, weight = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.parts, self.margins = [], []
        self.early = self.controller.wants_signs or (self.controller.wants_margins and len(batches) > 1)
        self.shares = [(self.beta, 1.0)] * len(batches)
        if self.early:
            self.model.eval()
            with torch.no_grad():
                found = [self._look_ahead(self._prepare_inputs(batch)) for batch in batches]
            margins, signs = zip(*found, strict=True)
            self.set_beta(margins, self.names, signs)
        return batches, weight

    def margins_of(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Margins (B,), and policy and reference log p of chosen and rejected (4, B)."""
        parts = torch.cat([self.sequence_logps(model, batch), batch["reference_logps"]]).reshape(4, -1)
        return dpo_margins(*parts), parts

    def _look_ahead(self, batch: dict[str, Any]) -> tuple[torch.Tensor, list[int]]:
        if self.controller.wants_signs:
            return self.margins_and_signs_of(self.model, batch)
        return self.margins_of(self.model, batch)[0], []

    def margins_and_signs_of(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, list[int]]:
        """Margins (B,), and epsilon-DPO's s of each pair."""
        with torch.autocast(model.device.type, self.autocast) if self.autocast else nullcontext():
            policy = batching.completion_logits(model, batch)
            with self.as_reference():
                reference = batching.completion_logits(model, batch)
        rows = zip(policy, reference, batch["completion_ids"], batch["completion_mask"], strict=True)
        found = [perturbed_logps(*row, self.settings.beta.beta_epsilon) for row in rows]
        chosen, rejected = torch.tensor(found, dtype=torch.float64, device=policy.device).chunk(2)
        signs = [betas.perturbation_sign(*ratios) for ratios in (chosen - rejected).tolist()]
        return dpo_margins(chosen[:, 1], rejected[:, 1], *batch["reference_logps"].chunk(2)), signs

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """The model with the adapter that it began with; for passes without gradient."""
        trained = [weight.data for weight, _ in self.reference]
        for weight, before in self.reference:
            weight.data = before
        yield
        for (weight, _), now in zip(self.reference, trained, strict=True):
            weight.data = now

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], *args: Any, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        margins, parts = self.margins_of(model, inputs)
        self.margins.append(margins.detach())
        if not self.early and len(self.margins) == len(self.names):
            self.set_beta(self.margins, self.names)
        pair_betas, weights = self.shares[len(self.parts)]
        self.parts.append(parts.detach())
        settings, (policy_chosen_logps, _, reference_chosen_logps, _) = self.settings, parts
        if settings.dpo.dpo_positive_weight:
            weight = settings.dpo.dpo_positive_weight
            margins = positive_margins(margins, policy_chosen_logps, reference_chosen_logps, weight)
        losses = dpo_losses(margins, pair_betas)
        if settings.dpo.dpo_sft_weight:
            tokens = inputs["completion_mask"][: len(losses)].sum(-1)
            losses = losses + settings.dpo.dpo_sft_weight * sft_losses(policy_chosen_logps, tokens)
        return (weights * losses).sum() / num_items_in_batch

    def set_beta(
        self, margins: Sequence[torch.Tensor], names: Sequence[Sequence[str]], signs: Sequence[Sequence[int]] = ()
    ) -> None:
        """Feed the controller the margins of this optimizer step and log what it says.

        `margins` of each micro-batch of this process. The controller sees those of all processes in the order of the
        plan of batches, whichever process computed them; `shares` are what it says of the pairs of each micro-batch.
        """
        world, rank = self.args.world_size, self.args.process_index
        batches = self.gather([part.double().tolist() for part in margins])
        self.check_margins(batches, names)
        flat_signs = [sign for batch in self.gather([list(part) for part in signs]) for sign in batch]
        flat = [margin for batch in batches for margin in batch]
        decision = self.controller.update(flat, flat_signs)
        self.beta = decision.beta
        # The loss is the mean over kept pairs; it will be divided by the number of all pairs.
        weights = torch.zeros(len(flat))
        weights[decision.kept] = len(flat) / len(decision.kept)
        sizes = [len(batch) for batch in batches]
        table = torch.stack([torch.tensor(decision.betas), weights]).to(self.args.device)
        self.shares = [tuple(part) for part in table.split(sizes, 1)[rank::world]]
        if self.is_world_process_zero():
            self._log_margins(flat, flat_signs)

    def gather(self, batches: list[Any]) -> list[Any]:
        """What each process has of each of its micro-batches -> of all, in the order of the plan of batches."""
        found, count = gather_object(batches), len(batches)
        return [found[rank * count + i] for i in range(count) for rank in range(self.args.world_size)]

    def check_margins(self, batches: Sequence[Sequence[float]], names: Sequence[Sequence[str]]) -> None:
        """Stop on every process at a margin that is not finite, and where no pair has moved for some steps."""
        mine = batches[self.args.process_index :: self.args.world_size]
        bad = [
            name
            for row, of_row in zip(mine, names, strict=True)
            for margin, name in zip(row, of_row, strict=True)
            if not math.isfinite(margin)
        ]
        self.check_finite("margin", torch.tensor([margin for batch in batches for margin in batch]), bad)
        moved = self.state.global_step == 0 or any(margin for batch in batches for margin in batch)
        self.zero_steps = 0 if moved else self.zero_steps + 1
        if self.zero_steps == ZERO_STEPS:
            raise UserError(
                f"all margins are exactly 0 at step {self.state.global_step + 1} and the {ZERO_STEPS - 1} before: the "
                "policy still equals its reference, so nothing is learned. Either no completion token is supervised "
                "(a mask is wrong), the adapter is not trained, or the learning rate is too small for this dtype"
            )

    def _log_margins(self, margins: list[float], signs: list[int]) -> None:
        import numpy as np

        step = self.state.global_step + 1
        path = self.run_dir / "margins" / f"step_{step:06d}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.array(margins))
        row = {"step": step, "epoch": self.epoch_of(step), **describe_margins(margins)}
        row |= {"npy": str(path.relative_to(self.run_dir)), "sample": margins[:SEEN]}
        row |= {"signs": signs} if signs else {}
        append_row(self.run_dir / "margins.jsonl", row)
        for traced in self.controller.trace:
            append_row(self.run_dir / "beta_trace.jsonl", traced)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self.extra_logs = self._step_metrics()
        super().log(logs, start_time)

    def _step_metrics(self) -> dict[str, float]:
        """trl's names for what a step saw; risk/* from the controller's trace, where it has one."""
        parts = [row for batch in self.gather([part.double().T.tolist() for part in self.parts]) for row in batch]
        chosen, rejected, reference_chosen, reference_rejected = torch.tensor(parts, dtype=torch.float64).T
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
        known |= self._watch_chosen(float((reference_chosen - chosen).mean()))
        return {
            **{name: float(value) for name, value in found.items()},
            "margin": float(dpo_margins(chosen, rejected, reference_chosen, reference_rejected).mean()),
            "beta/effective": self.beta,
            **known,
        }

    def _watch_chosen(self, fall: float) -> dict[str, float]:
        """An alarm where the chosen answers have become less likely than they were: DPO widens margins that way too."""
        was, self.fallen = self.fallen, fall > self.settings.dpo.dpo_chosen_fall
        if self.fallen and not was and self.is_world_process_zero():
            log.info(
                f"  ALARM: at step {self.state.global_step} chosen answers are on average {fall:.1f} nats less likely "
                "than at the start, so the student unlearns what it should prefer. Raise --beta, lower "
                "--dpo-learning-rate, or add --dpo-sft-weight or --dpo-positive-weight"
            )
        return {"alarm/chosen_fall": fall} if self.fallen else {}

    # Validation and checkpoints

    def validate(self) -> dict[str, Any]:
        """Greedy answers to validation requests, and held-out pairs at beta_0; the controller is not fed.

        eval_right has a character a request, 1 where it was answered right: which ones DPO fixes and breaks.
        """
        metrics: dict[str, Any] = {}
        if self.requests:
            mine = self.requests[self.args.process_index :: self.args.world_size]
            verdicts = gather_object(grade_answers(self.student, mine, self.settings))
            valid, right = zip(*verdicts, strict=True)
            metrics = {"eval_valid": sum(valid) / len(valid), "eval_semantic": sum(right) / len(right)}
            metrics["eval_right"] = "".join(str(int(answer)) for answer in right)
        if self.held_out:
            batches = self.in_shares(self.held_out, both_sides(self.held_out))
            prepared = (self._prepare_inputs(self.collate(rows)) for rows in batches)
            mine = [margin for batch in prepared for margin in self.margins_of(self.model, batch)[0].tolist()]
            margins = torch.tensor(gather_object(mine))
            metrics["eval_loss"] = float(dpo_losses(margins, self.settings.beta.beta).mean())
            metrics["eval_margin"] = float(margins.mean())
            metrics["eval_rewards/accuracies"] = float((margins > 0).double().mean())
        return metrics

    def stage_state(self) -> dict[str, Any]:
        return {"controller": self.controller.state_dict(), "zero_steps": self.zero_steps, "fallen": self.fallen}

    def load_stage_state(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.zero_steps, self.fallen = state["zero_steps"], state["fallen"]


def both_sides(rows: Sequence[dict[str, Any]]) -> list[list[batching.Ids]]:
    """The two sequences of each pair, which share a batch."""
    return [[row["chosen"], row["rejected"]] for row in rows]


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


def grade_answers(
    student: Student, requests: Sequence[dict[str, Any]], settings: ResolvedSettings
) -> list[tuple[bool, bool]]:
    """Whether the greedy answer to each request is valid, and whether it is right."""
    prompts = [request["prompt"] for request in requests]
    answers = generate(student, prompts, settings.generation.max_new_tokens, settings.decoding.eval_batch_size)
    found = []
    for request, (answer,) in zip(requests, answers, strict=True):
        known = compile_schema(request["schema"]), request["target"], request["accepted"]
        graded = grade(answer.text, *known, settings.verdict.strip_fences)
        found.append((graded.verdict.schema_valid, graded.right))
    return found


CHANCE = 0.1  # above it DPO's gain on validation requests may as well be none
ANSWERS = {"eval_semantic": "right answers", "eval_valid": "valid ones"}


def choose_checkpoint(run_dir: Path) -> dict[str, Any]:
    """The step with the most right answers, then valid ones, then held-out pairs in order; step 0 is SFT itself.

    A tie in answers goes to SFT: at step 0 every margin is 0, so that pairs say nothing there. So does a gain that
    chance explains (a two-sided sign test over the requests that were fixed and broken, p above CHANCE): some tens of
    requests let the best of several checkpoints look better than it is. Without validation
    requests the held-out pairs decide; without either the last checkpoint is taken.
    """
    saved = {0, *(int(path.name.split("-")[1]) for path in run_dir.glob("checkpoint-[0-9]*"))}
    rows = [row for row in read_jsonl(run_dir / METRICS) if "eval_runtime" in row and row["step"] in saved]

    def merit(row: dict[str, Any]) -> tuple[float, ...]:
        answers, is_start = [row.get(name, 0.0) for name in ANSWERS], "eval_semantic" in row and row["step"] == 0
        return (*answers, is_start, row.get("eval_rewards/accuracies", 0.0), -row.get("eval_loss", -row["step"]))

    best, start = max(rows, key=merit), rows[0]
    trained = max((row for row in rows if row["step"]), key=merit)
    kept = best is start
    if "eval_semantic" in best:
        shown = ANSWERS if trained["eval_semantic"] == start["eval_semantic"] else {"eval_semantic": "right answers"}
        told = (f"{name} {trained[key]:.1%} on validation (SFT {start[key]:.1%})" for key, name in shown.items())
        scores = ", ".join(told)
    elif "eval_loss" in best:
        scores = "by held-out pairs, as there are no validation requests"
    else:
        scores = "the last one: there are no validation requests, nor held-out pairs"
    why = f"no DPO checkpoint was better than SFT: {scores}" if kept else scores
    if not kept and "eval_right" in best:
        now_then = list(zip(best["eval_right"], start["eval_right"], strict=True))
        fixed, broken = now_then.count(("1", "0")), now_then.count(("0", "1"))
        p, why = sign_test(fixed, broken), f"{scores}; {fixed} fixed, {broken} broken"
        if p > CHANCE:
            best, kept = start, True
            why = f"no DPO checkpoint was better than SFT beyond chance: {why}, p = {p:.2f}"
    return {"checkpoint": f"checkpoint-{best['step']}", "why": why, "sft_was_better": kept}
