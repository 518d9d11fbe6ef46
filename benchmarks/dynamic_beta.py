"""What dynamic beta buys: fixed at the best of 5 betas, calibrated, risk, beta_dpo; 3 seeds each, on both test splits.

./runAll.sh                                              # once: the SFT adapter and its pairs
python benchmarks/dynamic_beta.py                        # 24 runs; killed and run again, it goes on
python benchmarks/dynamic_beta.py --jobs 2               # two runs at a time, a core each: faster, twice the memory
python benchmarks/dynamic_beta.py --steps 50 --seeds 2 --controllers fixed,calibrated --betas 0.05,0.1 --prompts 100
python benchmarks/dynamic_beta.py --reading --output-dir outputs --run real --steps 20 --seeds 1     # a real student
python benchmarks/dynamic_beta.py --smoke                # 2 steps, 1 seed, 2 prompts a split: does it run?
python benchmarks/dynamic_beta.py --table                # the table again, from results.jsonl alone

A run is (controller, beta, seed) on the finished run's pairs, from its SFT adapter, by the pipeline's own stages; its
artifacts lie in OUTPUT_DIR/dynamic_beta. All runs are judged by their last checkpoint, so that controllers are compared
and not the choice of a checkpoint, and none stops before; the best fixed beta is the one with the greatest P(truth) of
validation requests (the likelihood of the right answers), mean of the seeds, so that no test prompt had a say. With
--reading nothing is answered: P(truth) of those requests is the measure, each change with its standard error; a
hundredth of the work, for a student whose answers take long. The seed decides the order of pairs (and what beta_dpo
keeps). Intervals are 95% of 4,000 bootstrap samples of prompts and seeds; the difference to SFT is taken prompt by
prompt.

No SFT term is added to the loss, so that beta alone holds the student. Differences from what is published: risk's
warm-up of 120 steps would outlast the run, so it is a fifth of the steps; beta stays in the settings' bounds. Writes
DIR/results.jsonl (a row a run, with each prompt's outcome) and DIR/table.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, append_row, read_json, read_jsonl, write_text
from schema_student.core.paths import paths
from schema_student.core.settings import Settings, default_settings
from schema_student.evaluation.evaluate import evaluate_student
from schema_student.training.dpo.feeding import ControllerFeed
from schema_student.training.dpo.objective import DPO
from schema_student.training.dpo.stage import train_dpo
from schema_student.training.loop import TrainingLoop
from schema_student.training.metrics_log import METRICS

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("test_seen", "test_unseen")
READ = ("p_truth", "p_truth_change", "p_truth_error", "greedy", "margin")  # of validation: eval_...
NEVER = 1e9  # standard errors that the likelihood of right answers would have to fall to stop a run
MEASURES = {"schema_valid": "valid", "semantic_pass": "as asked"}
LAST = 10  # steps that the means at the end are of
SAMPLES = 4000

# What the records call it, as earlier ones do, and what training logs: right answers as greedy decoding writes them.


@dataclass(frozen=True)
class Job:
    """One DPO run; beta is that of the start."""

    controller: str
    beta: float
    seed: int
    steps: int
    prompts: int
    reading: bool = False

    @property
    def name(self) -> str:
        """Name of its run and of its evaluation."""
        return f"{self.controller}-{self.beta}-seed{self.seed}-{self.steps}steps"


SFT = {"controller": "sft", "beta": None, "seed": 0}


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def read_base(output_dir: Path, run: str, rate: float | None = None) -> Settings:
    """The settings of the finished run that all jobs begin from."""
    base = default_settings(output_dir=str(output_dir), run=run)
    where = paths(base)
    for path in (where.run_dir / "run_config.json", where.pairs, where.dataset, where.sft_checkpoint):
        if not path.exists():
            raise UserError(f"{path} is not there: ./runAll.sh makes it (or give --output-dir and --run)")
    known = read_json(where.run_dir / "run_config.json")["settings"]
    changes = {"output_dir": str(output_dir), "run": run, "overwrite": False}
    return default_settings(**{**known, **changes, **({"dpo_learning_rate": rate} if rate else {})})


def settings_of(job: Job, base: Settings) -> Settings:
    """The settings of a job, whose pairs are the base's."""
    where = paths(base)
    changes = {
        "output_dir": str(Path(base.run.output_dir) / "dynamic_beta"),
        "data_dir": str(where.dataset.parent),
        "adapter": str(where.sft_checkpoint),
        "run": job.name,
        "seed": job.seed,
        "beta_controller": job.controller,
        "beta": job.beta,
        "beta_warmup": max(1, job.steps // 5),
        "dpo_max_steps": job.steps,
        "dpo_sft_weight": 0.0,
        "dpo_eval_every": job.steps,
        "align_stop": NEVER,
        "eval_splits": list(SPLITS),
        "eval_limit": job.prompts,
    }
    settings = base.changed(**changes)
    pairs = paths(settings).pairs
    if not pairs.exists():
        pairs.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(where.pairs, pairs)
    return settings


def run_jobs(jobs: Sequence[Job], base: Settings, processes: int) -> Iterator[Row]:
    """Rows of all jobs as they are done, so many at a time that share the cores evenly."""
    if processes == 1:
        yield from (run_job(job, base) for job in jobs)
        return
    for job in jobs:
        settings_of(job, base)  # copies the pairs, once, before all want them
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("forkserver")) as pool:
        for done in as_completed([pool.submit(run_job, job, base) for job in jobs]):
            yield done.result()


