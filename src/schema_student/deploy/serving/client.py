"""Ask a student that is served here as it would be asked if it were loaded: the same prompts, the same answers.

answers = ask_served(running, questions, settings, Asking(samples=8, vote=True))
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row
from schema_student.core.settings import AnySettings
from schema_student.deploy.serving.running import Running, request
from schema_student.student.ask import Answer, Asking, Prepared, Question, answer_questions
from schema_student.student.generated import Generation

IN_FLIGHT = 8  # requests
TRIES, PAUSE = 60, 1.0  # of a request that a busy server refuses, and seconds between them
MOST_TEMPERATURE = 2.0  # that the server draws at
SECONDS = 600.0  # of one answer
OF_ONE_REQUEST, BUSY = (400, 413), 429  # statuses: nothing is said of other requests; all have to wait


def find_obstacle(asking: Asking, settings: AnySettings) -> str:
    """Find why a served student cannot be asked so; "" where it can."""
    if asking.explain:
        return "it does not say how sure it is (--explain, --defer-to)"
    if asking.samples and settings.sampling.sample_temperature > MOST_TEMPERATURE:
        return f"it draws at {MOST_TEMPERATURE:g} at most (--sample-temperature)"
    return ""


def ask_served(running: Running, questions: Sequence[Question], settings: AnySettings, asking: Asking) -> list[Answer]:
    """Answer questions by a server, in their order; raises UserError where it fails, SchemaError for a bad schema.

    The seconds of an answer are those until it came.
    """
    return answer_questions(ServedWriter(running, settings, asking), questions, settings, asking)


@dataclass(frozen=True)
class ServedWriter:
    """A student that is served."""

    running: Running
    settings: AnySettings
    asking: Asking

    def write(self, prepared: Sequence[Prepared], samples: int) -> list[list[Generation] | str]:
        """Write answers, several at once; a request that is refused for itself has the reason in its place."""
        count = samples or 1
        bodies = [self._body(each, sample, bool(samples)) for each in prepared for sample in range(count)]
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            heard = list(pool.map(self._ask, bodies))
        found = [heard[begin : begin + count] for begin in range(0, len(heard), count)]
        refusals = [next((each for each in some if isinstance(each, str)), "") for some in found]
        return [
            refusal or [each for each in some if isinstance(each, Generation)]
            for some, refusal in zip(found, refusals, strict=True)
        ]

    def sureness(self, written: Generation) -> None:
        """Say nothing of how sure the student was: the server does not tell it."""

    def _body(self, prepared: Prepared, sample: int, drawn: bool) -> Row:
        _, compiled, prompt = prepared
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        wanted = {"name": "answer", "schema": compiled.schema, "strict": self.asking.constrained}
        return {
            "model": self.running.model,
            "messages": turns,
            "response_format": {"type": "json_schema", "json_schema": wanted},
            "temperature": self.settings.sampling.sample_temperature if drawn else 0,
            "seed": self.settings.run.seed,
            "metadata": {"sample": sample},
        }

    def _ask(self, body: Row) -> Generation | str:
        started = time.monotonic()
        for _ in range(TRIES):
            try:
                status, said = request(self.running, "POST", "/v1/chat/completions", body, SECONDS)
                if status == 200:
                    return _read(said, time.monotonic() - started)
                reason = str(said["error"]["message"])
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
                raise UserError(f"the server at {self.running.url} failed ({error}): ask again") from None
            if status in OF_ONE_REQUEST:
                return reason.removeprefix("messages: ")
            if status != BUSY:
                raise UserError(f"the server at {self.running.url} answers {status}: {reason}")
            time.sleep(PAUSE)
        raise UserError(f"the server at {self.running.url} is busy: ask later, or with --load")


def _read(said: Any, seconds: float) -> Generation:
    choice = said["choices"][0]
    finished, tokens = choice["finish_reason"] != "length", int(said["usage"]["completion_tokens"])
    return Generation(str(choice["message"]["content"]), tokens, finished, seconds, (), int(said["mask_changes"]))
