"""Serve a GGUF as a teacher, for people without Ollama: llama.cpp's own server, by the package xllamacpp, on loopback.

with serve_gguf(Path("qwen2.5-coder-1.5b-q4_k_m.gguf"), slots=4) as server:
    ...   # --teacher-api openai --teacher-host server.address --teacher-model server.name
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.processes import count_cores

MAGIC = b"GGUF"
LOOPBACK = "127.0.0.1"
QUIET = -1  # llama.cpp's verbosity: nothing but faults


@dataclass(frozen=True)
class GgufServer:
    """A model that is served: under which name, and where."""

    name: str
    address: str


@contextmanager
def serve_gguf(path: Path, port: int = 0, slots: int = 4, context: int = 4096) -> Iterator[GgufServer]:
    """Serve a GGUF over OpenAI's API: `slots` requests at once, each with `context` tokens; port 0 takes a free one.

    The model is called as its file is. Raises UserError where the package is missing, the file is no GGUF, or llama.cpp
    does not take it.
    """
    check_gguf(path)
    try:
        server = start_server(path, port, slots, slots * context, count_cores())
    except ImportError:
        raise UserError("the extra llamacpp is not installed; pip install 'schema-student[llamacpp]'") from None
    except Exception as error:  # pybind's own kinds
        raise UserError(f"{path}: llama.cpp does not take it on port {port or 'any'} ({error})") from None
    try:
        yield GgufServer(path.stem, server.listening_address)
    finally:
        del server
        gc.collect()  # its threads wait for work in a busy loop until it is gone


def start_server(path: Path, port: int, slots: int, tokens: int, threads: int, warmup: bool = True) -> Any:
    """Start llama.cpp's server of a GGUF on loopback, `tokens` for all slots together; it ends with the object.

    Raises ImportError where the package is missing, and the package's own errors where the file is not loaded.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.hostnames, params.port = [LOOPBACK], port
    params.n_parallel, params.n_ctx = slots, tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cors_origins = "null"  # no page of a browser may ask it
    params.ui, params.endpoint_slots, params.endpoint_props = False, False, False
    params.verbosity, params.warmup = QUIET, warmup
    return xllamacpp.Server(params)


def check_gguf(path: Path) -> None:
    """Raise UserError where a path is no GGUF file."""
    if not path.is_file():
        raise UserError(f"{path} is not there; name a GGUF file of an instruction-tuned model")
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise UserError(f"{path} is no GGUF file; a model's weights in that format end in .gguf")
