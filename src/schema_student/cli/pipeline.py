"""Define the verb `run`: every stage from nothing to a report, each in a process of its own, as runAll.sh does."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

from schema_student.core.errors import SettingsError
from schema_student.core.files import make_folder, open_to_write
from schema_student.core.flags import flags_for, parse_command, without
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.processes import pass_on
from schema_student.core.verbs import SCRIPTS, STAGES
from schema_student.operate.ending import say_end
from schema_student.operate.runner_flags import refuse_what_cannot_run, stage_flags

RUN = stage_flags(list(STAGES))


def run(argv: Sequence[str]) -> None:
    """Run all stages from nothing to a report; started again after a stop, it continues where it was.

    schema-student run --schemas my_schemas/ --run mine
    schema-student run --from align --until evaluate_aligned

    Stages: domain_specs schemas dataset corpus sft evaluate_base evaluate_sft align evaluate_aligned report. Each
    takes those of the flags that it reads. The log is outputs/logs/run-TIME.log.
    """
    settings, chosen = parse_command(argv, run.__doc__, "run", RUN)
    names = choose_stages(chosen.first, chosen.last)
    refuse_what_cannot_run(settings, names)
    until = f" --until {chosen.last}" if chosen.last != list(STAGES)[-1] else ""
    whole = {
        "SCHEMA_STUDENT_SCRIPTS": " ".join(SCRIPTS[STAGES[name][0]] for name in names),
        "SCHEMA_STUDENT_COMMAND": f"{shlex.quote(sys.executable)} -m schema_student run{until}",
    }
    started = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path(os.devnull) if settings.run.dry_run else make_folder(paths(settings).logs) / f"run-{started}.log"
    begun = time.monotonic()
    with open(path, "wb") if settings.run.dry_run else open_to_write(path, "wb") as file:
        for name in names:
            code = run_stage(name, without(RUN, argv), file, whole)
            if code:
                log.info(f"log: {path}")
                raise SystemExit(code)
    if not settings.run.dry_run:
        say_end(settings, [STAGES[name][0] for name in names], time.monotonic() - begun)


def choose_stages(first: str, last: str) -> list[str]:
    """Choose the stages from one to another; raises SettingsError for an unknown one and for the wrong order."""
    names = list(STAGES)
    for name in (first, last):
        if name not in names:
            raise SettingsError(f"unknown stage {name!r}; the stages are: {' '.join(names)}")
    chosen = names[names.index(first) : names.index(last) + 1]
    if not chosen:
        raise SettingsError(f"--from {first} comes after --until {last}; the stages are: {' '.join(names)}")
    return chosen


def run_stage(name: str, flags: Sequence[str], file: IO[bytes], whole: Mapping[str, str]) -> int:
    """Run a stage with those of the flags that it reads; what it says goes to the terminal and to a file.

    `whole` are variables of its environment that say what stands around it.
    """
    verb, *own = STAGES[name]
    started = time.monotonic()
    _say(f"\n== {list(STAGES).index(name) + 1}/{len(STAGES)} {name}", file)
    command = [sys.executable, "-m", "schema_student", verb, *flags_for(verb, flags), *own]
    environment = {**os.environ, **whole, "SCHEMA_STUDENT_RUNNER": str(os.getpid())}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as stage:
        try:
            _copy(stage, file)
        except KeyboardInterrupt as interrupt:  # the stage's last words are kept
            pass_on(interrupt, stage.pid)
            _copy(stage, file)
            if stage.wait() == 0:  # it did not hear it, and the next one is not to begin
                raise
        ended = stage.wait()
    code = 128 - ended if ended < 0 else ended  # as a shell says which signal ended it
    took = round(time.monotonic() - started)
    _say(f"stage {name} ended with exit code {code} after {took} s" if code else f"-- {name}: {took} s", file)
    return code


def _copy(stage: subprocess.Popen[bytes], file: IO[bytes]) -> None:
    assert stage.stdout is not None
    while words := os.read(stage.stdout.fileno(), 65536):
        sys.stdout.buffer.write(words)
        sys.stdout.flush()
        file.write(words)
        file.flush()


def _say(line: str, file: IO[bytes]) -> None:
    log.info(line)
    file.write(f"{line}\n".encode())
    file.flush()
