"""The one client of a teacher behind Ollama's API: a language model, or the embedded teacher on loopback.

Stages ask it for a role with a payload (see prompts.role_messages) and get back an answer that has been validated
here, whatever the server promised. Every answer is kept on disk, so that a resumed or repeated run asks nothing twice.

    with open_teacher(settings) as teacher:
        spec = teacher.ask("domain_spec", {"index": 0})
        answers = teacher.ask_many([("answer", payload) for payload in payloads])   # in order; a failure is a value
"""

from __future__ import annotations

import json
import os
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import ollama
from pydantic import ValidationError
from tqdm import tqdm

from schema_student import embedded_teacher
from schema_student.artifacts import digest, paths
from schema_student.config import Settings, UserError
from schema_student.prompts import role_format, role_messages
from schema_student.schemas import CompiledSchema, SchemaError, compile_schema, judge

DEFAULT_HOST = "http://127.0.0.1:11434"
EMBEDDED_NAMES = ("embedded", embedded_teacher.MODEL)
WRITERS = ("domain_spec", "query")  # roles that must vary; the others are asked at temperature 0
TRIES = 3  # times that a question is put before an unusable answer to it is final
CONNECT_SECONDS = 5.0
LOAD_SECONDS = 900.0  # a large model is read from disk before its first answer
PROBE_FORMAT = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "number": {"type": "integer"}},
    "required": ["color", "number"],
    "additionalProperties": False,
}
PROBE_MESSAGES = [{"role": "user", "content": "Name a color and a number."}]

Ask = tuple[str, dict[str, Any]]
T = TypeVar("T")
R = TypeVar("R")


class TeacherError(UserError):
    """The teacher cannot be asked at all: it is down, or has not got the model."""


@dataclass(frozen=True)
class TeacherFailure:
    """One question without a usable answer: a value in ask_many's list, a reason in a row."""

    role: str
    reason: str


@dataclass(frozen=True)
class TeacherChoice:
    """Which teacher, where and why; no hosts means the embedded one."""

    model: str
    hosts: tuple[str, ...]
    reason: str

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


