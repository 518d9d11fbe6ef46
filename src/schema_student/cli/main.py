"""Run `schema-student VERB`: one dict from verb to function, in the order of use.

schema-student                      # the verbs
schema-student train --help         # the flags of one, with their defaults
python -m schema_student train      # the same, where the package is not installed
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

from schema_student import __version__
from schema_student.cli import (
    alignment,
    data,
    deploy,
    evaluation,
    importing,
    operating,
    pipeline,
    reward,
    serving,
    training,
)
from schema_student.cli import ask as asking
from schema_student.cli import chat as chatting
from schema_student.cli import learning_curve as curving
from schema_student.cli import sweep as sweeping
from schema_student.cli.another_run import another_run
from schema_student.cli.preview import PREVIEW
from schema_student.core.artifacts import MadeOtherwiseError, dry_run, overwriting
from schema_student.core.errors import SettingsError, UserError, is_of_full_disk
from schema_student.core.flags import Own, build_parser, parse_command
from schema_student.core.jsonl import write_json
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.processes import explain_failure, run_script
from schema_student.core.resources import CONFIG_DIR, IS_INSTALLED
from schema_student.core.settings import Settings, config_schema, default_settings
from schema_student.core.verbs import RECORDED, settings_read, stage_of
from schema_student.operate.recorder import recorded, run_of
from schema_student.operate.runner_flags import answer_resolve_request

CONFIG: Own = {"--schema": {"action": "store_true", "help": "the JSON Schema of a configuration file instead"}}
COMPLETION: Own = {"shell": {"metavar": "SHELL", "choices": ("bash", "zsh"), "help": "bash or zsh"}}


def config(argv: Sequence[str]) -> None:
    """Print the settings that a command line gives, as a configuration file holds them.

    schema-student config --beta 0.2 > mine.json
    schema-student config --schema

    --schema writes config/schema.json of a checkout, by which editors check such a file; elsewhere it is printed.
    """
    settings, arguments = parse_command(argv, config.__doc__, "config", CONFIG)
    published = CONFIG_DIR / "schema.json"
    if not arguments.schema:
        log.info(json.dumps(settings.flat(), indent=2))
    elif IS_INSTALLED:
        log.info(json.dumps(config_schema(), indent=2))
    elif not dry_run(settings, reads=[], writes=[published]):
        write_json(published, config_schema())
        log.info(f"schema of the configuration: {published}")


def completion(argv: Sequence[str]) -> None:
    """Print a script that completes verbs and flags in bash or zsh.

    schema-student completion bash > ~/.local/share/bash-completion/completions/schema-student
    schema-student completion zsh > ~/.zfunc/_schema-student     # a folder of your $fpath
    """
    _, arguments = parse_command(argv, completion.__doc__, "completion", COMPLETION)

    import shtab

    log.info(shtab.complete(_parser_of_verbs(), shell=arguments.shell))


def menu(argv: Sequence[str]) -> None:
    """Lead through runs at a terminal: what exists, what comes next, each step with its settings and its command.

    schema-student menu
    schema-student menu --output-dir elsewhere

    A command is shown before it runs, and runs as if you had typed it. It needs questionary (the extra `menu`).
    """
    operating.lead(parse_command(argv, menu.__doc__, "menu", {})[0], ARGUMENTS)


GROUPED: dict[str, dict[str, Callable[[Sequence[str]], None]]] = {
    "From nothing to a report": {
        "run": pipeline.run,
        "domains": data.domains,
        "schemas": data.schemas,
        "generate": data.generate,
        "corpus": data.corpus,
        "train": training.train,
        "evaluate": evaluation.evaluate,
        "align": alignment.align,
        "report": evaluation.report,
    },
    "Use a student": {
        "ask": asking.ask,
        "chat": chatting.chat,
        "serve": serving.serve,
        "smoke": serving.smoke,
        "export": deploy.export,
        "parity": deploy.parity,
    },
    "Measure and compare": {
        "compare": evaluation.compare,
        "pairwise": evaluation.pairwise,
        "calibrate-judge": evaluation.calibrate_judge,
        "perplexity": evaluation.perplexity,
        "learning-curve": curving.learning_curve,
        "sweep": sweeping.sweep,
        "judge": evaluation.judge,
        "show-prompt": evaluation.show_prompt,
    },
    "Parts of an alignment": {
        "pairs": alignment.pairs,
        "dpo": alignment.dpo,
        "correct": alignment.correct,
        "rollouts": alignment.rollouts,
        "average": training.average,
        "replay-beta": alignment.replay_beta,
    },
    "Any model, any data": {
        "train-sft": training.train_on_any_data,
        "train-dpo": alignment.train_dpo,
        "train-beta-dpo": alignment.train_beta_dpo,
        "train-reward": reward.train_reward,
        "train-ppo": reward.train_ppo,
    },
    "Your own schemas": {
        "import": importing.import_schemas,
    },
    "Bases and teachers": {
        "fetch-base": training.fetch,
        "serve-teacher": data.serve_teacher,
        "export-answers": data.export_answers,
        "import-answers": data.import_answers,
        "pretrain": training.pretrain,
    },
    "Look after it": {
        "menu": menu,
        "status": operating.status,
        "runtime": operating.runtime,
        "clean": operating.clean,
        "doctor": operating.doctor,
        "pretty": evaluation.pretty,
        "config": config,
        "completion": completion,
    },
}
VERBS = {verb: function for group in GROUPED.values() for verb, function in group.items()}
ARGUMENTS: Mapping[str, Own] = {  # of verbs that take more than settings
    "run": pipeline.RUN,
    "corpus": PREVIEW,
    "train": PREVIEW,
    "train-sft": PREVIEW,
    "evaluate": evaluation.EVALUATE,
    "ask": asking.ASK,
    "chat": chatting.CHAT,
    "judge": evaluation.JUDGE,
    "show-prompt": evaluation.SHOW_PROMPT,
    "learning-curve": curving.LEARNING_CURVE,
    "sweep": sweeping.SWEEP,
    "perplexity": evaluation.PERPLEXITY,
    "serve": serving.SERVE,
    "import": importing.IMPORT,
    "fetch-base": training.FETCH,
    "serve-teacher": data.SERVE,
    "pretrain": training.PRETRAIN,
    "status": operating.STATUS,
    "runtime": operating.RUNTIME,
    "clean": operating.CLEAN,
    "doctor": operating.DOCTOR,
    "config": CONFIG,
    "completion": COMPLETION,
}


def main() -> NoReturn:
    """Run the verb that this program is called by (train-sft), or that its first argument names."""
    called, words = Path(sys.argv[0]).name, sys.argv[1:]
    run_script(lambda: dispatch([called, *words] if called in VERBS else words))


def run_verb(verb: str, *flags: str) -> NoReturn:
    """Run a verb with these flags and those of the program's own command line: what a script does."""
    run_script(lambda: run(verb, [*flags, *sys.argv[1:]]))


