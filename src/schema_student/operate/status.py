"""Read what runs, ran and failed in an output folder, from another process and while it goes.

    status = read_status(settings)         # {"output_dir": ..., "free_bytes": ..., "runs": [{"run": "student", ...}]}
    describe_status(status)                # lines for people

Artifacts say what is finished (.meta.json), status.json of the run's folder (recorder.py) how far the rest is. A stage
whose process is gone without a word was killed; a lock whose holder is gone is stale, and in nobody's way.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schema_student.core.artifacts import read_meta
from schema_student.core.errors import UserError
from schema_student.core.flags import flags_of
from schema_student.core.jsonl import read_object
from schema_student.core.links import LINKS, split_link
from schema_student.core.names import SHARED_FOLDERS
from schema_student.core.paths import Paths, paths
from schema_student.core.processes import is_running
from schema_student.core.settings import AnySettings, Settings
from schema_student.core.stamps import beside
from schema_student.core.verbs import STAGES
from schema_student.operate.ending import say_duration
from schema_student.operate.recorder import STATUS, process_started, read_stages

Facts = dict[str, Any]
OWN_DATA = ("domain_specs", "schemas")  # which a run on a person's own schemas has not


def read_status(settings: Settings) -> Facts:
    """Read the state of every run in the output folder, or of --run alone."""
    out = Path(settings.run.output_dir)
    runs = [settings.run.run] if settings.run.run else find_runs(out)
    near = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(near).free
    found = [_read_run(settings, run) for run in runs]
    return {"output_dir": str(out), "bytes": measure(out), "free_bytes": free, "runs": found}


def find_runs(out: Path) -> list[str]:
    """Find the runs of an output folder, the last recorded one last."""
    recorded = {path.name: path.stat().st_mtime for path in _folders(out / "runs")}
    trained = {split_link(path.name)[0] for path in _folders(out / "student_runs") if path.name not in SHARED_FOLDERS}
    own = {path.name for path in _folders(out / "data")}
    default = (
        {"student"} if (out / "d_03_dataset.jsonl").exists() or (out / "d_01_domain_specs.jsonl").exists() else set()
    )
    return sorted(trained | own | default | {*recorded}, key=lambda run: (recorded.get(run, 0.0), run))


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink())


def measure(path: Path) -> int:
    """Count the bytes of a file, or of a folder's files; links are not followed."""
    if path.is_symlink() or not path.exists():
        return 0
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # a run at work has removed it
                continue
    return total


# ---------------------------------------------------------------------------------------------------------------------
# One run


def _read_run(settings: Settings, run: str) -> Facts:
    out = Path(settings.run.output_dir)
    recorded = read_stages(out / "runs" / run / STATUS)
    given = _settings_given(recorded)
    here = settings.changed(run=run, data_dir=settings.run.data_dir or given.get("data_dir", ""))
    where = paths(here)
    artifacts = find_artifacts(where, run)
    names = _names(recorded)
    stages = [_read_stage(name, artifacts.get(name, []), recorded.get(name)) for name in names]
    if given.get("schemas"):
        stages = [stage for stage in stages if stage["stage"] not in OWN_DATA]
    facts = {"run": run, "stages": stages, "rates": _read_rates(where, run), "bytes": _bytes_of(where, run)}
    return {**facts, "settings": given, "locks": _find_locks(where, run), **_advise(stages, recorded, run, here)}


def _names(recorded: dict[str, Facts]) -> list[str]:
    """The stages of a run; those that were recorded alone, where none is of a run from nothing to a report."""
    others = [name for name in recorded if name not in STAGES]
    return others if others and len(others) == len(recorded) else [*STAGES, *others]


def _settings_given(recorded: dict[str, Facts]) -> Facts:
    """The settings that differ from the defaults, of the stage that was recorded last and has them."""
    latest = sorted(recorded.values(), key=lambda state: str(state.get("started_at", "")))
    given = [state["settings"] for state in latest if isinstance(state.get("settings"), dict)]
    return {name: value for settings in given for name, value in settings.items()}


