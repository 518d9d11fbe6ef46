"""Export GGUF files, each read back and asked the test prompts: in llama.cpp, or dequantized where that is not here."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from schema_student.core.jsonl import Row
from schema_student.core.log import log
from schema_student.core.settings import AnySettings, default_settings
from schema_student.core.stamps import digest
from schema_student.deploy.gguf_file import check_architecture, write_gguf
from schema_student.deploy.gguf_vocabulary import read_vocabulary
from schema_student.deploy.gguf_weights import check_quantizer
from schema_student.deploy.llamacpp import has_llamacpp, serve_gguf
from schema_student.deploy.merging import Merged
from schema_student.deploy.source import Source
from schema_student.deploy.trial import (
    Answered,
    Made,
    Tried,
    ask,
    check_prompt,
    check_prompt_ids,
    grade_answer,
    try_answers,
)
from schema_student.student.bases.comparison import probe_texts
from schema_student.student.bases.dequantize import dequantize
from schema_student.student.bases.gguf_header import read_header
from schema_student.student.bases.placing import safe_name
from schema_student.student.bases.record import BaseRecord
from schema_student.student.loading import hub_options, load_student, load_tokenizer

USAGE = "`llama-server -m {file} -c {context} --temp 0` of llama.cpp, and what is built on it."


def check_gguf(source: Source, kinds: Sequence[str]) -> None:
    """Raise UserError where a source cannot become GGUF files of these types: before anything is computed for them."""
    from transformers import AutoConfig

    check_quantizer(kinds)
    config = AutoConfig.from_pretrained(**hub_options(source.choice.base)).get_text_config()
    check_architecture(config)
    read_vocabulary(load_tokenizer(source.choice.base), config.vocab_size)


def export_gguf(merged: Merged, folder: Path, given: AnySettings) -> Made:
    """Write a GGUF file of each type that the settings name; the answers of each are held against the adapter's."""
    facts: Row = {}
    lines: list[str] = []
    for kind in dict.fromkeys(given.export.gguf_types):
        path = folder / file_name(merged, kind)
        tried = make_gguf(merged, path, kind)
        facts[path.name] = {"type": kind, "bytes": path.stat().st_size, **tried.facts}
        lines += tried.lines
    context = merged.source.settings.length.max_seq_length
    usage = USAGE.format(file=file_name(merged, given.export.gguf_types[0]), context=context)
    return Made({"gguf": facts}, lines, usage)


def file_name(merged: Merged, kind: str) -> str:
    """Name a GGUF file as llama.cpp's users do: RUN-TYPE.gguf."""
    return f"{safe_name(merged.source.run)}-{kind}.gguf"


def make_gguf(merged: Merged, path: Path, kind: str) -> Tried:
    """Write one GGUF file, read it back, and ask it the test prompts.

    Raises UserError where it cannot be written, encodes a prompt otherwise, or answers worse than the adapter.
    """
    log.info(f"writing {path.name}")
    write_gguf(merged.student, path, kind, merged.source.run, merged.source.base_licence)
    read_header(path)
    where, answers, others = _ask_llamacpp(merged, path) if has_llamacpp() else ask_dequantized(merged, path)
    log.info(f"{path.name}: asked {len(answers)} test prompts {where}")
    tried = try_answers(path.name, answers, merged.adapter_answers, quantized=kind != "F16")
    lines = [f"{tried.lines[0]}; {where}"]
    if kind not in ("F16", "Q8_0") and merged.source.base_record and merged.source.base_record.quantization == kind:
        lines.append(
            f"{path.name}: the base was dequantized from {kind}, so that {kind} rounds most of the adapter away"
        )
        log.warning(lines[-1])
    facts = {**tried.facts, "tried_by": where, "tokenizer_differs_on": others}
    return Tried(facts, lines)


def _ask_llamacpp(merged: Merged, path: Path) -> tuple[str, list[Answered], list[str]]:
    settings, tokenizer = merged.source.settings, merged.student.tokenizer
    answers = []
    with serve_gguf(path, settings.length.max_seq_length) as server:
        for prompt in merged.prompts:
            check_prompt(path.name, prompt, server.encode_prompt(prompt.text))
            done = server.complete(prompt.ids, settings.generation.max_new_tokens)
            answers.append(grade_answer(prompt, done.text, settings, done.ids))
        others = [
            name for name, text in probe_texts().items() if server.encode_text(text) != tokenizer(text)["input_ids"]
        ]
    return "by llama.cpp", answers, others


def ask_dequantized(merged: Merged, path: Path) -> tuple[str, list[Answered], list[str]]:
    """Answers of the file's weights and tokenizer as Transformers reads them."""
    with tempfile.TemporaryDirectory(prefix=".dequantized.", dir=path.parent) as place:
        dequantize(path, Path(place), BaseRecord(path.name, digest(path)))
        again = load_student(default_settings(base_model=place, dtype="float32"), backend="transformers")
    check_prompt_ids(path.name, again.tokenizer, merged.prompts)
    where = "by Transformers, which dequantized it (xllamacpp is not installed)"
    return where, ask(again, merged.prompts, merged.source.settings), []
