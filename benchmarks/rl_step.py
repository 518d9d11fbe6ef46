"""A step of RLOO on prompt trees against trl's RLOOTrainer at the same work: seconds, CPU seconds and memory.

    python benchmarks/rl_step.py --json rl_step.json              # 16 prompts x 8 samples, Gemma 3 270M's shape
    python benchmarks/rl_step.py --smoke                          # a toy that tests this script

The model has Gemma 3 270M's shape and random weights, with LoRA r=16 on the seven linear modules. A step draws 8
answers to each of 16 prompts of equal length, all answers of --completion-tokens tokens (nothing ends them), rewards
them, and trains on them: forward, backward, clipping, AdamW. Each measurement is the first step of a fresh process, as
trl's has one size and none to warm up with; the ways are measured in turns, and a ratio is the median of those of the
turns. CPU seconds say the same on a machine that others use too.

ours   student.decoding as generation calls it, batching.completion_logps on prompt trees, rl.losses.rloo_losses: one
       batch for each --prompts-at-once prompts
trl    RLOOTrainer.train() with its defaults (bfloat16, gradient checkpointing, transformers' generate) but for beta 0,
       so that neither has a reference, and 8 rows at a time, accumulated; no reports and no saving

Rewards are the same function of an answer's ids, so both have groups that vary. What is sampled differs by the draws.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from prompt_trees import ROOT, SHAPES, WORDS, fill_lora, lora_config, machine_facts, make_model, to_text, word_tokenizer
from prompt_trees import Job as ModelJob

sys.path.insert(0, str(ROOT / "src"))

CLIP = 0.2


@dataclass(frozen=True)
class Job:
    """One measurement, as a worker process is told it."""

    way: str = "ours"  # or trl
    shape: str = "270m"
    layers: int = 18
    prompts: int = 16
    samples: int = 8
    prompt_tokens: int = 1260
    completion_tokens: int = 90
    prompts_at_once: int = 4  # of ours, in a batch of training

    @property
    def model(self) -> ModelJob:
        """Name the model as prompt_trees does; in its generation no token ends an answer."""
        return ModelJob("generate", shape=self.shape, layers=self.layers)


def draw_prompts(job: Job, count: int, seed: int) -> list[list[int]]:
    """Draw prompts that have nothing in common."""
    import random

    rng, vocabulary = random.Random(seed), SHAPES[job.shape]["vocab_size"]
    return [[rng.randrange(WORDS, vocabulary) for _ in range(job.prompt_tokens)] for _ in range(count)]


def reward_of(ids: Sequence[int]) -> float:
    """Reward an answer by its ids, so that the answers of a group differ."""
    return sum(ids) % 97 / 97


def used_seconds() -> tuple[float, float]:
    """Return the clock, and the CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime


# ----------------------------------------------------------------------------------------------------------------- ours


def our_step(job: Job) -> dict[str, Any]:
    """Measure a step of this project."""
    import torch
    from peft import get_peft_model

    model = get_peft_model(make_model(job.model), lora_config())
    fill_lora(model)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-6, fused=True)
    prompts = draw_prompts(job, job.prompts, seed=0)
    started = used_seconds()
    tokens = train_on(job, model, optimizer, learned, prompts)
    return {**between(started, used_seconds()), "tokens": tokens}


def train_on(job: Job, model: Any, optimizer: Any, learned: Sequence[Any], prompts: Sequence[list[int]]) -> int:
    """Sample answers and train on them; returns how many tokens were sampled."""
    import torch

    from schema_student.student.batching import Ids
    from schema_student.student.decoding import Row, decode

    model.eval()
    rows = [Row(ids, seed) for ids in prompts for seed in range(job.samples)]
    written = decode(rows, model, frozenset(), job.completion_tokens, 128, 1.0)
    answers = [Ids(row.prompt_ids, each.ids) for row, each in zip(rows, written, strict=True)]
    model.train()
    at_once = job.prompts_at_once * job.samples
    for begin in range(0, len(answers), at_once):
        (group_loss(answers[begin : begin + at_once], job, model) / len(answers)).backward()
    torch.nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return sum(len(each.ids) for each in written)


def group_loss(answers: Sequence[Any], job: Job, model: Any) -> Any:
    """Compute the sum of the losses of some groups' answers."""
    import torch

    from schema_student.student import batching
    from schema_student.training.rl.advantages import leave_one_out
    from schema_student.training.rl.losses import rloo_losses

    rewards = torch.tensor([reward_of(ids.completion_ids) for ids in answers]).reshape(-1, job.samples)
    logps_BC = batching.completion_logps(model, batching.collate(answers, 0, trees=True), torch.bfloat16)
    return rloo_losses(logps_BC, logps_BC.detach(), leave_one_out(rewards).reshape(-1), CLIP).sum()


# ------------------------------------------------------------------------------------------------------------------ trl