def find_artifacts(where: Paths, run: str) -> dict[str, list[Path]]:
    """Find what each stage of a run makes; of an alignment, the links that were begun."""
    links = [link for link in LINKS if _is_begun(where.run_dir.with_name(f"{run}-{link}"))]
    return {
        **{"domain_specs": [where.domain_specs], "schemas": [where.schemas]},
        **{"dataset": [where.dataset], "corpus": [where.corpus], "sft": [where.run_dir]},
        **{f"evaluate_{name}": [_rows(where, f"{run}-{name}")] for name in ("base", "sft")},
        "align": [where.run_dir.with_name(f"{run}-{link}") for link in links],
        "evaluate_aligned": [_rows(where, f"{run}-{link}") for link in links],
        "report": [where.report_dir / "report.html"],
    }


def _rows(where: Paths, name: str) -> Path:
    return where.evals / name / "evaluation_results.jsonl"


def _is_begun(path: Path) -> bool:
    return path.exists() or beside(path, "meta").exists() or beside(path, "partial").exists()


def _read_stage(name: str, artifacts: list[Path], recorded: Facts | None) -> Facts:
    """State of a stage: to do, running, done, partial, failed, interrupted or killed; with what is known of it."""
    stage: Facts = {"stage": name, "state": _state_of_artifacts(artifacts)}
    if finished := [str(meta.get("finished_at", "")) for path in artifacts if (meta := _meta(path))]:
        stage["finished_at"] = max(finished)
    if not recorded:
        return stage
    state = _state_now(recorded)
    known = ("progress", "started_at", "ended_at", "at", "pid", "host")
    if state == "running":
        return {**stage, "state": state, **{key: recorded[key] for key in known if key in recorded}}
    if stage["state"] == "done" or (state == "done" and not artifacts):
        return {**stage, "state": "done", **({"seconds": took} if (took := _seconds(recorded)) else {})}
    if state == "done":  # and what it made is gone
        return stage
    told = {key: recorded[key] for key in (*known, "error") if key in recorded}
    return {**stage, "state": state, **told}


def _meta(path: Path) -> Facts:
    """An artifact's stamp; a file without one is its own sign."""
    try:
        return read_meta(path) or ({"finished_at": _time_of(path)} if path.suffix == ".html" and path.exists() else {})
    except UserError:
        return {}


