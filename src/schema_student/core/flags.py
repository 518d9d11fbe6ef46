"""The command line: one flag a setting, generated from its field.

settings = load_settings(sys.argv[1:], __doc__, ["dataset", "teacher"])
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from schema_student.core.errors import SettingsError
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
    read_config,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (see --help)")


def load_settings(
    argv: Sequence[str], description: str | None, groups: Sequence[str] = (), **defaults: Any
) -> Settings:
    """The settings of a command line. Every setting is a flag of every script; --help shows those of `groups`.

    `defaults` are the script's own, before those of config/defaults.json.
    Raises SettingsError; leaves by SystemExit(0) after --help, --help-all and --print-config.
    """
    parser = _build_parser(description or "", groups, show_all="--help-all" in argv)
    flags, unknown = parser.parse_known_args(list(argv))
    if flags.help_all:
        parser.print_help()
        raise SystemExit(0)
    if unknown:
        known = ["--" + kebab_case(name) for name in GROUP_OF]
        raise SettingsError(f"unknown argument {unknown[0]!r}" + nearest_name(unknown[0].split("=")[0], known))
    given = {name: _flag_value(name, getattr(flags, name)) for name in GROUP_OF if hasattr(flags, name)}
    from_file = read_config(Path(flags.config)) if flags.config else {}

    def origin(name: str) -> str:
        if name in given:
            return f"--{kebab_case(name)}"
        return f"{flags.config}: {name}" if name in from_file else f"setting {name}"

    settings = make_settings({**read_config(CONFIG_DIR / "defaults.json"), **defaults, **from_file, **given}, origin)
    if flags.print_config:
        print(json.dumps(settings.flat(), indent=2))
        raise SystemExit(0)
    return settings


def _build_parser(description: str, groups: Sequence[str], show_all: bool) -> argparse.ArgumentParser:
    parser = _Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="JSON file with any part of the settings")
    parser.add_argument("--print-config", action="store_true", help="print the settings as JSON and stop")
    parser.add_argument("--help-all", action="store_true", help="show the flags of all stages")
    for heading in dict.fromkeys(kind.section for kind in GROUPS.values()):
        shown = show_all or not groups or heading == "general" or heading in groups
        section = parser.add_argument_group(f"{heading} settings") if shown else parser
        for name in (name for kind in GROUPS.values() if kind.section == heading for name in kind.model_fields):
            words = f"{_field(name).description}: {allowed(name)}".replace("%", "%%")
            _add_flag(section, name, words if shown else argparse.SUPPRESS)
    return parser


def _field(name: str) -> FieldInfo:
    return GROUPS[GROUP_OF[name]].model_fields[name]


def _add_flag(section: Any, name: str, words: str) -> None:
    options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": words}
    if name in FLAG_ONLY:
        options["action"] = "store_true"
    elif _field(name).annotation is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif is_list(name):
        options |= {"metavar": "X[,Y]", "action": "append"}
    else:
        options["metavar"] = "X"
    section.add_argument("--" + kebab_case(name), **options)


def _flag_value(name: str, value: Any) -> Any:
    """A flag's text as the setting's type, where it can be read so; what cannot stays text and is refused by name."""
    kind = _field(name).annotation
    if is_list(name):  # commas, or the flag repeated, or both
        return [item.strip() for part in value for item in part.split(",") if item.strip()]
    if not isinstance(value, str) or kind is str:
        return value
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    return value