class _Unusable(Exception):
    """A question without a usable answer, and why; `final` where asking again will not help."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


# ---------------------------------------------------------------------------------------------------------------------
# Which teacher


def resolve_teacher(settings: Settings) -> TeacherChoice:
    """The teacher that these settings and this machine mean: --teacher-model, LLM_MODEL, .llmrc, else the best here.

    An id that a person named never falls back; "auto" takes preferred_teacher where Ollama has it.
    """
    hosts = _hosts(settings)
    model, origin = _named_model(settings)
    if model in EMBEDDED_NAMES:
        return TeacherChoice(embedded_teacher.MODEL, (), f"named by {origin}")
    if model != "auto":
        return TeacherChoice(model, hosts, f"named by {origin}")
    preferred = settings.preferred_teacher
    with closing(_client(hosts[0], 2.0)) as client:
        try:
            found = _installed(client)
        except (httpx.HTTPError, ConnectionError, ollama.ResponseError, ValueError):
            return TeacherChoice(embedded_teacher.MODEL, (), f"auto: no Ollama answers at {hosts[0]}")
    if _find(preferred, found):
        return TeacherChoice(preferred, hosts, f"auto: Ollama at {hosts[0]} has it")
    return TeacherChoice(embedded_teacher.MODEL, (), f"auto: Ollama at {hosts[0]} has not got {preferred}")


def _hosts(settings: Settings) -> tuple[str, ...]:
    named = settings.teacher_host or os.environ.get("OLLAMA_HOST", "")
    return tuple(host.strip() for host in named.split(",") if host.strip()) or (DEFAULT_HOST,)


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


def _client(host: str, seconds: float) -> ollama.Client:
    """A client that follows no redirect, and asks a loopback server without the proxy of the environment."""
    local = any(name in host for name in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]"))
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    try:
        return ollama.Client(host, timeout=timeout, follow_redirects=False, trust_env=not local)
    except (httpx.InvalidURL, ValueError) as error:
        raise TeacherError(
            f"{host} is no address of a server ({error}); check --teacher-host and OLLAMA_HOST"
        ) from None


def _installed(client: ollama.Client) -> dict[str, str]:
    """Models that the server has -> their digests."""
    return {model.model or "": model.digest or "" for model in client.list().models}


def _find(model: str, found: dict[str, str]) -> str | None:
    """The digest of a model among those found; a name without tag means :latest, as for Ollama."""
    return found.get(model, found.get(f"{model}:latest"))


# ---------------------------------------------------------------------------------------------------------------------
# Opening and probing


@contextmanager
def open_teacher(settings: Settings, choice: TeacherChoice | None = None) -> Iterator[Teacher]:
    """The teacher, announced and probed; the embedded one is started here and stopped at the end.

    Raises TeacherError where Ollama is down or has not got the model.
    """
    choice = choice or resolve_teacher(settings)
    print(f"teacher: {choice.display_name} ({choice.reason})")
    with ExitStack() as stack:
        hosts = choice.hosts or (stack.enter_context(embedded_teacher.serve()),)
        cache = stack.enter_context(closing(AnswerCache(paths(settings).teacher_cache.with_suffix(".sqlite"))))
        info = _probe(hosts, choice, settings, cache)
        clients = [stack.enter_context(closing(_client(host, settings.teacher_timeout))) for host in hosts]
        yield Teacher(settings, choice, clients, cache, info)


def _probe(hosts: Sequence[str], choice: TeacherChoice, settings: Settings, cache: AnswerCache) -> dict[str, Any]:
    """What the server and model are and honour: version, digest, whether `format` and `think` hold."""
    facts: list[dict[str, Any]] = []
    for host in hosts:
        with closing(_client(host, max(settings.teacher_timeout, LOAD_SECONDS))) as client:
            try:
                facts.append(_identify(client, host, choice.model))
                if len(facts) == 1:
                    key = digest([facts[0], settings.teacher_think, PROBE_FORMAT])
                    honors = cache.get(key) or _try_out(client, choice, settings)
                    cache.put(key, "probe", choice.model, honors)
            except (httpx.TransportError, ConnectionError) as error:
                raise _down(host, error) from None
            except ollama.ResponseError as error:
                raise TeacherError(
                    f"the teacher at {host} fails: {error}; see its log, or use --teacher-model embedded"
                ) from None
            except TeacherError:
                raise
            except (KeyError, TypeError, ValueError) as error:
                raise TeacherError(
                    f"{host} does not answer as Ollama does ({error}); check --teacher-host and OLLAMA_HOST"
                ) from None
    if len({fact["model_digest"] for fact in facts}) > 1:
        raise TeacherError(
            f"the hosts {', '.join(hosts)} have different versions of {choice.model}; pull it again on each"
        )
    return {"model": choice.model, "display_name": choice.display_name, "reason": choice.reason, **facts[0], **honors}


def _identify(client: ollama.Client, host: str, model: str) -> dict[str, Any]:
    # The official client has no method for /api/version.
    version = client._request_raw("GET", "/api/version").json()["version"]
    found = _installed(client)
    model_digest = _find(model, found)
    if model_digest is None:
        have = f"it has {', '.join(sorted(found)[:8])}" if found else "it has no model yet"
        raise TeacherError(
            f"Ollama at {host} has not got {model} ({have}): run `ollama pull {model}`, or use --teacher-model embedded"
        )
    return {"ollama_version": version, "model_digest": model_digest}


def _try_out(client: ollama.Client, choice: TeacherChoice, settings: Settings) -> dict[str, Any]:
    """Ask one small question: is `format` honored, ignored, or answered in `thinking`; which `think` is taken."""
    if not choice.embedded:
        print(f"asking {choice.model} a first question (it may have to be loaded) ...", flush=True)
    thinks = "thinking" in (client.show(choice.model).capabilities or [])
    candidates: list[Any] = ([settings.teacher_think] if thinks and settings.teacher_think else []) + [None]
    options = {"num_ctx": settings.teacher_num_ctx, "temperature": 0}
    for think in candidates:
        try:
            answer = client.chat(choice.model, PROBE_MESSAGES, format=PROBE_FORMAT, options=options, think=think)
        except ollama.ResponseError as error:
            if error.status_code != 400 or think is None:
                raise
            continue
        return {"format": _format_held(answer.message), "think": think, "num_ctx": settings.teacher_num_ctx}
    raise AssertionError("the last candidate returns or raises")


def _format_held(message: ollama.Message) -> str:
    compiled = compile_schema(PROBE_FORMAT, "probe")
    if judge(message.content or "", compiled).schema_valid:
        return "honored"
    return "in thinking" if judge(message.thinking or "", compiled).schema_valid else "ignored"


def _down(host: str, error: Exception) -> TeacherError:
    what = str(error).split(". ")[0] or type(error).__name__
    advice = (
        "start it (`ollama serve`), name another with --teacher-host, or do without: --teacher-model embedded or auto"
    )
    return TeacherError(f"Ollama does not answer at {host} ({what}): {advice}")


# ---------------------------------------------------------------------------------------------------------------------
# Asking


class Teacher:
    """A probed teacher: ask one question, or many at once."""

    def __init__(
        self,
        settings: Settings,
        choice: TeacherChoice,
        clients: Sequence[ollama.Client],
        cache: AnswerCache,
        info: dict[str, Any],
    ) -> None:
        self.settings = settings
        self.choice = choice
        self.info = info
        self.asked = 0  # questions that went to the server; the others were answered from disk
        self._clients = clients
        self._cache = cache

    @property
    def name(self) -> str:
        return self.choice.model

    @property
    def display_name(self) -> str:
        return self.choice.display_name

    def ask(self, role: str, payload: dict[str, Any]) -> Any:
        """The validated answer to one question; raises TeacherError where none is to be had."""
        answer = self.ask_many([(role, payload)])[0]
        if isinstance(answer, TeacherFailure):
            raise TeacherError(f"{self.display_name} gave no usable answer as {role}: {answer.reason}")
        return answer

    def ask_many(self, asks: Sequence[Ask], progress: str = "") -> list[Any]:
        """Answers in the order of the questions, teacher_concurrency at a time; a TeacherFailure where there is none.

        Raises TeacherError where the teacher has gone away altogether: what it answered until then is kept.
        """
        keys = [self._key(role, payload) for role, payload in asks]
        answers = [self._cache.get(key) for key in keys]
        left = [i for i, answer in enumerate(answers) if answer is None]
        bar = tqdm(total=len(asks), initial=len(asks) - len(left), desc=progress, disable=not progress, leave=False)
        with bar:
            found = _in_order(
                lambda i: self._ask(asks[i], keys[i]), left, self.settings.teacher_concurrency, bar.update
            )
        for i, answer in zip(left, found, strict=True):
            answers[i] = answer
        return [answer if isinstance(answer, TeacherFailure) else answer["value"] for answer in answers]

    def _key(self, role: str, payload: dict[str, Any]) -> str:
        """Digest of all that decides an answer; the host does not."""
        names = ("teacher_temperature", "teacher_num_ctx", "teacher_think")
        model = [self.name, self.info["model_digest"]]
        return digest(
            [role, role_messages(role, payload), role_format(role, payload), model, self.settings.subset(*names)]
        )

    def _ask(self, ask: Ask, key: str) -> Any:
        """Put a question until its answer is valid, TRIES times at most."""
        role, payload = ask
        try:
            compiled = compile_schema(role_format(role, payload), "format")
        except SchemaError as error:
            return TeacherFailure(role, str(error))
        self.asked += 1
        reason = ""
        for attempt in range(TRIES):
            try:
                answer = {"value": _validated(self._send(ask, key, attempt), compiled)}
            except _Unusable as error:
                reason = str(error)
                if error.final:
                    break
            else:
                self._cache.put(key, role, self.name, answer)
                return answer
        return TeacherFailure(role, reason)

    def _send(self, ask: Ask, key: str, attempt: int) -> str:
        """One answer's text; what can pass is tried again with a growing, jittered pause."""
        number = int(key[:8], 16) % 2**31
        temperature = self.settings.teacher_temperature if attempt or ask[0] in WRITERS else 0.0
        options = {"num_ctx": self.settings.teacher_num_ctx, "temperature": temperature, "seed": number + attempt}
        formatted = self.info["format"] != "ignored"
        for retry in range(self.settings.teacher_retries + 1):
            client = self._clients[(number + attempt + retry) % len(self._clients)]
            try:
                return self._chat(client, ask, options, formatted)
            except (httpx.TransportError, ConnectionError, ollama.ResponseError, ValueError) as error:
                if formatted and _dislikes_format(error):
                    formatted = False
                    continue
                _raise_if_final(error, client, self.name)
                if retry == self.settings.teacher_retries:
                    raise _given_up(error, client, retry + 1) from None
            time.sleep(random.uniform(0.5, 1.0) * min(30.0, 0.5 * 2**retry))
        raise _Unusable("the server does not take the answer's schema as format", final=True)

    def _chat(self, client: ollama.Client, ask: Ask, options: dict[str, Any], formatted: bool) -> str:
        """Stream one answer: so the timeout is the time without a word, and a torn answer shows by having no end."""
        wanted, messages = role_format(*ask), role_messages(*ask)
        if not formatted:
            messages[0]["content"] += (
                f"\nAnswer with one JSON object of this JSON Schema, nothing else:\n{json.dumps(wanted)}"
            )
        content, thinking, last = "", "", None
        asked = {"options": options, "think": self.info["think"], "format": wanted if formatted else None}
        parts = client.chat(self.name, messages, stream=True, **asked)
        for part in parts:
            content += part.message.content or ""
            thinking += part.message.thinking or ""
            last = part
        if last is None or not last.done:
            raise ValueError("the answer is torn")
        if last.done_reason == "length":
            raise _Unusable(f"the answer is cut off: raise --teacher-num-ctx above {self.settings.teacher_num_ctx}")
        if (last.prompt_eval_count or 0) + (last.eval_count or 0) >= self.settings.teacher_num_ctx:
            reason = f"the question does not fit: raise --teacher-num-ctx above {self.settings.teacher_num_ctx}"
            raise _Unusable(reason, final=True)
        return content if content.strip() or self.info["format"] != "in thinking" else thinking


