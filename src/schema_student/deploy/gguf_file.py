"""Write a merged Gemma 3 as a GGUF file that llama.cpp reads as Transformers reads the model.

write_gguf(student, Path("model-F16.gguf"), "F16", name="mine", licence="gemma")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType

from schema_student.core.errors import UserError
from schema_student.deploy.gguf_vocabulary import Vocabulary, read_vocabulary
from schema_student.deploy.gguf_weights import FILE_TYPES, gguf_tensors
from schema_student.deploy.merging import chat_template
from schema_student.student.generation import find_stop_ids
from schema_student.student.loading import Student
from schema_student.student.tokens import end_of_turn_id

SLIDING, FULL = "sliding_attention", "full_attention"


def write_gguf(student: Student, path: Path, kind: str, name: str, licence: str) -> None:
    """Write weights, tokenizer, chat template and the tokens that end an answer.

    Raises UserError for a model or a tokenizer that llama.cpp would not compute like.
    """
    config = student.model.config
    check_architecture(config)
    vocabulary = read_vocabulary(student.tokenizer, config.vocab_size)
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[MODEL_ARCH.GEMMA3])
    try:
        writer.add_type("model")
        writer.add_name(name)
        writer.add_license(licence)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(2)
        _add_sizes(writer, config)
        _add_tokenizer(writer, student, vocabulary)
        for tensor, array, stored in gguf_tensors(student.model, kind):
            writer.add_tensor(tensor, array, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def check_architecture(config: Any) -> None:
    """Raise UserError for what is not a Gemma 3, or differs from it in what llama.cpp takes as given."""
    if config.model_type != "gemma3_text":
        raise UserError(
            f"GGUF is written here for Gemma 3 alone, and this base is {config.model_type}: export --kind merged, and "
            "convert that by llama.cpp's convert_hf_to_gguf.py"
        )
    theta = config.rope_parameters
    wrong = {
        "query_pre_attn_scalar is not head_dim": config.query_pre_attn_scalar != config.head_dim,
        "attention has biases": bool(config.attention_bias),
        "logits are capped": bool(config.final_logit_softcapping or config.attn_logit_softcapping),
        "attention is bidirectional": bool(getattr(config, "use_bidirectional_attention", False)),
        "the activation is not gelu_pytorch_tanh": config.hidden_activation != "gelu_pytorch_tanh",
        "a window's rope_theta is not 10000": _slides(config) and theta[SLIDING]["rope_theta"] != 10_000,
        "rope is scaled in another way than linearly": theta[FULL]["rope_type"] not in ("default", "linear"),
    }
    if found := [what for what, is_so in wrong.items() if is_so]:
        raise UserError(f"GGUF: llama.cpp would not compute this Gemma 3 as it is: {'; '.join(found)}")
    if _slides(config):
        find_period(config.layer_types)


def _slides(config: Any) -> bool:
    """Return whether a layer's window is smaller than the context."""
    return SLIDING in config.layer_types and config.sliding_window < config.max_position_embeddings


def find_period(layer_types: list[str]) -> int:
    """Find n where each n-th layer sees all and the others have a window; raises UserError for another pattern.

    >>> find_period(["sliding_attention", "full_attention", "sliding_attention", "full_attention"])
    2
    """
    period = layer_types.index(FULL) + 1 if FULL in layer_types else len(layer_types) + 1
    wanted = [SLIDING if (i + 1) % period else FULL for i in range(len(layer_types))]
    if layer_types != wanted:
        raise UserError("GGUF: llama.cpp's Gemma 3 has a window in all layers but each n-th; this one does not")
    return period


def _add_sizes(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters[FULL]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if _slides(config):  # without a window every layer sees all
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(find_period(config.layer_types))


def _add_tokenizer(writer: GGUFWriter, student: Student, vocabulary: Vocabulary) -> None:
    """Add the tokenizer; where its texts begin with BOS, the file says so, and llama.cpp takes the template's away."""
    tokenizer = student.tokenizer
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.space_prefix)
    writer.add_add_bos_token(_begins_with_bos(tokenizer))
    writer.add_add_eos_token(False)
    end_of_turn = end_of_turn_id(tokenizer)
    others = sorted(find_stop_ids(student) - {end_of_turn})
    writer.add_eot_token_id(end_of_turn)
    writer.add_eos_token_id(others[0] if others else end_of_turn)
    for number, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_chat_template(chat_template(tokenizer))


def _begins_with_bos(tokenizer: Any) -> bool:
    """Return whether a prompt begins with BOS: by the template, or by the tokenizer itself."""
    if tokenizer.bos_token_id is None:
        return False
    return (
        chat_template(tokenizer).startswith("{{ bos_token }}")
        or tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    )