def run_job(job: Job, base: Settings) -> Row:
    """Align, evaluate the last checkpoint, and say how it went."""
    settings, started = settings_of(job, base), time.monotonic()
    run_dir = paths(settings).dpo_dir
    with timed() as spent:
        train_dpo(settings)
    seconds = time.monotonic() - started
    last = str(run_dir / f"checkpoint-{job.steps}")
    outcomes = None if job.reading else evaluate(settings, job.name, last)
    logged = read_jsonl(run_dir / METRICS)
    steps, validated = [row for row in logged if "loss" in row], [row for row in logged if "eval_runtime" in row]
    betas = [row["beta/effective"] for row in steps]
    return {
        **asdict(job),
        "outcomes": outcomes,
        "validation": {name: validated[-1].get(f"eval_{name}") for name in READ},
        "beta_mean": float(np.exp(np.log(betas).mean())),
        "beta_last": betas[-1],
        "margin": mean(steps[-LAST:], "margin"),
        "accuracy": mean(steps[-LAST:], "rewards/accuracies"),
        "chosen_moved": mean(steps[-LAST:], "logps/chosen") - mean(steps[:LAST], "logps/chosen"),
        "seconds": round(seconds, 1),
        "overhead": {name: round(value, 4) for name, value in spent.items()} if spent["step"] else None,
    }


def mean(rows: Sequence[Row], key: str) -> float:
    """The mean of a log's column."""
    return float(np.mean([row[key] for row in rows]))


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds of clock time: in the controller, its gathering and its logs; in look-ahead passes; and in whole steps.

    A step is making its batches, look-ahead, forward and backward passes and the optimizer's update, so that it
    contains the other two; validation and checkpoints are in none. On a GPU, which runs behind, the controller's
    seconds hold the wait for the margins too.
    """
    spent = {"controller": 0.0, "look_ahead": 0.0, "step": 0.0}
    parts = {
        "controller": (ControllerFeed, "decide"),
        "look_ahead": (DPO, "look_ahead"),
        "step": (TrainingLoop, "train_step"),
    }
    with ExitStack() as stack:
        for part, (owner, name) in parts.items():
            stack.enter_context(patch.object(owner, name, _timed(getattr(owner, name), spent, part)))
        yield spent


def _timed(function: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - started

    return call


def evaluate(settings: Settings, name: str, adapter: str) -> dict[str, dict[str, str]]:
    """Each prompt's outcomes, in the order of the data set: "1", "0", or "?" where the teacher failed to judge."""
    summary = evaluate_student(settings, name, adapter)
    rows = read_jsonl(summary.with_name("evaluation_results.jsonl"))
    return {
        split: {
            measure: "".join(
                "?" if row[measure] is None else str(int(row[measure])) for row in rows if row["split"] == split
            )
            for measure in MEASURES
        }
        for split in SPLITS
    }


# ---------------------------------------------------------------------------------------------------------------------
# The table


def parse(text: str) -> np.ndarray:
    """Outcomes as numbers; an unknown one is NaN, and its prompt counts in no mean."""
    return np.array([np.nan if sign == "?" else float(sign) for sign in text])


