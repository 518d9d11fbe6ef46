"""Plan and tell a sweep: a grid or a list of settings x data sets, each point a run of its own.

Points that differ in training settings alone share the data of one run. What a point was run with, how it ended and how
long it took stands in outputs/sweeps/RUN/POINT.json, its words in POINT.log beside it, all points in sweep.md and
sweep.json.

    values = list_values(read_plan(None, ["lora_r=8,16", "sft_learning_rate=1e-4,1e-3"]))    # four points
    points = [make_point(each, argv) for each in values]
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.errors import SettingsError
from schema_student.core.files import open_to_write
from schema_student.core.flags import parse_command, without_settings
from schema_student.core.jsonl import Row, read_object
from schema_student.core.markdown import cell
from schema_student.core.names import clean_name, resolve_run
from schema_student.core.paths import final_adapter, paths
from schema_student.core.settings import Settings, kebab_case, nearest_name
from schema_student.core.stamps import digest
from schema_student.core.verbs import STAGES, settings_read
from schema_student.operate.runner_flags import stage_flags

RUN = stage_flags(list(STAGES))
DATA_STAGES = ("domain_specs", "schemas", "dataset", "corpus")
PLACES = ("run", "output_dir", "data_dir", "overwrite", "dry_run")  # of the whole sweep, or of none
LONGEST = 80  # letters of a run's name, to which evaluations add some
MEASURES = {  # of validation, the best first, and whether more is better
    "eval_p_truth": ("P(truth) of validation requests", True),
    "eval_as_asked": ("validation requests answered as asked", True),
    "eval_loss": ("validation loss", False),
}


@dataclass(frozen=True)
class Point:
    """A run of a sweep: what it differs in, its flags of `schema-student run`, and those that make its data."""

    run: str
    values: dict[str, Any]
    settings: Settings
    flags: list[str]
    data_run: str
    data_flags: list[str]  # of a run until corpus; none: the data are there


# ---------------------------------------------------------------------------------------------------------------------
# The plan


def read_plan(path: Path | None, grids: Sequence[str]) -> Row:
    """Read a plan {grid, list, data}, with what --grid says of further settings (NAME=V,V).

    Raises SettingsError for what is no plan.
    """
    if not (path or grids):
        raise SettingsError("give --grid NAME=VALUE,VALUE or --plan FILE: what the runs differ in")
    plan: Row = {"grid": {}, "list": [{}], "data": [], **(read_object(path) if path else {})}
    if unknown := [name for name in plan if name not in ("grid", "list", "data")]:
        raise SettingsError(f"{path}: unknown {unknown[0]!r}{nearest_name(unknown[0], ('grid', 'list', 'data'), '')}")
    grid = plan["grid"]
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise SettingsError(f'{path}: grid is {{"setting": [value, ...], ...}}')
    if not isinstance(plan["list"], list) or not all(isinstance(each, dict) for each in plan["list"]):
        raise SettingsError(f'{path}: list is [{{"setting": value, ...}}, ...]')
    if not isinstance(plan["data"], list) or not all(isinstance(each, str) for each in plan["data"]):
        raise SettingsError(f'{path}: data is ["what --schemas takes", ...]')
    for text in grids:
        name, has_values, values = text.partition("=")
        if not has_values or not values:
            raise SettingsError(f"--grid {text}: give NAME=VALUE,VALUE, for example lora_r=8,16")
        grid[name.strip().removeprefix("--").replace("-", "_")] = [value.strip() for value in values.split(",")]
    if plan["data"]:
        grid["schemas"] = plan["data"]
    return plan


def list_values(plan: Row) -> list[dict[str, Any]]:
    """List the settings of each point: every combination of the grid with each row of the list.

    >>> list_values({"grid": {"lora_r": [8, 16]}, "list": [{}, {"seed": 1}]})
    [{'lora_r': 8}, {'lora_r': 16}, {'seed': 1, 'lora_r': 8}, {'seed': 1, 'lora_r': 16}]
    """
    grid, found = plan["grid"], []
    for row in plan["list"]:
        if twice := sorted({*row} & {*grid}):
            raise SettingsError(f"{twice[0]} stands in the grid and in the list: give it in one of them")
        found += [{**row, **dict(zip(grid, each, strict=True))} for each in itertools.product(*grid.values())]
    if place := sorted({name for each in found for name in each} & {*PLACES}):
        raise SettingsError(f"{place[0]} is of the whole sweep: give it as a flag")
    return found


def list_points(values: Sequence[Mapping[str, Any]], argv: Sequence[str], first: str, last: str) -> list[Point]:
    """Make the points of a sweep, each once; raises SettingsError for a setting that there is not, or a wrong value."""
    points = [make_point(each, argv, first, last) for each in values]
    return list({point.run: point for point in points}.values())


def make_point(values: Mapping[str, Any], argv: Sequence[str], first: str, last: str) -> Point:
    """Make the point of these values of settings, with the flags that all points have."""
    plain = without_settings({"dry_run", "on", "workers"}, argv)
    base, given = resolve_run(_read(plain)), without_settings({*values, "run"}, plain)
    settings = _read([*given, *_as_flags(values)])
    known = {name: settings.value(name) for name in values}  # as the settings' types read them
    deciding = {name: value for name, value in known.items() if name in _settings_of_data()}
    if deciding and settings.run.data_dir:
        raise SettingsError(f"--data-dir holds data of one kind, and {next(iter(deciding))} makes others: leave it out")
    run, data_run = _name(base, known), _name(base, deciding)
    of_data = [*given, *_as_flags(deciding), "--run", data_run]
    place = ["--run", run, "--data-dir", str(paths(_read(of_data)).corpus.parent)]
    trained = [*without_settings({"data_dir"}, given), *_as_flags(known), *place]
    names = list(STAGES)
    begin = names[max(names.index(first), len(DATA_STAGES))]
    return Point(
        run,
        known,
        _read(trained),
        [] if last in DATA_STAGES else [*trained, "--from", begin, "--until", last],
        data_run,
        [*of_data, "--from", first, "--until", min(last, DATA_STAGES[-1], key=names.index)]
        if first in DATA_STAGES
        else [],
    )


def _read(argv: Sequence[str]) -> Settings:
    return parse_command(argv, "", "run", RUN)[0]


def _settings_of_data() -> set[str]:
    return {name for stage in DATA_STAGES for name in settings_read(STAGES[stage][0])}


def _as_flags(values: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in values.items():
        flag = kebab_case(name)
        if isinstance(value, bool) or value in ("true", "false"):
            words += [f"--{flag}" if value in (True, "true") else f"--no-{flag}"]
        else:
            words += [f"--{flag}={','.join(map(str, value)) if isinstance(value, list) else value}"]
    return words


def _name(base: str, values: Mapping[str, Any]) -> str:
    """Name a run after what it differs in; a long name ends in a digest of all of it."""
    parts = [f"{name}_{_say_value(value)}" for name, value in sorted(values.items())]
    name = "-".join([base, *parts])
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}_{digest(dict(values))[:8]}"


def _say_value(value: Any) -> str:
    if isinstance(value, str) and os.sep in value:
        value = Path(value).stem
    text = ".".join(map(str, value)) if isinstance(value, list) else str(value)
    return clean_name(text) or "none"


# ---------------------------------------------------------------------------------------------------------------------
# Running


def run_command(flags: Sequence[str], log_path: Path) -> Row:
    """Run `schema-student run` with these flags in a process of its own: {code, seconds, said}, its last words."""
    started = time.monotonic()
    command = [sys.executable, "-m", "schema_student", "run", *flags]
    environment = {**os.environ, "SCHEMA_STUDENT_RUNNER": str(os.getpid())}
    with open_to_write(log_path, "ab") as file:
        ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file).returncode
    lines = [line.strip() for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    said = (errors or lines or ["it said nothing"])[-1].removeprefix("error: ")
    return {"code": 128 - ended if ended < 0 else ended, "seconds": time.monotonic() - started, "said": said}


# ---------------------------------------------------------------------------------------------------------------------
# The table


def describe_point(point: Point, ended: Row) -> Row:
    """Describe a point for the table: what it differs in, how it ended, and what its last student reaches."""
    from schema_student.report.compare_runs import find_student  # loads pandas

    told: Row = {"run": point.run, "settings": point.values, "state": "done" if ended.get("code") == 0 else "failed"}
    told |= {"seconds": ended.get("seconds"), "error": ended.get("said") if ended.get("code") else None}
    student = find_student(point.settings, point.run) if told["state"] == "done" else {}
    overall = student["summary"]["overall"] if student else {}
    told |= {"student": student.get("label"), "valid": overall.get("schema_valid_rate")}
    told |= {"as_asked": overall.get("semantic_pass_rate"), "p_truth": overall.get("p_truth")}
    return {**told, "validation": _read_validation(point.settings) if told["state"] == "done" else {}}


def _read_validation(settings: Settings) -> dict[str, float]:
    """What validation says of the checkpoint that the run ends with; {} where nothing is known."""
    from schema_student.report.run_artifacts import read_stage

    stage = read_stage(Path(final_adapter(settings)).parent) if final_adapter(settings) else None
    rows = [row for row in stage["metrics"] if {*row} & {*MEASURES}] if stage else []
    if not stage or not rows:
        return {}
    step = str(stage["config"].get("checkpoint", "")).removeprefix("checkpoint-")
    chosen = next((row for row in rows if str(row["step"]) == step), rows[-1])
    return {name: chosen[name] for name in MEASURES if chosen.get(name) is not None}


def rank_points(rows: Sequence[Row]) -> tuple[str, list[Row]]:
    """Order the points, the best first, and say by what: by validation where all that are done have the same measure.

    Points without a figure come last.
    """
    done = [row for row in rows if row["state"] == "done"]
    shared = next((name for name in MEASURES if done and all(name in row["validation"] for row in done)), "")
    if shared:
        words, more = MEASURES[shared]
        key = {row["run"]: (1 if more else -1) * row["validation"][shared] for row in done}
    else:
        words = "tests"
        key = {row["run"]: row["as_asked"]["rate"] for row in done if (row["as_asked"] or {}).get("rate") is not None}
    return words, sorted(rows, key=lambda row: -key.get(row["run"], -float("inf")))


def choose_note(ranked_by: str, several_data: bool) -> str:
    """Say what the order of the points is worth."""
    if ranked_by == "tests":
        return (
            "Ranked by the tests, as no measure of validation is known of all points: the best of several on the same "
            "tests looks better than it is. Evaluate the one that you take on fresh requests (generate --extra-tests)."
        )
    apart = " Points on different data were validated on different requests." if several_data else ""
    return f"Ranked by {ranked_by}; the tests chose nothing, so the best point's rates there are not flattered.{apart}"


def write_table(rows: Sequence[Row], best: str, note: str) -> str:
    """Write the table in Markdown: what differs, rates on the tests, validation, seconds."""
    from schema_student.report.rendering import percent

    names = list(dict.fromkeys(name for row in rows for name in row["settings"]))
    measures = [name for name in MEASURES if any(name in row["validation"] for row in rows)]
    head = ["run", *names, "valid", "as asked", "P(truth)", *(MEASURES[name][0] for name in measures), "seconds"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        run = f"**{cell(row['run'])}** (best)" if row["run"] == best else str(cell(row["run"]))
        differs = [str(cell(row["settings"].get(name, ""))) for name in names]
        if row["state"] == "failed":
            rates = [f"failed: {cell(row['error'] or '')}", *[""] * (2 + len(measures))]
        else:
            rates = [percent((row[name] or {}).get("rate")) for name in ("valid", "as_asked")] + [
                percent(row["p_truth"])
            ]
            rates += [_number(row["validation"].get(name)) for name in measures]
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append([run, *differs, *rates, seconds])
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", note, ""])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
