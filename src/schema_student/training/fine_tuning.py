"""Fine-tune an adapter on corpus rows: encode them, run the loop, publish the checkpoint of the least loss."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.files import make_folder
from schema_student.core.jsonl import read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process, process_count
from schema_student.core.records import CorpusRow, name_rows, read_rows
from schema_student.core.setting_groups import PromptSettings
from schema_student.core.settings import ResolvedSettings
from schema_student.core.splits import take_of_splits
from schema_student.core.tally import Tally
from schema_student.data.row_lengths import find_row_fault
from schema_student.preference.requests import Request
from schema_student.student import batching
from schema_student.student.loading import Student, attach_adapter, load_student
from schema_student.student.tokens import TurnsRefused
from schema_student.training.averaging import publish_mean
from schema_student.training.batches import Batch, Batches, Row
from schema_student.training.checkpoints import Origin, publish_adapter
from schema_student.training.distributed import gather
from schema_student.training.keeping import Choose
from schema_student.training.local_workers import share_step
from schema_student.training.loop import Step, TrainingLoop
from schema_student.training.metrics_log import METRICS
from schema_student.training.optimization import Schedule
from schema_student.training.stage import imported_facts, origin_of, run_facts, say_rows, say_template
from schema_student.training.stopping import ANSWERS, Score, explain_stop, score_validation
from schema_student.training.validation_answers import draw_asked, measure_answers

ROWS_PER_KEY = 8  # rows of one schema that follow each other and share its computation; batches are shuffled


def sft_loss(logps_BC: Any, tokens: Any) -> Any:
    """Compute the cross-entropy of the supervised tokens over the number of them in the optimizer step."""
    return -logps_BC.sum() / tokens


def fine_tune(settings: ResolvedSettings, corpus: Path, run_dir: Path, dataset: Path | None) -> dict[str, Any]:
    """Train the adapter into the run's folder; returns which checkpoint is the final one.

    `dataset` is what the corpus was made of: it has the schemas by which answers to validation requests are judged.
    """
    rows = take_of_splits(read_rows(corpus, CorpusRow), settings.part.max_samples)
    loaded = attach_adapter(load_student(settings, trainable=True), settings)
    trees = batching.takes_trees(loaded.model, settings)
    log.info(f"student: {loaded.choice.name} ({loaded.choice.reason})")
    say_template(loaded.tokenizer, rows)
    tally = Tally()
    train, validation = (
        encode_rows(rows, split, loaded.tokenizer, settings, tally, corpus) for split in ("train", "validation")
    )
    for line in tally.lines():
        log.info(f"  {line}")
    if not train:
        advice = batching.explain_nothing(tally, "generate more queries (--train-queries) or schemas")
        raise UserError(f"{corpus} has no row of split train to learn from; {advice}")
    train = take_share(train, settings)
    named = name_rows(rows, corpus)
    asked = draw_asked([named[row["name"]] for row in validation], dataset, settings)
    check_validation(settings, len(validation), len(asked))
    share = share_step(settings)
    schedule = plan_sft(share, train, trees)
    log.info(f"  {len(train)} rows, {len(validation)} for validation, {schedule.steps} steps of {schedule.batch_size}")
    make_folder(run_dir)
    facts = run_facts("sft", settings, loaded, [corpus])
    facts["settings"] |= rendering_of(corpus)
    facts |= {"teacher": teachers(rows), "data_set": imported_facts(corpus), "rows": len(train)}
    facts |= {"left_out": tally.counts, "steps": schedule.steps}
    write_json(run_dir / "run_config.json", facts)
    batches, origin = Batches.of(loaded, share, schedule.batch_size, trees), origin_of(facts, run_dir)
    objective = SFT(batches, train, validation, asked, settings)
    choose = partial(choose_checkpoint, has_validation=bool(validation), which=settings.sft.sft_checkpoint)
    loop = _make_loop(objective, batches, run_dir, share, schedule, origin, choose)
    loop.run()
    if not is_first_process():
        return {}
    saved = loop.keeping.saved_steps(origin)
    facts |= {"stopped": objective.stop_reason() if saved[-1] < schedule.steps else ""}
    if settings.sft.sft_average:
        facts |= average_last(run_dir, saved[-settings.sft.sft_average :], loaded)
    else:
        facts |= choose(run_dir, saved)
        publish_adapter(run_dir / facts["checkpoint"], run_dir, loaded)
    write_json(run_dir / "run_config.json", facts)
    log.info(f"  checkpoint-final is {facts['checkpoint']}: {facts['why']}")
    say_rows(facts, len(train))
    return {"checkpoint": facts["checkpoint"]}


def _make_loop(
    objective: SFT,
    batches: Batches,
    run_dir: Path,
    settings: ResolvedSettings,
    schedule: Schedule,
    origin: Origin,
    choose: Choose,
) -> TrainingLoop:
    """Our loop, or the one of trl's SFTTrainer where the settings say so."""
    if settings.optimizer.trainer == "own":
        return TrainingLoop(objective, batches, run_dir, settings, schedule, origin, choose)
    from schema_student.training.trl_trainers import TrlLoop, trl_sft  # loads transformers' Trainer

    return TrlLoop(objective, batches, run_dir, settings, schedule, origin, choose, trl_sft())


