"""Compare the DPO runs of several names on one page: logs and evaluations side by side; only reads.

After the report, for questions such as "fixed, calibrated or beta_dpo on the same pairs?".

    compare_runs(settings)   # of settings.compare.runs, e.g. ["fixed", "calibrated"]: reports/fixed-vs-calibrated/
"""

from __future__ import annotations

from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, write_files
from schema_student.core.jsonl import Row
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.report import figures
from schema_student.report.charts import STUDENT_COLORS
from schema_student.report.plotting import draw_png
from schema_student.report.rendering import render
from schema_student.report.run_artifacts import read_stage, read_students

LAST = 10  # steps that the table's means are of
RATES = {"schema_valid_rate": "valid", "semantic_pass_rate": "valid and as asked"}


def compare_runs(settings: AnySettings) -> Path:
    """Write the page of settings.compare.runs; returns compare.html. Raises UserError for a run without a DPO log."""
    folder = page_dir(settings)
    runs = [
        read_dpo_run(settings, name, color) for name, color in zip(settings.compare.runs, STUDENT_COLORS, strict=False)
    ]
    figure = figures.show_compared_runs(runs)
    pictures = {"compare.png": draw_png(figure)}
    splits = list(dict.fromkeys(split for run in runs for split in run["rates"]))
    facts = {"runs": runs, "splits": splits, "rates": RATES, "last": LAST, "figure": figure}
    texts = {name: render(f"{name}.j2", facts).encode() for name in ("compare.md", "compare.html")}
    write_files(make_folder(folder), pictures | texts)
    return folder / "compare.html"


def page_dir(settings: AnySettings) -> Path:
    """Locate the page; raises UserError where there are not several runs to compare, or too many to tell apart."""
    runs = settings.compare.runs
    if not 2 <= len(set(runs)) == len(runs) <= len(STUDENT_COLORS):
        raise UserError(
            f"give --runs 2 to {len(STUDENT_COLORS)} different names with commas, for example fixed,calibrated"
        )
    return Path(settings.run.output_dir) / "reports" / "-vs-".join(runs)


def read_dpo_run(settings: AnySettings, name: str, color: str) -> Row:
    """Read logs, the means of the last steps, and the evaluations of one run."""
    where = paths(settings.changed(run=name, adapter="", schemas=""))
    stage = read_stage(where.dpo_dir)
    if stage is None:
        raise UserError(f"{where.dpo_dir} has no log of DPO; train_alignment_dpo.py --run {name} makes it")
    trained = [row for row in stage["metrics"] if "loss" in row]
    students = [student for student in read_students(where, name) if student["key"] == "dpo"]
    known = stage["config"].get("settings", {})
    return {
        **stage,
        "name": name,
        "color": color,
        "controller": known.get("beta_controller", "?"),
        "beta": known.get("beta"),
        "chosen": stage["config"].get("checkpoint", "none yet"),
        "means": {key: _mean(trained, key) for key in ("beta/effective", "rewards/accuracies", "margin")},
        "moved": {side: _moved(trained, f"logps/{side}") for side in ("chosen", "rejected")},
        "alarms": sum("alarm/chosen_fall" in row for row in trained),
        "rates": students[0]["summary"]["splits"] if students else {},
    }


def _mean(rows: list[Row], key: str) -> float | None:
    values = [row[key] for row in rows[-LAST:] if key in row]
    return sum(values) / len(values) if values else None


def _moved(rows: list[Row], key: str) -> float | None:
    """The mean of the last steps less that of the first ones; each over other pairs, so a rough figure."""
    first, last = _mean(rows[:LAST], key), _mean(rows, key)
    return None if first is None or last is None else last - first
