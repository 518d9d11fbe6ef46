"""Which teacher, where and why: named by a person, else the best that this machine has."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from schema_student.core.settings import AnySettings
from schema_student.teacher.apis import APIS, named_hosts, open_servers
from schema_student.teacher.embedded.identity import DISPLAY_NAME, MODEL, model_digest
from schema_student.teacher.faults import TeacherError, TeacherFault
from schema_student.teacher.transport import Limits

EMBEDDED_NAMES = ("embedded", MODEL)


ANSWER_BYTES, TOKEN_BYTES = 64 * 1024, 1024  # an answer may have: some, and as many a token of context, as sent


AUTO_SECONDS = 2.0  # that "auto" waits for an Ollama to answer


SERVERS = {  # what to call a server of an API, and how to start one
    "ollama": ("Ollama", "`ollama serve`"),
    "openai": ("OpenAI-compatible server", "`vllm serve MODEL` or `llama-server -m FILE`"),
}


@dataclass(frozen=True)
class TeacherChoice:
    """Which teacher, where and why; no hosts means the embedded one."""

    model: str
    hosts: tuple[str, ...]
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
        """What decides the answers, as far as it is known without asking: the model, and the embedded one's rules."""
        return f"{self.model}@{model_digest()[:16]}" if self.embedded else self.model


def resolve_teacher(settings: AnySettings) -> TeacherChoice:
    """The teacher that these settings and this machine mean: --teacher-model, LLM_MODEL, .llmrc, else the best here.

    An id that a person named never falls back; "auto" takes preferred_teacher where the server has it.
    """
    hosts, api = _hosts(settings), settings.teacher.teacher_api
    model, origin = _named_model(settings)
    if model in EMBEDDED_NAMES:
        return TeacherChoice(MODEL, (), f"named by {origin}")
    if model != "auto":
        return TeacherChoice(model, hosts, f"named by {origin}", api)
    preferred, (name, _) = settings.teacher.preferred_teacher, SERVERS[api]
    limits = replace(request_limits(settings), silence=AUTO_SECONDS, deadline=AUTO_SECONDS)
    with closing(open_servers(api, hosts, limits)[0]) as server:
        try:
            found = server.models()
        except TeacherFault:
            return TeacherChoice(MODEL, (), f"auto: no {name} answers at {hosts[0]}")
    if preferred in found or f"{preferred}:latest" in found:
        return TeacherChoice(preferred, hosts, f"auto: {name} at {hosts[0]} has it", api)
    return TeacherChoice(MODEL, (), f"auto: {name} at {hosts[0]} has not got {preferred}")


def _hosts(settings: AnySettings) -> tuple[str, ...]:
    api = settings.teacher.teacher_api
    return tuple(settings.server.teacher_host) or tuple(named_hosts(api)) or (APIS[api][0],)


def _named_model(settings: AnySettings) -> tuple[str, str]:
    """The model that a person named and where, or ("auto", "")."""
    if settings.teacher.teacher_model != "auto":
        return settings.teacher.teacher_model, "--teacher-model"
    if name := os.environ.get("LLM_MODEL", "").strip():
        return name, "LLM_MODEL"
    for path in (Path(".llmrc"), Path.home() / ".llmrc"):
        if path.is_file() and (name := _read_llmrc(path)):
            return name, str(path)
    return "auto", ""


def _read_llmrc(path: Path) -> str:
    """The model in a .llmrc: JSON {"model": id}, a line LLM_MODEL=id or model: id, or the id alone; "" for none."""
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


def request_limits(settings: AnySettings) -> Limits:
    """The bounds of one request: seconds without a byte, seconds in all, bytes."""
    max_bytes = ANSWER_BYTES + TOKEN_BYTES * settings.answers.teacher_num_ctx
    return Limits(settings.server.teacher_timeout, settings.server.teacher_deadline, max_bytes)
