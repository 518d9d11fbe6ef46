"""Probe a server and its model: version, digest, context, and whether they honour `format` and `think`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from schema_student.core.log import log
from schema_student.core.setting_groups import AnswersSettings
from schema_student.core.stamps import digest
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.teacher.apis import Identity, Reply
from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.chat import ChatClient
from schema_student.teacher.choice import TeacherChoice, not_answering
from schema_student.teacher.dispatch import LONGEST_PAUSE, Host, pause_seconds
from schema_student.teacher.faults import ConnectFault, CutFault, RefusalFault, TeacherError, TeacherFault
from schema_student.teacher.retries import Retry, after_fault
from schema_student.teacher.thoughts import has_thoughts

PROBE_FORMAT = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "number": {"type": "integer"}},
    "required": ["color", "number"],
    "additionalProperties": False,
}
PROBE_MESSAGES = [{"role": "user", "content": "Name a color and a number."}]

T = TypeVar("T")


def probe_model(client: ChatClient, answers: AnswersSettings, cache: AnswerCache) -> dict[str, Any]:
    """Probe a server and its model: version, digest, context, and whether they honour `format` and `think`."""
    choice = client.choice
    first, identity = _identify_all(client)
    _check_context(identity, choice, answers)
    facts = {
        {"ollama": "ollama_version", "openai": "server"}[choice.api]: identity.server,
        "model_digest": identity.model_digest,
        "context_length": identity.context_length,
    }
    key = digest([facts, answers.teacher_think, PROBE_FORMAT])
    honors = cache.get(key) or _with_retries(client, first, lambda: _try_out(client, first, identity, answers))
    cache.put(key, "probe", choice.model, honors)
    if note := _note_on_thinking(answers.teacher_think, identity, honors):
        log.info(f"note: {choice.model} {note}")
    named = {"model": choice.model, "display_name": choice.display_name, "reason": choice.reason, "api": choice.api}
    return {**named, **facts, **honors}


def _identify_all(client: ChatClient) -> tuple[Host, Identity]:
    """Find the first host that answers and who it is; all that answer must have the same model."""
    found = [(host, identity) for host in client.hosts if (identity := _identify(host, client))]
    if len({identity.model_digest for _, identity in found}) > 1:
        names = ", ".join(host.server.host for host, _ in found)
        what = f"the hosts {names} have different versions of {client.choice.model}"
        raise TeacherError(f"{what}; pull it again on each")
    return found[0]


def _identify(host: Host, client: ChatClient) -> Identity | None:
    """Ask a host who it is; None where it does not answer and others may."""
    try:
        identity = _with_retries(client, host, lambda: host.server.identify(client.choice.model))
    except TeacherError as error:
        down = isinstance(error.__cause__, TeacherFault) and error.__cause__.can_pass
        host.failures = 1
        if not down or all(other.failures for other in client.hosts):
            raise
        host.rests_until = time.monotonic() + LONGEST_PAUSE
        log.info(f"note: {error}; going on with the other hosts, it is tried again later")
        return None
    host.checked_at = time.monotonic()
    return identity


def _with_retries(client: ChatClient, host: Host, action: Callable[[], T]) -> T:
    """Try an action again where its fault can pass; a server that is not there is not waited for."""
    faults = 0
    while True:
        try:
            return action()
        except ConnectFault as fault:
            raise not_answering(client.choice.api, host.server.host, fault) from fault
        except TeacherFault as fault:
            faults += 1
            if not isinstance(after_fault(fault, faults, client.server.teacher_retries), Retry):
                raise TeacherError(f"{fault}; or use --teacher-model embedded") from fault
        time.sleep(pause_seconds(faults))


def _check_context(identity: Identity, choice: TeacherChoice, answers: AnswersSettings) -> None:
    """Raise TeacherError where an Ollama model has less context than it is to be asked for."""
    length, wanted = identity.context_length, answers.teacher_num_ctx
    if choice.api == "ollama" and length and wanted > length:
        what = f"{choice.model} has a context of {length} tokens, not {wanted}"
        raise TeacherError(f"{what}: give --teacher-num-ctx {length} or less")


def _try_out(client: ChatClient, host: Host, identity: Identity, answers: AnswersSettings) -> dict[str, Any]:
    """Ask one small question: is `format` honored, ignored, or answered in `thinking`; which `think` is taken."""
    model, num_ctx = client.choice.model, answers.teacher_num_ctx
    if not client.choice.embedded:
        log.info(f"asking {model} a first question (it may have to be loaded) ...")
    for think in _thinks_to_try(answers.teacher_think, identity):
        try:
            options = {"num_ctx": num_ctx, "temperature": 0}
            reply = host.server.chat(model, PROBE_MESSAGES, PROBE_FORMAT, options, think)
        except RefusalFault:
            if think is None:
                raise
            continue
        except CutFault:
            reply = Reply("", "", 0, 0)  # it did not stop, so it did not hold the format
        host.server.limits = client.limits  # the model is loaded by now
        thought = bool(reply.thinking.strip()) or has_thoughts(reply.content)
        return {"format": _format_held(reply), "think": think, "thought": thought, "num_ctx": num_ctx}
    raise AssertionError("the last candidate returns or raises")


def _thinks_to_try(wanted: str, identity: Identity) -> list[str | bool | None]:
    """List values of `think`, the best first: some models take levels, others true and false, others none of it."""
    if wanted == "false":
        return [False, None]  # a server that does not know whether its model thinks may heed it
    if not wanted or not identity.thinks:
        return [None]
    return [True, None] if wanted == "true" else [wanted, True, None]


def _note_on_thinking(wanted: str, identity: Identity, honors: dict[str, Any]) -> str:
    """Say where a model does not think as --teacher-think wants it; "" where it does."""
    if wanted == "false":
        return "thinks all the same: its thinking cannot be switched off here" if honors["thought"] else ""
    if not wanted or not identity.thinks or honors["think"] in (wanted, wanted == "true"):
        return ""
    if honors["think"] is None:
        return f"does not take --teacher-think {wanted}: it thinks as it is used to"
    return f"takes no level of thinking: --teacher-think {wanted} lets it think, false does not"


def _format_held(reply: Reply) -> str:
    compiled = compile_schema(PROBE_FORMAT, "probe")
    if judge(reply.content, compiled).schema_valid:
        return "honored"
    return "in thinking" if judge(reply.thinking, compiled).schema_valid else "ignored"
