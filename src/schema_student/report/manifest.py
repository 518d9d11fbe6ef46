"""Write what a run was made of: manifest.json, by which another run can be held against it.

Each artifact stands there with its inputs, settings and its digest without time fields (core/times.py): on a CPU a
second run of the same inputs has the same manifest but for those fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from schema_student.core.artifacts import read_meta
from schema_student.core.files import make_folder
from schema_student.core.jsonl import Row, read_object, write_json
from schema_student.core.links import LINKS, REWARD
from schema_student.core.machine import describe_machine
from schema_student.core.names import resolve_run
from schema_student.core.paths import Paths, paths
from schema_student.core.places import shown_place
from schema_student.core.settings import AnySettings
from schema_student.core.times import TIMED, digest_timeless
from schema_student.report.frames import find_evaluations

TEACHER = ("model", "display_name", "model_digest", "api", "ollama_version")  # of a dataset's teacher_info
BASE = ("name", "kind", "digest", "revision", "backend")  # of run_config.json's student
KEPT = ("settings", "seed", "base_digest", "git_commit", "finished_at", "seconds")  # of an artifact's .meta.json


def write_manifest(settings: AnySettings) -> Path | None:
    """Write manifest.json of a run beside its report; returns where it is, None where nothing is finished."""
    where = paths(settings)
    found = collect_manifest(where, resolve_run(settings))
    if not found["artifacts"]:
        return None
    path = make_folder(where.report_dir) / "manifest.json"
    write_json(path, found)
    return path


def collect_manifest(where: Paths, run: str) -> Row:
    """Collect what a run was made of, from the stamps of its finished artifacts."""
    metas = {path: meta for path in list_artifacts(where, run) if (meta := read_meta(path)) and path.exists()}
    last = max(metas.values(), key=lambda meta: str(meta.get("finished_at", "")), default={})
    artifacts = {_name(path, where): _describe(path, meta) for path, meta in metas.items()}
    return {
        "run": run,
        "versions": last.get("versions", {}),
        "commit": last.get("git_commit"),
        "base": _describe_base(where),
        "teacher": _describe_teacher(where),
        "machine": describe_machine(),
        "inputs": _find_outer_inputs(list(metas), artifacts),
        "artifacts": artifacts,
        "seconds": round(sum(each.get("seconds") or 0 for each in artifacts.values()), 1),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def list_artifacts(where: Paths, run: str) -> Iterator[Path]:
    """List where the artifacts of a run lie that have a stamp, in the order of the flow."""
    yield from (where.domain_specs, where.schemas, where.dataset, where.extra_tests, where.corpus)
    yield where.run_dir
    yield from sorted(path for path in where.pairs.parent.glob("*.jsonl"))
    yield from (where.link_dir(link) for link in (*LINKS, REWARD))
    yield from (results for _, results in find_evaluations(where, run))


def _name(path: Path, where: Paths) -> str:
    """Name an artifact by its place below student_runs, or as a data file."""
    runs = where.run_dir.parent
    return path.relative_to(runs).as_posix() if path.is_relative_to(runs) else path.name


def _describe(path: Path, meta: Row) -> Row:
    inputs = {name: each for name, each in meta.get("inputs", {}).items() if name.rpartition("/")[-1] not in TIMED}
    return {"digest": digest_timeless(path), "inputs": inputs, **{name: meta[name] for name in KEPT if name in meta}}


def _describe_base(where: Paths) -> Row | None:
    """Describe the base that the run's adapters are of, as run_config.json has it; None before training."""
    configs = [folder / "run_config.json" for folder in (where.run_dir, *map(where.link_dir, LINKS))]
    student = next((read_object(path, student=dict).get("student") for path in configs if path.exists()), None)
    if not student:
        return None
    known = {name: student[name] for name in BASE if name in student}
    return known | {"name": shown_place(str(known.get("name", "")))}


def _describe_teacher(where: Paths) -> Row | None:
    info = (read_meta(where.dataset) or {}).get("teacher_info")
    return {name: info[name] for name in TEACHER if name in info} if info else None


def _find_outer_inputs(made: Sequence[Path], artifacts: Row) -> Row:
    """The inputs that no artifact of the run is: a person's schemas, data sets, adapters, each with its digest."""
    own = {path.name for path in made}
    own |= {file.name for path in made if path.is_dir() for file in path.rglob("*") if file.is_file()}
    named = {name: each for artifact in artifacts.values() for name, each in artifact["inputs"].items()}
    return {name: each for name, each in sorted(named.items()) if name.rpartition("/")[-1] not in own}
