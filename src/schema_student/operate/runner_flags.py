"""Read a runner's command line before its first stage: help, settings, version, and what is wrong with it.

    python -m schema_student.operate.runner_flags RUNNER "STAGE ..." VERB [VERB ...] -- [FLAG ...]

Each stage is given the runner's flags and takes its own. Exit code 2 names a flag that none of these verbs reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from schema_student.core.errors import SettingsError
from schema_student.core.flags import Own, ResolveRequest, parse_runner
from schema_student.core.log import log
from schema_student.core.processes import run_script
from schema_student.core.setting_groups import LATEST
from schema_student.core.settings import AnySettings
from schema_student.core.verbs import STAGES

LOADING = {"train", "evaluate", "align", "pairs", "dpo"}  # verbs that load a student


def main() -> None:
    """Say what is asked, or refuse what none of the verbs reads."""
    end = sys.argv.index("--")
    runner, stages, *verbs = sys.argv[1:end]
    with answer_resolve_request():
        settings = parse_runner(sys.argv[end + 1 :], runner, verbs, stage_flags(stages.split()))
        refuse_what_cannot_run(settings, stages.split())


@contextmanager
def answer_resolve_request() -> Iterator[None]:
    """Print what --print-config --resolved asks for in this block."""
    try:
        yield
    except ResolveRequest as asked:
        from schema_student.operate.resolved import resolve_settings

        log.info(json.dumps(resolve_settings(asked.settings), indent=2))
        raise SystemExit(0) from None


def stage_flags(stages: list[str]) -> Own:
    """Define the flags that choose among these stages."""
    text = "{} stage to run (default: %(default)s)"
    return {
        "--from": {"dest": "first", "metavar": "STAGE", "default": stages[0], "help": text.format("first")},
        "--until": {"dest": "last", "metavar": "STAGE", "default": stages[-1], "help": text.format("last")},
    }


def refuse_what_cannot_run(settings: AnySettings, stages: Sequence[str]) -> None:
    """Raise UserError before the first of these stages for what a later one would refuse, hours from now."""
    own = [stage for stage in stages if "--eval-student" in STAGES.get(stage, ())]
    if settings.endpoint.endpoint and own:
        advice = "leave it out, and evaluate the served student by schema-student evaluate --endpoint"
        raise SettingsError(f"--endpoint: {own[0]} asks the run's own student; {advice}")
    asked = settings.checkpoints.resume_from_checkpoint
    if asked != LATEST and {"sft", "align"} <= {*stages}:
        advice = f"give it to train or align; a run goes on from the {LATEST} of each by itself"
        raise SettingsError(f"--resume-from-checkpoint {asked} is of one stage, and two train here: {advice}")
    verbs = {STAGES.get(stage, (stage,))[0] for stage in stages}
    if LOADING & verbs and settings.student.base_model not in ("auto", "embedded"):
        from schema_student.student.choice import refuse_absent_base

        refuse_absent_base(settings)


if __name__ == "__main__":
    run_script(main)
