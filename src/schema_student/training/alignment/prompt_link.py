"""Align a student by PPO on prompts of any origin: rewards are a reward model's scores, or grades by a row's schema.

There are no right answers to read: greedy answers to the prompts that are held out, scored as the samples are, validate
and choose the checkpoint, and the student before is kept where none has a greater mean reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder
from schema_student.core.jsonl import Row, read_jsonl, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process
from schema_student.core.settings import ResolvedSettings
from schema_student.core.statistics import paired_change, z_of
from schema_student.core.tally import Tally
from schema_student.schema.compiling import compile_schema
from schema_student.student import batching
from schema_student.student.ask import find_room
from schema_student.student.loading import attach_adapter, load_student, train_only
from schema_student.student.tokens import TurnsRefused, encode_prompt
from schema_student.training.alignment.link import publish, save_start
from schema_student.training.alignment.objective import Alignment
from schema_student.training.alignment.ppo import PPO, load_reward, score_greedy_answers
from schema_student.training.alignment.selection import chosen, read_validations
from schema_student.training.alignment.validation import FEWEST, Validation
from schema_student.training.batches import Batches
from schema_student.training.distributed import gather, own_share
from schema_student.training.local_workers import share_step
from schema_student.training.loop import TrainingLoop
from schema_student.training.rl.groups import Prompt
from schema_student.training.rl.rewards import Task
from schema_student.training.stage import imported_facts, origin_of, run_facts

HELD_OUT = 96  # prompts answered in a validation, at most
BY = "mean reward of greedy answers to held-out prompts"


def align_on_prompts(settings: ResolvedSettings, prompts: Path, adapter: Path | None, run_dir: Path) -> dict[str, Any]:
    """Align the adapter, or a fresh one, into the run's folder; returns which checkpoint is the final one."""
    loaded = load_student(settings, adapter=str(adapter) if adapter else None, trainable=True)
    loaded = loaded if adapter else attach_adapter(loaded, settings)
    train_only(loaded, settings.aligned_modules.align_modules)
    trees, share, tally = batching.takes_trees(loaded.model, settings), share_step(settings), Tally()
    rows = encode_prompts(read_jsonl(prompts), loaded.tokenizer, settings, tally)
    train, held_out = ([row for row in rows if (row["split"] == "train") is wanted] for wanted in (True, False))
    if not train:
        raise UserError(f"{prompts} has no prompt to learn from; {batching.explain_nothing(tally, 'give more')}")
    schedule = PPO.plan(share)
    log.info(f"ppo: {len(train)} prompts, {len(held_out)} held out, {schedule.steps} steps")
    make_folder(run_dir)
    facts = run_facts("ppo", settings, loaded, [prompts])
    facts |= {"adapter": str(adapter) if adapter else None, "data_set": imported_facts(prompts)}
    facts |= {"prompts": len(train), "left_out": tally.counts, "steps": schedule.steps}
    write_json(run_dir / "run_config.json", facts)
    batches, origin = Batches.of(loaded, share, schedule.batch_size, trees), origin_of(facts, run_dir, adapter)
    before = adapter or save_start(run_dir, loaded)
    validation = RewardValidation(batches, [row["prompt"] for row in held_out[:HELD_OUT]], share)
    made = PPO(Alignment(share, batches, train, validation, run_dir))
    loop = TrainingLoop(made, batches, run_dir, share, schedule, origin, choose_by_reward)
    loop.run()
    if not is_first_process():
        return {}
    found = choose_by_reward(run_dir, loop.keeping.saved_steps(origin))
    return publish(run_dir, before, loaded, facts, found | {"stopped": made.stop_reason()}, loop)


def encode_prompts(rows: Sequence[Row], tokenizer: Any, settings: ResolvedSettings, tally: Tally) -> list[Row]:
    """Encode prompts as rows {prompt, answers, name, key, split}; those that leave no room for an answer are counted.

    Raises UserError where grades are to reward and a row has no schema.
    """
    room, found = find_room(settings), []
    for row in rows:
        name = row["schema_id"]
        if "schema" not in row and not settings.ppo.ppo_reward_model:
            raise UserError("a prompt without a schema has no grade: give --ppo-reward-model (train-reward makes one)")
        try:
            ids = encode_prompt(tokenizer, row["prompt"])
        except TurnsRefused as refused:
            tally.add(str(refused), name)
            continue
        if batching.keep_whole(
            "" if len(ids) <= room else "prompt leaves no room for an answer", name, tally, settings
        ):
            task = Task(compile_schema(row.get("schema", {})), row.get("target"), row.get("accepted"))
            prompt = Prompt(row["prompt"], ids, task)
            found.append({"prompt": prompt, "answers": [], "name": name, "key": name, "split": row["split"]})
    for line in tally.lines():
        log.info(f"  {line}")
    return found


class RewardValidation(Validation):
    """Rewards of greedy answers to held-out prompts; it remembers those of the start."""

    def __init__(self, batches: Batches, prompts: Sequence[Prompt], settings: ResolvedSettings) -> None:
        super().__init__(batches, [], settings)
        self.prompts = prompts
        self.reward = load_reward(settings)
        self.rewards_at_start: list[float] = []

    def read(self) -> dict[str, Any]:
        """Compute the metrics of validation: eval_reward, its change since the start with its standard error."""
        if not self.prompts:
            return {}
        places = list(range(len(self.prompts)))
        own = own_share(places)
        student, prompts = self.batches.student, [self.prompts[i] for i in own]
        scored = list(zip(own, score_greedy_answers(self.reward, student, prompts, self.settings), strict=True))
        now = [score for _, score in sorted(gather(scored))]
        self.rewards_at_start = self.rewards_at_start or now
        change, error = paired_change(now, self.rewards_at_start)
        fallen = len(now) >= FEWEST and change < -self.settings.validation.align_stop * error
        self.fallen = f"the mean reward of held-out prompts fell by {-change:.4f} +- {error:.4f}" if fallen else ""
        found = {"eval_prompts": len(now), "eval_reward": sum(now) / len(now)}
        return {**found, "eval_reward_change": change, "eval_reward_error": error}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"rewards_at_start": self.rewards_at_start, "fallen": self.fallen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.rewards_at_start, self.fallen = state["rewards_at_start"], state["fallen"]


def choose_by_reward(run_dir: Path, saved: Sequence[int]) -> Row:
    """Choose of the saved steps the one of the greatest mean reward; the student before, where none is above it."""
    rows = [row for row in read_validations(run_dir, saved) if "eval_reward" in row]
    prompts = rows[0]["eval_prompts"] if rows else 0
    if prompts < FEWEST:
        few = f"{prompts} held-out prompts are too few to choose by" if prompts else "no prompt is held out"
        return chosen(max(saved), f"the last one: {few}", "nothing")
    best = max(rows, key=lambda row: row["eval_reward"])
    change, error = best["eval_reward_change"], best["eval_reward_error"]
    why = f"mean reward of {best['eval_prompts']} held-out prompts {best['eval_reward'] - change:.3f} -> "
    why += f"{best['eval_reward']:.3f} ({change:+.3f} +- {error:.3f}, z = {z_of(change, error):.1f})"
    if change <= 0:
        return chosen(0, f"no checkpoint was better than the student before: {why}", BY)
    return chosen(best["step"], why, BY)
