"""Make the embedded student's tokenizer and its random weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schema_student.student.tokens import END_OF_TURN, end_of_turn_id

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


# Joins and prepositions take the spaces around them along, so that every other word is its own token sequence,
# the same in the schema, in the request and between the quotes of the JSON.
FUNCTION_WORDS = (
    "a an the of to in on at by for from with and or is are be as it its not no than that which whose where when who "
    "any all after before since until between last this next date number integer string boolean list one given "
    "le la les un une des du de et ou est sont dans par pour avec sans sur que qui dont entre pas depuis au aux en ce "
    "cet cette ne"
)


def train_embedded_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a byte-level BPE in which a content word is its own pre-token. No text is unknown to it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    joins = "|".join(sorted(FUNCTION_WORDS.split(), key=len, reverse=True))
    pattern = Regex(rf" (?:(?:{joins}) )+|\n *|\p{{L}}+|\p{{N}}|[^\p{{L}}\p{{N}}\n]+")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", END_OF_TURN]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", END_OF_TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def new_embedded_model(tokenizer: Any, hidden_size: int, layers: int) -> Any:
    """Make a Gemma 3 language model of 2 to 3 million random parameters; every layer attends to the whole schema."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 48,
        num_key_value_heads=hidden_size // 96,
        head_dim=48,
        intermediate_size=3 * hidden_size,
        query_pre_attn_scalar=48,
        max_position_embeddings=4096,
        sliding_window=4096,
        layer_types=["full_attention"] * layers,
        rope_parameters={"full_attention": rope, "sliding_attention": rope},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[end_of_turn_id(tokenizer), tokenizer.eos_token_id],
        attn_implementation="sdpa",
    )
    return Gemma3ForCausalLM(config)
