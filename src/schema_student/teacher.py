"""The one client of a teacher: a language model behind Ollama or an OpenAI-compatible API, or the embedded teacher.

Stages ask it for a role with a payload (see prompts.role_messages) and get back an answer that has been validated
here, whatever the server promised. Every answer is kept on disk, so that a resumed or repeated run asks nothing twice;
an invalid one is shown its violations, and kept with its reason.

    with open_teacher(settings) as teacher:
        spec = teacher.ask("domain_spec", {"index": 0})
        answers = teacher.ask_many([("answer", payload) for payload in payloads])   # in order; a failure is a value
        print(teacher.usage.line())
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from schema_student import embedded_teacher
from schema_student.answer_cache import AnswerCache
from schema_student.artifacts import Row, digest, paths
from schema_student.config import Settings
from schema_student.dispatch import LONGEST_PAUSE, Again, Done, Host, pause_seconds, run_all
from schema_student.prompts import repair_messages, role_format, role_messages
from schema_student.schemas import CompiledSchema, SchemaError, compile_schema, find_violations, judge
from schema_student.teacher_api import APIS, CutFault, Identity, ModelServer, Reply, named_hosts, open_servers
from schema_student.transport import (
    BusyFault,
    ConnectFault,
    Limits,
    RefusalFault,
    ServerFault,
    TeacherError,
    TeacherFault,
)

EMBEDDED_NAMES = ("embedded", embedded_teacher.MODEL)
WRITERS = ("domain_spec", "query")  # roles that must vary; the others are asked at temperature 0
TRIES = 3  # times that a question is put before an unusable answer to it is final
ANSWER_BYTES, TOKEN_BYTES = 64 * 1024, 1024  # an answer may have: some, and as many a token of context, as sent
RECHECK_SECONDS = 60.0  # a model's digest is looked at again after so long
AUTO_SECONDS = 2.0  # that "auto" waits for an Ollama to answer
SHOWN_PROBLEMS = 8  # violations that a repair shows
PROBE_FORMAT = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "number": {"type": "integer"}},
    "required": ["color", "number"],
    "additionalProperties": False,
}
PROBE_MESSAGES = [{"role": "user", "content": "Name a color and a number."}]

SERVERS = {  # what to call a server of an API, and how to start one
    "ollama": ("Ollama", "`ollama serve`"),
    "openai": ("OpenAI-compatible server", "`vllm serve MODEL` or `llama-server -m FILE`"),
}

Ask = tuple[str, dict[str, Any]]
T = TypeVar("T")


class AnswerFault(TeacherFault):
    """An answer that is empty, not JSON, or not valid: `problems` are its violations, `text` is what it says."""

    def __init__(self, reason: str, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.text, self.problems = text, list(problems)


@dataclass(frozen=True)
class TeacherFailure:
    """One question without a usable answer: a value in ask_many's list, a reason in a row."""

    role: str
    reason: str
    kind: str = "answer"


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
        return embedded_teacher.DISPLAY_NAME if self.embedded else self.model

    @property
    def stamp(self) -> str:
        """What decides the answers, as far as it is known without asking: the model, and the embedded one's rules."""
        return f"{self.model}@{embedded_teacher.model_digest()[:16]}" if self.embedded else self.model


@dataclass
class Question:
    """One question on its way: what it is, and how it has fared so far."""

    role: str
    messages: list[dict[str, str]]
    compiled: CompiledSchema
    key: str
    formatted: bool  # whether the server is given the schema as `format`
    tries: int = 0  # answers that were of no use
    faults: int = 0  # requests that failed
    repairs: int = 0
    rejected: AnswerFault | None = None  # the last answer, where it can be repaired
    cost: Counter[str] = field(default_factory=Counter)


# ---------------------------------------------------------------------------------------------------------------------
# Which teacher