def _validated(text: str, compiled: CompiledSchema) -> Any:
    """The JSON value of an answer, taken out of fences or prose around it; raises _Unusable with what is wrong."""
    if not text.strip():
        raise _Unusable("the answer is empty")
    verdict = judge(text, compiled, strip_fences=True)
    if not verdict.parsed and 0 <= text.find("{") < text.rfind("}"):
        verdict = judge(text[text.find("{") : text.rfind("}") + 1], compiled)
    if verdict.schema_valid:
        return verdict.value
    if not verdict.parsed:
        raise _Unusable(f"the answer is not JSON ({verdict.parse_error}): {text.strip()[:160]}")
    first = verdict.violations[0]
    raise _Unusable(f"the answer is not valid: {first.path or '/'}: {first.message} ({first.keyword})")


def _raise_if_final(error: Exception, client: ollama.Client, model: str) -> None:
    """Raise for what another try will not cure: the model is not there, or the question is refused."""
    if not isinstance(error, ollama.ResponseError) or error.status_code in (-1, 408, 429) or error.status_code >= 500:
        return
    if error.status_code == 404:
        raise TeacherError(f"{_host(client)} has not got {model} ({error.error}): run `ollama pull {model}`") from None
    if error.status_code in (401, 403):
        raise TeacherError(f"{_host(client)} refuses access ({error}): set OLLAMA_API_KEY") from None
    raise _Unusable(f"the teacher refuses the question: {error}", final=True) from None


