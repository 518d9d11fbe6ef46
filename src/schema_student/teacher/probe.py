"""What a server and its model are and honour: version, digest, context, `format` and `think`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from schema_student.core.log import log
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.schema.compiling import compile_schema
from schema_student.schema.judging import judge
from schema_student.teacher.apis import Identity, ModelServer, Reply
from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.choice import SERVERS, TeacherChoice, request_limits
from schema_student.teacher.dispatch import LONGEST_PAUSE, Host, pause_seconds
from schema_student.teacher.faults import ConnectFault, CutFault, RefusalFault, TeacherError, TeacherFault

PROBE_FORMAT = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "number": {"type": "integer"}},
    "required": ["color", "number"],
    "additionalProperties": False,
}


PROBE_MESSAGES = [{"role": "user", "content": "Name a color and a number."}]


T = TypeVar("T")


def probe_hosts(
    hosts: Sequence[Host], choice: TeacherChoice, settings: AnySettings, cache: AnswerCache
) -> dict[str, Any]:
    """What the server and model are and honour: version, digest, context, whether `format` and `think` hold."""
    found = {host.server.host: identity for host in hosts if (identity := _identify(host, hosts, choice, settings))}
    if len({identity.model_digest for identity in found.values()}) > 1:
        names = ", ".join(found)
        raise TeacherError(f"the hosts {names} have different versions of {choice.model}; pull it again on each")
    first = next(host for host in hosts if host.server.host in found)
    identity = found[first.server.host]
    length = identity.context_length
    if choice.api == "ollama" and length and settings.answers.teacher_num_ctx > length:
        what = f"{choice.model} has a context of {length} tokens, not {settings.answers.teacher_num_ctx}"
        raise TeacherError(f"{what}: give --teacher-num-ctx {length} or less")
    facts = {
        {"ollama": "ollama_version", "openai": "server"}[choice.api]: identity.server,
        "model_digest": identity.model_digest,
        "context_length": length,
    }
    key = digest([facts, settings.answers.teacher_think, PROBE_FORMAT])
    honors = cache.get(key) or _trying(settings, first.server, lambda: _try_out(first, choice, settings, identity))
    cache.put(key, "probe", choice.model, honors)
    named = {"model": choice.model, "display_name": choice.display_name, "reason": choice.reason, "api": choice.api}
    return {**named, **facts, **honors}


def _identify(host: Host, hosts: Sequence[Host], choice: TeacherChoice, settings: AnySettings) -> Identity | None:
    """Who a host is; None where it does not answer and others may."""
    try:
        identity = _trying(settings, host.server, lambda: host.server.identify(choice.model))
    except TeacherError as error:
        down = isinstance(error.__cause__, TeacherFault) and error.__cause__.can_pass
        host.failures = 1
        if not down or all(other.failures for other in hosts):
            raise
        host.rests_until = time.monotonic() + LONGEST_PAUSE
        log.info(f"note: {error}; going on with the other hosts, it is tried again later")
        return None
    host.checked_at = time.monotonic()
    return identity


def _trying(settings: AnySettings, server: ModelServer, action: Callable[[], T]) -> T:
    """The action's result, tried again where its fault can pass; a server that is not there is not waited for."""
    for number in range(1, settings.server.teacher_retries + 2):
        try:
            return action()
        except ConnectFault as fault:
            raise not_answering(settings.teacher.teacher_api, server.host, fault) from fault
        except TeacherFault as fault:
            if not fault.can_pass or number > settings.server.teacher_retries:
                raise TeacherError(f"{fault}; or use --teacher-model embedded") from fault
        time.sleep(pause_seconds(number))
    raise AssertionError("the last try returns or raises")


def _try_out(host: Host, choice: TeacherChoice, settings: AnySettings, identity: Identity) -> dict[str, Any]:
    """Ask one small question: is `format` honored, ignored, or answered in `thinking`; which `think` is taken."""
    if not choice.embedded:
        log.info(f"asking {choice.model} a first question (it may have to be loaded) ...")
    thinks: list[Any] = [settings.answers.teacher_think] if identity.thinks and settings.answers.teacher_think else []
    options = {"num_ctx": settings.answers.teacher_num_ctx, "temperature": 0}
    for think in [*thinks, None]:
        try:
            reply = host.server.chat(choice.model, PROBE_MESSAGES, PROBE_FORMAT, options, think)
        except RefusalFault:
            if think is None:
                raise
            continue
        except CutFault:
            reply = Reply("", "", 0, 0)  # it did not stop, so it did not hold the format
        host.server.limits = request_limits(settings)  # loaded by now
        return {"format": _format_held(reply), "think": think, "num_ctx": settings.answers.teacher_num_ctx}
    raise AssertionError("the last candidate returns or raises")


def _format_held(reply: Reply) -> str:
    compiled = compile_schema(PROBE_FORMAT, "probe")
    if judge(reply.content, compiled).schema_valid:
        return "honored"
    return "in thinking" if judge(reply.thinking, compiled).schema_valid else "ignored"


def not_answering(api: str, host: str, fault: Exception) -> TeacherError:
    """The error of a server that is not there, with how to start it."""
    name, start = SERVERS[api]
    advice = f"start it ({start}), name another with --teacher-host, or do without: --teacher-model embedded or auto"
    return TeacherError(f"{name} does not answer at {host} ({_why(fault)}): {advice}")


def _why(fault: Exception) -> str:
    """What a fault says in its parentheses: without the host and the advice, which its reader gets in other words."""
    return str(fault).partition(" (")[2].partition("): ")[0] or str(fault)