def resolve_teacher(settings: Settings) -> TeacherChoice:
    """The teacher that these settings and this machine mean: --teacher-model, LLM_MODEL, .llmrc, else the best here.

    An id that a person named never falls back; "auto" takes preferred_teacher where the server has it.
    """
    hosts, api = _hosts(settings), settings.teacher_api
    model, origin = _named_model(settings)
    if model in EMBEDDED_NAMES:
        return TeacherChoice(embedded_teacher.MODEL, (), f"named by {origin}")
    if model != "auto":
        return TeacherChoice(model, hosts, f"named by {origin}", api)
    preferred, (name, _) = settings.preferred_teacher, SERVERS[api]
    limits = replace(_limits(settings), silence=AUTO_SECONDS, deadline=AUTO_SECONDS)
    with closing(open_servers(api, hosts, limits)[0]) as server:
        try:
            found = server.models()
        except TeacherFault:
            return TeacherChoice(embedded_teacher.MODEL, (), f"auto: no {name} answers at {hosts[0]}")
    if preferred in found or f"{preferred}:latest" in found:
        return TeacherChoice(preferred, hosts, f"auto: {name} at {hosts[0]} has it", api)
    return TeacherChoice(embedded_teacher.MODEL, (), f"auto: {name} at {hosts[0]} has not got {preferred}")


def _hosts(settings: Settings) -> tuple[str, ...]:
    api = settings.teacher_api
    return tuple(settings.teacher_host) or tuple(named_hosts(api)) or (APIS[api][0],)


def _named_model(settings: Settings) -> tuple[str, str]:
    """The model that a person named and where, or ("auto", "")."""
    if settings.teacher_model != "auto":
        return settings.teacher_model, "--teacher-model"
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


# ---------------------------------------------------------------------------------------------------------------------
# Opening and probing


@contextmanager
def open_teacher(settings: Settings, choice: TeacherChoice | None = None) -> Iterator[Teacher]:
    """The teacher, announced and probed; the embedded one is started here and stopped at the end.

    Raises TeacherError where no host answers, one has not got the model, or the model was changed while it was asked.
    """
    choice = choice or resolve_teacher(settings)
    print(f"teacher: {choice.display_name} ({choice.reason})")
    with ExitStack() as stack:
        addresses = choice.hosts or (stack.enter_context(embedded_teacher.serve()),)
        cache = stack.enter_context(closing(AnswerCache(paths(settings).teacher_cache)))
        # The first answer may wait until the model is loaded, and so in silence until the deadline.
        limits = replace(_limits(settings), silence=settings.teacher_deadline)
        servers = [stack.enter_context(closing(server)) for server in open_servers(choice.api, addresses, limits)]
        hosts = [Host(server) for server in servers]
        teacher = Teacher(settings, choice, hosts, cache, _probe(hosts, choice, settings, cache))
        yield teacher
        teacher.confirm_all()


def _limits(settings: Settings) -> Limits:
    max_bytes = ANSWER_BYTES + TOKEN_BYTES * settings.teacher_num_ctx
    return Limits(settings.teacher_timeout, settings.teacher_deadline, max_bytes)


def _probe(hosts: Sequence[Host], choice: TeacherChoice, settings: Settings, cache: AnswerCache) -> dict[str, Any]:
    """What the server and model are and honour: version, digest, context, whether `format` and `think` hold."""
    found = {host.server.host: identity for host in hosts if (identity := _identify(host, hosts, choice, settings))}
    if len({identity.model_digest for identity in found.values()}) > 1:
        names = ", ".join(found)
        raise TeacherError(f"the hosts {names} have different versions of {choice.model}; pull it again on each")
    first = next(host for host in hosts if host.server.host in found)
    identity = found[first.server.host]
    length = identity.context_length
    if choice.api == "ollama" and length and settings.teacher_num_ctx > length:
        what = f"{choice.model} has a context of {length} tokens, not {settings.teacher_num_ctx}"
        raise TeacherError(f"{what}: give --teacher-num-ctx {length} or less")
    facts = {
        {"ollama": "ollama_version", "openai": "server"}[choice.api]: identity.server,
        "model_digest": identity.model_digest,
        "context_length": length,
    }
    key = digest([facts, settings.teacher_think, PROBE_FORMAT])
    honors = cache.get(key) or _trying(settings, first.server, lambda: _try_out(first, choice, settings, identity))
    cache.put(key, "probe", choice.model, honors)
    named = {"model": choice.model, "display_name": choice.display_name, "reason": choice.reason, "api": choice.api}
    return {**named, **facts, **honors}


