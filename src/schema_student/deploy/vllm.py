"""Export a student for vLLM: the merged model or the adapter, and the command line that serves it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from schema_student.core.hub_ids import split_revision
from schema_student.core.jsonl import read_json, write_text
from schema_student.core.settings import AnySettings
from schema_student.core.stamps import digest
from schema_student.deploy.merging import Merged, write_merged
from schema_student.deploy.trial import Made
from schema_student.student.bases.placing import safe_name

COMMAND = "serve.txt"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that --max-lora-rank takes


def export_vllm(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Write what vLLM serves, and serve.txt with its command line, for the folder that holds it."""
    made = _copy_adapter(merged, folder) if given.export.vllm_lora else write_merged(merged, folder, given)
    command = serve_command(merged, given.export.vllm_lora)
    write_text(folder / COMMAND, command + "\n")
    usage = f"In this folder: `{command}`; then ask its /v1/chat/completions with temperature 0."
    return Made({"vllm": "adapter" if given.export.vllm_lora else "merged", **made.facts}, made.lines, usage)


def serve_command(merged: Merged, lora: bool) -> str:
    """Write the command line; every name is quoted for a shell."""
    source = merged.source
    name = safe_name(source.run)
    length = ["--max-model-len", str(source.settings.length.max_seq_length)]
    if not lora:
        return shlex.join(["vllm", "serve", ".", "--served-model-name", name, *length])
    rank = int(read_json(source.adapter / "adapter_config.json")["r"])
    most = next((each for each in RANKS if each >= rank), rank)
    adapter = ["--enable-lora", "--lora-modules", f"{name}=adapter", "--max-lora-rank", str(most)]
    base, revision = split_revision(source.choice.base)
    base = f"./{base}" if base.startswith("-") else base  # else a flag
    return shlex.join(["vllm", "serve", base, *(["--revision", revision] if revision else []), *adapter, *length])


def _copy_adapter(merged: Merged, folder: Path) -> Made:
    """Copy the adapter's weights and configuration, byte by byte."""
    copied = folder / "adapter"
    copied.mkdir()
    for name in ("adapter_config.json", merged.source.weights.name):
        shutil.copyfile(merged.source.adapter / name, copied / name)
    same = digest(copied / merged.source.weights.name) == digest(merged.source.weights)
    assert same, "the adapter changed while it was copied"
    lines = ["the adapter's own files, the same bytes; vLLM itself was not run here"]
    return Made({"tried": None}, lines, "")