def _time_of(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _state_of_artifacts(artifacts: list[Path]) -> str:
    if artifacts and all(path.exists() and _meta(path) for path in artifacts):
        return "done"
    return "partial" if any(map(_is_begun, artifacts)) else "to do"


def _state_now(recorded: Facts) -> str:
    """What a recorded stage is now: one that was at work may have been killed since."""
    if recorded["state"] != "running" or recorded.get("host") != platform.node():
        return str(recorded["state"])
    pid, started = recorded.get("pid", 0), recorded.get("process_started", "")
    return "running" if is_running(pid) and started in ("", process_started(pid)) else "killed"


def _seconds(recorded: Facts) -> float | None:
    try:
        begun, ended = (datetime.fromisoformat(recorded[key]) for key in ("started_at", "ended_at"))
        return round((ended - begun).total_seconds(), 1)
    except (KeyError, ValueError, TypeError):
        return None


def _read_rates(where: Paths, run: str) -> dict[str, float]:
    """How many test answers of each evaluated student are right and accepted, or right where no teacher judged."""
    rates = {}
    for folder in sorted(where.evals.glob(f"{run}-*")):
        summary = folder / "evaluation_summary.json"
        overall = read_object(summary).get("overall", {}) if summary.is_file() else {}
        for name in ("semantic_pass_rate", "semantic_match_target_rate"):
            rate = overall.get(name)
            value = rate.get("rate") if isinstance(rate, dict) else rate
            if isinstance(value, int | float):
                rates[folder.name] = float(value)
                break
    return rates


def _bytes_of(where: Paths, run: str) -> dict[str, int]:
    """Bytes of a run on disk by what they are."""
    data = [where.domain_specs, where.schemas, where.dataset, where.corpus, where.extra_tests, where.hub_dataset]
    students = [where.run_dir, where.reward_dir, *(where.run_dir.with_name(f"{run}-{link}") for link in LINKS)]
    kinds = {"dataset": data, "training": students, "evaluations": sorted(where.evals.glob(f"{run}-*"))}
    kinds |= {"report": [where.report_dir], "exports": [where.exports], "logs": [where.run_folder]}
    return {kind: sum(map(measure, places)) for kind, places in kinds.items()}


def _find_locks(where: Paths, run: str) -> list[Facts]:
    """The locks of a run's artifacts: who holds each, and whether it is there still."""
    folders = {where.dataset.parent, where.run_dir.parent, where.pairs.parent, *where.evals.glob(f"{run}-*")}
    found = []
    for lock in sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.lock")):
        if lock.parent == where.run_dir.parent and split_link(lock.name.removesuffix(".lock"))[0] != run:
            continue
        holder = lock.read_text(errors="replace").strip() if lock.is_file() else ""
        alive = holder.isdigit() and is_running(int(holder))
        found.append({"lock": str(lock), "process": holder, "stale": not alive})
    return found


# ---------------------------------------------------------------------------------------------------------------------
# What to do next


def _advise(stages: list[Facts], recorded: dict[str, Facts], run: str, settings: AnySettings) -> Facts:
    """What a run is now, and the command that goes on with it."""
    here = f" --run {run}{_flags(settings, {})}"
    if any(stage["state"] == "running" for stage in stages):
        return {"state": "running", "next": f"schema-student status --watch{here}"}
    open_stages = [stage for stage in stages if stage["state"] != "done"]
    stopped = [stage for stage in open_stages if stage["state"] != "to do"]
    if not open_stages:
        return {"state": "done", "next": f'schema-student ask{here} "..."'}
    first = open_stages[0]["stage"]
    verb = f"run --from {first}" if first in STAGES else first
    of_verb = [name for name in recorded if (name in STAGES) == (first in STAGES)]
    flags = _flags(settings, _settings_given({name: recorded[name] for name in of_verb}))
    state = stopped[0]["state"] if stopped else "unfinished"
    return {"state": state, "next": f"schema-student {verb} --run {run}{flags}"}


def _flags(settings: AnySettings, given: Facts) -> str:
    """The flags with which a run was started, and the folder that is looked at."""
    named = {"run", "overwrite", "eval_student"}
    told = {name: value for name, value in given.items() if name not in named}
    words = flags_of({**told, "output_dir": settings.run.output_dir})
    return "".join(f" {shlex.quote(word)}" for word in words)


# ---------------------------------------------------------------------------------------------------------------------
# For people


def describe_status(status: Facts) -> Iterator[str]:
    """Describe a status in lines."""
    yield f"{status['output_dir']}: {say_bytes(status['bytes'])}, {say_bytes(status['free_bytes'])} of the disk free"
    if not status["runs"]:
        yield "no run yet; begin: schema-student run"
    for run in status["runs"]:
        yield f"\nrun {run['run']}: {run['state']}"
        yield from (f"  {stage['stage']:<17}{_describe_stage(stage)}" for stage in run["stages"])
        yield from (f"  {name}: {rate:.1%} of its answers pass" for name, rate in run["rates"].items())
        yield "  disk: " + ", ".join(f"{kind} {say_bytes(size)}" for kind, size in run["bytes"].items() if size)
        for lock in run["locks"]:
            words = "stale, in nobody's way" if lock["stale"] else "held"
            yield f"  lock {lock['lock']} of process {lock['process'] or '?'}: {words}"
        yield f"  next: {run['next']}"


def _describe_stage(stage: Facts) -> str:
    state = str(stage["state"])
    if state == "done":
        took = f" in {say_duration(stage['seconds'])}" if "seconds" in stage else ""
        return f"done{took}" + (f", {stage['finished_at']}" if "finished_at" in stage else "")
    if state == "running":
        return f"running (process {stage.get('pid')}) {_describe_progress(stage)}".rstrip()
    if state == "killed":
        return f"killed: process {stage.get('pid')} is gone without a word {_describe_progress(stage)}".rstrip()
    return f"{state}: {stage['error']}" if "error" in stage else state


def _describe_progress(stage: Facts) -> str:
    progress = stage.get("progress") or {}
    if not progress.get("done"):
        return ""
    words = f"{progress.get('what', '')} {progress['done']}/{progress.get('total') or '?'} {progress.get('unit', '')}s"
    if rate := progress.get("per_second"):
        words += f", {rate:.3g} a second"
    left = progress.get("seconds_left")
    return words + (f", {say_duration(left)} left" if left else "")


def say_bytes(count: int) -> str:
    """Say a number of bytes in the largest unit that it fills.

    >>> say_bytes(3_500_000)
    '3.3 MiB'
    """
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
