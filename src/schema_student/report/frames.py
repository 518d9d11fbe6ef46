"""Read a run's rows as pandas frames, for a notebook.

run = read_run("student")
run.evaluations.groupby(["student", "split"]).semantic_pass.mean()
run.metrics.query("stage == 'sft'").plot("step", "loss")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row, read_jsonl, read_object
from schema_student.core.links import LINKS
from schema_student.core.paths import Paths, paths
from schema_student.core.settings import default_settings

if TYPE_CHECKING:
    from pandas import DataFrame

OWN_STUDENTS = ("base", "sft", *LINKS)


@dataclass(frozen=True)
class RunFrames:
    """The rows of a run, each frame read when it is first used; empty where the run has not made its file."""

    name: str
    where: Paths

    @cached_property
    def evaluations(self) -> DataFrame:
        """Return the verdict rows of every finished evaluation; `student` is base, sft, a link or an adapter's name."""
        return _frame(
            {"student": key, **row} for key, path in find_evaluations(self.where, self.name) for row in read_jsonl(path)
        )

    @cached_property
    def pairs(self) -> DataFrame:
        """Return the rows of dpo_pairs.jsonl."""
        return _frame(_rows(self.where.pairs))

    @cached_property
    def metrics(self) -> DataFrame:
        """Return the training logs; `stage` is sft or a link of the alignment, such as dpo."""
        folders = {"sft": self.where.run_dir, **{link: self.where.link_dir(link) for link in LINKS}}
        return _frame(
            {"stage": stage, **row}
            for stage, folder in folders.items()
            for row in _rows(folder / "training_metrics.jsonl")
        )

    @cached_property
    def margins(self) -> DataFrame:
        """Return the margins of DPO, a row an optimizer step."""
        return _frame(_rows(self.where.dpo_dir / "margins.jsonl"))


def read_run(name: str, output_dir: str | Path = "outputs") -> RunFrames:
    """Read a run's evaluations, pairs, metrics and margins; raises UserError where there is nothing of that run."""
    where = paths(default_settings(run=name, output_dir=str(output_dir)))
    folders = [where.run_dir, *map(where.link_dir, LINKS)]
    if not (any(folder.is_dir() for folder in folders) or find_evaluations(where, name)):
        raise UserError(f"{where.run_dir} is not there: give the name of a run, and the output_dir that it lies in")
    return RunFrames(name, where)


def find_evaluations(where: Paths, run: str) -> list[tuple[str, Path]]:
    """Find the finished evaluations of a run: (student, evaluation_results.jsonl), base, sft and the links first."""
    found = []
    for summary in where.evals.glob(f"{run}-*/evaluation_summary.json"):
        key, results = summary.parent.name.removeprefix(f"{run}-"), summary.with_name("evaluation_results.jsonl")
        # Run a-b has the evaluation a-b-sft, which is none of run a.
        if read_meta(results) and (key in OWN_STUDENTS or read_object(summary).get("run") == run):
            found.append((key, results))
    return sorted(found, key=lambda each: (_order(each[0]), each[0]))


def _order(key: str) -> int:
    return OWN_STUDENTS.index(key) if key in OWN_STUDENTS else len(OWN_STUDENTS)


def _rows(path: Path) -> list[Row]:
    return read_jsonl(path) if path.exists() else []


def _frame(rows: Iterable[Row]) -> DataFrame:
    import pandas

    return pandas.DataFrame(list(rows))