def _identify(host: Host, hosts: Sequence[Host], choice: TeacherChoice, settings: Settings) -> Identity | None:
    """Who a host is; None where it does not answer and others may."""
    try:
        identity = _trying(settings, host.server, lambda: host.server.identify(choice.model))
    except TeacherError as error:
        down = isinstance(error.__cause__, TeacherFault) and error.__cause__.can_pass
        host.failures = 1
        if not down or all(other.failures for other in hosts):
            raise
        host.rests_until = time.monotonic() + LONGEST_PAUSE
        print(f"note: {error}; going on with the other hosts, it is tried again later")
        return None
    host.checked_at = time.monotonic()
    return identity


def _trying(settings: Settings, server: ModelServer, action: Callable[[], T]) -> T:
    """The action's result, tried again where its fault can pass; a server that is not there is not waited for."""
    for number in range(1, settings.teacher_retries + 2):
        try:
            return action()
        except ConnectFault as fault:
            raise _down(settings.teacher_api, server.host, fault) from fault
        except TeacherFault as fault:
            if not fault.can_pass or number > settings.teacher_retries:
                raise TeacherError(f"{fault}; or use --teacher-model embedded") from fault
        time.sleep(pause_seconds(number))
    raise AssertionError("the last try returns or raises")


def _try_out(host: Host, choice: TeacherChoice, settings: Settings, identity: Identity) -> dict[str, Any]:
    """Ask one small question: is `format` honored, ignored, or answered in `thinking`; which `think` is taken."""
    if not choice.embedded:
        print(f"asking {choice.model} a first question (it may have to be loaded) ...", flush=True)
    thinks: list[Any] = [settings.teacher_think] if identity.thinks and settings.teacher_think else []
    options = {"num_ctx": settings.teacher_num_ctx, "temperature": 0}
    for think in [*thinks, None]:
        try:
            reply = host.server.chat(choice.model, PROBE_MESSAGES, PROBE_FORMAT, options, think)
        except RefusalFault:
            if think is None:
                raise
            continue
        except CutFault:
            reply = Reply("", "", 0, 0)  # it did not stop, so it did not hold the format
        host.server.limits = _limits(settings)  # loaded by now
        return {"format": _format_held(reply), "think": think, "num_ctx": settings.teacher_num_ctx}
    raise AssertionError("the last candidate returns or raises")


def _format_held(reply: Reply) -> str:
    compiled = compile_schema(PROBE_FORMAT, "probe")
    if judge(reply.content, compiled).schema_valid:
        return "honored"
    return "in thinking" if judge(reply.thinking, compiled).schema_valid else "ignored"


def _down(api: str, host: str, fault: Exception) -> TeacherError:
    name, start = SERVERS[api]
    advice = f"start it ({start}), name another with --teacher-host, or do without: --teacher-model embedded or auto"
    return TeacherError(f"{name} does not answer at {host} ({_why(fault)}): {advice}")


def _why(fault: Exception) -> str:
    """What a fault says in its parentheses: without the host and the advice, which its reader gets in other words."""
    return str(fault).partition(" (")[2].partition("): ")[0] or str(fault)


# ---------------------------------------------------------------------------------------------------------------------
# Asking


