"""Ask a teacher by roles: a model behind Ollama or an OpenAI-compatible API, or the embedded teacher.

Stages ask it for a role with a payload (see roles.role_messages) and get back an answer that has been validated here,
whatever the server promised. Every answer is kept on disk, so that a resumed or repeated run asks nothing twice; an
invalid one is shown its violations, and kept with its reason.

    with open_teacher(settings) as teacher:
        spec = teacher.ask("domain_spec", {"index": 0})
        answers = teacher.ask_many([("answer", payload) for payload in payloads])   # in order; a failure is a value
        log.info(teacher.usage.line())
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.chunks import HERE, map_chunks
from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.paths import paths
from schema_student.core.progress import Progress
from schema_student.core.setting_groups import AnswersSettings, ClusterSettings, ServerSettings
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.schema.compiling import SchemaError, compile_schema
from schema_student.schema.judging import find_violations
from schema_student.teacher.apis import Reply
from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.chat import ChatClient, open_chat
from schema_student.teacher.choice import TeacherChoice, resolve_teacher
from schema_student.teacher.confirmation import ConfirmedAnswers
from schema_student.teacher.dispatch import Again, Done, Host
from schema_student.teacher.faults import AnswerFault, CutFault, TeacherError, TeacherFailure, TeacherFault
from schema_student.teacher.probe import probe_model
from schema_student.teacher.questions import Question, read_answer, text_of, write_chat
from schema_student.teacher.retries import DropFormat, GiveUp, Repair, Retry, after_answer
from schema_student.teacher.roles import role_format, role_messages
from schema_student.teacher.usage import Usage

CHUNK = 4  # questions that a worker of a cluster puts one after another, each of its concurrency
Ask = tuple[str, dict[str, Any]]
SAMPLE = "sample"  # in a payload: the n-th independent answer to the same question, 0 = the first


@contextmanager
def open_teacher(settings: AnySettings, choice: TeacherChoice | None = None) -> Iterator[Teacher]:
    """Open the teacher, announced and probed; the embedded one is started here and stopped at the end.

    Raises TeacherError where no host answers, one has not got the model, or the model was changed while it was asked.
    """
    choice = choice or resolve_teacher(settings)
    log.info(f"teacher: {choice.display_name} ({choice.reason})")
    with (
        open_chat(choice, settings.server, settings.answers) as chat,
        closing(AnswerCache(paths(settings).teacher_cache)) as cache,
    ):
        info = probe_model(chat, settings.answers, cache)
        chat.cluster = settings.cluster
        teacher = Teacher(chat, settings.answers, cache, info)
        yield teacher
        teacher.confirm_all()


class Teacher:
    """A probed teacher: ask one question, or many at once."""

    def __init__(self, chat: ChatClient, answers: AnswersSettings, cache: AnswerCache, info: dict[str, Any]) -> None:
        self.chat = chat
        self.info = info
        self._answers = answers
        self._cache = cache
        self._confirmed = ConfirmedAnswers(self.name, info["model_digest"], chat.hosts, cache)
        self._keys: dict[str, None] = {}  # of all questions, in their order

    @property
    def name(self) -> str:
        return self.chat.choice.model

    @property
    def display_name(self) -> str:
        return self.chat.choice.display_name

    @property
    def usage(self) -> Usage:
        return self.chat.usage

    def ask(self, role: str, payload: dict[str, Any]) -> Any:
        """Ask one question for its validated answer; raises TeacherError where none is to be had."""
        answer = self.ask_many([(role, payload)])[0]
        if isinstance(answer, TeacherFailure):
            raise TeacherError(f"{self.display_name} gave no usable answer as {role}: {answer.reason}")
        return answer

    def ask_many(self, asks: Sequence[Ask], progress: str = "") -> list[Any]:
        """Ask many questions, teacher_concurrency at a time at each host; answers in order, failures are values.

        Raises TeacherError where the teacher has gone away altogether: what it answered until then is kept.
        """
        found = [self._look_up(*ask) for ask in asks]
        waiting = {
            each.key: each for each in found if isinstance(each, Question)
        }  # one that stands twice is asked once
        self.usage.count(asked=len(waiting), cache_hits=sum(isinstance(each, dict) for each in found))
        answers = self._put_all(list(waiting.values()), len(asks), progress)
        ends = [answers[each.key] if isinstance(each, Question) else each for each in found]
        return [end if isinstance(end, TeacherFailure) else end["value"] for end in ends]

    def rejected_answers(self) -> list[Row]:
        """List every rejected answer to what was asked so far, with its reason, in the order of the questions."""
        return self._cache.rejected(list(self._keys))

    def confirm_all(self) -> None:
        """Drop what was kept of a model that has changed since; raises TeacherError where one has."""
        self._confirmed.confirm_all()

    def _look_up(self, role: str, payload: dict[str, Any]) -> dict[str, Any] | Question | TeacherFailure:
        """Find the answer on disk, or make the question to be put; an invalid (imported) answer is asked for again."""
        payload = dict(payload)
        sample = int(payload.pop(SAMPLE, 0))
        messages, wanted = role_messages(role, payload), role_format(role, payload)
        # All that decides an answer; the host does not.
        model = [self.name, self.info["model_digest"]]
        key = digest([role, messages, wanted, model, self._answers.model_dump(), *[sample] * (sample > 0)])
        self._keys.setdefault(key)
        try:
            compiled = compile_schema(wanted, "format")
        except SchemaError as error:
            return TeacherFailure(role, str(error), "schema")
        answer = self._cache.get(key)
        if answer is not None and not find_violations(answer["value"], compiled):
            self.usage.count_cost(answer)
            return dict(answer)
        return Question(role, messages, compiled, key, self.info["format"] != "ignored", sample)

    def _put_all(self, questions: list[Question], total: int, progress: str) -> dict[str, Any]:
        """Ask the questions; key -> answer or failure. The bar counts those that were on disk as well."""
        known = total - len(questions)
        bar = Progress(total=total, initial=known, desc=progress, disable=not progress, leave=False)

        def tick() -> None:
            bar.set_postfix_str(self.usage.line(), refresh=False)
            bar.update()

        with bar:
            if self.chat.cluster and self.chat.cluster.on != HERE:
                return ask_on_cluster(self, questions, self.chat.cluster, bar)
            replies = self.chat.run(questions, self._put, tick)
        return {question.key: reply for question, reply in zip(questions, replies, strict=True)}

    def _put(self, question: Question, host: Host) -> Done[Any] | Again:
        """Send one request: the answer, a failure, or the wish to ask again."""
        started = time.monotonic()
        try:
            self._confirmed.confirm(host)
            reply = self.chat.send(write_chat(question, self._answers, self.info), host)
            self._spend(question, started, reply)
            value = read_answer(text_of(reply, self.info), question.compiled)
        except AnswerFault as fault:
            return self._reject(question, fault)
        except CutFault as fault:
            self._spend(question, started)
            return self._reject(question, fault)
        except TeacherFault as fault:
            self._spend(question, started)
            return self._recover(question, host, fault)
        answer = {"value": value, **question.cost}
        self._confirmed.keep(question.key, question.role, answer, host)
        return Done(answer)

    def _spend(self, question: Question, started: float, reply: Reply | None = None) -> None:
        cost: dict[str, float] = {"seconds": round(time.monotonic() - started, 3)}
        if reply:
            cost |= {"prompt_tokens": reply.prompt_tokens, "answer_tokens": reply.answer_tokens}
        question.cost.update(cost)
        self.usage.count_cost(cost)

    def _reject(self, question: Question, fault: AnswerFault | CutFault) -> Done[Any] | Again:
        """Keep an answer of no use with its reason, and ask again or give up."""
        question.tries += 1
        text = fault.text if isinstance(fault, AnswerFault) else ""
        self._cache.reject(question.key, question.tries, question.role, self.name, fault.kind, str(fault), text)
        self.usage.reject(fault.kind)
        # The embedded teacher is a function of the question: it has no second thoughts.
        repairs = 0 if self.chat.choice.embedded else self._answers.teacher_repairs
        decision = after_answer(fault, question.tries, question.repairs, repairs)
        question.rejected = None
        if isinstance(decision, GiveUp):
            return Done(TeacherFailure(question.role, decision.reason, fault.kind))
        if isinstance(decision, Repair):
            question.repairs += 1
            question.rejected = decision.answer
            self.usage.count(repairs=1)
        return Again()

    def _recover(self, question: Question, host: Host, fault: TeacherFault) -> Done[Any] | Again:
        """Act on what is decided after a request that failed."""
        decision = self.chat.decide(fault, question.faults + 1, host, question.formatted)
        if isinstance(decision, DropFormat):
            question.formatted = False
            return Again()
        question.faults += 1
        if isinstance(decision, Retry):
            return self.chat.pause(decision, fault, question.faults)
        if isinstance(decision, GiveUp):
            return Done(TeacherFailure(question.role, decision.reason, fault.kind))
        raise self.chat.stopping_error(fault, host) from fault


# ---------------------------------------------------------------------------------------------------------------------
# Workers of a cluster


@dataclass(frozen=True)
class Asked:
    """A question as it goes to a worker; `wanted` is the JSON Schema of its answer."""

    role: str
    messages: list[dict[str, str]]
    wanted: dict[str, Any]
    key: str
    sample: int


@dataclass(frozen=True)
class Told:
    """What a worker was answered: an end a question, an answer or a failure; what it rejected; its counts."""

    ends: list[Any]
    rejected: list[Row]
    usage: list[dict[str, Any]]


@dataclass(frozen=True)
class ChunkAsking:
    """Asks a chunk of questions in a worker: the named hosts, else the server of the worker's own machine."""

    choice: TeacherChoice
    server: ServerSettings
    answers: AnswersSettings
    info: dict[str, Any]

    def __call__(self, chunk: Sequence[Asked]) -> Told:
        formatted = self.info["format"] != "ignored"
        questions = [
            Question(each.role, each.messages, compile_schema(each.wanted, "format"), each.key, formatted, each.sample)
            for each in chunk
        ]
        with (
            open_chat(self.choice, self.server, self.answers) as chat,
            closing(AnswerCache(Path(":memory:"))) as cache,  # who asked keeps what is answered
        ):
            teacher = Teacher(chat, self.answers, cache, self.info)
            ends = chat.run(questions, teacher._put)
            teacher.confirm_all()
            return Told(ends, cache.rejected([each.key for each in chunk]), chat.usage.tallies())


def ask_on_cluster(teacher: Teacher, questions: list[Question], cluster: ClusterSettings, bar: Progress) -> Row:
    """Have the workers of a cluster ask the questions; key -> answer or failure, kept here as each chunk comes."""
    chat, size = teacher.chat, CHUNK * teacher.chat.server.teacher_concurrency
    asked = [Asked(each.role, each.messages, each.compiled.schema, each.key, each.sample) for each in questions]
    chunks = [asked[begin : begin + size] for begin in range(0, len(asked), size)]
    ask = ChunkAsking(chat.choice, chat.server, teacher._answers, teacher.info)
    found: Row = {}
    for chunk, told in zip(chunks, map_chunks(ask, chunks, cluster.on, cluster.workers), strict=True):
        for each, end in zip(chunk, told.ends, strict=True):
            found[each.key] = end
            if not isinstance(end, TeacherFailure):
                teacher._cache.put(each.key, each.role, teacher.name, end)
        for row in told.rejected:
            teacher._cache.reject(*row.values())
        teacher.usage.add(told.usage)
        bar.update(len(chunk))
    return found
