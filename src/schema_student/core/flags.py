"""Read a verb's command line: one flag a setting that it reads, generated from the setting's field.

settings = load_settings(argv, "Train.", "train")       # refuses --domains 4, as nothing that "train" runs reads it
flags_for("train", ["--domains", "4", "--seed", "1"])   # ["--seed", "1"]: what a runner gives to a stage
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic.fields import FieldInfo

from schema_student import __version__
from schema_student.core.adapters import name_latest_adapter
from schema_student.core.errors import SettingsError
from schema_student.core.log import log
from schema_student.core.resources import CONFIG_DIR
from schema_student.core.settings import (
    FLAG_ONLY,
    GROUP_OF,
    GROUPS,
    Settings,
    allowed,
    is_list,
    kebab_case,
    make_settings,
    nearest_name,
    presets,
    read_config,
    read_preset,
)
from schema_student.core.verbs import settings_read, verbs_that_read

Own = Mapping[str, Mapping[str, Any]]  # arguments of a verb that are no settings: name -> argparse's options


OF_RUNNERS = "; it chooses stages, and is a flag of the runners (./runAll.sh) and of schema-student run"

# What a shell completes with a path, in the words of shtab.
PATHS = {
    "output_dir",
    "data_dir",
    "schemas",
    "domain_prompts",
    "schema_template",
    "operators",
    "data_set",
    "teacher_answers",
    "base_model",
    "adapter",
    "eval_data",
    "resume_from_checkpoint",
    "reward_model",
    "system_schema",
}
COMPLETE_PATH = {"bash": "_shtab_compgen_files", "zsh": "_files"}


class ResolveRequest(Exception):
    """Asks for the settings to be printed with every "auto" resolved, by a program that knows teachers and students."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("--print-config --resolved")
        self.settings = settings


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (see --help)")


# ---------------------------------------------------------------------------------------------------------------------
# Flags -> settings


def load_settings(argv: Sequence[str], description: str | None, verb: str = "config", **defaults: Any) -> Settings:
    """Read the settings of a verb's command line; its own `defaults` come before config/defaults.json.

    Raises SettingsError, and ResolveRequest for --print-config --resolved; leaves by SystemExit(0) after --help,
    --help-all and --print-config.
    """
    return parse_command(argv, description, verb, {}, **defaults)[0]


def parse_command(
    argv: Sequence[str], description: str | None, verb: str, own: Own, **defaults: Any
) -> tuple[Settings, argparse.Namespace]:
    """Read the settings of a verb's command line, and the arguments of its own; otherwise as load_settings."""
    program = Path(sys.argv[0]).name
    name = f"schema-student {verb}" if program in ("schema-student", "__main__.py") else program
    return _parse(argv, name, description or "", [verb], own, defaults)


def parse_runner(argv: Sequence[str], runner: str, verbs: Sequence[str], own: Own) -> Settings:
    """Read the settings of a runner's command line: those of its stages' verbs; otherwise as load_settings."""
    return _parse(argv, runner, "", verbs, own, {})[0]


def _parse(
    argv: Sequence[str], program: str, description: str, verbs: Sequence[str], own: Own, defaults: Mapping[str, Any]
) -> tuple[Settings, argparse.Namespace]:
    values = {**read_config(CONFIG_DIR / "defaults.json"), **defaults}
    shown = set(GROUP_OF) if "--help-all" in argv else {name for verb in verbs for name in settings_read(verb)}
    parser = build_parser(program, description, own, values, shown)
    arguments, unknown = parser.parse_known_args(list(argv))
    if arguments.help_all:
        parser.print_help()
        raise SystemExit(0)
    if unknown:
        flag = unknown[0].split("=")[0]
        advice = OF_RUNNERS if flag in ("--from", "--until") else nearest_name(flag, _settings_of_flags())
        raise SettingsError(f"unknown argument {unknown[0]!r}{advice}")
    settings = _make_settings(arguments, values)
    if arguments.print_config and arguments.resolved:
        raise ResolveRequest(settings)
    if arguments.resolved:
        raise SettingsError("--resolved is of --print-config; give both")
    if arguments.print_config:
        log.info(json.dumps(settings.flat(), indent=2))
        raise SystemExit(0)
    # A runner gives its stages each other's flags: it has refused what none of them reads.
    if "SCHEMA_STUDENT_RUNNER" not in os.environ:
        refuse_unread(verbs, argv, own)
    return name_latest_adapter(settings, verbs), arguments


