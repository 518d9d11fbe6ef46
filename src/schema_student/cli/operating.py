"""Define the verbs by which people look after runs and machines: status, runtime, clean, menu, doctor."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from schema_student.core.artifacts import dry_run
from schema_student.core.errors import SettingsError, UserError
from schema_student.core.flags import Own, parse_command
from schema_student.core.log import log
from schema_student.core.settings import Settings

STATUS: Own = {
    "--watch": {"action": "store_true", "help": "show it anew every two seconds, until Ctrl-C or until nothing runs"},
    "--json": {"action": "store_true", "help": "as JSON, for programs; with --watch an object a line"},
}
RUNTIME: Own = {
    "--json": {"action": "store_true", "help": "as JSON, for programs and for reports of faults"},
    "--env": {"action": "store_true", "help": "the environment variables that are read or set, NAME=VALUE a line"},
}
CLEAN: Own = {
    "--dataset": {"action": "store_true", "help": "domain specs, schemas, rows, corpus: d_0*"},
    "--training": {"action": "store_true", "help": "SFT's and the reward model's folders, with all checkpoints"},
    "--evaluations": {"action": "store_true", "help": "rows and summaries of the evaluations"},
    "--alignment": {"action": "store_true", "help": "pairs, samples, and the folders of the links"},
    "--exports": {"action": "store_true", "help": "exported students"},
    "--all": {"action": "store_true", "help": "everything of --run; without --run all that the output folder holds"},
    "--yes": {"action": "store_true", "help": "ask nothing, for scripts"},
}
DOCTOR: Own = {"--json": {"action": "store_true", "help": "as JSON, for programs"}}
WATCH_EVERY = 2.0  # seconds
CLEAR = "\x1b[H\x1b[2J"  # what is on the terminal


def status(argv: Sequence[str]) -> None:
    """Show which runs there are, what of them is done, runs or failed and why, and what to do next.

    schema-student status
    schema-student status --watch --run mine      # from another terminal, while it runs
    schema-student status --json
    """
    settings, arguments = parse_command(argv, status.__doc__, "status", STATUS)
    if dry_run(settings, reads=[], writes=[]):
        return

    from schema_student.operate.status import describe_status, read_status

    while True:
        found = read_status(settings)
        if arguments.json:
            log.info(json.dumps(found, indent=None if arguments.watch else 2))
        else:
            if arguments.watch and sys.stdout.isatty():
                sys.stdout.write(CLEAR)
            log.info("\n".join(describe_status(found)))
        if not arguments.watch or all(run["state"] != "running" for run in found["runs"]):
            return
        time.sleep(WATCH_EVERY)


def runtime(argv: Sequence[str]) -> None:
    """Show what this machine has, packages to GPU, Ollama and bases; what every "auto" becomes here, and why.

    schema-student runtime
    schema-student runtime --base-model gemma --json

    Nothing is changed, fetched, started or loaded. Secrets are hidden.
    """
    settings, arguments = parse_command(argv, runtime.__doc__, "runtime", RUNTIME)
    if dry_run(settings, reads=[], writes=[]):
        return

    from schema_student.operate.runtime import describe_environment, describe_runtime, read_runtime

    facts = read_runtime(settings)
    if arguments.json:
        log.info(json.dumps(facts, indent=2))
    else:
        log.info("\n".join(describe_environment(facts) if arguments.env else describe_runtime(facts)))


def clean(argv: Sequence[str]) -> None:
    """Remove what runs have left, kind by kind, once it was shown with its size and you said yes.

    schema-student clean --evaluations --run mine
    schema-student clean --all --run old --yes
    schema-student clean --training --dry-run      # only shows it

    Without --run it is that of every run. Nothing outside the output folder is removed, and nothing of a run that is in
    progress. For --all you are asked twice.
    """
    settings, arguments = parse_command(argv, clean.__doc__, "clean", CLEAN)
    kinds = [
        name for name in ("dataset", "training", "evaluations", "alignment", "exports") if getattr(arguments, name)
    ]
    kinds = ["all"] if arguments.all else kinds
    if not kinds and not settings.run.dry_run:
        raise SettingsError("say what is to go: --dataset, --training, --evaluations, --alignment, --exports or --all")

    from schema_student.operate.removal import find_removable, refuse_running, remove
    from schema_student.operate.status import say_bytes

    found = find_removable(settings, kinds)
    for each in found:
        log.info(f"{say_bytes(each.bytes):>10}  {each.path}")
    log.info(f"{say_bytes(sum(each.bytes for each in found)):>10}  in all" if found else "nothing of that is there")
    if not found or dry_run(settings, reads=[], writes=[]):
        return
    refuse_running(settings)
    questions = ["Remove all of it?", "Really? It cannot be brought back."][: 2 if arguments.all else 1]
    if not arguments.yes and not all(map(_agrees, questions)):
        raise UserError("nothing was removed")
    remove(found, Path(settings.run.output_dir))
    log.info("removed")


def lead(settings: Settings, arguments: Mapping[str, Own]) -> None:
    """Lead through the verbs by a menu; raises UserError without a terminal, with what to type instead."""
    if dry_run(settings, reads=[], writes=[]):
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            "the menu needs a terminal; without one: schema-student status (what exists, and the command that comes "
            "next), schema-student run --preset tiny, schema-student --help"
        )
    if not importlib.util.find_spec("questionary"):
        raise UserError("the menu needs questionary: pip install 'schema-student[menu]'")

    from schema_student.operate import menu

    menu.lead(settings, arguments, menu.run_child)


def doctor(argv: Sequence[str]) -> None:
    """Try judge, teacher, data, training, generation and export in small, and say what a full run would need here.

    schema-student doctor
    schema-student doctor --base-model gemma --teacher-model gpt-oss:120b

    It takes under a minute with the embedded pair, leaves nothing behind, and ends with 1 where a part failed.
    """
    settings, arguments = parse_command(argv, doctor.__doc__, "doctor", DOCTOR)
    if dry_run(settings, reads=[], writes=[]):
        return

    from schema_student.operate.doctor import Measured, estimate, examine

    measured, checks = Measured(), []
    for check in examine(settings, measured):
        checks.append(check)
        if not arguments.json:
            log.info(f"{'ok    ' if check.ok else 'FAILED'} {check.part:<11}{check.seconds:5.1f} s  {check.words}")
            if check.advice:
                log.info(f"{'':27}{check.advice}")
    needs = {} if measured.failed else estimate(settings, measured)
    if arguments.json:
        log.info(json.dumps({"checks": [asdict(check) for check in checks], "full_run": needs}, indent=2))
    elif needs:
        log.info(_describe_needs(needs))
    if measured.failed:
        raise SystemExit(1)


def _describe_needs(needs: dict[str, float]) -> str:
    from schema_student.operate.ending import say_duration
    from schema_student.operate.status import say_bytes

    parts = ", ".join(
        f"{name} {say_duration(needs[name])}" for name in ("teacher", "training", "evaluation", "alignment")
    )
    memory, disk = (say_bytes(int(needs[name])) for name in ("memory", "disk"))
    return f"a full run here: about {say_duration(needs['seconds'])} ({parts}), {memory} of memory, {disk} of disk"


def _agrees(question: str) -> bool:
    """Ask at a terminal; raises UserError where there is none."""
    if not sys.stdin.isatty():
        raise UserError("nothing was removed: there is no terminal to ask at; give --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
