"""A Gemma 3 student small enough for tests: hidden 32, 2 layers (one with a sliding window), a vocabulary of bytes.

Built offline from a seed; nothing is downloaded. `save_tiny(path)` writes it as a base that `--base-model PATH` loads.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from schema_student.student.loading import load_student

SPECIALS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")

# Gemma's own template, for messages of the roles user and assistant.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@lru_cache(maxsize=1)
def tiny_tokenizer():
    """A byte-level tokenizer with Gemma's chat template: every string has ids, and they decode to the same string."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(seed: int = 0, sliding_window: int = 16):
    """A random Gemma3ForCausalLM in float32, the same for a seed; layer 0 has a sliding window, layer 1 sees all."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = tiny_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=4096,
        sliding_window=sliding_window,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Gemma3ForCausalLM(config)
    return model.float().eval()


def save_tiny(path: Path, seed: int = 0) -> Path:
    """Write the tiny base (weights and tokenizer) to a directory and return it."""
    tiny_model(seed).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def tiny_settings(folder: Path, **changes):
    """Settings for the tiny base under `folder`: outputs beside it, every "auto" a number, and most of them small."""
    from schema_student.core.settings import default_settings, read_auto

    base = folder / "base"
    if not (base / "config.json").exists():
        save_tiny(base)
    small = {"sft_batch_size": 4, "eval_every": 2, "save_every": 2, "eval_batch_size": 8, "samples_per_prompt": 2}
    small |= {"dpo_batch_size": 2, "dpo_max_steps": 4, "dpo_eval_every": 2, "pair_prompts": 8, "max_new_tokens": 64}
    small |= {"sft_learning_rate": 0.0002, "sft_checkpoint": "least-loss"}
    small |= {"base_model": str(base), "output_dir": str(folder / "outputs"), "dtype": "float32", "lora_r": 4}
    return default_settings(**{**read_auto("gemma"), **small, **changes})


def tiny_student(folder: Path, adapter: str | None = None, trainable: bool = False):
    """The tiny base saved under `folder` and loaded as `load_student` loads any base."""

    return load_student(tiny_settings(folder), adapter=adapter, trainable=trainable)