def path_of(text: str) -> Path:
    """Read a flag's path: a shell leaves ~ as it is in --flag=~/x."""
    return Path(text).expanduser()


def _make_settings(arguments: argparse.Namespace, defaults: Mapping[str, Any]) -> Settings:
    given = {name: _flag_value(name, getattr(arguments, name)) for name in GROUP_OF if hasattr(arguments, name)}
    preset = read_preset(arguments.preset) if arguments.preset else {}
    from_file = read_config(path_of(arguments.config)) if arguments.config else {}

    def origin(name: str) -> str:
        if name in given:
            return f"--{kebab_case(name)}"
        if name in from_file:
            return f"{arguments.config}: {name}"
        return f"--preset {arguments.preset}: {name}" if name in preset else f"setting {name}"

    return make_settings({**defaults, **preset, **from_file, **given}, origin)


def _flag_value(name: str, value: Any) -> Any:
    """A flag's text as the setting's type, where it can be read so; what cannot stays text and is refused by name."""
    kind = _field(name).annotation
    if is_list(name):  # commas, or the flag repeated, or both
        if value == ["auto"] and _field(name).json_schema_extra:
            return "auto"
        items = [item.strip() for part in value for item in part.split(",") if item.strip()]
        return [_read_number(item) for item in items] if _holds_numbers(kind) else items
    if not isinstance(value, str) or kind is str or value in get_args(kind):
        return value
    return _read_number(value)


def _holds_numbers(kind: Any) -> bool:
    """Whether a list's items are numbers, with bounds or without."""
    item = get_args(kind)[0]
    return (get_args(item) or (item,))[0] is float


def _read_number(value: str) -> int | float | str:
    """A text as a number, where it is one."""
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Which verb takes which flags


def flags_for(verb: str, argv: Sequence[str]) -> list[str]:
    """Drop a command line's flags of settings that a verb does not read."""
    reads = {*settings_read(verb), ""}
    return [word for setting, words in _split_flags(argv) if setting in reads for word in words]


def refuse_unread(verbs: Iterable[str], argv: Sequence[str], own: Collection[str] = ()) -> None:
    """Raise SettingsError for the first flag of a setting that none of these verbs reads, but for `own` flags."""
    verbs = list(verbs)
    reads = {"", *(name for verb in verbs for name in settings_read(verb))}
    for setting, words in _split_flags(argv):
        if setting not in reads and words[0].partition("=")[0] not in own:
            flag, others = words[0].partition("=")[0], ", ".join(verbs_that_read(setting))
            raise SettingsError(f"{flag}: nothing that {' or '.join(verbs)} runs reads it; read by {others}")


def flags_of(given: Mapping[str, Any]) -> list[str]:
    """Write the flags that give these settings, with the preset that spares most of them; without hidden values.

    >>> flags_of({"domains": 3, "align": ["dpo", "ppo"], "strip_fences": True})
    ['--strip-fences', '--domains', '3', '--align', 'dpo,ppo']
    """
    defaults = read_config(CONFIG_DIR / "defaults.json")

    def differing(preset: str) -> dict[str, Any]:
        usual = defaults | (read_preset(preset) if preset else {})
        return {name: value for name, value in (defaults | dict(given)).items() if value != usual.get(name)}

    preset = min(("", *presets()), key=lambda name: len(differing(name)) + bool(name))
    words = ["--preset", preset] if preset else []
    for name, value in differing(preset).items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if "***" not in text:
            flag = kebab_case(name)
            words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", text]
    return words


def without_settings(names: Collection[str], argv: Sequence[str]) -> list[str]:
    """Drop the flags of these settings from a command line."""
    return [word for setting, words in _split_flags(argv) if setting not in names for word in words]


