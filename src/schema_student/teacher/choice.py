"""Choose the teacher: named by a person, else the best that this machine has."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from schema_student.core.setting_groups import TeacherSettings
from schema_student.core.settings import AnySettings
from schema_student.teacher.addresses import APIS, Address, environment_hosts, find_addresses
from schema_student.teacher.apis import name_models, open_servers
from schema_student.teacher.budget import Limits, request_limits
from schema_student.teacher.embedded.identity import DISPLAY_NAME, MODEL, model_digest
from schema_student.teacher.faults import ConnectFault, ProxyFault, TeacherError, TeacherFault

EMBEDDED_NAMES = ("embedded", MODEL)
AUTO_SECONDS = 10.0  # that "auto" waits for a server that is there to answer


@dataclass(frozen=True)
class TeacherChoice:
    """Which teacher, where and why; no hosts means the embedded one."""

    model: str
    hosts: tuple[Address, ...]
    reason: str
    api: str = "ollama"

    @property
    def embedded(self) -> bool:
        return not self.hosts

    @property
    def display_name(self) -> str:
        return DISPLAY_NAME if self.embedded else self.model

    @property
    def stamp(self) -> str:
        """Return what decides the answers, as far as is known without asking: the model; the embedded one's rules."""
        return f"{self.model}@{model_digest()[:16]}" if self.embedded else self.model


def resolve_teacher(settings: AnySettings) -> TeacherChoice:
    """Choose the teacher: --teacher-model, LLM_MODEL, .llmrc, else the best that this machine has.

    An id that a person named never falls back; "auto" takes preferred_teacher where the server has it. Raises
    TeacherError where "auto" finds a fault, or a host that a person named does not answer or has not got the model.
    """
    model, origin = _named_model(settings.teacher)
    if model in EMBEDDED_NAMES:
        return TeacherChoice(MODEL, (), f"named by {origin}")
    api = settings.teacher.teacher_api
    hosts = find_addresses(api, settings.server.teacher_host)
    if model != "auto":
        return TeacherChoice(model, hosts, f"named by {origin}", api)
    limits = replace(request_limits(settings.server, settings.answers), silence=AUTO_SECONDS, deadline=AUTO_SECONDS)
    is_named = bool(settings.server.teacher_host or environment_hosts(api))
    return _best_teacher(settings.teacher, hosts, is_named, limits)


def _best_teacher(wanted: TeacherSettings, hosts: tuple[Address, ...], is_named: bool, limits: Limits) -> TeacherChoice:
    """Choose the preferred teacher where a host has it, else the embedded one, unless a person named the hosts."""
    api, preferred = wanted.teacher_api, wanted.preferred_teacher
    name = APIS[api].name
    try:
        host, found = _first_that_answers(api, hosts, limits)
    except ConnectFault as fault:
        if is_named:
            raise not_answering(api, str(hosts[0]), fault) from fault
        return TeacherChoice(MODEL, (), f"auto: no {name} answers at {hosts[0]}")
    except TeacherFault as fault:
        raise TeacherError(f"{fault}; or use --teacher-model embedded") from fault
    if preferred in found or f"{preferred}:latest" in found:
        return TeacherChoice(preferred, hosts, f"auto: {name} at {host} has it", api)
    missing = f"{name} at {host} has not got {preferred}"
    if is_named:
        raise TeacherError(
            f"{missing} ({name_models(found)}): get it there, or name another with --teacher-model (or embedded)"
        )
    return TeacherChoice(MODEL, (), f"auto: {missing}")


def _first_that_answers(api: str, hosts: Sequence[Address], limits: Limits) -> tuple[Address, dict[str, str]]:
    """Ask hosts for their models, the next where one is not there; raises the last one's ConnectFault, or a fault."""
    *others, last = hosts
    for host in others:
        try:
            return host, _models(api, host, limits)
        except ConnectFault:
            continue
    return last, _models(api, last, limits)


def _models(api: str, host: Address, limits: Limits) -> dict[str, str]:
    with closing(open_servers(api, [host], limits)[0]) as server:
        return server.models()


def _named_model(wanted: TeacherSettings) -> tuple[str, str]:
    """Find the model that a person named and where, or ("auto", "")."""
    if wanted.teacher_model != "auto":
        return wanted.teacher_model, "--teacher-model"
    if name := os.environ.get("LLM_MODEL", "").strip():
        return name, "LLM_MODEL"
    for path in (Path(".llmrc"), Path.home() / ".llmrc"):
        if path.is_file() and (name := _read_llmrc(path)):
            return name, str(path)
    return "auto", ""


def _read_llmrc(path: Path) -> str:
    """Read the model in a .llmrc: JSON {"model": id}, a line LLM_MODEL=id or model: id, the id alone; "" for none."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        if text.startswith("{"):
            values = json.loads(text)
            return str(values.get("model") or values.get("LLM_MODEL") or "")
    except (OSError, ValueError) as error:
        raise TeacherError(f"{path}: cannot be read ({error}); put LLM_MODEL=<model id> there, or remove it") from None
    lines = [line.split("#")[0].strip().removeprefix("export ") for line in text.splitlines()]
    lines = [line for line in lines if line]
    for line in lines:
        for separator in ("=", ": "):
            key, found, value = line.partition(separator)
            if found and key.strip().lower() in ("llm_model", "model"):
                return value.strip().strip("\"'")
    return lines[0] if len(lines) == 1 and "=" not in lines[0] and " " not in lines[0] else ""


def not_answering(api: str, host: str, fault: ConnectFault) -> TeacherError:
    """Make the error of a server that is not there, with how to start it."""
    name, start = APIS[api].name, APIS[api].start
    advice = f"start it ({start}), name another with --teacher-host, or do without: --teacher-model embedded"
    if isinstance(fault, ProxyFault):
        return TeacherError(f"{fault}; or do without: --teacher-model embedded")
    why = fault.what.partition(" (")[2].removesuffix(")") or fault.what
    return TeacherError(f"{name} does not answer at {host} ({why}): {advice}")
