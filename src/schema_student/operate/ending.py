"""Say at the end of a run where its results are, how long it took, and what to do next.

python -m schema_student.operate.ending RUNNER SECONDS VERB [VERB ...] -- [FLAG ...]
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from schema_student.core.flags import flags_for, flags_of, parse_runner
from schema_student.core.jsonl import read_object
from schema_student.core.log import log
from schema_student.core.names import resolve_run
from schema_student.core.paths import final_adapter, paths
from schema_student.core.processes import run_script
from schema_student.core.settings import AnySettings
from schema_student.core.verbs import SCRIPTS
from schema_student.report.manifest import write_manifest


def main() -> None:
    """Say it for a runner, whose environment names the scripts that ran."""
    end = sys.argv.index("--")
    runner, seconds, *verbs = sys.argv[1:end]
    settings = parse_runner(sys.argv[end + 1 :], runner, verbs, {})
    ran = os.environ.get("SCHEMA_STUDENT_SCRIPTS", "").split()
    say_end(settings, [verb for verb, script in SCRIPTS.items() if script in ran], float(seconds))


def say_end(settings: AnySettings, verbs: Collection[str], seconds: float) -> None:
    """Say where the results of these verbs are, how long they took, and what to do next."""
    log.info(f"\ndone in {say_duration(seconds)}")
    for line in list_findings(settings, verbs):
        log.info(line)
    for line in list_results(settings, verbs):
        log.info(line)
    if "report" not in verbs and (manifest := write_manifest(settings)):  # the report writes it itself
        log.info(f"  manifest: {manifest}")
    for line in list_next(settings, verbs):
        log.info(line)


def say_duration(seconds: float) -> str:
    """Say a duration in its two largest units.

    >>> say_duration(3725)
    '1 h 2 min'
    """
    minutes, left = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def list_findings(settings: AnySettings, verbs: Collection[str]) -> Iterator[str]:
    """List what the first screen of the report says: the run in a sentence, and whether alignment helped."""
    facts = paths(settings).report_dir / "report.json"
    if "report" in verbs and facts.exists():
        found = read_object(facts)
        yield str(found.get("headline", ""))
        if isinstance(alignment := found.get("alignment"), dict):
            yield f"{alignment.get('title')}. {alignment.get('text')}"


def list_results(settings: AnySettings, verbs: Collection[str]) -> Iterator[str]:
    """List what these verbs have left: data, adapter, report."""
    where = paths(settings)
    found = {"corpus": ("corpus", where.corpus), "train": ("adapter", where.sft_checkpoint)}
    found["align"] = ("adapter after alignment", Path(final_adapter(settings)))
    found["report"] = ("report", where.report_dir / "report.html")
    for verb, (name, path) in found.items():
        if verb in verbs and path != Path() and path.exists():
            yield f"  {name}: {path}"


def list_next(settings: AnySettings, verbs: Collection[str]) -> Iterator[str]:
    """List commands that go on from what these verbs have left."""
    where, run = paths(settings), resolve_run(settings)
    command = _installed_command()
    if "align" in verbs:
        data = f"--data-dir {shlex.quote(str(where.dataset.parent))} --sft-learning-rate 1e-3"
        same = _flags("run", settings, "data_dir", "adapter", "sft_learning_rate")
        yield f"next: {command} run --from sft --run {run}-2 {data}{same}"
        out = shlex.join(flags_of({"output_dir": settings.run.output_dir}))
        yield f"      {command} compare --runs {run},{run}-2 {out}".rstrip()
    elif "train" in verbs:
        adapter = f"--adapter {shlex.quote(str(where.sft_checkpoint))}"
        yield f"next: {command} evaluate {adapter}{_flags('evaluate', settings, 'adapter')}"
        yield f"      {command} run --from align --run {run}{_flags('run', settings)}"
    elif "corpus" in verbs:
        yield f"next: {command} run --from sft --run {run}{_flags('run', settings)}"


def _flags(verb: str, settings: AnySettings, *but: str) -> str:
    """The flags of a verb that give it the settings of this run, but for those that are named beside them."""
    beside = {"run", "eval_student", "overwrite", *but}
    words = flags_of({name: value for name, value in settings.flat().items() if name not in beside})
    return "".join(f" {shlex.quote(word)}" for word in flags_for(verb, words))


def _installed_command() -> str:
    """The command beside this Python as a person in this folder types it; else the module."""
    command = Path(sys.executable).with_name("schema-student")
    if not command.exists():
        return f"{sys.executable} -m schema_student"
    return str(command.relative_to(Path.cwd())) if command.is_relative_to(Path.cwd()) else str(command)


if __name__ == "__main__":
    run_script(main)
