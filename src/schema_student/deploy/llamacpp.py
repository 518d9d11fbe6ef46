"""Run a GGUF file in llama.cpp, by the server of xllamacpp's wheel (the extra `llamacpp`), on a loopback port.

with serve_gguf(Path("model-F16.gguf"), context=4096) as server:
    server.encode_prompt("...")                 # by the file's own template and tokenizer
    server.complete([2, 105, ...], 32)          # Completed(text, ids), greedy
"""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch

from schema_student.core.errors import UserError
from schema_student.teacher.llamacpp import start_server

SECONDS = 600.0  # that one answer may take


@dataclass(frozen=True)
class Completed:
    """An answer of llama.cpp: its text and its token ids, without the one that ended it."""

    text: str
    ids: list[int]


def has_llamacpp() -> bool:
    """Return whether xllamacpp is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaServer:
    """A llama.cpp server: its own endpoints, which tell token ids."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=SECONDS, trust_env=False)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Encode a user turn as the server's chat API does: its template, then its tokenizer."""
        turns = {"messages": [{"role": "user", "content": prompt}]}
        return self.encode_text(self._post("/apply-template", turns)["prompt"])

    def encode_text(self, text: str) -> list[int]:
        """Encode a text, with what the tokenizer puts before it."""
        return list(self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"])

    def complete(self, ids: Sequence[int], most: int) -> Completed:
        """Go on greedily from token ids, until the model ends its answer or has written `most` tokens."""
        asked = {"prompt": list(ids), "n_predict": most, "temperature": 0, "samplers": ["top_k"], "top_k": 1}
        found = self._post("/completion", {**asked, "return_tokens": True, "cache_prompt": True})
        return Completed(found["content"], found["tokens"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(path, json=body)
        if response.status_code != 200:
            raise UserError(f"llama.cpp answers {path} with {response.status_code}: {response.text[:200]}")
        found: dict[str, Any] = response.json()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def serve_gguf(path: Path, context: int) -> Iterator[LlamaServer]:
    """Serve a GGUF file on a loopback port; raises UserError where llama.cpp does not load it."""
    try:
        process = start_server(path, 0, 1, context, torch.get_num_threads(), warmup=False)
    except RuntimeError as error:
        raise UserError(f"llama.cpp does not load {path.name}: {error}") from None
    server = LlamaServer(process.listening_address)
    try:
        yield server
    finally:
        server.close()
        del process
        gc.collect()  # its threads wait for work in a busy loop until it is gone
