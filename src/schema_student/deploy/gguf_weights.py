"""Name a Gemma 3's weights as GGUF does, and quantize them: F16, Q8_0, and Q4_K_M as llama.cpp mixes it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, LlamaFileType, get_tensor_name_map, quantize

from schema_student.core.errors import UserError

T = GGMLQuantizationType
FILE_TYPES = {
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
}
SUPERBLOCK, BLOCK = 256, 32  # weights of a row that K-quants, and the others, take together
NARROWER = {T.Q4_K: T.Q5_0, T.Q6_K: T.Q8_0}  # for rows that are not whole superblocks
LAYER = re.compile(r"blk\.(\d+)\.")


def gguf_tensors(model: Any, kind: str) -> Iterator[tuple[str, np.ndarray, GGMLQuantizationType]]:
    """List the weights of a Gemma 3 in a kind of file: name, array, type.

    A norm's weight is one more than the model's: Gemma 3 multiplies by (1 + weight), and llama.cpp by what the file
    has. Raises UserError for a weight that has no place in llama.cpp's Gemma 3.
    """
    layers = model.config.num_hidden_layers
    names = get_tensor_name_map(MODEL_ARCH.GEMMA3, layers)
    tied = model.config.tie_word_embeddings
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise UserError(f"GGUF: llama.cpp's Gemma 3 has no place for the weight {name}")
        array = weight.detach().float().cpu().numpy()
        array = array + 1 if found.endswith("norm.weight") else array
        wanted = choose_type(found, array.shape, kind, layers)
        yield found, quantize_array(array, wanted, kind), wanted


def choose_type(name: str, shape: tuple[int, ...], kind: str, layers: int) -> GGMLQuantizationType:
    """Choose the type of a tensor in a kind of file; vectors stay in F32.

    Q4_K_M is that of llama.cpp (llama_tensor_get_type): the output and a third of the value and down matrices in Q6_K.
    """
    if len(shape) < 2:
        return T.F32
    if kind == "F16" or shape[-1] % BLOCK:
        return T.F16
    if kind == "Q8_0":
        return T.Q8_0
    layer = LAYER.match(name)
    finer = has_more_bits(int(layer[1]), layers) and ("attn_v" in name or "ffn_down" in name) if layer else True
    wanted = T.Q6_K if finer else T.Q4_K
    return wanted if shape[-1] % SUPERBLOCK == 0 else NARROWER[wanted]


def has_more_bits(layer: int, layers: int) -> bool:
    """Return whether Q4_K_M gives a layer more bits: the first and last eighth, and each third one between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def quantize_array(array: np.ndarray, wanted: GGMLQuantizationType, kind: str) -> np.ndarray:
    """Quantize one tensor: K-quants, and what is mixed with them, by ggml's reference quantizer."""
    if kind != "Q4_K_M" or wanted in (T.F32, T.F16):
        return quantize(array, wanted)
    import libgguf

    found: np.ndarray = libgguf.quantize_rows(array, wanted)
    return found


def check_quantizer(kinds: Sequence[str]) -> None:
    """Raise UserError where K-quants are wanted and libgguf is not installed."""
    if "Q4_K_M" in kinds and importlib.util.find_spec("libgguf") is None:
        raise UserError(
            "Q4_K_M needs libgguf, ggml's reference quantizer: pip install 'schema-student[llamacpp]', or leave it out "
            "(--gguf-types F16,Q8_0)"
        )