def without(own: Own, argv: Sequence[str]) -> list[str]:
    """Drop a verb's own flags, each of which has a value, from a command line."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name, options in own.items():
        parser.add_argument(name, **options)
    return parser.parse_known_args(list(argv))[1]


def _split_flags(argv: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """A command line as flags with their values, each with its setting; "" for all that is no setting's flag."""
    known, words = _settings_of_flags(), list(argv)
    while words:
        taken = [words.pop(0)]
        flag, has_value, _ = taken[0].partition("=")
        setting = known.get(flag, "")
        takes_value = (setting and not _is_switch(setting)) or flag in ("--config", "--preset")
        if takes_value and not has_value and words and not words[0].startswith("--"):
            taken.append(words.pop(0))
        yield setting, taken


def _settings_of_flags() -> dict[str, str]:
    """The setting of every flag; a switch has two, as --judge-valid and --no-judge-valid."""
    flags = {f"--{kebab_case(name)}": name for name in GROUP_OF}
    switches = [name for name in GROUP_OF if _is_switch(name) and name not in FLAG_ONLY]
    return flags | {f"--no-{kebab_case(name)}": name for name in switches}


def _is_switch(name: str) -> bool:
    return _field(name).annotation is bool


def _field(name: str) -> FieldInfo:
    return GROUPS[GROUP_OF[name]].model_fields[name]


# ---------------------------------------------------------------------------------------------------------------------
# The parser, and --help


def build_parser(
    program: str, description: str, own: Own, defaults: Mapping[str, Any], shown: Collection[str]
) -> argparse.ArgumentParser:
    """Build the parser of a program. It knows the flags of all settings, and shows those that are named."""
    positional = "".join(f"{o.get('metavar', name)} " for name, o in own.items() if not name.startswith("-"))
    parser = _Parser(
        usage=f"%(prog)s {positional}[flags]",
        prog=program,
        description=inspect.cleandoc(description),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, options in own.items():
        parser.add_argument(name, **options)
    config = parser.add_argument("--config", metavar="FILE", help="JSON file with any part of the settings")
    config.complete = COMPLETE_PATH  # type: ignore[attr-defined]
    words = f"a base and sizes: {', '.join(presets())}; flags and --config go before it"
    parser.add_argument("--preset", metavar="NAME", choices=presets(), help=words)
    parser.add_argument("--version", action="version", version=f"schema-student {__version__}")
    parser.add_argument("--print-config", action="store_true", help="print the settings as JSON and stop")
    parser.add_argument("--resolved", action="store_true", help='with --print-config: what "auto" becomes here')
    parser.add_argument("--help-all", action="store_true", help="show the flags of all verbs")
    for heading in dict.fromkeys(kind.section for kind in GROUPS.values()):
        names = [name for kind in GROUPS.values() if kind.section == heading for name in kind.model_fields]
        section = parser.add_argument_group(f"{heading} settings")  # argparse shows none that has nothing to show
        for name in names:
            words = _describe(name, defaults) if name in shown else argparse.SUPPRESS
            if f"--{kebab_case(name)}" not in own:
                _add_flag(section, name, words)
    return parser


def _describe(name: str, defaults: Mapping[str, Any]) -> str:
    """What --help says of a setting: meaning, choices, default."""
    default = defaults.get(name, _field(name).default)
    if isinstance(default, list):
        default = ",".join(map(str, default)) or "none"
    elif default == "" or not isinstance(default, str):
        default = json.dumps(default)
    return f"{_field(name).description}: {allowed(name)} (default: {default})".replace("%", "%%")


def _add_flag(section: Any, name: str, words: str) -> None:
    options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": words}
    if name in FLAG_ONLY:
        options["action"] = "store_true"
    elif _is_switch(name):
        options["action"] = argparse.BooleanOptionalAction
    elif is_list(name):
        options |= {"metavar": "X[,Y]", "action": "append"}
    else:
        options["metavar"] = "X"
    action = section.add_argument("--" + kebab_case(name), **options)
    if name in PATHS:
        action.complete = COMPLETE_PATH
