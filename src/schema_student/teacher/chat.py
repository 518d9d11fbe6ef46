"""Chat with a teacher's model: many at a time, over all of its hosts; what can pass is tried again.

The model's own words come back as they are; `client` asks by roles and validates what comes.

    with open_chat(choice, settings.server, settings.answers) as client:
        texts = client.ask_all([Chat(messages, {"num_ctx": 8192, "temperature": 1.0, "seed": 7})])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from schema_student.core.setting_groups import AnswersSettings, ClusterSettings, ServerSettings
from schema_student.teacher.addresses import Address
from schema_student.teacher.apis import Reply, open_servers
from schema_student.teacher.budget import Limits, request_limits
from schema_student.teacher.choice import TeacherChoice, not_answering
from schema_student.teacher.dispatch import LONGEST_PAUSE, Again, Done, Host, pause_seconds, run_all
from schema_student.teacher.embedded.server import serve
from schema_student.teacher.faults import ConnectFault, CutFault, TeacherError, TeacherFault
from schema_student.teacher.retries import DropFormat, GiveUp, Retry, Stop, after_fault
from schema_student.teacher.usage import Usage

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class Chat:
    """What a server is sent; `schema`: the answer must hold it; `think`: how long to reason (None: not said)."""

    messages: list[dict[str, str]]
    options: dict[str, Any]
    schema: dict[str, Any] | None = None
    think: str | bool | None = None


@dataclass(frozen=True)
class Text:
    """What the model wrote; not finished: it was cut off, and nothing of it is kept."""

    text: str
    finished: bool


@dataclass
class _Asked:
    """A chat on its way, and how often it failed."""

    chat: Chat
    faults: int = 0


def size_options(answers: AnswersSettings) -> dict[str, int]:
    """Return the options that say how much a teacher may read and write, tokens."""
    limit = {"num_predict": answers.teacher_num_predict} if answers.teacher_num_predict else {}
    return {"num_ctx": answers.teacher_num_ctx, **limit}


@contextmanager
def open_chat(choice: TeacherChoice, server: ServerSettings, answers: AnswersSettings) -> Iterator[ChatClient]:
    """Open a client of the chosen model; the embedded teacher is started here and stopped at the end."""
    with ExitStack() as stack:
        addresses: Sequence[Address] = choice.hosts or [stack.enter_context(serve())]
        limits = request_limits(server, answers)
        # The first answer may wait until the model is loaded, and so in silence until the deadline.
        patient = replace(limits, silence=limits.deadline)
        servers = [stack.enter_context(closing(each)) for each in open_servers(choice.api, addresses, patient)]
        yield ChatClient(choice, [Host(each) for each in servers], server, limits)


@dataclass
class ChatClient:
    """The hosts of one model, and what asking them has cost so far."""

    choice: TeacherChoice
    hosts: Sequence[Host]
    server: ServerSettings
    limits: Limits
    usage: Usage = field(default_factory=Usage)
    cluster: ClusterSettings | None = None  # whose workers put the questions of roles

    def ask_all(self, chats: Sequence[Chat]) -> list[Text]:
        """Return what the model writes, in the order of the chats; raises TeacherError where one gets no answer."""
        return self.run([_Asked(chat) for chat in chats], self._put)

    def run(
        self, questions: Sequence[Q], put: Callable[[Q, Host], Done[R] | Again], tick: Callable[[], Any] = lambda: None
    ) -> list[R]:
        """Put questions to the hosts, teacher_concurrency at a time at each; see dispatch.run_all."""
        return run_all(questions, put, self.hosts, self.server.teacher_concurrency, tick)

    def _put(self, asked: _Asked, host: Host) -> Done[Text] | Again:
        try:
            return Done(Text(self.send(asked.chat, host).content, finished=True))
        except CutFault:
            return Done(Text("", finished=False))
        except TeacherFault as fault:
            asked.faults += 1
            decision = self.decide(fault, asked.faults, host)
            if isinstance(decision, Retry):
                return self.pause(decision, fault, asked.faults)
            model, address = self.choice.model, host.server.host
            raise TeacherError(f"no answer of {model} at {address}: {fault}") from fault

    def send(self, chat: Chat, host: Host) -> Reply:
        """Send one request to one host; raises TeacherFault."""
        self.usage.count(requests=1)
        reply = host.server.chat(self.choice.model, chat.messages, chat.schema, chat.options, chat.think)
        host.server.limits = self.limits  # the model is loaded by now
        return reply

    def decide(
        self, fault: TeacherFault, faults: int, host: Host, formatted: bool = False
    ) -> Retry | DropFormat | GiveUp | Stop:
        """Decide what follows a question's n-th fault, and count it."""
        self.usage.fail(fault.kind)
        alone = all(other is host or other.failures for other in self.hosts)
        return after_fault(fault, faults, self.server.teacher_retries, formatted, alone)

    def pause(self, decision: Retry, fault: TeacherFault, faults: int) -> Again:
        """Ask again after the n-th fault: later the more there were, at another host where there is one."""
        self.usage.count(retries=1)
        seconds = max(min(decision.least_pause, LONGEST_PAUSE), pause_seconds(faults))
        return Again(seconds, failed=True, gone=isinstance(fault, ConnectFault))

    def stopping_error(self, fault: TeacherFault, host: Host) -> TeacherError:
        """Make the error of a fault that stops all."""
        if isinstance(fault, ConnectFault):
            return not_answering(self.choice.api, host.server.host, fault)
        return TeacherError(str(fault))
