"""Define the verb sweep: several runs of a grid or list of settings x data sets, and a table of what they reach."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from schema_student.cli.pipeline import choose_stages
from schema_student.core.chunks import HERE, map_chunks
from schema_student.core.errors import SettingsError
from schema_student.core.files import make_folder
from schema_student.core.flags import Own, parse_command, path_of, without
from schema_student.core.jsonl import Row, read_object, write_json, write_text
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import paths
from schema_student.core.settings import Settings
from schema_student.operate.ending import say_duration
from schema_student.operate.sweep import (
    RUN,
    Point,
    choose_note,
    describe_point,
    list_points,
    list_values,
    rank_points,
    read_plan,
    run_command,
    write_table,
)

INTERRUPTED = 128 + signal.SIGINT  # a point's exit code after Ctrl-C, which its whole terminal has heard
SWEEP: Own = {
    "--plan": {"metavar": "FILE", "default": "", "help": 'JSON file {"grid": {...}, "list": [...], "data": [...]}'},
    "--grid": {
        "metavar": "NAME=V[,V]",
        "action": "append",
        "default": [],
        "help": "values of a setting; several --grid: every combination",
    },
    "--jobs": {"metavar": "N", "type": int, "default": 1, "help": "runs at once (default: 1)"},
    **RUN,
}


def sweep(argv: Sequence[str]) -> None:
    """Make a run of each point of a grid or list of settings x data sets -> sweeps/RUN/sweep.md, sweep.json.

    schema-student sweep --grid sft_learning_rate=1e-3,2e-3 --grid lora_r=8,16
    schema-student sweep --plan sweep.json --run mine --jobs 2 --processes 1
    schema-student sweep --grid beta=0.05,0.1 --from align --dry-run

    Each point is a run RUN-SETTING_VALUE, by `schema-student run` with the other flags of this command. Data are made
    once for all points that differ in training alone. What is done is passed over, what was stopped goes on, and a
    point that fails stops no other; then this ends with 1. The plan's `list` has rows of settings, of which each is
    combined with the whole grid, its `data` what --schemas takes. --on ray runs the points on a cluster whose machines
    share the output folder.
    """
    settings, chosen = parse_command(argv, sweep.__doc__, "sweep", SWEEP)
    if chosen.jobs < 1:
        raise SettingsError(f"--jobs must be at least 1, not {chosen.jobs}")
    choose_stages(chosen.first, chosen.last)
    plan = read_plan(path_of(chosen.plan) if chosen.plan else None, chosen.grid)
    points = list_points(list_values(plan), without(SWEEP, argv), chosen.first, chosen.last)
    if settings.run.dry_run:
        _say_commands(points)
        return
    folder = make_folder(paths(settings.changed(run=resolve_run(settings))).sweep)
    rows = _run_all(points, folder, settings, chosen.jobs)
    ranked_by, ranked = rank_points(rows)
    best = next((row["run"] for row in ranked if row["state"] == "done"), "")
    note = choose_note(ranked_by, several_data=len({point.data_run for point in points}) > 1)
    table = write_table(ranked, best, note)
    write_text(folder / "sweep.md", table)
    write_json(folder / "sweep.json", {"ranked_by": ranked_by, "note": note, "best": best or None, "points": ranked})
    log.info(f"\n{table}\nsweep: {folder / 'sweep.md'}")
    if failed := [row["run"] for row in rows if row["state"] == "failed"]:
        log.error(f"error: {len(failed)} of {len(rows)} points failed: {', '.join(failed)}; the others are done")
        raise SystemExit(1)


def _say_commands(points: Sequence[Point]) -> None:
    """Say what would be run: the data, each once, then the points."""
    program = f"{shlex.quote(sys.executable)} -m schema_student run"
    log.info(f"{len(points)} points:")
    for flags in [*_of_data(points).values(), *(point.flags for point in points if point.flags)]:
        log.info(f"  {program} {shlex.join(flags)}")


def _of_data(points: Sequence[Point]) -> dict[str, list[str]]:
    """The flags that make each of the data, by the run that they are of."""
    return {point.data_run: point.data_flags for point in points if point.data_flags}


def _run_all(points: Sequence[Point], folder: Path, settings: Settings, jobs: int) -> list[Row]:
    """Run the data, then the points, each in the order given; returns the rows of the table."""
    again = settings.run.overwrite
    of_data = {f"data-{run}": flags for run, flags in _of_data(points).items()}
    made = _run_commands(of_data, folder, 1, HERE, again)
    lost = {name for name, ended in made.items() if ended["code"]}
    flags = {point.run: point.flags for point in points if point.flags and f"data-{point.data_run}" not in lost}
    ended = _run_commands(flags, folder, jobs, settings.cluster.on, again)
    return [describe_point(point, ended.get(point.run) or made[f"data-{point.data_run}"]) for point in points]


def _run_commands(commands: dict[str, list[str]], folder: Path, jobs: int, on: str, again: bool) -> dict[str, Row]:
    """Run what is not done, `jobs` at a time, and say how each ended; returns how all did: {code, seconds, said}."""
    found = {name: {} if again else _read_record(folder / f"{name}.json", flags) for name, flags in commands.items()}
    work = []
    for name, record in found.items():
        if record.get("code") == 0:
            log.info(f"{name}: done already")
        else:
            work.append((name, commands[name], str(folder), record.get("seconds", 0.0)))
    for (name, *_), record in zip(work, map_chunks(_run_recorded, work, on, jobs), strict=True):
        found[name] = record
        how = f"failed (exit code {record['code']}): {record['said']}" if record["code"] else "done"
        log.info(f"{name}: {how}, {say_duration(record['seconds'])}; log: {folder / name}.log")
        if record["code"] == INTERRUPTED:
            raise KeyboardInterrupt
    return found


def _run_recorded(work: tuple[str, list[str], str, float]) -> Row:
    """Run one command and write down how it ended; its seconds are added to those of its earlier starts."""
    name, flags, folder, before = work
    log.info(f"{name}: begun")
    record = run_command(flags, Path(folder) / f"{name}.log")
    record |= {"flags": flags, "seconds": round(before + record["seconds"], 1)}
    write_json(Path(folder) / f"{name}.json", record)
    return record


def _read_record(path: Path, flags: list[str]) -> Row:
    """How a command ended before; {} where it did not, or was another one."""
    record = read_object(path) if path.is_file() else {}
    return record if record.get("flags") == flags else {}
