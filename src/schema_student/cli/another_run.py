"""Write the command of another run beside the one that a stage will not change: what its refusal advises.

another_run("train", ["--sft-learning-rate", "1e-3"], settings)
# "schema-student train --sft-learning-rate 1e-3 --run student-2 --data-dir outputs"
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from schema_student.core.flags import without_settings
from schema_student.core.links import LINKS, OBJECTIVES
from schema_student.core.names import resolve_run
from schema_student.core.paths import Paths, final_adapter, paths
from schema_student.core.settings import AnySettings
from schema_student.core.verbs import STAGES

MAKE_DATA = ("domains", "schemas", "generate", "corpus")  # another run has data of its own
ON_DATA = ("train", "evaluate", "align", "pairs", "dpo", "rollouts")  # another run takes the data of this one
ON_OWN_DATA = ("train-sft", "train-dpo", "train-beta-dpo")  # --data-set is given again


def another_run(verb: str, argv: Sequence[str], settings: AnySettings) -> str:
    """Write the command that runs a verb, or its runner from this stage on, as another run; "" where none is known."""
    if verb not in (*MAKE_DATA, *ON_DATA, *ON_OWN_DATA):
        return ""
    stage = _stage(verb, argv)
    given: dict[str, str] = {"run": _free_name(settings)}
    if verb in ON_DATA:
        given |= _what_is_there(verb, stage, settings)
    flags = without_settings({*given, "data_dir", "overwrite", "eval_student"}, argv)
    words = [*flags, *(word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value))]
    return f"{_command(verb, stage, given)} {shlex.join(words)}"


def _stage(verb: str, argv: Sequence[str]) -> str:
    """The stage that a verb with these flags is; "" for none."""
    stages = [(name, flags) for name, (own, *flags) in STAGES.items() if own == verb]
    return next((name for name, flags in stages if [*argv[len(argv) - len(flags) :]] == flags), "")


def _free_name(settings: AnySettings) -> str:
    run = resolve_run(settings)
    names = (f"{run}-{number}" for number in count(2))
    return next(name for name in names if not any(map(Path.exists, _folders(settings, name))))


def _folders(settings: AnySettings, run: str) -> list[Path]:
    where = paths(settings.changed(run=run, data_dir="", adapter=""))
    return [where.run_dir, *map(where.link_dir, OBJECTIVES), where.corpus.parent, where.pairs.parent]


def _what_is_there(verb: str, stage: str, settings: AnySettings) -> Mapping[str, str]:
    """The data and the adapter that another run goes on from."""
    where = paths(settings)
    found = {"data_dir": str(where.dataset.parent)}
    if verb == "evaluate" and (asked := _adapter_evaluated(where, settings)):
        found["adapter"] = asked
    elif verb in ("align", "pairs", "dpo", "rollouts") or stage == "evaluate_base":
        found["adapter"] = str(where.sft_checkpoint)
    return found


def _adapter_evaluated(where: Paths, settings: AnySettings) -> str:
    asked = settings.evaluated.eval_student
    if asked == "aligned":
        return final_adapter(settings)
    if asked in LINKS:
        return str(where.link_checkpoint(asked))
    return str(where.sft_checkpoint) if asked == "sft" else settings.student.adapter


def _command(verb: str, stage: str, given: Mapping[str, str]) -> str:
    """The runner from the stage on; else the program that was called, or `run` for what needs stages before it."""
    runner = os.environ.get("SCHEMA_STUDENT_COMMAND", "")
    if runner and stage != "evaluate_aligned":
        return f"{runner} --from {stage}" if verb in ON_DATA and stage else runner
    package = f"{shlex.quote(sys.executable)} -m schema_student"
    if verb in MAKE_DATA:
        return f"{package} run --until {stage}"
    return f"{package} {verb}"
