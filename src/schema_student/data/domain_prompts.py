"""Read what domains the teacher is asked for: the shipped prompts, or the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from schema_student.core.errors import UserError
from schema_student.core.jsonl import number_rows, read_json, read_text
from schema_student.core.resources import DATA_DIR
from schema_student.core.setting_groups import DomainsSettings

SHIPPED = DATA_DIR / "domain_prompts.json"
FORM = "a prompt a line, or rows {prompt, domain?} in a .jsonl file"


class DomainPrompt(NamedTuple):
    """What a domain is about, in words, and its name where the user gave one."""

    text: str
    domain: str = ""


def prompts_file(settings: DomainsSettings) -> Path:
    """Locate the prompts of a run."""
    return Path(settings.domain_prompts or SHIPPED)


def read_domain_prompts(path: Path) -> list[DomainPrompt]:
    """Read the prompts of a file, in order; raises UserError with file and line of one that is none, or stands twice.

    A .json file is a list of them, as the shipped one is.
    """
    lines: dict[str, int] = {}
    prompts = []
    for number, prompt in _READ.get(path.suffix, _read_lines)(path):
        if (earlier := lines.setdefault(prompt.text, number)) != number:
            raise UserError(f"{path}:{number}: the prompt of line {earlier} once more; each makes a domain of its own")
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"{path}: no domain prompt in it; it is {FORM}")
    return prompts


def _read_lines(path: Path) -> Iterator[tuple[int, DomainPrompt]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.lstrip().startswith("{"):
            raise UserError(f"{path}:{number}: rows of JSON belong into a .jsonl file; this one has {FORM}")
        if line.strip():
            yield number, DomainPrompt(line.strip())


def _read_rows(path: Path) -> Iterator[tuple[int, DomainPrompt]]:
    for number, row in number_rows(path):
        if unknown := row.keys() - {"prompt", "domain"}:
            raise UserError(f"{path}:{number}: {min(unknown)} is not read; a row is {{prompt, domain?}}")
        prompt, domain = row.get("prompt"), row.get("domain", "")
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f"{path}:{number}: prompt is {json.dumps(prompt)}; it is a text: what the domain is about")
        if not isinstance(domain, str):
            raise UserError(f"{path}:{number}: domain is {json.dumps(domain)}; it is a text: what the domain is called")
        domain, prompt = domain.strip(), prompt.strip()
        yield number, DomainPrompt(f"{domain}: {prompt}" if domain else prompt, domain)


def _read_list(path: Path) -> Iterator[tuple[int, DomainPrompt]]:
    prompts = read_json(path)
    if not isinstance(prompts, list) or not all(isinstance(each, str) and each.strip() for each in prompts):
        raise UserError(f"{path}: domain prompts in a .json file are a list of texts; else {FORM}")
    yield from ((number, DomainPrompt(text.strip())) for number, text in enumerate(prompts, start=1))


_READ = {".jsonl": _read_rows, ".json": _read_list}
