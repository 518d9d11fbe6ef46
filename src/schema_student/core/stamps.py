"""Stamp an artifact with what made it: digests, settings and versions.

make_stamp(settings, "prompt", "lora", base_digest=digest(path))    # {"settings": {...}, "seed": 13, ...}
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from schema_student import __version__
from schema_student.core.resources import CHECKOUT, IS_INSTALLED
from schema_student.core.settings import AnySettings

PART = "max_samples"  # the setting whose limit a stamp holds where it is of a part
FOLLOWS = ("inputs", "prompts")  # of a stamp: what has changed as well where the stage before took a part


def beside(path: Path, kind: str) -> Path:
    """Locate what is written beside an artifact: its "meta" when it is finished, its "partial" stamp until then."""
    return path.with_name(f"{path.name}.{kind}.json")


def digest(thing: Any) -> str:
    """Compute the sha256 of a file, of a folder (names and contents), of bytes, or of a value's canonical JSON."""
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


def make_stamp(settings: AnySettings, *groups: str, **facts: Any) -> dict[str, Any]:
    """Collect what decides an artifact's content: groups of settings, the seed, further facts (a model's digest).

    Every stage is limited by --max-samples: a stamp has its limit where there is one.
    """
    return {"settings": settings.dump(*groups) | dump_limit(settings), "seed": settings.run.seed, **facts}


def dump_limit(settings: AnySettings) -> dict[str, int]:
    """Dump the limit of a part, as artifacts name it; {} where there is none."""
    return {PART: limit} if (limit := settings.part.max_samples) else {}


def limit_of(stamp: dict[str, Any]) -> int:
    """Read the limit of the part that a stamp is of; 0 where it is of all.

    >>> limit_of({"settings": {"max_samples": 20}}), limit_of({})
    (20, 0)
    """
    return int(stamp.get("settings", {}).get(PART) or 0)


@cache
def versions() -> dict[str, str | None]:
    """Read the versions of the packages that make artifacts, without importing them."""
    found: dict[str, str | None] = {"python": platform.python_version(), "schema_student": __version__}
    for name in ("torch", "transformers", "trl", "peft", "unsloth", "datasets", "ollama", "jsonschema-rs"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@cache
def git_commit() -> str | None:
    """Read the commit of this checkout, with "-dirty" where files differ; None outside git or where it is installed."""
    if IS_INSTALLED:  # what lies above it may be the git repository of something else
        return None
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def find_differences(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Say in words what differs between two stamps."""
    found = []
    for key in sorted({*then, *now}):
        old, new, name = then.get(key), now.get(key), prefix + key
        if isinstance(old, dict) and isinstance(new, dict):
            found += find_differences(old, new, "" if key == "settings" else f"{name} ")
        elif old != new and prefix == "inputs ":
            found.append(f"input {key} has changed")
        elif old != new:
            found.append(f"{name} was {json.dumps(old)}, now {json.dumps(new)}")
    return found


def lifts_limit(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether a stamp is of a part (--max-samples) of what another one, otherwise the same, is of.

    >>> lifts_limit({"settings": {"max_samples": 20}}, {"settings": {}})
    True
    """
    before, after = limit_of(then), limit_of(now)
    return before > 0 and (not after or after > before) and not find_differences(_apart(then), _apart(now))


def _apart(stamp: dict[str, Any]) -> dict[str, Any]:
    """A stamp without how large the part is, and without what follows from that."""
    rest = {key: value for key, value in stamp.items() if key not in FOLLOWS}
    return rest | {"settings": {**stamp.get("settings", {}), PART: None}}