def dispatch(words: Sequence[str]) -> None:
    """Run the verb that the first word names with the other words; raises SettingsError for an unknown verb."""
    verb, *argv = words or ["--help"]
    if verb in ("-h", "--help"):
        log.info(describe_verbs())
    elif verb == "--version":
        log.info(f"schema-student {__version__}")
    elif verb in VERBS:
        run(verb, argv)
    else:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"the verbs are: {', '.join(VERBS)}"
        raise SettingsError(f"unknown verb {verb!r}; {advice}")


def run(verb: str, argv: Sequence[str]) -> None:
    """Run a verb; what is refused because of other settings is told with the command that makes it beside the first."""
    try:
        with answer_resolve_request(), _remember_overwritten(verb, argv), _record(verb, argv), _told_room(verb, argv):
            VERBS[verb](argv)
    except MadeOtherwiseError as error:
        command = another_run(verb, argv, _parse(verb, argv)[0])
        raise UserError(f"{error}\nAnother run beside it: {command}" if command else str(error)) from None


def _parse(verb: str, argv: Sequence[str]) -> tuple[Settings, argparse.Namespace]:
    return parse_command(argv, VERBS[verb].__doc__, verb, ARGUMENTS.get(verb, {}))


def _remember_overwritten(verb: str, argv: Sequence[str]) -> AbstractContextManager[None]:
    """With --overwrite remember until the verb's end what it has made again."""
    if "--overwrite" not in argv or "--dry-run" in argv:
        return nullcontext()
    return overwriting(paths(_parse(verb, argv)[0]).overwritten(verb))


@contextmanager
def _told_room(verb: str, argv: Sequence[str]) -> Iterator[None]:
    """Tell in one line which disk is full, where a verb, or a process that it forks, fails of that."""

    def explain(error: Exception) -> str:
        if not is_of_full_disk(error):
            return ""

        from schema_student.operate.room import explain_full_disk

        return explain_full_disk(error, _parse(verb, argv)[0])

    token = explain_failure.set(explain)
    try:
        yield
    except Exception as error:
        if words := explain(error):
            raise UserError(words) from error
        raise
    finally:
        explain_failure.reset(token)


def _record(verb: str, argv: Sequence[str]) -> AbstractContextManager[None]:
    """Record a verb that makes something of a run in the run's folder, unless it is only asked for words."""
    if verb not in RECORDED or {*argv} & {"-h", "--help", "--help-all", "--version", "--print-config", "--dry-run"}:
        return nullcontext()
    settings, arguments = _parse(verb, argv)
    of_others = verb in ("domains", "schemas") and settings.run.schemas  # schemas that are a person's own
    makes_nothing = of_others or getattr(arguments, "preview", None)
    if makes_nothing or not run_of(settings):
        return nullcontext()
    return recorded(stage_of(verb, settings.flat()), settings)


def describe_verbs() -> str:
    """List the verbs by what they are for, a line each."""
    width = max(map(len, VERBS))
    lines: list[str] = []
    for title, verbs in GROUPED.items():
        lines += [*([""] if lines else []), f"{title}:", *(f"  {verb:<{width}}  {summary(verb)}" for verb in verbs)]
    return "\n".join(
        [
            "usage: schema-student VERB [flags]",
            "",
            "Teach a small model to answer in JSON that obeys a schema.",
            "",
            *lines,
            "",
            "`schema-student VERB --help` shows its flags with their defaults; `schema-student --version` the version.",
        ]
    )


def summary(verb: str) -> str:
    """Return the first line of a verb's help."""
    return (VERBS[verb].__doc__ or "").partition("\n")[0]


def _parser_of_verbs() -> argparse.ArgumentParser:
    """All verbs as subcommands of one parser, for a shell to complete."""
    parser = argparse.ArgumentParser("schema-student")
    parser.add_argument("--version", action="store_true", help="the version")
    verbs = parser.add_subparsers(dest="verb")
    defaults = default_settings().flat()
    for verb in VERBS:
        own = build_parser(verb, "", ARGUMENTS.get(verb, {}), defaults, settings_read(verb))
        verbs.add_parser(verb, help=summary(verb), parents=[own], add_help=False)
    return parser