def interval(outcomes_SP: np.ndarray, sft_P: np.ndarray | None = None) -> tuple[float, float, float]:
    """Mean of seeds S x prompts P (less SFT's on the same prompts), and its 95% bootstrap interval."""
    rng = np.random.default_rng(0)
    values_SP = outcomes_SP if sft_P is None else outcomes_SP - sft_P
    values_SP = values_SP[:, ~np.isnan(values_SP).any(axis=0)]
    S, P = values_SP.shape
    drawn = [values_SP[rng.integers(S, size=S)][:, rng.integers(P, size=P)].mean() for _ in range(SAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(values_SP.mean()), float(low), float(high)


def best_beta(rows: Sequence[Row]) -> float:
    """The fixed beta with the greatest P(truth) of validation requests; ties go to the larger beta."""

    def merit(beta: float) -> tuple[float, float]:
        mine = [row["validation"]["p_truth"] or 0.0 for row in rows if row["beta"] == beta]
        return float(np.mean(mine)), beta

    return max({row["beta"] for row in rows}, key=merit)


def arms(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The table's lines: label -> runs."""
    found: dict[str, list[Row]] = {}
    fixed = [row for row in rows if row["controller"] == "fixed"]
    best = best_beta(fixed) if fixed else None
    for row in rows:
        label = row["controller"]
        if label == "fixed":
            label = f"fixed {row['beta']}" + (" (best on validation)" if row["beta"] == best else "")
        found.setdefault(label, []).append(row)
    order = sorted(found, key=lambda label: (label != "sft", "best" not in label, "fixed" in label))
    return {label: found[label] for label in order}


def percent(found: tuple[float, float, float], sign: str = "") -> str:
    """Mean and interval, in percent (points, with a sign, for differences)."""
    value, low, high = (100 * each for each in found)
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def make_table(rows: Sequence[Row]) -> str:
    """Markdown: a line an arm and split, then what beta and the margins did; of readings this alone."""
    lines = [] if rows and rows[0].get("reading") else _list_outcomes(rows)
    lines += [
        "| controller | P(truth) on validation, % | its change, points | greedy, % | beta, mean | beta, last | "
        "margin | accuracy | chosen log p |"
    ]
    lines.append("|---" * 9 + "|")
    for label, runs in arms(rows).items():
        if label != "sft":
            lines.append(f"| {label} | " + " | ".join(_describe(runs)) + " |")
    return "\n".join([*lines, *_describe_overhead(rows)]) + "\n"


def _list_outcomes(rows: Sequence[Row]) -> list[str]:
    (sft,) = [row for row in rows if row["controller"] == "sft"]
    lines = [
        "| controller | split | runs x prompts | valid, % | as asked, % | as asked less SFT, points |",
        "|---" * 6 + "|",
    ]
    for label, runs in arms(rows).items():
        for split in SPLITS:
            seen = {measure: np.array([parse(run["outcomes"][split][measure]) for run in runs]) for measure in MEASURES}
            cells = [percent(interval(seen[measure])) for measure in MEASURES]
            before = parse(sft["outcomes"][split]["semantic_pass"])
            gain = "" if label == "sft" else percent(interval(seen["semantic_pass"], before), "+")
            size = f"{len(runs)} x {len(before)}"
            lines.append(f"| {label} | {split} | {size} | {' | '.join(cells)} | {gain} |")
    return [*lines, ""]


def _describe_overhead(rows: Sequence[Row]) -> list[str]:
    timings = [row["overhead"] for row in rows if row.get("overhead")]
    if not timings:
        return []
    shares = {part: [100 * each[part] / each["step"] for each in timings] for part in ("controller", "look_ahead")}
    told = {part: f"{np.median(found):.2f}% (at most {max(found):.2f}%)" for part, found in shares.items()}
    return [
        "",
        f"Of the time of a step's batches and passes a controller with its gathering and logs took "
        f"{told['controller']}, look-ahead passes {told['look_ahead']}: medians of {len(timings)} runs.",
    ]


def _describe(runs: Sequence[Row]) -> list[str]:
    """The cells of an arm, means of its runs; the standard error is of the requests, the same in all of them."""
    read = [run["validation"] for run in runs if run["validation"]["p_truth"] is not None]
    p_truth, change, error, greedy = (100 * np.mean([each[name] for each in read]) for name in READ[:4])
    cells = [f"{p_truth:.1f}", f"{change:+.2f} +- {error:.2f}", f"{greedy:.1f}"] if read else [""] * 3
    names = {"beta_mean": ".3g", "beta_last": ".3g", "margin": ".2f", "accuracy": ".2f", "chosen_moved": "+.2f"}
    return cells + [format(mean(runs, name), shown) for name, shown in names.items()]


# ---------------------------------------------------------------------------------------------------------------------
# The command


def plan(flags: argparse.Namespace) -> list[Job]:
    """All runs, seed by seed: fixed at each of the betas, every other controller from --beta."""
    pairs = [(c, beta) for c in flags.controllers for beta in (flags.betas if c == "fixed" else [flags.beta])]
    size = flags.steps, flags.prompts, flags.reading
    return [Job(c, beta, seed, *size) for seed in range(flags.seeds) for c, beta in pairs]


def known_rows(path: Path, flags: argparse.Namespace) -> list[Row]:
    """The rows of results.jsonl that are of this size; those of other sizes stay in the file, and out of the table."""
    rows = read_jsonl(path) if path.exists() else []
    size = flags.steps, flags.prompts, flags.reading
    return [row for row in rows if (row["steps"], row["prompts"], row.get("reading", False)) == size]


def main() -> None:
    """Make the runs that results.jsonl lacks, then the table."""
    flags = read_flags()
    results = flags.out / "results.jsonl"
    jobs, rows = plan(flags), known_rows(results, flags)
    flags.out.mkdir(parents=True, exist_ok=True)
    if not flags.table:
        base = read_base(flags.output_dir, flags.run, flags.rate)
        if not flags.reading and not any(row["controller"] == "sft" for row in rows):
            settings = settings_of(jobs[0], base)
            outcomes = evaluate(settings, f"sft-{flags.prompts}", settings.student.adapter)
            keep(results, rows, {**SFT, "steps": flags.steps, "prompts": flags.prompts, "outcomes": outcomes})
        left = [job for job in jobs if not any(row.items() >= asdict(job).items() for row in rows)]
        for number, row in enumerate(run_jobs(left, base, flags.jobs), start=1):
            keep(results, rows, row)
            print(f"== {number}/{len(left)} {row['controller']} {row['beta']} seed {row['seed']}", flush=True)
    names = {job.controller for job in jobs} | {"sft"}
    table = make_table([row for row in rows if row["controller"] in names])
    write_text(flags.out / "table.md", table)
    print(f"\n{table}\nthe table: {flags.out / 'table.md'}")


def keep(path: Path, rows: list[Row], row: Row) -> None:
    """Add a row to the file and to what is known."""
    append_row(path, row)
    rows.append(row)


def read_flags() -> argparse.Namespace:
    """The command line; --smoke is the least of everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output-dir", type=Path, default=Path("outputs"), help="of the finished ./runAll.sh")
    add("--run", default="student", help="name of that run")
    add("--out", type=Path, default=ROOT / "benchmarks" / "dynamic_beta", metavar="DIR", help="for results and table")
    add("--controllers", default="fixed,calibrated,risk,beta_dpo", help="which, with commas")
    add("--betas", default="0.02,0.05,0.1,0.2,0.5", help="of fixed, with commas")
    add("--beta", type=float, default=0.1, help="at the start, of the others")
    add("--rate", type=float, default=None, help="learning rate of DPO, else that of the run")
    add("--steps", type=int, default=100, help="optimizer steps of a run")
    add("--seeds", type=int, default=3, help="runs of each kind")
    add("--prompts", type=int, default=0, help="of each test split; 0 = all")
    add("--jobs", type=int, default=1, help="runs at a time")
    add("--reading", action="store_true", help="no answers: P(truth) of validation requests is the measure")
    add("--smoke", action="store_true", help="2 steps, 1 seed, 2 betas, 2 prompts a split")
    add("--table", action="store_true", help="no runs: the table of results.jsonl")
    flags = parser.parse_args()
    if flags.smoke:
        flags.steps, flags.seeds, flags.betas, flags.prompts = 2, 1, "0.05,0.1", 2
    flags.controllers = flags.controllers.split(",")
    flags.betas = [float(beta) for beta in flags.betas.split(",")]
    return flags


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