def take_share(rows: list[Row], settings: ResolvedSettings) -> list[Row]:
    """Take --sft-share of the training rows, drawn by the seed, in their order; larger shares hold smaller ones."""
    count = max(1, round(settings.sft.sft_share * len(rows)))
    drawn = random.Random(f"share of rows {settings.run.seed}").sample(range(len(rows)), len(rows))
    return [rows[i] for i in sorted(drawn[:count])]


def check_validation(settings: ResolvedSettings, rows: int, asked: int) -> None:
    """Raise UserError where a checkpoint or a stop is to be decided by validations, or a mean made, that cannot be."""
    if settings.sft.sft_checkpoint == ANSWERS and not (rows and asked):
        advice = "give --sft-eval-answers a number above 0, and a corpus that d_03_dataset.jsonl was made into"
        raise UserError(f"--sft-checkpoint answers: no validation request is answered; {advice}, or take least-loss")
    if settings.sft.sft_average and settings.lora.fine_tuning == "full":
        raise UserError("--sft-average makes the mean of LoRAs: leave it at 0 with --fine-tuning full")
    if settings.sft.sft_patience and not rows:
        raise UserError("--sft-patience: there is no validation row to stop by; give some, or leave it at 0")


def encode_rows(
    rows: Sequence[CorpusRow],
    split: str,
    tokenizer: Any,
    settings: ResolvedSettings,
    tally: Tally,
    corpus: Path,
) -> list[Row]:
    """Encode the valid rows of a split as {ids, name, key}; rows with nothing to supervise or no room are counted."""
    found = []
    for name, row in name_rows(rows, corpus).items():
        if row.split != split or not row.is_valid:
            continue
        try:
            ids = batching.encode(tokenizer, row.prompt, row.completion, **row.context)
        except TurnsRefused as refused:
            tally.add(str(refused), name)
            continue
        fault = find_row_fault(row, (len(ids.prompt_ids), len(ids.completion_ids)), settings)
        if batching.keep_whole(fault, name, tally, settings):
            found.append({"ids": ids, "name": name, "key": row.schema_id})
    return found


def plan_sft(settings: ResolvedSettings, rows: Sequence[Row], trees: bool) -> Schedule:
    """Plan the steps by sft_max_steps, else as many as sft_epochs passes over the rows take."""
    sft, steps = settings.sft, settings.sft.sft_max_steps
    if not steps:
        sequences, keys = [[row["ids"]] for row in rows], [row["key"] for row in rows]
        limits = sft.sft_batch_size, settings.batching.batch_tokens
        batches = batching.Planner(sequences, keys, *limits, ROWS_PER_KEY, settings.run.seed, trees).count()
        steps = max(1, math.ceil(batches * sft.sft_epochs / (sft.gradient_accumulation * process_count())))
    return Schedule(
        steps, sft.sft_learning_rate, sft.sft_batch_size, sft.gradient_accumulation, sft.eval_every, sft.save_every
    )


