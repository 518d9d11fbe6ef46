"""Read YAML as JSON: strings for keys, days and words such as `no` as they are written, no objects of Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_text

BOOLEAN = "tag:yaml.org,2002:bool"
MOST_VALUES = 2_000_000  # aliases can make a file of a kilobyte hold more than a machine does


def read_yaml(path: Path) -> Any:
    """Read one YAML document; raises UserError with file and line where it is broken, or holds what JSON does not."""
    import yaml  # few runs need it

    class Loader(yaml.SafeLoader):
        """Reads days, and the yes, no, on, off of YAML 1.1, as the texts that they are written as."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(BOOLEAN, re.compile("^(true|True|TRUE|false|False|FALSE)$"), [*"tTfF"])
    try:
        document = yaml.load(read_text(path), Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    return _as_json(document, path, [0], 0)


def _as_json(value: Any, path: Path, count: list[int], depth: int) -> Any:
    count[0] += 1
    if count[0] > MOST_VALUES or depth > 200:
        raise UserError(f"{path}: holds more than {MOST_VALUES:,} values once its aliases are written out, or itself")
    if isinstance(value, dict):
        return {str(key): _as_json(part, path, count, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_as_json(part, path, count, depth + 1) for part in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise UserError(f"{path}: a value that JSON does not have: {value!r}")
