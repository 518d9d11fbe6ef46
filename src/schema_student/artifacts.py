"""JSONL and JSON in and out, and where each artifact lies.

Second module of the flow: stages meet only at these files. A finished artifact has `<artifact>.meta.json` beside it,
written last: the settings, seed, versions, git commit and input digests that made it. A step that is run again finds
its artifact finished (and says so), made otherwise (and refuses), or partial (and continues after the last whole row).

    with open_step(paths(settings).corpus, make_stamp(settings, "seed"), [paths(settings).dataset]) as step:
        if not step.done:
            for row in rows[len(step.rows):]:
                step.append(row)
            step.finish()
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TextIO

from schema_student import __version__
from schema_student.config import ROOT, Settings, SettingsError, UserError, adapter_run, resolve_run

Row = dict[str, Any]

# Which script makes what, for the message about an input that is not there.
MADE_BY = {
    "d_01_domain_specs.jsonl": "generate_domain_specs.py",
    "d_02_final_schemas.jsonl": "build_schemas.py",
    "d_03_dataset.jsonl": "generate_dataset.py",
    "d_04_training_corpus.jsonl": "build_training_corpus.py",
    "dpo_pairs.jsonl": "build_alignment_pairs.py",
    "evaluation_results.jsonl": "evaluate_student.py",
    "evaluation_summary.json": "evaluate_student.py",
    "teacher_answers.jsonl": "export_teacher_answers.py",
    "checkpoint-final": "train_student.py",
}

# What later stages read of a row, for the message about one that lacks it.
FIELDS = {
    "d_01_domain_specs.jsonl": ("schema_id", "domain", "description", "fields", "example_queries"),
    "d_02_final_schemas.jsonl": ("schema_id", "domain", "operators", "schema"),
    "d_03_dataset.jsonl": ("schema_id", "schema_json", "query", "current_date", "ast_json", "is_valid", "split"),
    "d_04_training_corpus.jsonl": ("schema_id", "prompt", "completion", "is_valid", "split"),
    "dpo_pairs.jsonl": ("schema_id", "prompt", "chosen", "rejected"),
    "evaluation_results.jsonl": ("schema_id", "query", "split", "current_date", "raw_output", "rank"),
}


# ---------------------------------------------------------------------------------------------------------------------
# Where artifacts lie


@dataclass(frozen=True)
class Paths:
    """Where each artifact of a run lies."""

    domain_specs: Path
    schemas: Path
    dataset: Path
    hub_dataset: Path
    corpus: Path
    pairs: Path
    run_dir: Path
    dpo_dir: Path
    sft_checkpoint: Path
    dpo_checkpoint: Path
    references: Path
    evals: Path
    rollouts: Path
    duels: Path
    report_dir: Path
    logs: Path
    pretty: Path
    teacher_cache: Path
    teacher_answers: Path

    def eval_dir(self, name: str) -> Path:
        """Folder of one evaluation: evaluation_results.jsonl and evaluation_summary.json."""
        return self.evals / name

    def jsonl_files(self) -> list[Path]:
        """The run's JSONL artifacts that are there, in the order of the flow."""
        data = [self.domain_specs, self.schemas, self.dataset, self.corpus, self.pairs]
        evaluations = sorted(self.evals.glob(f"{self.run_dir.name}-*/evaluation_results.jsonl"))
        return [path for path in [*data, *evaluations] if path.exists()]


def paths(settings: Settings) -> Paths:
    """Where the artifacts of these settings' run lie.

    The d_0* files and the pairs of a named run have folders of their own, so that two runs do not clash.
    """
    out, run = Path(settings.output_dir), resolve_run(settings)
    default = run == "student" and not settings.schemas
    data = Path(settings.data_dir) if settings.data_dir else out if default else out / "data" / run
    runs = out / "student_runs"
    alignment = runs / "alignment"
    return Paths(
        domain_specs=data / "d_01_domain_specs.jsonl",
        schemas=data / "d_02_final_schemas.jsonl",
        dataset=data / "d_03_dataset.jsonl",
        hub_dataset=data / "d_03_hub",
        corpus=data / "d_04_training_corpus.jsonl",
        pairs=(alignment if run == "student" else alignment / run) / "dpo_pairs.jsonl",
        run_dir=runs / run,
        dpo_dir=runs / f"{run}-dpo",
        sft_checkpoint=Path(settings.adapter) if settings.adapter else runs / run / "checkpoint-final",
        dpo_checkpoint=runs / f"{run}-dpo" / "checkpoint-final",
        references=alignment / "reference_logps",
        evals=runs / "eval",
        rollouts=out / "rollouts" / run,
        duels=out / "duels",
        report_dir=out / "reports" / run,
        logs=out / "logs",
        pretty=out / "pretty",
        teacher_cache=out / "teacher_cache.sqlite",
        teacher_answers=Path(settings.teacher_answers) if settings.teacher_answers else out / "teacher_answers.jsonl",
    )