class SFT:
    """The objective of SFT: cross-entropy of completions, over rows {ids, name, key}."""

    rows_per_key = ROWS_PER_KEY
    logs: Sequence[str] = ()

    def __init__(
        self,
        batches: Batches,
        train: Sequence[Row],
        validation: Sequence[Row],
        asked: Sequence[Request],
        settings: ResolvedSettings,
    ) -> None:
        self.batches, self.settings, self.asked = batches, settings, asked
        self.rows: Sequence[Row] = train
        self.validation = sorted(validation, key=lambda row: (row["key"], len(row["ids"])))
        self.scores: list[Score] = []  # of the validations so far

    def sequences(self, row: Row) -> list[batching.Ids]:
        """The one sequence of a row."""
        return [row["ids"]]

    def collate(self, rows: Sequence[Row]) -> Batch:
        """A batch of rows, and their names."""
        return self.batches.collate([row["ids"] for row in rows], names=[row["name"] for row in rows])

    def loss_denominator(self, batch: Batch) -> int:
        """Supervised tokens."""
        return int(batch["completion_mask"].sum())

    def losses(self, step: Step, batches: Sequence[Batch]) -> Iterator[torch.Tensor]:
        """The loss of each micro-batch."""
        for batch in batches:
            yield sft_loss(self.batches.completion_logps(batch), step.denominator)

    def step_metrics(self, step: Step) -> dict[str, float]:
        """Nothing beyond what the loop logs."""
        return {}

    def validate(self) -> dict[str, Any]:
        """Compute eval_loss, and what comes of the requests that are answered."""
        if not self.validation:
            return {}
        found = {"eval_loss": self._validation_loss()}
        if self.asked:
            found |= measure_answers(self.batches.student, self.asked, self.settings.generation.max_new_tokens)
        self.scores.append(score_validation(found, self.settings.sft.sft_checkpoint))
        return found

    def _validation_loss(self) -> float:
        """The mean over all supervised tokens of the validation rows."""
        total, tokens = 0.0, 0
        for rows in self.batches.own_batches(self.validation, list(map(self.sequences, self.validation))):
            batch = self.collate(rows)
            total -= float(self.batches.completion_logps(batch).sum())
            tokens += self.loss_denominator(batch)
        totals, counts = zip(*gather([(total, tokens)]), strict=True)
        return float(sum(totals) / sum(counts))

    def stop_reason(self) -> str:
        """Say that validations have not become better for as long as --sft-patience allows."""
        return explain_stop(self.scores, self.settings.sft.sft_patience)

    def state_dict(self) -> dict[str, Any]:
        """Return the scores of the validations so far."""
        return {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.scores = [tuple(score) for score in state["scores"]]


def choose_checkpoint(run_dir: Path, saved: Sequence[int], has_validation: bool, which: str) -> dict[str, str]:
    """Choose of the saved steps that with the least validation loss, that of the best answers, or the last one.

    The last one where `which` says so (--sft-checkpoint) or there is no validation: a large student that sees few real
    rows several times gives better answers to the end, while its loss on others rises with its sureness.
    """
    if which == "last" or not has_validation:
        why = "as --sft-checkpoint says" if has_validation else "there are no validation rows"
        return {"checkpoint": f"checkpoint-{max(saved)}", "why": f"the last one: {why}"}
    rows = [row for row in read_jsonl(run_dir / METRICS) if "eval_loss" in row and row["step"] in saved]
    best = max(rows, key=lambda row: score_validation(row, which))
    why = f"least validation loss, {best['eval_loss']:.4f}, of {len(rows)} checkpoints"
    if which == ANSWERS:
        share = f"{best['eval_as_asked']:.1%} of {best['eval_answers']} validation requests answered as asked"
        why = f"the most, {share}, of {len(rows)} checkpoints"
    return {"checkpoint": f"checkpoint-{best['step']}", "why": why}


def average_last(run_dir: Path, saved: Sequence[int], loaded: Student) -> dict[str, str]:
    """Make checkpoint-final of the mean of these steps' checkpoints."""
    names = [f"checkpoint-{step}" for step in saved]
    publish_mean([run_dir / name for name in names], [1 / len(names)] * len(names), run_dir, loaded)
    return {"checkpoint": "checkpoint-final", "why": f"the mean of {', '.join(names)}"}


def rendering_of(corpus: Path) -> dict[str, str]:
    """Find how the corpus shows schemas, by its stamp: so the student is asked; {} where it was imported."""
    stamped = (read_meta(corpus) or {}).get("settings", {})
    return {name: stamped[name] for name in PromptSettings.model_fields if name in stamped}


def teachers(rows: Sequence[CorpusRow]) -> list[str]:
    """Name who wrote the corpus, where its rows say so."""
    return sorted({str(row.extra["teacher_model"]) for row in rows if row.extra.get("teacher_model")})
