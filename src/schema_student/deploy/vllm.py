"""Export a student for vLLM: the merged model or the adapter, and the command line that serves it."""

from __future__ import annotations

import shlex
from pathlib import Path

from schema_student.core.hub_ids import split_revision
from schema_student.core.jsonl import read_json, write_text
from schema_student.core.settings import AnySettings
from schema_student.deploy.adapter import CONFIG, copy_adapter
from schema_student.deploy.merging import Merged, write_merged
from schema_student.deploy.trial import Made
from schema_student.student.bases.placing import safe_name
from schema_student.student.loading import WEIGHTS

COMMAND = "serve.txt"
NOT_RUN = "vLLM itself was not run here"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that --max-lora-rank takes


def export_vllm(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Write what vLLM serves, and serve.txt with its command line, for the folder that holds it."""
    if given.export.vllm_lora:
        made = copy_adapter(merged.source, folder / "adapter", (CONFIG, WEIGHTS))
    else:
        made = write_merged(merged, folder, given)
    command = serve_command(merged, given.export.vllm_lora)
    write_text(folder / COMMAND, command + "\n")
    usage = f"In this folder: `{command}`; then ask its /v1/chat/completions with temperature 0."
    facts = {"vllm": "adapter" if given.export.vllm_lora else "merged", **made.facts}
    return Made(facts, [*made.lines, NOT_RUN], usage)


def serve_command(merged: Merged, lora: bool) -> str:
    """Write the command line; every name is quoted for a shell."""
    source = merged.source
    name = safe_name(source.run)
    length = ["--max-model-len", str(source.settings.length.max_seq_length)]
    if not lora:
        return shlex.join(["vllm", "serve", ".", "--served-model-name", name, *length])
    rank = int(read_json(source.adapter / CONFIG)["r"])
    most = next((each for each in RANKS if each >= rank), rank)
    adapter = ["--enable-lora", "--lora-modules", f"{name}=adapter", "--max-lora-rank", str(most)]
    base, revision = split_revision(source.choice.base)
    base = f"./{base}" if base.startswith("-") else base  # else a flag
    return shlex.join(["vllm", "serve", base, *(["--revision", revision] if revision else []), *adapter, *length])
