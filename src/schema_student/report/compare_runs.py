"""Compare runs and evaluations of any number on one page, a column each; only reads.

A name is that of a run, of which the student that it ends with is taken, or of an evaluation, such as that of a served
student. The page is that of a report, with a test of each two on the requests that both were asked, what their settings
differ in, and the logs of runs that were aligned by DPO.

    compare_runs(settings)   # of settings.compare.runs, e.g. ["lr1", "lr2", "student-endpoint-mine"]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.files import make_folder, write_files
from schema_student.core.jsonl import Row, dump_json, read_object
from schema_student.core.links import split_link
from schema_student.core.paths import Paths, paths
from schema_student.core.records import DatasetRow, EvaluationRow, read_rows
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.core.statistics import holm, normal_test
from schema_student.evaluation.rates import summarize
from schema_student.report import figures
from schema_student.report.answers import gather_answers
from schema_student.report.changes import compare_readings
from schema_student.report.charts import STUDENT_COLORS
from schema_student.report.comparisons import SIGNIFICANT, count_transitions
from schema_student.report.pages import describe_students
from schema_student.report.plotting import draw_png
from schema_student.report.rendering import chance, render
from schema_student.report.run_artifacts import find_links, read_stage, read_students, show_setting
from schema_student.schema.ranks import RIGHT

LAST = 10  # steps that the means of a log are of
NAMED = 4  # runs in the name of the page's folder
NOWHERE = ("run", "output_dir", "data_dir", "adapter", "overwrite", "report_to")  # settings that say where, not what
FACTS = {"student": "student", "base": "base", "judged_by": "judged by", "eval_data": "eval_data"}  # of summaries
ABSENT: Row = {  # what a report has of one run
    **dict.fromkeys(("alignment", "setup", "changes", "exports", "data", "pairs", "trust", "learning_curve"), None),
    **dict.fromkeys(("advice", "missing", "extra", "links", "imports", "examples", "weakest", "comparisons"), ()),
    "stages": {},
    "choices": {},
}


def compare_runs(settings: AnySettings) -> Path:
    """Write the page of settings.compare.runs; returns compare.html.

    Raises UserError for a name that is neither a finished evaluation nor a run with one or with a log of DPO.
    """
    folder = page_dir(settings)
    facts = collect(settings)
    pictures = {f"{figure.name}.png": draw_png(figure) for figure in facts["figures"].values()}
    texts = {f"compare.{kind}": render(f"report.{kind}.j2", facts).encode() for kind in ("md", "html")}
    texts["compare.json"] = dump_json(_write_facts(facts)).encode("utf-8", "backslashreplace")
    write_files(make_folder(folder), pictures | texts)
    return folder / "compare.html"


def page_dir(settings: AnySettings) -> Path:
    """Locate the page; raises UserError where there are not several names to compare."""
    runs = settings.compare.runs
    if not 2 <= len(set(runs)) == len(runs):
        raise UserError("give --runs 2 or more different names with commas, for example fixed,calibrated")
    more = f"-and-{len(runs) - NAMED}-more-{digest(runs)[:8]}" if len(runs) > NAMED else ""
    return Path(settings.run.output_dir) / "reports" / f"{'-vs-'.join(runs[:NAMED])}{more}"


def list_sources(settings: AnySettings) -> list[Path]:
    """List what a page would be made of: of each name its evaluations, else the log of DPO that there should be."""
    found = []
    for name in settings.compare.runs:
        evals = paths(settings).evals
        evaluations = [evals / name] if (evals / name).is_dir() else sorted(evals.glob(f"{name}-*"))
        log = evals.parent / f"{name}-dpo" / "training_metrics.jsonl"
        found += evaluations or [log]
    return found


def collect(settings: AnySettings) -> Row:
    """Collect every fact of the page."""
    names = settings.compare.runs
    found = {name: find_student(settings, name) for name in names}
    logs = [log for name in names if (log := read_dpo_run(settings, name)) is not None]
    for name in names:
        if not found[name] and name not in [log["name"] for log in logs]:
            raise UserError(
                f"{name} is neither a finished evaluation (in {paths(settings).evals}) nor a run with one, or with a "
                f"log of DPO: schema-student evaluate --run {name} --eval-student sft makes one"
            )
    students = color_all(align_splits([student for student in found.values() if student]))
    pairs = compare_all(students)
    facts = ABSENT | describe_students(students) | {"students": students, "comparisons": (), "weakest": ()}
    facts |= {"run": " against ".join(names), "headline": write_headline(students, pairs)}
    facts["compared"] = {
        "pairs": pairs,
        "settings": list_differences(students),
        "logs": logs,
        "last": LAST,
    }
    facts["missing"] = [f"an evaluation of {name}" for name in names if not found[name]]
    facts["answers"] = gather_answers(students, _read_datasets(settings, names), None)
    shown = [figures.show_rates(students, facts["splits"]), figures.show_outcomes(students)]
    shown += [figures.show_compared_runs(logs)] if logs else []
    facts["figures"] = {figure.name: figure for figure in shown if figure}
    return facts


def _write_facts(facts: Row) -> Row:
    """The figures of the page for machines."""
    students = [
        {name: student[name] for name in ("key", "label", "failed", "summary")} for student in facts["students"]
    ]
    logs = [
        {name: log[name] for name in log if name not in ("metrics", "margins", "trace")}
        for log in facts["compared"]["logs"]
    ]
    return {
        "headline": facts["headline"],
        "students": students,
        "pairs": facts["compared"]["pairs"],
        "settings": facts["compared"]["settings"],
        "logs": logs,
    }


def _read_datasets(settings: AnySettings, names: Sequence[str]) -> list[DatasetRow]:
    files = [_paths_of(settings, name).dataset for name in names if not split_link(name)[1]]
    return [row for file in dict.fromkeys(files) if file.exists() for row in read_rows(file, DatasetRow)]


def _paths_of(settings: AnySettings, run: str) -> Paths:
    return paths(settings.changed(run=run, adapter="", schemas="", data_set=""))


# ---------------------------------------------------------------------------------------------------------------------
# Whom a name means


def find_student(settings: AnySettings, name: str) -> Row:
    """Find the evaluation that a name means: of this name, else of the student that the run ends with; {} for none."""
    results = paths(settings).evals / name / "evaluation_results.jsonl"
    if results.is_file() and read_meta(results) is not None:
        return _read_student(name, name, results)
    if split_link(name)[1]:
        return {}  # which names no run
    where = _paths_of(settings, name)
    students = read_students(where, name, find_links(where))
    flow = [student for student in students if student["stage"] not in (None, "control")] or students
    if not flow:
        return {}
    last = flow[-1]
    results = where.eval_dir(f"{name}-{last['key']}") / "evaluation_results.jsonl"
    return _read_student(name, f"{name}, {last['label']}", results)


def _read_student(name: str, label: str, results: Path) -> Row:
    rows, meta = read_rows(results, EvaluationRow), read_meta(results) or {}
    told = read_object(results.with_name("evaluation_summary.json"))
    student: Row = {"key": name, "keys": [name], "label": label, "who": label, "stage": None, "rows": rows}
    student |= {"summary": told, "settings": _read_settings(results, told, meta), "robustness": {}}
    return student | {"failed": sum(row.rank != RIGHT for row in rows)}


def _read_settings(results: Path, summary: Row, meta: Row) -> Row:
    """The settings that a student was trained with, where its adapter's run says so, and those of its evaluation."""
    run = Path(summary.get("adapter") or "none/none").parent
    configs = [results.parents[2] / run.name / "run_config.json", run / "run_config.json"]
    trained: Row = next((read_object(config).get("settings", {}) for config in configs if config.is_file()), {})
    return {**trained, **meta.get("settings", {}), "seed": meta.get("seed")}


