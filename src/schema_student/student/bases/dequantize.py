"""Make a folder in bfloat16 of a GGUF file, once: weights by Transformers, tokenizer by us or one that is named."""

from __future__ import annotations

import io
import json
import logging
import shutil
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from math import prod
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError
from schema_student.student.bases.comparison import compare_tokenizers, describe_vocabulary
from schema_student.student.bases.gguf_header import MAGIC, Header, read_header
from schema_student.student.bases.gguf_tokenizer import TOKENS, build_tokenizer, read_tokens
from schema_student.student.bases.record import BaseRecord, write_record

SLIM = ".without-tokenizer.gguf"
UINT32 = 4
LAYERS_OF_27B = 62


def dequantize(path: Path, folder: Path, facts: BaseRecord, tokenizer: Path | None = None) -> BaseRecord:
    """Write the weights and the tokenizer of a GGUF file into a folder that Transformers loads; returns its record.

    `tokenizer` is a folder whose tokenizer is better than the file's, which only has its words. Raises UserError for
    a file that is broken, of an architecture that Transformers does not read, or whose tokenizer is another one.
    """
    header = read_header(path)
    folder.mkdir(parents=True, exist_ok=True)
    rows = _count_rows(header)
    made = _save_tokenizer(header, folder, tokenizer, rows)
    _save_weights(header, folder, rows)
    found = {"quantization": header.quantization, "architecture": header.architecture, **made}
    licence = facts.licence or str(header.metadata.get("general.license", ""))
    record = BaseRecord(**{**facts.__dict__, **found, "licence": licence})
    write_record(folder, record)
    return record


# ---------------------------------------------------------------------------------------------------------------------
# The tokenizer


def _save_tokenizer(header: Header, folder: Path, named: Path | None, rows: int) -> dict[str, Any]:
    """Write the tokenizer; returns what the record says of it."""
    if named is None:
        tokenizer = build_tokenizer(header)
        tokenizer.save_pretrained(folder)
        return {"tokenizer": "of the GGUF file"}
    from transformers import AutoTokenizer

    left_out = _copy_tokenizer(named, folder, rows)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if TOKENS not in header.metadata:
        return {"left_out": left_out}
    if differs := describe_vocabulary(tokenizer, read_tokens(header)):
        raise UserError(f"the tokenizer of {named} is not that of {header.path}: {differs}; name another, or none")
    return {"left_out": left_out, "tokenizer_differs": _compare(tokenizer, header)}


def _compare(tokenizer: Any, header: Header) -> list[str]:
    try:
        built = build_tokenizer(header)
    except UserError as error:
        return [f"not compared: {error}"]
    return compare_tokenizers(tokenizer, built)


def _copy_tokenizer(source: Path, folder: Path, rows: int) -> list[str]:
    """Copy a tokenizer's files, without the tokens that have no row in the embedding; returns those.

    Gemma's has <image_soft_token> at 262144, one behind the last row: a request with that text would end a run.
    """
    try:
        data = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
        config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
        added = data["added_tokens"]
        left_out = [token["content"] for token in added if token["id"] >= rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} holds no tokenizer (tokenizer.json, tokenizer_config.json): {error}") from None
    data["added_tokens"] = [token for token in added if token["id"] < rows]
    config = _without(config, set(left_out))
    for name, value in (("tokenizer.json", data), ("tokenizer_config.json", config)):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    if (template := source / "chat_template.jinja").is_file():
        shutil.copyfile(template, folder / template.name)
    return left_out


def _without(config: dict[str, Any], tokens: set[str]) -> dict[str, Any]:
    """A tokenizer's configuration without what names one of these tokens."""

    def names(value: Any) -> bool:
        text = value.get("content") if isinstance(value, dict) else value
        return isinstance(text, str) and text in tokens

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(each) for key, each in value.items() if not names(each)}
        return [each for each in value if not names(each)] if isinstance(value, list) else value

    return {key: clean(value) for key, value in config.items() if not names(value)}


# ---------------------------------------------------------------------------------------------------------------------
# The weights