def evaluated(settings: Settings) -> tuple[str, str]:
    """Name and adapter folder of the student that --eval-student and --adapter ask for; adapter "" is the base."""
    run, where = resolve_run(settings), paths(settings)
    if settings.eval_student == "base" or (settings.eval_student == "auto" and not settings.adapter):
        return f"{run}-base", ""
    if settings.eval_student == "dpo":
        return f"{run}-dpo", str(where.dpo_checkpoint)
    if settings.eval_student == "sft":
        if _adapter_label(settings.adapter).startswith("dpo") and adapter_run(settings.adapter) == run:
            advice = "leave --eval-student out, or name another --run"
            raise SettingsError(f"--eval-student sft: {settings.adapter} is this run's DPO adapter; {advice}")
        return f"{run}-sft", str(where.sft_checkpoint)
    return f"{run}-{_adapter_label(settings.adapter)}", settings.adapter


def _adapter_label(adapter: str) -> str:
    """What an adapter is called in its evaluation's name: sft, dpo, sft-checkpoint-50, or the folder's own name."""
    folder = Path(adapter).resolve()
    if not adapter_run(str(folder)):
        return folder.parent.name if folder.name == "checkpoint-final" else folder.name
    stage = "dpo" if folder.parent.name.endswith("-dpo") else "sft"
    return stage if folder.name == "checkpoint-final" else f"{stage}-{folder.name}"


# ---------------------------------------------------------------------------------------------------------------------
# JSON and JSONL


def read_json(path: Path) -> Any:
    """One JSON document; raises UserError that names the file, and the line where it is broken."""
    text = _read_text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def read_jsonl(path: Path) -> list[Row]:
    """The rows of a JSONL file, blank lines skipped; raises UserError that names file:line of a broken one.

    Broken is what is not a JSON object, or lacks one of the FIELDS of its file, or has no JSON in one named *_json.
    """
    rows, fields = number_rows(path), FIELDS.get(path.name, ())
    for number, row in rows:
        if missing := [name for name in fields if name not in row]:
            raise UserError(f"{path}:{number}: this row has no {', '.join(missing)}{_maker(path)}")
        for name in fields:
            if name.endswith("_json"):
                _check_nested(row[name], f"{path}:{number}: {name}")
    return [row for _, row in rows]


def _check_nested(text: Any, where: str) -> None:
    try:
        json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON in a string: {error}") from None


def number_rows(path: Path) -> list[tuple[int, Row]]:
    """The rows of a JSONL file, each with the number of its line; their fields are not looked at."""
    lines = enumerate(_read_text(path).split("\n"), start=1)
    return [(number, parse_row(line, f"{path}:{number}")) for number, line in lines if line.strip()]