class Teacher:
    """A probed teacher: ask one question, or many at once."""

    def __init__(
        self,
        settings: Settings,
        choice: TeacherChoice,
        hosts: Sequence[Host],
        cache: AnswerCache,
        info: dict[str, Any],
    ) -> None:
        self.settings = settings
        self.choice = choice
        self.info = info
        self.usage = Usage()
        self._hosts = hosts
        self._cache = cache
        self._keys: dict[str, None] = {}  # of all questions, in their order
        self._changed = False  # the model, while it was asked

    @property
    def name(self) -> str:
        return self.choice.model

    @property
    def display_name(self) -> str:
        return self.choice.display_name

    @property
    def asked(self) -> int:
        """Questions that went to the server; the others were answered from disk."""
        return self.usage.asked

    def ask(self, role: str, payload: dict[str, Any]) -> Any:
        """The validated answer to one question; raises TeacherError where none is to be had."""
        answer = self.ask_many([(role, payload)])[0]
        if isinstance(answer, TeacherFailure):
            raise TeacherError(f"{self.display_name} gave no usable answer as {role}: {answer.reason}")
        return answer

    def ask_many(self, asks: Sequence[Ask], progress: str = "") -> list[Any]:
        """Answers in the order of the questions, teacher_concurrency at a time at each host; failures are values.

        Raises TeacherError where the teacher has gone away altogether: what it answered until then is kept.
        """
        answers: list[Any] = []
        waiting: dict[str, tuple[Question, list[int]]] = {}  # a question that stands there twice is asked once
        for i, ask in enumerate(asks):
            key = self._key(*ask)
            self._keys.setdefault(key)
            found = self._look_up(*ask, key)
            answers.append(found)
            if isinstance(found, Question):
                waiting.setdefault(key, (found, []))[1].append(i)
        questions = [question for question, _ in waiting.values()]
        self.usage.count(asked=len(questions), cache_hits=sum(isinstance(answer, dict) for answer in answers))
        bar = tqdm(
            total=len(asks), initial=len(asks) - len(questions), desc=progress, disable=not progress, leave=False
        )

        def tick() -> None:
            bar.set_postfix_str(self.usage.line(), refresh=False)
            bar.update()

        with bar:
            replies = run_all(questions, self._put, self._hosts, self.settings.teacher_concurrency, tick)
        for (_, places), reply in zip(waiting.values(), replies, strict=True):
            for i in places:
                answers[i] = reply
        return [answer if isinstance(answer, TeacherFailure) else answer["value"] for answer in answers]

    def rejected_answers(self) -> list[Row]:
        """Every rejected answer to what was asked so far, with its reason, in the order of the questions."""
        return self._cache.rejected(list(self._keys))

    def _key(self, role: str, payload: dict[str, Any]) -> str:
        """Digest of all that decides an answer; the host does not."""
        names = ("teacher_temperature", "teacher_num_ctx", "teacher_think")
        model = [self.name, self.info["model_digest"]]
        return digest(
            [role, role_messages(role, payload), role_format(role, payload), model, self.settings.subset(*names)]
        )

    def _look_up(self, role: str, payload: dict[str, Any], key: str) -> dict[str, Any] | Question | TeacherFailure:
        """The answer on disk, or the question to be put; an answer that is not valid (imported) is asked again."""
        try:
            compiled = compile_schema(role_format(role, payload), "format")
        except SchemaError as error:
            return TeacherFailure(role, str(error), "schema")
        answer = self._cache.get(key)
        if answer is not None and not find_violations(answer["value"], compiled):
            self.usage.count_cost(answer)
            return dict(answer)
        return Question(role, role_messages(role, payload), compiled, key, self.info["format"] != "ignored")

    def _put(self, question: Question, host: Host) -> Done[Any] | Again:
        """One request: the answer, a failure, or the wish to ask again."""
        started = time.monotonic()
        try:
            self._confirm(host)
            reply = self._chat(question, host)
            self._spend(question, started, reply)
            answer = {"value": _validated(self._said(reply), question.compiled), **question.cost}
        except (AnswerFault, CutFault) as fault:
            if isinstance(fault, CutFault):
                self._spend(question, started)
            return self._after_answer(question, fault)
        except TeacherFault as fault:
            self._spend(question, started)
            return self._after_fault(question, host, fault)
        if not self._changed:
            self._cache.put(question.key, question.role, self.name, answer)
            host.unconfirmed.append(question.key)
        return Done(answer)

    def _chat(self, question: Question, host: Host) -> Reply:
        number = int(question.key[:8], 16) % 2**31
        varied = question.tries or question.role in WRITERS
        temperature = self.settings.teacher_temperature if varied and question.rejected is None else 0.0
        num_ctx = self.settings.teacher_num_ctx
        if self.choice.api == "openai" and self.info["context_length"]:
            num_ctx = min(num_ctx, self.info["context_length"])
        options = {"num_ctx": num_ctx, "temperature": temperature, "seed": number + question.tries}
        schema = question.compiled.schema
        messages = [dict(message) for message in question.messages]
        if not question.formatted:
            messages[0]["content"] += (
                f"\nAnswer with one JSON object of this JSON Schema, nothing else:\n{json.dumps(schema)}"
            )
        if question.rejected is not None:
            messages = repair_messages(messages, question.rejected.text, question.rejected.problems)
        self.usage.count(requests=1)
        wanted = schema if question.formatted else None
        reply = host.server.chat(self.name, messages, wanted, options, self.info["think"])
        host.server.limits = _limits(self.settings)  # loaded by now
        return reply

    def _spend(self, question: Question, started: float, reply: Reply | None = None) -> None:
        cost: dict[str, float] = {"seconds": round(time.monotonic() - started, 3)}
        if reply:
            cost |= {"prompt_tokens": reply.prompt_tokens, "answer_tokens": reply.answer_tokens}
        question.cost.update(cost)
        self.usage.count_cost(cost)

    def _said(self, reply: Reply) -> str:
        in_thinking = self.info["format"] == "in thinking" and not reply.content.strip()
        return reply.thinking if in_thinking else reply.content

    def _after_answer(self, question: Question, fault: AnswerFault | CutFault) -> Done[Any] | Again:
        """Show an invalid answer its violations, teacher_repairs times; then ask anew, with another seed."""
        text = fault.text if isinstance(fault, AnswerFault) else ""
        problems = fault.problems if isinstance(fault, AnswerFault) else []
        question.tries += 1
        self._cache.reject(question.key, question.tries, question.role, self.name, fault.kind, str(fault), text)
        self.usage.reject(fault.kind)
        # The embedded teacher is a function of the question: it has no second thoughts.
        repairs = 0 if self.choice.embedded else self.settings.teacher_repairs
        question.rejected = None
        if question.tries >= max(TRIES, 1 + repairs):
            reason = f"{fault} ({question.tries} tries); another --teacher-model may do better"
            return Done(TeacherFailure(question.role, reason, fault.kind))
        if problems and question.repairs < repairs:
            assert isinstance(fault, AnswerFault)
            question.repairs += 1
            question.rejected = fault
            self.usage.count(repairs=1)
        return Again()

    def _after_fault(self, question: Question, host: Host, fault: TeacherFault) -> Done[Any] | Again:
        """Again after a pause what can pass, up to teacher_retries; a failure what cannot; an error what stops all."""
        self.usage.fail(fault.kind)
        if question.formatted and _dislikes_format(fault):
            question.formatted = False
            return Again()
        if fault.stops:
            raise TeacherError(str(fault))
        if not fault.can_pass:
            return Done(TeacherFailure(question.role, str(fault), fault.kind))
        question.faults += 1
        if question.faults > self.settings.teacher_retries:
            if isinstance(fault, ConnectFault) and all(other is host or other.failures for other in self._hosts):
                raise _down(self.choice.api, host.server.host, fault)
            reason = f"no answer after {question.faults} tries: {fault}"
            return Done(TeacherFailure(question.role, reason, fault.kind))
        self.usage.count(retries=1)
        asked_to = min(fault.retry_after, LONGEST_PAUSE) if isinstance(fault, BusyFault) else 0.0
        pause = max(asked_to, pause_seconds(question.faults))
        return Again(pause, failed=True, gone=isinstance(fault, ConnectFault))

    def _confirm(self, host: Host) -> None:
        """See to it that the host still has the model whose answers are kept; raises TeacherError where not."""
        now = time.monotonic()
        if now - host.checked_at < RECHECK_SECONDS:
            return
        before, host.checked_at = host.checked_at, now  # other threads need not look as well
        keys, host.unconfirmed = host.unconfirmed, []
        try:
            found = host.server.model_digest(self.name)
        except TeacherFault:
            host.checked_at, host.unconfirmed = before, keys + host.unconfirmed
            raise
        if found != self.info["model_digest"]:
            self._changed = True
            self._cache.forget(keys + host.unconfirmed)
            what = f"{self.name} at {host.server.host} was changed while it was asked"
            raise TeacherError(f"{what}: its last answers are dropped; run the same command with --overwrite")

    def confirm_all(self) -> None:
        """At the end of a run: no answer is kept of a model that was changed since the last look."""
        for host in self._hosts:
            if host.unconfirmed:
                host.checked_at = float("-inf")
                try:
                    self._confirm(host)
                except TeacherFault:
                    continue  # it has gone; what it said until then was valid


