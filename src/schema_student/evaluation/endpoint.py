"""Ask a served student, over OpenAI's API or Ollama's, within limits, its faults named.

with open_endpoint(settings.endpoint) as endpoint:
    endpoint.identity                                        # {"kind": "openai", "model": "mine", "digest": "..."}
    list(endpoint.ask(prompts, max_new_tokens, context))     # Heard(reply, seconds), in the order of the prompts
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.setting_groups import EndpointSettings
from schema_student.teacher.addresses import find_addresses
from schema_student.teacher.apis import ModelServer, Reply, open_servers
from schema_student.teacher.budget import Limits
from schema_student.teacher.faults import (
    AccessFault,
    ConnectFault,
    ContextFault,
    CutFault,
    DeadlineFault,
    MissingFault,
    ProtocolFault,
    RefusalFault,
    SilenceFault,
    TeacherError,
    TeacherFault,
)

SECONDS, BYTES = 120.0, 2**22  # of one answer
TRIES, PAUSE = 3, 1.0  # of a request that may pass later, and seconds between them
IN_FLIGHT = 8
OF_ONE_PROMPT = (RefusalFault, ContextFault)  # faults that say nothing of other prompts
ADVICE: dict[type[TeacherFault], str] = {
    AccessFault: "set OPENAI_API_KEY (OLLAMA_API_KEY with --endpoint-kind ollama) to its key",
    ConnectFault: "start it, or name another --endpoint",
    DeadlineFault: "it is too slow, or stuck: see its log",
    MissingFault: "check --endpoint and --endpoint-kind",
    ProtocolFault: "check that --endpoint and --endpoint-kind name a model server, not a web page",
    SilenceFault: "it is too slow, or stuck: see its log",
}


@dataclass(frozen=True)
class Heard:
    """What came back for one prompt, and after how many seconds; `fault`: why nothing did; `cut`: at the limit."""

    reply: Reply
    seconds: float
    cut: bool = False
    fault: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """A server, and the model that is asked there."""

    url: str
    server: ModelServer
    model: str
    identity: dict[str, str]

    def ask(
        self, prompts: Sequence[str], max_new_tokens: int, context: int, temperature: float = 0, seed: int | None = None
    ) -> Iterator[Heard]:
        """Ask each prompt as a user turn, several at once, greedily or sampled; raises UserError where it fails."""
        options = {"temperature": temperature, "num_predict": max_new_tokens}
        options |= {"num_ctx": context, **({} if seed is None else {"seed": seed})}
        with ThreadPoolExecutor(IN_FLIGHT) as pool, _named_faults(self.url):
            yield from pool.map(partial(self._ask, options), prompts)

    def _ask(self, options: dict[str, Any], prompt: str) -> Heard:
        for left in reversed(range(TRIES)):
            started = time.monotonic()
            try:
                return self._ask_once(options, prompt, started)
            except TeacherFault as fault:
                if not (fault.can_pass and left):
                    raise
                time.sleep(PAUSE)
        raise AssertionError("the last try returns or raises")

    def _ask_once(self, options: dict[str, Any], prompt: str, started: float) -> Heard:
        nothing = Reply("", "", 0, 0)
        try:
            reply = self.server.chat(self.model, [{"role": "user", "content": prompt}], None, options, None)
        except CutFault as cut:
            return Heard(cut.reply or nothing, time.monotonic() - started, cut=True)
        except OF_ONE_PROMPT as fault:
            return Heard(nothing, time.monotonic() - started, fault=fault.what)
        return Heard(reply, time.monotonic() - started)


@contextmanager
def open_endpoint(given: EndpointSettings) -> Iterator[Endpoint]:
    """Open an endpoint; raises UserError where it does not answer as its API does, or has not got the model."""
    url, kind = given.endpoint, given.endpoint_kind
    with _named_faults(url):
        (server,) = open_servers(kind, find_addresses(kind, [url]), Limits(SECONDS, SECONDS, BYTES))
        with closing(server):
            there = server.models()
            named = given.endpoint_model or (next(iter(there)) if len(there) == 1 else "")
            if named not in there:
                raise UserError(f"--endpoint {url} has {', '.join(there) or 'no model'}: name one by --endpoint-model")
            identity = {"kind": kind, "model": named, "digest": there[named]}
            yield Endpoint(url, server, named, identity)


def identify_endpoint(given: EndpointSettings) -> dict[str, str]:
    """Say which model an endpoint serves: what of it stands in a stamp."""
    with open_endpoint(given) as endpoint:
        return endpoint.identity


@contextmanager
def _named_faults(url: str) -> Iterator[None]:
    """Tell a fault of the server as one of --endpoint, with what to do about it."""
    try:
        yield
    except TeacherFault as fault:
        advice = next((said for kind, said in ADVICE.items() if isinstance(fault, kind)), "see its log")
        raise UserError(f"--endpoint {url}: {fault.what}: {advice}") from None
    except TeacherError as error:
        raise UserError(f"--endpoint: {error}") from None