def align_splits(students: Sequence[Row]) -> list[Row]:
    """Give a request the same split for all students: that which the first one of them has it in.

    What is of test_seen in a run may be of a person's own file for a student that was asked without a run.
    """
    splits: dict[Any, str] = {}
    found = []
    for student in students:
        for row in student["rows"]:
            splits.setdefault(_name_request(row), row.split)
        rows = [replace(row, split=splits[_name_request(row)]) for row in student["rows"]]
        found.append({**student, "rows": rows, "summary": {**student["summary"], **summarize(rows)}})
    return found


def color_all(students: Sequence[Row]) -> list[Row]:
    """Give the students the colors in turn."""
    return [
        {**student, "color": color} for student, color in zip(students, itertools.cycle(STUDENT_COLORS), strict=False)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# How they differ


def compare_all(students: Sequence[Row]) -> list[Row]:
    """Compare each student with each later one over the requests that both were asked; p values by Holm's correction.

    A pair has the figures of a line of count_transitions, `shared`, the number of these requests, and `reading`, the
    paired change of P(truth) with the corrected p of its z, null where one of the two was not read.
    """
    found = []
    for before, after in itertools.combinations(students, 2):
        ours, theirs = share_requests(before["rows"], after["rows"])
        line = count_transitions(ours, theirs, ())[-1]
        names = {"before": before["label"], "after": after["label"], "of": before["key"], "key": after["key"]}
        found.append({**names, "shared": len(ours), **line, "reading": compare_readings(ours, theirs)})
    for pair, p in zip(found, holm([each["p"] for each in found]), strict=True):
        pair["corrected"] = p
    read = [pair["reading"] for pair in found if pair["reading"]]
    for reading, p in zip(read, holm([normal_test(reading["z"]) for reading in read]), strict=True):
        reading["corrected"] = p
    return found


def share_requests(
    before: Sequence[EvaluationRow], after: Sequence[EvaluationRow]
) -> tuple[list[EvaluationRow], list[EvaluationRow]]:
    """Take two students' answers to the requests that both were asked, where both know the same right answer."""
    others = {_name_request(row): row for row in after}
    pairs = [(row, others[_name_request(row)]) for row in before if _name_request(row) in others]
    same = [pair for pair in pairs if pair[0].target_canonical == pair[1].target_canonical]
    return [row for row, _ in same], [row for _, row in same]


def _name_request(row: EvaluationRow) -> tuple[str, str, str]:
    return row.schema_id, row.current_date, row.query


def list_differences(students: Sequence[Row]) -> list[Row]:
    """List what the students differ in: {name, values}, None where one has no such setting, as a base without training.

    A setting is listed where two that have it differ in it.
    """
    told = [{said: student["summary"].get(name) for name, said in FACTS.items()} for student in students]
    told = [student["settings"] | facts for facts, student in zip(told, students, strict=True)]
    names = [*FACTS.values(), *(name for each in told for name in each)]
    found = []
    for name in dict.fromkeys(name for name in names if name not in NOWHERE):
        known = [each[name] for each in told if name in each]
        if any(value != known[0] for value in known):
            found.append({"name": name, "values": [show_setting(name, each.get(name)) for each in told]})
    return found


def write_headline(students: Sequence[Row], pairs: Sequence[Row]) -> str:
    """Say what each student reaches, and which differences are beyond chance."""
    known = [(student["label"], student["summary"]["overall"]["semantic_pass_rate"]) for student in students]
    rates = [f"{label} answers {rate['rate']:.1%} of {rate['n']}" for label, rate in known if rate["rate"] is not None]
    if not rates:
        return "Of no answer is it known whether it is as asked."
    said = f"As asked: {'; '.join(rates)}."
    shared = [pair for pair in pairs if pair["n"]]
    if not shared:
        return f"{said} No two of them were asked the same requests."
    sure = [sentence for pair in shared if (sentence := _say_pair(pair))]
    return (
        f"{said} {'; '.join(sure)}." if sure else f"{said} No difference of two on the same requests is beyond chance."
    )


def _say_pair(pair: Row) -> str:
    """Say which of two is better beyond chance: by verdicts, else by P(truth), which tells smaller differences."""
    names, reading = (pair["before"], pair["after"]), pair["reading"]
    if pair["corrected"] < SIGNIFICANT:
        worse, better = names if pair["fixed"] > pair["broken"] else names[::-1]
        return f"{better} is better than {worse} beyond chance (p {chance(pair['corrected'])}, {pair['n']} requests)"
    if reading and reading["corrected"] < SIGNIFICANT:
        worse, better = names if reading["change"] > 0 else names[::-1]
        points = f"{100 * abs(reading['change']):.1f} points, z {abs(reading['z']):.1f}"
        return f"right answers are likelier to {better} than to {worse} (P(truth), {points})"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Logs of DPO


def read_dpo_run(settings: AnySettings, name: str) -> Row | None:
    """Read logs of DPO and the means of their last steps; None where the run has none."""
    if split_link(name)[1]:
        return None
    stage = read_stage(_paths_of(settings, name).dpo_dir)
    if stage is None:
        return None
    trained = [row for row in stage["metrics"] if "loss" in row]
    known = stage["config"].get("settings", {})
    return {
        **stage,
        "name": name,
        "color": STUDENT_COLORS[settings.compare.runs.index(name) % len(STUDENT_COLORS)],
        "controller": known.get("beta_controller", "?"),
        "beta": known.get("beta"),
        "chosen": stage["config"].get("checkpoint", "none yet"),
        "means": {key: _mean(trained, key) for key in ("beta/effective", "rewards/accuracies", "margin")},
        "moved": {side: _moved(trained, f"logps/{side}") for side in ("chosen", "rejected")},
        "alarms": sum("alarm/chosen_fall" in row for row in trained),
    }


def _mean(rows: list[Row], key: str) -> float | None:
    values = [row[key] for row in rows[-LAST:] if key in row]
    return sum(values) / len(values) if values else None


def _moved(rows: list[Row], key: str) -> float | None:
    """The mean of the last steps less that of the first ones; each over other pairs, so a rough figure."""
    first, last = _mean(rows[:LAST], key), _mean(rows, key)
    return None if first is None or last is None else last - first