def _dislikes_format(error: Exception) -> bool:
    """Whether a server stumbled over the answer's JSON Schema: not all of them can turn each into a grammar."""
    said = str(error).casefold() if isinstance(error, ollama.ResponseError) else ""
    return any(word in said for word in ("grammar", "format", "json schema"))


def _given_up(error: Exception, client: ollama.Client, tries: int) -> Exception:
    """What to raise after the last try: the teacher is gone, or this one question is not to be answered."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError)):
        return _down(_host(client), error)
    what = (
        "torn or garbled answer"
        if isinstance(error, (ValidationError, json.JSONDecodeError))
        else str(error) or type(error).__name__
    )
    return _Unusable(f"no answer after {tries} tries: {what}")


def _host(client: ollama.Client) -> str:
    return str(client._client.base_url).rstrip("/")


def _in_order(function: Callable[[T], R], items: Sequence[T], workers: int, tick: Callable[[], Any]) -> list[R]:
    """[function(item) for item in items] by several threads. The first error stops it and is raised.

    The threads are daemons: Ctrl-C ends the program at once, not after the answers under way.
    """
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | None, BaseException | None]] = queue.SimpleQueue()
    for i in range(len(items)):
        tasks.put(i)

    def work() -> None:
        while True:
            try:
                i = tasks.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((i, function(items[i]), None))
            except BaseException as error:
                done.put((i, None, error))
                return

    for _ in range(min(workers, len(items))):
        threading.Thread(target=work, daemon=True).start()
    results: dict[int, Any] = {}
    while len(results) < len(items):
        i, result, error = done.get()
        if error is not None:
            while not tasks.empty():
                tasks.get()
            raise error
        results[i] = result
        tick()
    return [results[i] for i in range(len(items))]


# ---------------------------------------------------------------------------------------------------------------------
# Answers on disk


class AnswerCache:
    """Answers by the digest of their question, in one SQLite file that several processes may use."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            columns = "key TEXT PRIMARY KEY, role TEXT, model TEXT, answer TEXT, made_at REAL"
            self._db.execute(f"CREATE TABLE IF NOT EXISTS answers ({columns}) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise _bad_cache(path, error) from None

    def get(self, key: str) -> Any:
        """The answer to a question, or None."""
        row = self._execute("SELECT answer FROM answers WHERE key = ?", (key,))
        return json.loads(row[0]) if row else None

    def put(self, key: str, role: str, model: str, answer: Any) -> None:
        """Keep an answer; it survives a kill from here on."""
        values = (key, role, model, json.dumps(answer, ensure_ascii=False), time.time())
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values)

    def _execute(self, statement: str, values: tuple[Any, ...]) -> Any:
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise _bad_cache(self._path, error) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _bad_cache(path: Path, error: sqlite3.Error) -> TeacherError:
    return TeacherError(f"{path}: the cache of the teacher's answers cannot be used ({error}); move it away")