def _validated(text: str, compiled: CompiledSchema) -> Any:
    """The JSON value of an answer, taken out of fences or prose around it; raises AnswerFault with what is wrong."""
    if not text.strip():
        raise AnswerFault("the answer is empty", text)
    verdict = judge(text, compiled, strip_fences=True)
    if not verdict.parsed and 0 <= text.find("{") < text.rfind("}"):
        verdict = judge(text[text.find("{") : text.rfind("}") + 1], compiled)
    if verdict.schema_valid:
        return verdict.value
    if not verdict.parsed:
        what = f"the answer is not JSON ({verdict.parse_error})"
        raise AnswerFault(f"{what}: {text.strip()[:160]}", text, [what])
    problems = [f"{each.path or '/'}: {each.message} ({each.keyword})" for each in verdict.violations]
    raise AnswerFault(f"the answer is not valid: {problems[0]}", text, problems[:SHOWN_PROBLEMS])


def _dislikes_format(fault: TeacherFault) -> bool:
    """Whether a server stumbled over the answer's JSON Schema: not all of them can turn each into a grammar."""
    said = str(fault).casefold() if isinstance(fault, (RefusalFault, ServerFault)) else ""
    return any(word in said for word in ("grammar", "format", "json schema", "json_schema"))


# ---------------------------------------------------------------------------------------------------------------------
# What it cost


