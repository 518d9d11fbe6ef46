"""Train one link: the adapter before it, requests and an objective -> an aligned adapter in the link's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, remove_folder
from schema_student.core.jsonl import Row, append_row, write_json
from schema_student.core.log import log
from schema_student.core.processes import is_first_process
from schema_student.core.records import DatasetRow, read_rows
from schema_student.core.settings import ResolvedSettings
from schema_student.core.tally import Tally
from schema_student.student import batching
from schema_student.student.loading import Student, load_student, save_adapter, train_only
from schema_student.training.alignment.objective import Alignment
from schema_student.training.alignment.recipes import RECIPES
from schema_student.training.alignment.requests import encode_requests, learning_requests, validation_requests
from schema_student.training.alignment.selection import choose_checkpoint
from schema_student.training.alignment.validation import Validation
from schema_student.training.batches import Batches
from schema_student.training.checkpoints import publish_adapter
from schema_student.training.distributed import main_process_first
from schema_student.training.local_workers import share_step
from schema_student.training.loop import TrainingLoop
from schema_student.training.metrics_log import METRICS
from schema_student.training.stage import origin_of, run_facts

START = "start"  # folder of the adapter that a run without one begins with


def align(settings: ResolvedSettings, name: str, dataset: Path, adapter: Path, run_dir: Path) -> dict[str, Any]:
    """Align the adapter by an objective into the link's folder; returns which checkpoint is the final one."""
    loaded = load_student(settings, adapter=str(adapter), trainable=True)
    train_only(loaded, settings.aligned_modules.align_modules)
    trees = batching.takes_trees(loaded.model, settings)
    objective, share = RECIPES[name].load(), share_step(settings)
    schedule = objective.plan(share)
    rows, validation, tally = encode_dataset(dataset, loaded, settings, trees)
    log.info(f"{name}: {len(rows)} requests, {len(validation)} for validation, {schedule.steps} steps")
    make_folder(run_dir)
    facts = run_facts(name, settings, loaded, [dataset])
    facts |= {"adapter": str(adapter), "requests": len(rows), "left_out": tally.counts, "steps": schedule.steps}
    write_json(run_dir / "run_config.json", facts)
    batches, origin = Batches.of(loaded, share, schedule.batch_size, trees), origin_of(facts, run_dir, adapter)
    reading = Validation(batches, validation, settings)
    made = objective(Alignment(share, batches, rows, reading, run_dir))
    loop = TrainingLoop(made, batches, run_dir, share, schedule, origin, choose_checkpoint)
    loop.run()
    if not is_first_process():
        return {}
    chosen = choose_checkpoint(run_dir, loop.keeping.saved_steps(origin))
    chosen |= {"stopped": made.stop_reason()}
    return publish(run_dir, adapter, loaded, facts, chosen, loop)


def publish(
    run_dir: Path, before: Path, student: Student, facts: Row, chosen: Row, loop: TrainingLoop
) -> dict[str, Any]:
    """Publish the chosen checkpoint, or the adapter before, and say it in run_config.json and in the log of metrics."""
    publish_adapter(before if chosen["sft_was_better"] else run_dir / chosen["checkpoint"], run_dir, student)
    write_json(run_dir / "run_config.json", facts | chosen)
    steps = loop.schedule.steps
    append_row(run_dir / METRICS, {"step": steps, "epoch": loop.epoch_of(steps), **chosen})
    log.info(f"  checkpoint-final is {chosen['checkpoint']}: {chosen['why']}")
    return {"checkpoint": chosen["checkpoint"], "sft_was_better": chosen["sft_was_better"]}


def save_start(run_dir: Path, student: Student) -> Path:
    """Save a fresh adapter as START, in the first process: it is kept where no checkpoint is better."""

    def save() -> None:
        remove_folder(run_dir, START)
        save_adapter(make_folder(run_dir / START), student)

    main_process_first(save)
    return run_dir / START


def encode_dataset(
    dataset: Path, loaded: Student, settings: ResolvedSettings, trees: bool
) -> tuple[list[Row], list[Row], Tally]:
    """Encode the requests to learn from and those to validate by; raises UserError where there is none to learn from.

    What is left out is counted in the third value, and said.
    """
    read, tally = read_rows(dataset, DatasetRow), Tally()
    rows, validation = (
        encode_requests(requests, loaded.tokenizer, settings, tally, trees)
        for requests in (learning_requests(read, settings), validation_requests(read, settings))
    )
    for line in tally.lines():
        log.info(f"  {line}")
    if not rows:
        advice = batching.explain_nothing(tally, "generate more of them (--pair-queries)")
        raise UserError(f"{dataset} has no request to align on; {advice}")
    return rows, validation, tally