def trl_step(job: Job) -> dict[str, Any]:
    """Measure a step of trl's RLOOTrainer: from its begin, before it samples, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        return _trl_step(job, folder)


def _trl_step(job: Job, folder: str) -> dict[str, Any]:
    import datasets
    from transformers import PrinterCallback, TrainerCallback
    from trl import RLOOConfig, RLOOTrainer

    datasets.disable_progress_bars()
    ends: list[tuple[float, float]] = []
    counts: list[int] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            ends.append(used_seconds())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(used_seconds())

    def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        counts.append(sum(map(len, completion_ids)))
        return list(map(reward_of, completion_ids))

    prompts = [{"prompt": to_text(ids)} for ids in draw_prompts(job, job.prompts, seed=0)]
    trainer = RLOOTrainer(
        model=make_model(job.model),
        reward_funcs=reward,
        args=RLOOConfig(
            output_dir=folder,
            max_steps=1,
            per_device_train_batch_size=job.samples,
            gradient_accumulation_steps=job.prompts,
            num_generations=job.samples,
            max_completion_length=job.completion_tokens,
            beta=0.0,
            shuffle_dataset=False,
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=datasets.Dataset.from_list(prompts),
        processing_class=word_tokenizer(SHAPES[job.shape]["vocab_size"]),
        peft_config=lora_config(),
        callbacks=[Clock()],
    )
    trainer.remove_callback(PrinterCallback)
    fill_lora(trainer.model)
    trainer.train()
    begun, ended = ends
    return {**between(begun, ended), "tokens": sum(counts)}


def between(begun: tuple[float, float], ended: tuple[float, float]) -> dict[str, Any]:
    """Return the seconds and CPU seconds between two readings, and the peak of memory."""
    seconds, cpu = (now - then for now, then in zip(ended, begun, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}


# ---------------------------------------------------------------------------------------------------------------- turns


def measure_here(job: Job) -> dict[str, Any]:
    """Measure in this process."""
    return our_step(job) if job.way == "ours" else trl_step(job)


def measure_apart(job: Job, threads: int) -> dict[str, Any]:
    """Measure in a fresh process; raises RuntimeError with its last words where it dies."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(job: Job, turns: int, measure: Callable[[Job], dict[str, Any]]) -> dict[str, Any]:
    """Measure both ways in turns; returns medians and the ratio."""
    raw: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    for turn in range(turns):
        for way, found in raw.items():
            found.append(measure(replace(job, way=way)))
            last = found[-1]
            print(f"  {way}, turn {turn + 1}: {last['seconds']:.1f} s, {last['cpu_seconds']:.1f} s of CPU", flush=True)
    ratios = {
        name: [theirs[name] / ours[name] for ours, theirs in zip(raw["ours"], raw["trl"], strict=True)]
        for name in ("seconds", "cpu_seconds")
    }
    return {"raw": raw, **{f"faster_{name}": statistics.median(found) for name, found in ratios.items()}}


def describe(found: dict[str, Any]) -> str:
    """Write both ways as a table in Markdown."""
    lines = ["| way | seconds | CPU seconds | GiB | tokens sampled |", "|---|---|---|---|---|"]
    for way, measured in found["raw"].items():
        medians = [statistics.median(each[name] for each in measured) for name in ("seconds", "cpu_seconds")]
        peak = max(each["peak_bytes"] for each in measured) / 2**30
        lines.append(f"| {way} | {medians[0]:.1f} | {medians[1]:.1f} | {peak:.1f} | {measured[0]['tokens']} |")
    faster = f"ours is {found['faster_seconds']:.2f} times as fast, by CPU seconds {found['faster_cpu_seconds']:.2f}"
    return "\n".join([*lines, faster])


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-tokens", type=int, default=Job.prompt_tokens)
    parser.add_argument("--completion-tokens", type=int, default=Job.completion_tokens)
    parser.add_argument("--layers", type=int, default=Job.layers, help="fewer save time")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of each measurement; 0 leaves it to torch")
    parser.add_argument("--json", type=Path, help="write all raw results there")
    parser.add_argument("--smoke", action="store_true", help="a toy model, one turn, in this process")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    flags = parse_flags(argv)
    if flags.worker:
        print(json.dumps(measure_here(Job(**json.load(sys.stdin)))))
        return 0
    job = Job(layers=flags.layers, prompt_tokens=flags.prompt_tokens, completion_tokens=flags.completion_tokens)
    if flags.smoke:
        job = replace(job, shape="tiny", layers=2, prompts=2, samples=4, prompt_tokens=40, completion_tokens=5)
    found = {"machine": machine_facts(flags.threads), "job": asdict(job)}
    measure = measure_here if flags.smoke else partial(measure_apart, threads=flags.threads)
    found |= compare(job, 1 if flags.smoke else flags.turns, measure)
    if flags.json:
        flags.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(describe(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
