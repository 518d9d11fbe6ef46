"""Ask a model server, Ollama or an OpenAI-compatible one, who it is and for one chat.

Stands between the transport and the teacher. Ollama is asked through its official client. The OpenAI-compatible API
(vLLM, llama.cpp, Ollama's own /v1) is asked over httpx, which that client brings along: the `openai` package is not
among the pinned requirements, and of it one POST would be used.

    with closing(open_servers("ollama", ["http://127.0.0.1:11434"], limits)[0]) as server:
        identity = server.identify("gpt-oss:120b")
        reply = server.chat("gpt-oss:120b", messages, schema, {"num_ctx": 8192, "temperature": 0}, think="low")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx
from pydantic import ValidationError

from schema_student.core.stamps import digest
from schema_student.teacher.addresses import api_keys, server_url
from schema_student.teacher.budget import Limits
from schema_student.teacher.faults import (
    ContextFault,
    CutFault,
    MissingFault,
    RefusalFault,
    TeacherError,
    not_this_api,
    without_end,
)
from schema_student.teacher.transport import GuardedTransport

CHARS_PER_TOKEN = 8  # more than any tokenizer gets out of a token of JSON or prose, on average over a prompt
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


def open_servers(api: str, hosts: Sequence[str], limits: Limits) -> list[ModelServer]:
    """Open the servers of --teacher-api at these addresses. Raises TeacherError where one is no address."""
    urls = [server_url(api, host) for host in hosts]
    keys = api_keys(api, urls)
    transports = [GuardedTransport(url, limits, key) for url, key in zip(urls, keys, strict=True)]
    return [OllamaServer(each) if api == "ollama" else OpenAIServer(each) for each in transports]


# ---------------------------------------------------------------------------------------------------------------------
# Ollama


class OllamaServer:
    """Ollama, by its official client on a guarded transport."""

    def __init__(self, transport: GuardedTransport) -> None:
        self.host = transport.host
        self._transport = transport
        self._client = _import_ollama().Client(transport.host, transport=transport, follow_redirects=False)

    @property
    def limits(self) -> Limits:
        return self._transport.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._transport.limits = limits

    def identify(self, model: str) -> Identity:
        with _typed_fields(self.host):
            # The official client has no method for /api/version.
            version = _text(self._client._request_raw("GET", "/api/version").json()["version"])
            model_digest = self.model_digest(model)
            shown = self._client.show(model)
            info = dict(shown.modelinfo or {})
            lengths = [value for name, value in info.items() if name.endswith(".context_length")]
            thinks = "thinking" in (shown.capabilities or [])
            return Identity(version, model_digest, int(lengths[0]) if lengths else None, thinks)

    def models(self) -> dict[str, str]:
        """List the models that the server has, with their digests."""
        with _typed_fields(self.host):
            return {model.model or "": model.digest or "" for model in self._client.list().models}

    def model_digest(self, model: str) -> str:
        found = self.models()
        name = model if model in found else f"{model}:latest"  # a name without tag means :latest, as for Ollama
        if name not in found:
            have = f"it has {', '.join(sorted(found)[:8])}" if found else "it has no model yet"
            what = f"Ollama at {self.host} has not got {model} ({have})"
            raise MissingFault(what, f"run `ollama pull {model}`, or use --teacher-model embedded")
        return found[name]

    def chat(self, model: str, messages: list[Any], schema: Any, options: dict[str, Any], think: Any) -> Reply:
        """Stream the answer: Limits.silence is then the time without a word, and a torn one shows by having no end."""
        asked = {"format": schema, "options": options, "think": think}
        with _typed_fields(self.host):
            try:
                reply, end = self._read(self._client.chat(model, messages, stream=True, **asked))
            except MissingFault as error:
                raise MissingFault(error.what, f"{error.advice}; `ollama pull {model}` gets it") from None
        _check_prompt_was_read(reply, messages, int(options["num_ctx"]))
        if end == "length":
            raise CutFault("the answer is cut off", f"raise --teacher-num-ctx above {options['num_ctx']}")
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
        counts = last.prompt_eval_count or 0, last.eval_count or 0
        return Reply("".join(content), "".join(thinking), *counts), last.done_reason

    def close(self) -> None:
        self._client.close()


def _import_ollama() -> Any:
    """Import the official client when one is made, not before: its package makes one of its own on import.

    That one, which is never used, reads the environment's proxies, and so fails where they need what is not installed.
    """
    try:
        import ollama
    except ImportError as error:
        what = f"the package ollama cannot be imported ({error})"
        advice = "unset ALL_PROXY where it names a SOCKS proxy, or install what is missing"
        raise TeacherError(f"{what}: {advice}") from None
    return ollama


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
def _typed_fields(host: str) -> Iterator[None]:
    """Turn what an answer with missing or ill-typed fields raises into a ProtocolFault."""
    try:
        yield
    except (ValidationError, KeyError, IndexError, TypeError, AttributeError) as error:
        lines = str(error).splitlines()
        where = " ".join(lines[1:3]) if isinstance(error, ValidationError) else f"{type(error).__name__} {lines[0]}"
        raise not_this_api(host, f"fields are missing or ill-typed: {where.strip()}") from None


# ---------------------------------------------------------------------------------------------------------------------
# OpenAI-compatible servers


class OpenAIServer:
    """A server of /v1/chat/completions (vLLM, llama.cpp, Ollama's own), by httpx on a guarded transport."""

    def __init__(self, transport: GuardedTransport) -> None:
        self.host = transport.host
        self._transport = transport
        base = transport.host if transport.host.endswith("/v1") else f"{transport.host}/v1"
        self._client = httpx.Client(base_url=base, transport=transport, follow_redirects=False)
        self.limits = transport.limits

    @property
    def limits(self) -> Limits:
        return self._transport.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        # Nothing is streamed here: a server says its first word when it has said its last.
        self._transport.limits = replace(limits, silence=limits.deadline)

    def identify(self, model: str) -> Identity:
        with _typed_fields(self.host):
            entry = self._entry(model)
            length = entry.get("max_model_len") or (entry.get("meta") or {}).get("n_ctx_train")
            server = str(entry.get("owned_by") or "unknown")
            return Identity(server, _entry_digest(entry), int(length) if length else None, thinks=True)

    def models(self) -> dict[str, str]:
        """List the models that the server has, with digests of what it says of them."""
        with _typed_fields(self.host):
            return {entry["id"]: _entry_digest(entry) for entry in self._entries()}

    def model_digest(self, model: str) -> str:
        with _typed_fields(self.host):
            return _entry_digest(self._entry(model))

    def _entries(self) -> list[dict[str, Any]]:
        return list(self._client.get("/models").json()["data"])

    def _entry(self, model: str) -> dict[str, Any]:
        entries = {entry["id"]: entry for entry in self._entries()}
        if model not in entries:
            have = f"it has {', '.join(sorted(entries)[:8])}" if entries else "it has none"
            advice = "serve it there, or name another with --teacher-model"
            raise MissingFault(f"{self.host} has not got {model} ({have})", advice)
        return entries[model]

    def chat(self, model: str, messages: list[Any], schema: Any, options: dict[str, Any], think: Any) -> Reply:
        body: dict[str, Any] = {"model": model, "messages": messages, "stream": False}
        body |= {name: options[name] for name in ("temperature", "seed") if name in options}
        if schema is not None:
            wanted = {"name": "answer", "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        if think:
            body["reasoning_effort"] = think
        with _typed_fields(self.host):
            answer = self._client.post("/chat/completions", json=body).json()
            reply, end = self._read(answer), answer["choices"][0].get("finish_reason")
        _check_prompt_was_read(reply, messages, int(options["num_ctx"]))
        if end == "length":
            raise CutFault("the answer is cut off", "raise the server's limit of tokens or its context")
        if end is None:
            raise without_end(self.host)
        return reply

    def _read(self, answer: dict[str, Any]) -> Reply:
        message, usage = answer["choices"][0]["message"], answer.get("usage") or {}
        if message.get("refusal"):
            what = f"the teacher refuses the question ({self._transport.clean(str(message['refusal']))})"
            raise RefusalFault(what, "another --teacher-model may do better")
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        return Reply(_text(message.get("content")), _text(thought), *counts)

    def close(self) -> None:
        self._client.close()


def _text(value: Any) -> str:
    """A field that is text or null; raises TypeError for another."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text should be")
    return value or ""


def _entry_digest(entry: dict[str, Any]) -> str:
    """What a list of models says of one, without what changes at every asking."""
    return digest({name: entry.get(name) for name in ("id", "root", "max_model_len", "meta")})
