"""Serve a student on a port until a signal ends it; what was asked until then is answered.

serve_student(student, name="mine", Serving(host="127.0.0.1", port=8000))
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import uvicorn

from schema_student.core.errors import UserError
from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.deploy.serving.answering import Answering
from schema_student.deploy.serving.app import build_app
from schema_student.deploy.serving.deferring import Deferring
from schema_student.deploy.serving.guarding import HEAD_BYTES, HEAD_SECONDS, Bounds, ImpatientProtocol
from schema_student.deploy.serving.ollama_routes import OllamaRoutes
from schema_student.deploy.serving.openai_routes import OpenAIRoutes
from schema_student.deploy.serving.request_log import RequestLog
from schema_student.deploy.serving.requests import ChatReader
from schema_student.deploy.serving.running import list_files, note_running
from schema_student.deploy.serving.writer import Writer
from schema_student.evaluation.deferral import Deferral
from schema_student.student.loading import WEIGHTS, Student

BACKLOG = 2048  # connections that wait to be taken
LAST_SECONDS = 60  # that answers may take after the signal to end


@dataclass(frozen=True)
class Serving:
    """Where a student is served, and how."""

    name: str
    host: str = "127.0.0.1"
    key: str = ""
    slots: int = 8
    constrained: bool = False
    log_requests: str = ""
    requests: int = 2048
    seconds: float = 300.0
    deferral: Deferral | None = None


def bind(host: str, port: int) -> socket.socket:
    """Take a port; raises UserError where another program has it, or the address is none of this machine's."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "another program has it" if in_use else str(error)
        raise UserError(f"{host}:{port} cannot be served on: {reason}; give another --port or --host") from None


def serve_student(student: Student, serving: Serving, taken: socket.socket, given: AnySettings) -> None:
    """Serve on a port that was taken until SIGINT or SIGTERM, and note it in the output folder.

    `given` are the settings that the student was loaded by.
    """
    address = address_of(taken)
    facts = describe_serving(student, serving, address)
    # Where a teacher stands behind it, it is not noted: who asks the student alone would not see who answers.
    noted = nullcontext() if serving.deferral else note_running(given, taken.getsockname()[1], facts)
    with open_server(student, serving, taken) as server, _signals_end_it(), noted:
        log.info(f"{serving.name} is served at {address} until Ctrl-C. In another terminal:")
        log.info(f"  schema-student smoke --endpoint {address}")
        server.run(sockets=[taken])
    log.info("all that was asked is answered")


@contextmanager
def open_server(student: Student, serving: Serving, taken: socket.socket) -> Iterator[uvicorn.Server]:
    """Make the server of a socket, its writer's thread running; the socket is closed at the end."""
    bounds = Bounds(serving.host, taken.getsockname()[1], serving.key, serving.requests, serving.seconds)
    deferring = Deferring(serving.deferral) if serving.deferral else None
    with Writer(student, serving.slots, deferring is not None) as writer, deferring or nullcontext(), taken:
        requests = RequestLog(serving.log_requests)
        answering = Answering(ChatReader(student, serving.constrained), writer, requests, deferring)
        openai = OpenAIRoutes(serving.name, describe_student(student), answering)
        app = build_app(answering, openai, OllamaRoutes(serving.name, describe_weights(student), answering), bounds)
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(HEAD_SECONDS),
            timeout_graceful_shutdown=LAST_SECONDS,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of clients' faults, which they are told
        yield uvicorn.Server(config)


def describe_student(student: Student) -> Row:
    """Describe a student by what decides its answers: its length, a digest of its base and of its adapter."""
    adapter = digest(Path(student.adapter) / WEIGHTS) if student.adapter else None
    weights = {"base_digest": student.digest, "adapter_digest": adapter}
    return {"max_model_len": student.settings.length.max_seq_length, "meta": weights}


def describe_weights(student: Student) -> Row:
    """Describe a student as Ollama does: its size in bytes, its digest, how many weights there are of which kind."""
    weights = list(student.model.parameters())
    count, family = sum(map(torch.numel, weights)), student.model.config.model_type
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    details = {"parent_model": "", "format": "safetensors", "family": family, "families": [family]}
    details |= {"parameter_size": f"{count / 1e6:.1f}M", "quantization_level": str(student.model.dtype).split(".")[-1]}
    return {"size": size, "digest": digest(describe_student(student)), "details": details}


def describe_serving(student: Student, serving: Serving, address: str) -> Row:
    """Describe a server for those who want to ask it here: where it is, its key, whom it serves and how."""
    base = student.choice.base
    facts: Row = {"url": address, "key": serving.key, "model": serving.name, "constrained": serving.constrained}
    facts |= {"adapter": student.adapter, "base": base, "base_files": list_files(base)}
    return facts | describe_student(student)


def address_of(taken: socket.socket) -> str:
    """Return a socket's address as a URL."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Let the signals that end the server end nothing else: uvicorn raises them again once it has ended."""
    ending = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, lambda *_: None) for each in ending}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