class Usage:
    """Counts of a run, by all threads: questions, requests, retries, rejected answers, time, tokens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._cost: Counter[str] = Counter()  # of all answers used, also of those from disk
        self._rejected: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    @property
    def asked(self) -> int:
        return self._counts["asked"]

    def count(self, **numbers: int) -> None:
        """Add to counts: asked, cache_hits, requests, retries, repairs."""
        with self._lock:
            self._counts.update(numbers)

    def count_cost(self, cost: dict[str, Any]) -> None:
        """Add seconds and tokens."""
        with self._lock:
            for name in ("seconds", "prompt_tokens", "answer_tokens"):
                self._cost[name] += cost.get(name, 0)

    def reject(self, kind: str) -> None:
        """Count a rejected answer."""
        with self._lock:
            self._rejected[kind] += 1

    def fail(self, kind: str) -> None:
        """Count a failed request."""
        with self._lock:
            self._faults[kind] += 1

    def line(self) -> str:
        """The counts for a progress bar."""
        counts, cost = self._counts, self._cost
        parts = [f"{_short(cost['prompt_tokens'])} tokens in", f"{_short(cost['answer_tokens'])} out"]
        named = {
            "cached": counts["cache_hits"],
            "retried": counts["retries"],
            "rejected": sum(self._rejected.values()),
        }
        return ", ".join(parts + [f"{n} {name}" for name, n in named.items() if n])

    def summary(self, rows: int) -> dict[str, Any]:
        """The counts for a file, and what each of `rows` kept rows cost."""
        names = ("asked", "cache_hits", "requests", "retries", "repairs")
        with self._lock:
            cost = {name: round(self._cost[name], 3) for name in ("seconds", "prompt_tokens", "answer_tokens")}
            return {
                **{name: self._counts[name] for name in names},
                "faults": dict(sorted(self._faults.items())),
                "rejected_answers": dict(sorted(self._rejected.items())),
                "cost": cost,
                "cost_a_row": {name: round(value / rows, 3) for name, value in cost.items()} if rows else {},
            }


def usage_line(usage: dict[str, Any], rows: int) -> str:
    """What a run asked and what a kept row cost, in one line for people, from Usage.summary."""
    each, cost = usage["cost_a_row"], usage["cost"]
    counts = f"{usage['asked']} questions in {usage['requests']} requests, {usage['cache_hits']} answers from disk"
    tokens = f"{_short(cost['prompt_tokens'])} tokens in, {_short(cost['answer_tokens'])} out"
    parts = [f"teacher: {counts}, {cost['seconds']:.1f} s of answering, {tokens}"]
    if each:
        a_row = f"{each['seconds']:.3f} s, {each['prompt_tokens']:.0f} tokens in, {each['answer_tokens']:.0f} out"
        parts.append(f"a row of the {rows} kept: {a_row}")
    for name in ("retries", "repairs"):
        parts += [f"{name} {usage[name]}"] if usage[name] else []
    for name, label in (("faults", "failed requests"), ("rejected_answers", "rejected answers")):
        kinds = ", ".join(f"{kind} {n}" for kind, n in usage[name].items())
        parts += [f"{label}: {kinds}"] if kinds else []
    return "; ".join(parts)


def _short(number: float) -> str:
    """A count for a narrow place: 950, 12k, 3.4M."""
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1000:.0f}k" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"