def parse_row(line: str, where: str) -> Row:
    """One line of JSONL as an object; raises UserError that begins with `where`."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: broken line, not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: broken line, not JSON: {error}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be a JSON object, not {type(row).__name__}")
    return row


def dump_row(row: Any) -> str:
    """JSON on one line. NaN raises ValueError; text that UTF-8 cannot hold (lone surrogates) is escaped."""
    return _dumps(row)


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON document; atomic: at any moment the old or the new one is there."""
    write_text(path, _dumps(value, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write rows; atomic."""
    write_text(path, "".join(dump_row(row) + "\n" for row in rows))


def open_templates(autoescape: bool = False) -> Any:
    """jinja2's environment over templates/: an unknown name is an error, and a line of markup leaves no line behind."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file; atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_pretty(settings: Settings) -> list[Path]:
    """Write each of a run's JSONL artifacts as indented JSON for people, *_json fields unfolded; returns where."""
    where, written = paths(settings), []
    for path in where.jsonl_files():
        rows = [{key: _unfold(key, value) for key, value in row.items()} for _, row in number_rows(path)]
        owner = path.parent.name if path.parent.parent == where.evals else where.run_dir.name
        written.append(where.pretty / f"{owner}-{path.stem}.json")
        write_json(written[-1], rows)
    return written


def _dumps(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent)
    return text


def _unfold(key: str, value: Any) -> Any:
    if not (key.endswith("_json") and isinstance(value, str)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is not there" + _maker(path)) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _maker(path: Path) -> str:
    script = "train_alignment_dpo.py" if path.parent.name.endswith("-dpo") else MADE_BY.get(path.name)
    return f"; scripts/{script} makes it (or check --run, --data-dir and --output-dir)" if script else ""


# ---------------------------------------------------------------------------------------------------------------------
# Stamps: what made an artifact


def digest(thing: Any) -> str:
    """sha256 in hex of a file, of a folder (names and contents), of bytes, or of a value's canonical JSON."""
    if isinstance(thing, Path):
        return _digest_folder(thing) if thing.is_dir() else _digest_file(thing)
    data = thing if isinstance(thing, bytes) else json.dumps(thing, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_folder(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[str(file.relative_to(path)), _digest_file(file)] for file in files])


def make_stamp(settings: Settings, *names: str, **facts: Any) -> dict[str, Any]:
    """What decides an artifact's content: these settings, the seed, and further facts (a model's digest)."""
    return {"settings": settings.subset(*names), "seed": settings.seed, **facts}


@cache
def versions() -> dict[str, str | None]:
    """Versions of what makes artifacts; read without importing it."""
    found: dict[str, str | None] = {"python": platform.python_version(), "schema_student": __version__}
    for name in ("torch", "transformers", "trl", "peft", "unsloth", "datasets", "ollama", "jsonschema-rs"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@cache
def git_commit() -> str | None:
    """Commit of this checkout, with "-dirty" where files differ from it; None outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _input_digests(inputs: Sequence[Path]) -> dict[str, str]:
    """Digest of each input by its name; raises UserError for one that is missing or unfinished."""
    found: dict[str, str] = {}
    for path in inputs:
        if not path.exists():
            raise UserError(f"input {path} is not there" + _maker(path))
        if _unfinished(path) or _unfinished(path.parent):
            raise UserError(f"input {path} is unfinished: run the step that makes it again" + _maker(path))
        name = path.name if path.name not in found else f"{path.parent.name}/{path.name}"
        found[name] = digest(path)
    return found


def _differences(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two stamps, in words."""
    found = []
    for key in sorted({*then, *now}):
        old, new, name = then.get(key), now.get(key), prefix + key
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, "" if key == "settings" else f"{name} ")
        elif old != new and prefix == "inputs ":
            found.append(f"input {key} has changed")
        elif old != new:
            found.append(f"{name} was {json.dumps(old)}, now {json.dumps(new)}")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Steps: done, refused, or continued


class Step:
    """One artifact being made. `done`: it is there already. `rows`: the whole rows of a partial JSONL artifact."""

    def __init__(self, path: Path, stamp: dict[str, Any]) -> None:
        self.path = path
        self.stamp = stamp
        self.done = False
        self.rows: list[Row] = []
        self._file: TextIO | None = None

    def append(self, row: Row) -> None:
        """Write one row; it survives a kill from here on."""
        line = dump_row(row) + "\n"
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="\n")
        self._file.write(line)
        self._file.flush()

    def finish(self, extra: dict[str, Any] | None = None) -> None:
        """Mark the artifact finished: write its .meta.json, the last thing a step does."""
        self._close()
        if self.path.suffix == ".jsonl":
            self.path.touch()
        assert self.path.exists(), f"{self.path} was finished but not written"
        facts: dict[str, Any] = {"versions": versions(), "git_commit": git_commit()}
        facts["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        if self.path.is_file():
            facts["digest"] = digest(self.path)
        write_json(_beside(self.path, "meta"), {**self.stamp, **facts, **(extra or {})})
        _beside(self.path, "partial").unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def open_step(
    path: Path, stamp: dict[str, Any], inputs: Sequence[Path] = (), overwrite: bool = False
) -> Iterator[Step]:
    """Hold an artifact's lock while it is made: a .jsonl file by rows, any other file or folder as a whole.

    Raises UserError where another process holds it, an input is missing or lies in it, or other settings made it.
    """
    _check_apart(path, inputs)
    stamp = json.loads(json.dumps({**stamp, "inputs": _input_digests(inputs)}))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        step = Step(path, stamp)
        if overwrite:
            _remove(path)
        _sweep(path)
        meta = read_meta(path)
        if meta and path.exists():
            _check_same(path, meta, stamp)
            step.done = True
            _beside(path, "partial").unlink(missing_ok=True)
            print(f"done already: {path} (finished {meta.get('finished_at')})")
        else:
            _begin(step)
        try:
            yield step
        finally:
            step._close()


def read_meta(path: Path) -> dict[str, Any] | None:
    """The .meta.json of an artifact; None where it is not finished."""
    meta = _beside(path, "meta")
    return read_json(meta) if meta.exists() else None


def dry_run(settings: Settings, reads: Sequence[Path], writes: Sequence[Path]) -> bool:
    """With --dry-run say what a script would read and write, and return True; else return False."""
    if not settings.dry_run:
        return False
    for path in reads:
        print(f"would read  {path} ({'present' if path.exists() else 'MISSING' + _maker(path)})")
    for path in writes:
        state = "finished" if read_meta(path) and path.exists() else "partial" if path.exists() else "absent"
        print(f"would write {path} ({state})")
    return True


def _begin(step: Step) -> None:
    """Take up a partial artifact that the same stamp began, or start a new one."""
    partial = _beside(step.path, "partial")
    if partial.exists() and step.path.exists():
        _refuse_difference(step.path, "begun", read_json(partial), step.stamp)
    _beside(step.path, "meta").unlink(missing_ok=True)
    write_json(partial, step.stamp)
    if step.path.suffix == ".jsonl" and step.path.exists():
        step.rows = _whole_rows(step.path)
        print(f"continuing {step.path} after row {len(step.rows)}")


def _whole_rows(path: Path) -> list[Row]:
    """The rows that end in a newline; what a kill left after the last of them is cut off."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return read_jsonl(path)


def _check_same(path: Path, meta: dict[str, Any], stamp: dict[str, Any]) -> None:
    _refuse_difference(path, "made", {key: meta.get(key) for key in stamp}, stamp)
    if path.is_file() and meta.get("digest") not in (None, digest(path)):
        advice = "to keep your edit start at the next stage (--from), to lose it give --overwrite"
        raise UserError(f"{path} was edited after it was made; {advice}")


def _refuse_difference(path: Path, how: str, then: dict[str, Any], now: dict[str, Any]) -> None:
    differences = _differences(then, now)
    if differences:
        advice = "give the same settings, another --run, or --overwrite to make it again"
        raise UserError(f"{path} was {how} otherwise: {'; '.join(differences)}. Either {advice}")


def _check_apart(path: Path, inputs: Sequence[Path]) -> None:
    """Refuse to make an artifact of what lies in it: that would be deleted before it is read."""
    for held in inputs:
        if held.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{path} would take the place of its own input {held}; name another --run")


def _remove(path: Path) -> None:
    # The marker goes first: a kill in between leaves an unfinished artifact, never a finished one that is not.
    _beside(path, "meta").unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    _beside(path, "partial").unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove the drafts that write_text left where its process was killed: `.NAME.PID.tmp`."""
    for folder in (path.parent, path):
        for draft in folder.glob(".*.tmp"):
            pid = draft.name.split(".")[-2]
            if pid.isdigit() and not _is_running(int(pid)):
                draft.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _unfinished(path: Path) -> bool:
    path = path.absolute()  # "." has no name
    return bool(path.name) and _beside(path, "partial").exists() and not _beside(path, "meta").exists()


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}.json")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold `<path>.lock`; the kernel frees it when its process dies, however it dies."""
    lock = path.with_name(path.name + ".lock")
    while True:
        file = lock.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "?"
            file.close()
            raise UserError(
                f"{path} is being written by process {holder}; wait for it, or name another --run"
            ) from None
        # Its last holder may have removed the file between our open and our flock.
        if lock.exists() and os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            break
        file.close()
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()
