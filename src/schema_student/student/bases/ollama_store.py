"""Find the GGUF file of a model in the local Ollama store, without Ollama: manifests name blobs by their SHA-256."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json

PREFIX = "ollama:"
WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
NAME = re.compile(rf"(?:(?P<path>{WORD}(?:/{WORD}){{0,2}}))(?::(?P<tag>{WORD}))?")
DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
KIND = "application/vnd.ollama.image."


@dataclass(frozen=True)
class StoredModel:
    """A model of the store: its GGUF file, the SHA-256 that names it, and its licence's first line."""

    path: Path
    sha256: str
    licence: str


def find_in_ollama(name: str) -> StoredModel:
    """Find the GGUF file of `ollama:NAME[:TAG]`; raises UserError that says what the store has instead."""
    matched = NAME.fullmatch(name.removeprefix(PREFIX))
    if not matched:
        raise UserError(f"{name!r} names no model of Ollama: give ollama:NAME or ollama:NAME:TAG")
    store = store_folder()
    manifest = _find_manifest(store, matched["path"], matched["tag"] or "latest")
    if manifest is None:
        raise UserError(
            f"{name} is not in the Ollama store {store}; there is: {', '.join(list_models(store)) or 'nothing'}"
        )
    layers = _read_layers(manifest)
    weights = [layer for layer in layers if layer.get("mediaType") == f"{KIND}model"]
    if len(weights) != 1:
        raise UserError(f"{name}: its manifest has {len(weights)} GGUF files, not one; it cannot be a base")
    path, sha256 = _find_blob(store, name, weights[0])
    return StoredModel(path, sha256, _read_licence(store, name, layers))


def store_folder() -> Path:
    """Return the folder of the Ollama store: OLLAMA_MODELS, else ~/.ollama/models."""
    named = os.environ.get("OLLAMA_MODELS")
    return Path(named) if named else Path.home() / ".ollama" / "models"


def list_models(store: Path) -> list[str]:
    """List the models of a store, as they are named to Ollama."""
    found = sorted(path.relative_to(store / "manifests") for path in store.glob("manifests/*/*/*/*") if path.is_file())
    return [
        f"{'' if path.parts[1] == 'library' else path.parts[1] + '/'}{path.parts[2]}:{path.parts[3]}" for path in found
    ]


def _find_manifest(store: Path, path: str, tag: str) -> Path | None:
    """The manifest of [HOST/][OWNER/]MODEL; the owner is "library" and the host any one where they are not named."""
    *before, model = path.split("/")
    host, owner = before if len(before) == 2 else ("*", before[0] if before else "library")
    return next(iter(sorted(store.glob(f"manifests/{host}/{owner}/{model}/{tag}"))), None)


def _read_layers(manifest: Path) -> list[dict[str, Any]]:
    layers = read_json(manifest)
    layers = layers.get("layers") if isinstance(layers, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise UserError(f"{manifest} is not a manifest of Ollama: it lists no layers; pull the model again")
    return layers


def _find_blob(store: Path, name: str, layer: dict[str, Any]) -> tuple[Path, str]:
    """The file that a layer names by its digest alone, so that no manifest points out of the store."""
    matched = DIGEST.fullmatch(str(layer.get("digest")))
    if not matched:
        raise UserError(
            f"{name}: its manifest names a blob {layer.get('digest')!r}, which is no SHA-256; pull it again"
        )
    path = store / "blobs" / f"sha256-{matched[1]}"
    if not path.is_file():
        raise UserError(f"{name}: {path} is not there; pull the model again")
    return path, matched[1]


def _read_licence(store: Path, name: str, layers: list[dict[str, Any]]) -> str:
    """The first line of the licence's text that is not blank."""
    for layer in layers:
        if layer.get("mediaType") == f"{KIND}license":
            path, _ = _find_blob(store, name, layer)
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip() for line in lines if line.strip()), "")[:100]
    return ""
