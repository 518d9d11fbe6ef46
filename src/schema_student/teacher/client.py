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
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm

from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.schema.compiling import CompiledSchema, SchemaError, compile_schema
from schema_student.schema.judging import find_violations, judge
from schema_student.teacher.apis import Reply, open_servers
from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.choice import TeacherChoice, request_limits, resolve_teacher
from schema_student.teacher.dispatch import LONGEST_PAUSE, Again, Done, Host, pause_seconds, run_all
from schema_student.teacher.embedded.server import serve
from schema_student.teacher.faults import (
    AnswerFault,
    BusyFault,
    ConnectFault,
    CutFault,
    RefusalFault,
    ServerFault,
    TeacherError,
    TeacherFailure,
    TeacherFault,
)
from schema_student.teacher.probe import not_answering, probe_hosts
from schema_student.teacher.roles import repair_messages, role_format, role_messages
from schema_student.teacher.usage import Usage

WRITERS = ("domain_spec", "query")  # roles that must vary; the others are asked at temperature 0
TRIES = 3  # times that a question is put before an unusable answer to it is final
RECHECK_SECONDS = 60.0  # a model's digest is looked at again after so long
SHOWN_PROBLEMS = 8  # violations that a repair shows


Ask = tuple[str, dict[str, Any]]


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
# Opening and probing


@contextmanager
def open_teacher(settings: AnySettings, choice: TeacherChoice | None = None) -> Iterator[Teacher]:
    """The teacher, announced and probed; the embedded one is started here and stopped at the end.

    Raises TeacherError where no host answers, one has not got the model, or the model was changed while it was asked.
    """
    choice = choice or resolve_teacher(settings)
    log.info(f"teacher: {choice.display_name} ({choice.reason})")
    with ExitStack() as stack:
        addresses = choice.hosts or (stack.enter_context(serve()),)
        cache = stack.enter_context(closing(AnswerCache(paths(settings).teacher_cache)))
        # The first answer may wait until the model is loaded, and so in silence until the deadline.
        limits = replace(request_limits(settings), silence=settings.server.teacher_deadline)
        servers = [stack.enter_context(closing(server)) for server in open_servers(choice.api, addresses, limits)]
        hosts = [Host(server) for server in servers]
        teacher = Teacher(settings, choice, hosts, cache, probe_hosts(hosts, choice, settings, cache))
        yield teacher
        teacher.confirm_all()


# ---------------------------------------------------------------------------------------------------------------------
# Asking


class Teacher:
    """A probed teacher: ask one question, or many at once."""

    def __init__(
        self,
        settings: AnySettings,
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
            replies = run_all(questions, self._put, self._hosts, self.settings.server.teacher_concurrency, tick)
        for (_, places), reply in zip(waiting.values(), replies, strict=True):
            for i in places:
                answers[i] = reply
        return [answer if isinstance(answer, TeacherFailure) else answer["value"] for answer in answers]

    def rejected_answers(self) -> list[Row]:
        """Every rejected answer to what was asked so far, with its reason, in the order of the questions."""
        return self._cache.rejected(list(self._keys))

    def _key(self, role: str, payload: dict[str, Any]) -> str:
        """Digest of all that decides an answer; the host does not."""
        model = [self.name, self.info["model_digest"]]
        return digest(
            [role, role_messages(role, payload), role_format(role, payload), model, self.settings.dump("answers")]
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
        temperature = self.settings.answers.teacher_temperature if varied and question.rejected is None else 0.0
        num_ctx = self.settings.answers.teacher_num_ctx
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
        host.server.limits = request_limits(self.settings)  # loaded by now
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
        repairs = 0 if self.choice.embedded else self.settings.answers.teacher_repairs
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
        if question.faults > self.settings.server.teacher_retries:
            if isinstance(fault, ConnectFault) and all(other is host or other.failures for other in self._hosts):
                raise not_answering(self.choice.api, host.server.host, fault)
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