def _count_rows(header: Header) -> int:
    """Count the rows of the embedding; raises UserError where the file is no language model."""
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) == 2:
            return tensor.shape[1]
    raise UserError(f"{header.path} ({header.architecture}) is not a language model: it has no token_embd.weight")


def _save_weights(header: Header, folder: Path, rows: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    slim = folder / SLIM
    try:
        write_without_tokenizer(header, slim, rows)
        with _quiet():
            _check_size(header, folder)
            model, loaded = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=SLIM, dtype=torch.bfloat16, output_loading_info=True, trust_remote_code=False
            )
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{header.path} ({header.architecture}) cannot be loaded: {reason}") from None
    finally:
        slim.unlink(missing_ok=True)
    if missing := sorted(loaded["missing_keys"]):
        raise UserError(f"{header.path} lacks {len(missing)} of its model's weights ({missing[0]})")
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise UserError(f"{header.path} has weights that are not finite numbers ({broken[0]})")
    _set_attention(model.config, header)
    _save_model(model, folder)


def _set_attention(config: Any, header: Header) -> None:
    """Say how a Gemma 3 attends where Transformers takes the published sizes for granted: windows, and the scale.

    llama.cpp divides by the root of the head's size, but for the one of 62 layers; each n-th layer sees all.
    """
    if header.architecture != "gemma3":
        return
    period = header.metadata.get("gemma3.attention.sliding_window_pattern")
    if isinstance(period, int) and period > 0:
        kinds = ("sliding_attention", "full_attention")
        config.layer_types = [kinds[(i + 1) % period == 0] for i in range(config.num_hidden_layers)]
    if config.num_hidden_layers != LAYERS_OF_27B:
        config.query_pre_attn_scalar = config.head_dim


def _save_model(model: Any, folder: Path) -> None:
    """Save as a model of plain weights: what marks it as quantized makes save_pretrained refuse."""
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with _quiet():
        model.save_pretrained(folder)


def _check_size(header: Header, folder: Path) -> None:
    """Refuse metadata that describe a larger model than the file has weights for, before one is made of them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if header.architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        raise UserError(
            f"{header.path} is of the architecture {header.architecture!r}, which Transformers does not read"
        )
    layers = header.metadata.get(f"{header.architecture}.block_count", 0)
    if not isinstance(layers, int) or not 0 < layers <= len(header.tensors):
        raise UserError(f"{header.path} announces {layers!r} layers and has {len(header.tensors)} tensors")
    config = AutoConfig.from_pretrained(folder, gguf_file=SLIM, trust_remote_code=False)
    with torch.device("meta"):
        described = AutoModelForCausalLM.from_config(config).num_parameters()
    there = sum(prod(tensor.shape) for tensor in header.tensors)
    if not 0.95 < described / there < 1.05:  # some have tensors beside, of positions or of a tied head
        raise UserError(f"{header.path} describes a model of {described:,} weights and has {there:,}")


def write_without_tokenizer(header: Header, target: Path, rows: int) -> None:
    """Copy a GGUF file without its tokenizer's lists, which Transformers reads value by value, again and again.

    For Gemma's 262,144 tokens that takes minutes. The size of the vocabulary, which it takes from them, is added.
    """
    key = f"{header.architecture}.vocab_size"
    added = b"" if key in header.spans else _pack_text(key) + struct.pack("<II", UINT32, rows)
    dropped = {
        name for name, value in header.metadata.items() if name.startswith("tokenizer.") and isinstance(value, list)
    }
    kept = [span for name, span in header.spans.items() if name not in dropped]
    count = len(kept) + bool(added)
    with header.path.open("rb") as source, target.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", header.version, len(header.tensors), count))
        for start, end in [*kept, (header.infos_at, header.infos_end)]:
            if start == header.infos_at:
                file.write(added)
            source.seek(start)
            file.write(source.read(end - start))
        alignment = int(header.metadata.get("general.alignment", 32))
        file.write(b"\0" * (-file.tell() % alignment))
        source.seek(header.data_at)
        shutil.copyfileobj(source, file, 2**20)


def _pack_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Transformers' bars and advice out of what is said."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):  # of bars that ask nobody
            yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
