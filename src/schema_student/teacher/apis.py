"""Ask a model server, Ollama or an OpenAI-compatible one, who it is and for one chat.

Stands between the transport and the teacher. Ollama is asked through its official client. The OpenAI-compatible API
(vLLM, llama.cpp, Ollama's own /v1) is asked over httpx, which that client brings along: the `openai` package is not
among the pinned requirements, and of it one POST would be used.

    with closing(open_servers("ollama", find_addresses("ollama", []), limits)[0]) as server:
        identity = server.identify("gpt-oss:120b")
        reply = server.chat("gpt-oss:120b", messages, schema, {"num_ctx": 8192, "temperature": 0}, think="low")
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx
from pydantic import ValidationError

from schema_student.core.cleaning import one_line
from schema_student.core.stamps import digest
from schema_student.teacher.addresses import Address
from schema_student.teacher.budget import Limits
from schema_student.teacher.faults import (
    ContextFault,
    CutFault,
    MissingFault,
    RefusalFault,
    not_this_api,
    without_end,
)
from schema_student.teacher.transport import GuardedTransport

CHARS_PER_TOKEN = 8  # more than any tokenizer gets out of a token of JSON or prose, on average over a prompt
MOST_TOKENS = 2**40  # that a count may say
SHOWN_NAME = 80  # characters of a server's or a model's name
UNKNOWN = "unknown"
SENT = {"temperature": "temperature", "seed": "seed", "num_predict": "max_tokens"}  # options by OpenAI's names
MESSAGE_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
ILL_TYPED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)  # ValidationError is the first
HALVED_CHARS_PER_TOKEN = 5  # the same, where the count of tokens is besides just what Ollama keeps of a prompt it cuts


@dataclass(frozen=True)
class Reply:
    """One answer: what was said and thought, tokens read and written (0: the server does not say)."""

    content: str
    thinking: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Identity:
    """A server and its model: the digest decides answers, `thinks` whether `think` may be asked for."""

    server: str
    model_digest: str
    context_length: int | None
    thinks: bool


class ModelServer(Protocol):
    """One host. Its methods raise TeacherFault. `limits` may be changed between requests."""

    host: str
    limits: Limits

    def identify(self, model: str) -> Identity:
        """Say who answers, and which model it has; raises MissingFault where it has not got this one."""

    def models(self) -> dict[str, str]:
        """List the models that are there, with their digests."""

    def model_digest(self, model: str) -> str:
        """Find the digest alone: asked again and again, so that a model pulled anew in mid-run is noticed."""

    def chat(self, model: str, messages: list[Any], schema: Any, options: dict[str, Any], think: Any) -> Reply:
        """Ask for one answer, whole; `schema` None: not asked to hold one."""

    def close(self) -> None:
        """Close all connections."""


def open_servers(api: str, addresses: Sequence[Address], limits: Limits) -> list[ModelServer]:
    """Open the servers of --teacher-api at these addresses. Raises TeacherError where a proxy cannot be used."""
    transports = [GuardedTransport(address, limits) for address in addresses]
    return [OllamaServer(each) if api == "ollama" else OpenAIServer(each) for each in transports]


# ---------------------------------------------------------------------------------------------------------------------
# Ollama


class OllamaServer:
    """Ollama, by its official client on a guarded transport."""

    def __init__(self, transport: GuardedTransport) -> None:
        self.host = transport.host
        self._transport = transport
        options: dict[str, Any] = {"transport": transport, "follow_redirects": False, "trust_env": False}
        with _without_environment():
            self._client = _import_ollama().Client(transport.host, **options)

    @property
    def limits(self) -> Limits:
        return self._transport.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._transport.limits = limits

    def identify(self, model: str) -> Identity:
        with _typed_fields(self._transport):
            version = self._version()
            model_digest = self.model_digest(model)
            shown = self._client.show(model)
            info = dict(shown.modelinfo or {})
            lengths = [value for name, value in info.items() if name.endswith(".context_length")]
            thinks = "thinking" in (shown.capabilities or [])
            return Identity(version, model_digest, _count(lengths[0]) or None if lengths else None, thinks)

    def _version(self) -> str:
        """The official client has no method for it, and not every server that speaks this API has it."""
        try:
            return one_line(_text(self._client._request_raw("GET", "/api/version").json()["version"]), SHOWN_NAME)
        except MissingFault:
            return UNKNOWN

    def models(self) -> dict[str, str]:
        """List the models that the server has, with their digests."""
        with _typed_fields(self._transport):
            return {model.model or "": model.digest or "" for model in self._client.list().models}

    def model_digest(self, model: str) -> str:
        found = self.models()
        name = model if model in found else f"{model}:latest"  # a name without tag means :latest, as for Ollama
        if name not in found:
            have = name_models(found)
            what = f"Ollama at {self.host} has not got {model} ({have})"
            raise MissingFault(what, f"run `ollama pull {model}`, or use --teacher-model embedded")
        return found[name]

    def chat(self, model: str, messages: list[Any], schema: Any, options: dict[str, Any], think: Any) -> Reply:
        """Stream the answer: Limits.silence is then the time without a word, and a torn one shows by having no end."""
        asked = {"format": schema, "options": options, "think": think}
        with _typed_fields(self._transport):
            try:
                reply, end = self._read(self._client.chat(model, messages, stream=True, **asked))
            except MissingFault as error:
                raise MissingFault(error.what, f"{error.advice}; `ollama pull {model}` gets it") from None
        _check_prompt_was_read(reply, messages, int(options["num_ctx"]))
        if end == "length":
            cut = CutFault(
                "the answer is cut off", _lengthen(options, f"raise --teacher-num-ctx above {options['num_ctx']}")
            )
            cut.reply = reply
            raise cut
        return reply

    def _read(self, parts: Iterable[Any]) -> tuple[Reply, str | None]:
        """Read the whole answer and the reason of its end; of a part no more is kept than its words."""
        content, thinking, last = [], [], None
        for part in parts:
            if last is not None and last.done:
                raise not_this_api(self.host, "words after its end")
            content.append(part.message.content or "")
            thinking.append(part.message.thinking or "")
            last = part
        if last is None or not last.done:
            raise without_end(self.host)
        counts = _count(last.prompt_eval_count), _count(last.eval_count)
        said, thought = self._transport.hide(["".join(content), "".join(thinking)])
        return Reply(said, thought, *counts), last.done_reason

    def close(self) -> None:
        self._client.close()


def _import_ollama() -> Any:
    """Import the official client when one is made, not before: its package makes one of its own on import."""
    import ollama

    return ollama


@contextmanager
def _without_environment() -> Iterator[None]:
    """Hide what the official client reads of the environment, on import and when one is made.

    It takes one host alone, cannot do with some proxies, and puts OLLAMA_API_KEY into the headers for any host.
    """
    names = [name for name in os.environ if re.fullmatch(r"(?i)OLLAMA_.*|.*_PROXY|SSL_CERT_(FILE|DIR)", name)]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _lengthen(options: Mapping[str, Any], otherwise: str) -> str:
    """What lets an answer be longer: our own limit, where one was sent."""
    limit = options.get("num_predict")
    return f"raise --teacher-num-predict above {limit}" if limit else otherwise


def _check_prompt_was_read(reply: Reply, messages: Sequence[dict[str, str]], num_ctx: int) -> None:
    """Raise ContextFault where the counts say that the model has not read the whole prompt.

    Ollama cuts a long prompt without a word: to num_ctx / 2 + 2 tokens (its issue 17427), or to a context of its own
    where it does not heed num_ctx, and counts what is left. So the characters must be told from the tokens.
    """
    chars, read = sum(len(message["content"]) for message in messages), reply.prompt_tokens
    halved = num_ctx // 2 <= read <= num_ctx // 2 + 8 and chars > HALVED_CHARS_PER_TOKEN * read
    if halved or (read and chars > CHARS_PER_TOKEN * read):
        what = f"the question does not fit: of {chars} characters the model has read {read} tokens"
        raise ContextFault(what, f"raise --teacher-num-ctx above {num_ctx}, or the server's own limit of context")
    if read + reply.answer_tokens >= num_ctx:
        raise ContextFault("the question does not fit", f"raise --teacher-num-ctx above {num_ctx}")


@contextmanager
def _typed_fields(transport: GuardedTransport) -> Iterator[None]:
    """Turn what an answer with missing or ill-typed fields raises into a ProtocolFault."""
    try:
        yield
    except ILL_TYPED as error:
        lines = str(error).splitlines() or [""]
        where = " ".join(lines[1:3]) if isinstance(error, ValidationError) else f"{type(error).__name__} {lines[0]}"
        what = f"fields are missing or ill-typed: {transport.clean(where)}"
        raise not_this_api(transport.place, what) from None


# ---------------------------------------------------------------------------------------------------------------------
# OpenAI-compatible servers


class OpenAIServer:
    """A server of /v1/chat/completions (vLLM, llama.cpp, Ollama's own), by httpx on a guarded transport."""

    def __init__(self, transport: GuardedTransport) -> None:
        self.host = transport.host
        self._transport = transport
        base = transport.host if transport.host.endswith("/v1") else f"{transport.host}/v1"
        self._client = httpx.Client(base_url=base, transport=transport, follow_redirects=False, trust_env=False)
        self.limits = transport.limits

    @property
    def limits(self) -> Limits:
        return self._transport.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        # Nothing is streamed here: a server says its first word when it has said its last.
        self._transport.limits = replace(limits, silence=limits.deadline)

    def identify(self, model: str) -> Identity:
        with _typed_fields(self._transport):
            entry = self._entry(model)
            length = entry.get("max_model_len") or (entry.get("meta") or {}).get("n_ctx_train")
            server = one_line(_text(entry.get("owned_by")), SHOWN_NAME) or UNKNOWN
            return Identity(server, _entry_digest(entry), _count(length) or None, thinks=True)

    def models(self) -> dict[str, str]:
        """List the models that the server has, with digests of what it says of them."""
        with _typed_fields(self._transport):
            return {entry["id"]: _entry_digest(entry) for entry in self._entries()}

    def model_digest(self, model: str) -> str:
        with _typed_fields(self._transport):
            return _entry_digest(self._entry(model))

    def _entries(self) -> list[dict[str, Any]]:
        return list(self._client.get("/models").json()["data"])

    def _entry(self, model: str) -> dict[str, Any]:
        entries = {entry["id"]: entry for entry in self._entries()}
        if model not in entries:
            have = name_models(entries)
            advice = "serve it there, or name another with --teacher-model"
            raise MissingFault(f"{self.host} has not got {model} ({have})", advice)
        return entries[model]

    def chat(self, model: str, messages: list[Any], schema: Any, options: dict[str, Any], think: Any) -> Reply:
        body: dict[str, Any] = {"model": model, "messages": messages, "stream": False}
        body |= {sent: options[name] for name, sent in SENT.items() if name in options}
        if schema is not None:
            wanted = {"name": "answer", "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        if isinstance(think, bool):
            body["chat_template_kwargs"] = {"enable_thinking": think}  # of vLLM, SGLang and llama.cpp
        elif think:
            body["reasoning_effort"] = think
        with _typed_fields(self._transport):
            answer = _whole_answer(self._client.post("/chat/completions", json=body).text)
            reply, end = self._read(answer), _text(answer["choices"][0].get("finish_reason"))
        _check_prompt_was_read(reply, messages, int(options["num_ctx"]))
        if end == "length":
            fault = CutFault(
                "the answer is cut off", _lengthen(options, "raise the server's limit of tokens or its context")
            )
            fault.reply = reply
            raise fault
        if not end:
            raise without_end(self.host)
        return reply

    def _read(self, answer: dict[str, Any]) -> Reply:
        message, usage = answer["choices"][0]["message"], answer.get("usage") or {}
        if message.get("refusal"):
            what = f"the teacher refuses the question ({self._transport.clean(_text(message['refusal']))})"
            raise RefusalFault(what, "another --teacher-model may do better")
        thought = message.get("reasoning_content") or message.get("reasoning")
        counts = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        return Reply(_content_text(message.get("content")), _content_text(thought), *counts)

    def close(self) -> None:
        self._client.close()


def _whole_answer(text: str) -> dict[str, Any]:
    """Read an answer; the parts of one that was streamed in spite of stream: false are joined."""
    parts = [json.loads(line) for line in text.splitlines()]
    if len(parts) == 1 and "message" in parts[0]["choices"][0]:
        return dict(parts[0])
    choices = [part["choices"][0] for part in parts if part["choices"]]  # the last part may hold counts alone
    deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices]
    message = {name: "".join(_content_text(delta.get(name)) for delta in deltas) for name in MESSAGE_TEXTS}
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    counts = [part["usage"] for part in parts if part.get("usage")]
    return {
        "choices": [{"message": message, "finish_reason": ends[-1] if ends else None}],
        "usage": counts[-1] if counts else None,
    }


def _content_text(value: Any) -> str:
    """The text of a message: text, null, or a list of parts, of which those that are no text are left out."""
    if not isinstance(value, list):
        return _text(value)
    return "".join(_text(part["text"]) for part in value if part["type"] in ("text", "output_text"))


def _text(value: Any) -> str:
    """A field that is text or null; raises TypeError for another."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text should be")
    return value or ""


def _count(value: Any) -> int:
    """A field that counts tokens, 0 where it is null; raises TypeError for what is no count."""
    if value is None:
        return 0
    number = int(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1
    if not 0 <= number <= MOST_TOKENS:
        raise TypeError(f"{json.dumps(value)[:SHOWN_NAME]} where a count should be")
    return number


def name_models(names: Iterable[str]) -> str:
    """Say which models a server has, in its words."""
    shown = [one_line(name, SHOWN_NAME) for name in sorted(names)[:8]]
    return f"it has {', '.join(shown)}" if shown else "it has no model yet"


def _entry_digest(entry: dict[str, Any]) -> str:
    """What a list of models says of one, without what changes at every asking."""
    return digest({name: entry.get(name) for name in ("id", "root", "max_model_len", "meta")})
