"""GGUF files made of the tiny Gemma 3 of tests/support/tiny.py, whole or with a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from gguf import GGMLQuantizationType, GGUFWriter, quantize

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def bpe_tokenizer() -> Any:
    """The tiny tokenizer with one merge: its last byte's token has made room for "he"."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    plain = tiny.tiny_tokenizer()
    data = json.loads(plain.backend_tokenizer.to_str())
    last = max(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"]["he"] = data["model"]["vocab"].pop(last)
    data["model"]["merges"] = [["h", "e"]]
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)), **plain.special_tokens_map)
    made.chat_template = tiny.CHAT_TEMPLATE
    return made


def tensors(quantized: str = "F32") -> dict[str, tuple[np.ndarray, GGMLQuantizationType]]:
    """The tiny model's weights by their names in GGUF; a norm is there one more than here, as llama.cpp has it."""
    found = {}
    for name, weight in tiny.tiny_model().state_dict().items():
        parts = name.removeprefix("model.").removesuffix(".weight").split(".", 2)
        if parts[0] == "layers":
            gguf_name = f"blk.{parts[1]}.{NAMES[parts[2]]}.weight"
        else:
            gguf_name = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(parts[0], "") + ".weight"
        if gguf_name != ".weight":  # lm_head is the embedding
            array = weight.numpy() + (1 if "norm" in gguf_name else 0)
            kind = GGMLQuantizationType[quantized if array.ndim > 1 else "F32"]
            found[gguf_name] = (quantize(array, kind), kind)
    return found


def metadata() -> dict[str, Any]:
    """What the tiny model's GGUF file says of it and of its tokenizer."""
    tokenizer = bpe_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    sizes = {"block_count": 2, "context_length": 4096, "embedding_length": 32, "feed_forward_length": 64}
    sizes |= {"attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 16}
    sizes |= {"attention.value_length": 16, "attention.sliding_window": 16}
    facts: dict[str, Any] = {f"gemma3.{name}": value for name, value in sizes.items()}
    facts |= {"gemma3.attention.layer_norm_rms_epsilon": 1e-6, "gemma3.rope.freq_base": 1e6}
    facts |= {"general.name": "../../tiny", "general.license": "mit", "tokenizer.ggml.model": "gpt2"}
    facts |= {"tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": vocabulary, "tokenizer.ggml.merges": ["h e"]}
    facts["tokenizer.ggml.token_type"] = [3 if token in tiny.SPECIALS else 1 for token in vocabulary]
    facts |= {"tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.bos_token_id": 2}
    return facts | {"tokenizer.chat_template": tiny.CHAT_TEMPLATE, "general.file_type": 7}


def write_gguf(path: Path, quantized: str = "F32", architecture: str = "gemma3", **faults: Any) -> Path:
    """Write the tiny model as a GGUF file.

    `faults`: keys of the metadata (with __ for a dot) -> value, None = left out; `tensors`: what changes their dict.
    """
    writer = GGUFWriter(path, architecture)
    change = faults.pop("tensors", lambda found: None)
    facts = metadata() | {name.replace("__", "."): value for name, value in faults.items()}
    for key, value in facts.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)](key, value)
    weights = tensors(quantized)
    change(weights)
    for name, (array, kind) in weights.items():
        writer.add_tensor(name, array, raw_dtype=None if kind.name in ("F32", "F16") else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def store_in_ollama(
    store: Path, blob: Path, sha256: str, owner: str = "library", tag: str = "270m", **changes: Any
) -> None:
    """Put a GGUF file into an Ollama store as gemma3:TAG."""
    blobs = store / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / f"sha256-{sha256}").write_bytes(blob.read_bytes())
    (blobs / f"sha256-{'a' * 64}").write_text("\n  Terms of Use\nmore\n")
    kind = "application/vnd.ollama.image."
    layers = [
        {"mediaType": f"{kind}model", "digest": f"sha256:{sha256}"},
        {"mediaType": f"{kind}license", "digest": f"sha256:{'a' * 64}"},
    ]
    manifest = store / "manifests" / "some.registry" / owner / "gemma3" / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers, **changes}))
