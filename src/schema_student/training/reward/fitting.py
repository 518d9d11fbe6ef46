"""Fit a reward model to pairs: encode them, run the loop, publish the checkpoint that orders held-out pairs best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, remove_folder
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process, process_count
from schema_student.core.records import Pair, read_rows
from schema_student.core.settings import ResolvedSettings
from schema_student.core.splits import take_of_splits
from schema_student.core.statistics import wilson
from schema_student.core.tally import Tally
from schema_student.student import batching
from schema_student.student.loading import Student
from schema_student.student.reward_model import make_reward_model, save_merged
from schema_student.training.batches import Batches
from schema_student.training.checkpoints import Origin, publish_adapter
from schema_student.training.dpo.encoding import encode_pairs, pair_sequences
from schema_student.training.loop import TrainingLoop
from schema_student.training.metrics_log import METRICS
from schema_student.training.optimization import Schedule
from schema_student.training.reward.objective import Ranking
from schema_student.training.stage import imported_facts, origin_of, run_facts, say_rows, say_template


def fit(settings: ResolvedSettings, pairs: Path, adapter: Path | None, run_dir: Path) -> dict[str, Any]:
    """Train head and LoRA into the run's folder; returns which checkpoint is the final one, and how well it orders."""
    reward = make_reward_model(settings, str(adapter) if adapter else None)
    tally = Tally()
    rows = _encode(pairs, reward, settings, tally)
    to_train = [row for row in rows if row["split"] == "train"]
    schedule = plan_reward(settings, to_train)
    log.info(f"  {len(to_train)} pairs, {len(rows) - len(to_train)} held out, {schedule.steps} steps")
    make_folder(run_dir)
    facts = run_facts("reward", settings, reward, [pairs])
    facts |= {"adapter": str(adapter) if adapter else None, "data_set": imported_facts(pairs)}
    facts |= {"pairs": len(to_train), "left_out": tally.counts, "steps": schedule.steps}
    write_json(run_dir / "run_config.json", facts)
    batches, origin = Batches.of(reward, settings, schedule.batch_size, trees=False), origin_of(facts, run_dir, adapter)
    loop = _make_loop(Ranking(batches, rows, settings), batches, run_dir, settings, schedule, origin)
    loop.run()
    if not is_first_process():
        return {}
    chosen = choose_checkpoint(run_dir, loop.keeping.saved_steps(origin))
    publish_adapter(run_dir / chosen["checkpoint"], run_dir, reward)
    if settings.reward.reward_merged:
        _merge(run_dir)
    write_json(run_dir / "run_config.json", facts | chosen)
    log.info(f"  checkpoint-final is {chosen['checkpoint']}: {chosen['why']}")
    say_rows(facts, len(to_train))
    return chosen


def _encode(pairs: Path, reward: Student, settings: ResolvedSettings, tally: Tally) -> list[Row]:
    """The pairs that can be trained on, each with its margin; raises UserError where there is none."""
    read = take_of_splits(read_rows(pairs, Pair), settings.part.max_samples)
    say_template(reward.tokenizer, read)
    rows = encode_pairs(read, reward.tokenizer, settings, tally, pairs, trees=False, whole=True)
    for line in tally.lines():
        log.info(f"  {line}")
    if not any(row["split"] == "train" for row in rows):
        advice = batching.explain_nothing(tally, "give more pairs (--pair-prompts, --data-set)")
        raise UserError(f"{pairs} has no pair to train on; {advice}")
    return [{**row, "margin": settings.reward.reward_margin * rank_gap(row["ranks"])} for row in rows]


def rank_gap(ranks: Sequence[Any]) -> float:
    """Compute by how many ranks the chosen answer is better; 1 where its origin does not tell ranks in that order.

    >>> rank_gap((5, 2)), rank_gap((None, "bad"))
    (3.0, 1.0)
    """
    numbers = [rank for rank in ranks if isinstance(rank, (int, float)) and not isinstance(rank, bool)]
    return max(1.0, float(numbers[0] - numbers[1])) if len(numbers) == 2 else 1.0


def plan_reward(settings: ResolvedSettings, rows: Sequence[Row]) -> Schedule:
    """Plan the steps by reward_max_steps, else as many as reward_epochs passes over the pairs take."""
    given, size = settings.reward, settings.reward.reward_batch_size
    steps = given.reward_max_steps
    if not steps:
        sequences, keys = list(map(pair_sequences, rows)), [row["key"] for row in rows]
        limits = size, settings.batching.batch_tokens
        planner = batching.Planner(sequences, keys, *limits, Ranking.rows_per_key, settings.run.seed, trees=False)
        steps = max(1, math.ceil(planner.count() * given.reward_epochs / process_count()))
    every = given.reward_eval_every
    return Schedule(steps, given.reward_learning_rate, size, accumulation=1, eval_every=every, save_every=every)


def _make_loop(
    objective: Ranking,
    batches: Batches,
    run_dir: Path,
    settings: ResolvedSettings,
    schedule: Schedule,
    origin: Origin,
) -> TrainingLoop:
    """The loop of trl's RewardTrainer, or ours where the settings say so."""
    if settings.optimizer.trainer == "own":
        return TrainingLoop(objective, batches, run_dir, settings, schedule, origin, choose_checkpoint)
    from schema_student.training.trl_trainers import TrlLoop, trl_reward  # loads transformers' Trainer

    kind = trl_reward(settings.reward.reward_center)
    return TrlLoop(objective, batches, run_dir, settings, schedule, origin, choose_checkpoint, kind)


def choose_checkpoint(run_dir: Path, saved: Sequence[int]) -> dict[str, Any]:
    """Choose of the saved steps that with the most held-out pairs in order, then the least loss; else the last one."""
    rows = [row for row in read_jsonl(run_dir / METRICS) if "eval_accuracy" in row and row["step"] in saved]
    if not rows:
        why = "the last one: no pairs are held out"
        return {"checkpoint": f"checkpoint-{max(saved)}", "why": why, "accuracy": None}
    best = max(rows, key=lambda row: (row["eval_accuracy"], -row["eval_loss"]))
    share = wilson(round(best["eval_accuracy"] * best["eval_pairs"]), best["eval_pairs"])
    interval = f"{share['rate']:.1%} ({share['low']:.1%} to {share['high']:.1%})"
    why = f"of {share['n']} held-out pairs it orders {share['k']} rightly, {interval}"
    return {"checkpoint": f"checkpoint-{best['step']}", "why": why, "accuracy": share}


def _merge(run_dir: Path) -> None:
    """Write merged/ beside checkpoint-final."""
    remove_folder(run_dir, "merged")
    save_merged(run_dir / "checkpoint-final", make_folder(run_dir / "merged"))
