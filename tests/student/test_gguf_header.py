"""A GGUF header by hand: how each kind of value is read, where its bytes lie, and the bounds of what is believed."""

from __future__ import annotations

import struct

import pytest
import tiny
from gguf_files import bpe_tokenizer, write_gguf
from tokenizers import pre_tokenizers

from schema_student.core.errors import UserError
from schema_student.student.bases.dequantize import dequantize
from schema_student.student.bases.gguf_header import Header, Tensor, read_header
from schema_student.student.bases.gguf_tokenizer import build_tokenizer, make_cutters
from schema_student.student.bases.record import BaseRecord
from schema_student.student.tokens import encode_completion, encode_prompt


def text(words):
    return struct.pack("<Q", len(words.encode())) + words.encode()


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name, shape, kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ARCHITECTURE = pair("general.architecture", 8, text("gemma3"))
WEIGHT = tensor("w", (4, 2))


def file_of(folder, pairs=(ARCHITECTURE,), tensors=(WEIGHT,), version=3, data=64, alignment=32):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join([*pairs, *tensors])
    path = folder / "hand.gguf"
    path.write_bytes(head + b"\0" * (-len(head) % alignment) + b"\0" * data)
    return path


def test_each_kind_of_value_is_read_with_the_place_of_its_bytes(tmp_path):
    values = {
        "u8": (0, "B", 200),
        "i8": (1, "b", -100),
        "u16": (2, "H", 60_000),
        "i16": (3, "h", -30_000),
        "u32": (4, "I", 4_000_000_000),
        "i32": (5, "i", -2_000_000_000),
        "f32": (6, "f", 0.5),
        "bool": (7, "?", True),
        "u64": (10, "Q", 2**63),
        "i64": (11, "q", -(2**62)),
        "f64": (12, "d", 0.1),
    }
    pairs = [
        ARCHITECTURE,
        *(pair(key, kind, struct.pack(f"<{form}", value)) for key, (kind, form, value) in values.items()),
    ]
    pairs.append(pair("numbers", 9, struct.pack("<IQ3h", 3, 3, 1, -2, 3)))
    pairs.append(pair("texts", 9, struct.pack("<IQ", 8, 2) + text("é") + text("")))
    tensors = [tensor("a.weight", (4, 2)), tensor("b", (32,), 8, 32), tensor("c", (1, 1, 1, 3), 1, 66)]
    header = read_header(file_of(tmp_path, pairs, tensors, version=2, data=72))
    expected = {key: value for key, (_, _, value) in values.items()}
    assert header.metadata == {"general.architecture": "gemma3", **expected, "numbers": [1, -2, 3], "texts": ["é", ""]}
    assert (header.version, header.architecture, header.path) == (2, "gemma3", tmp_path / "hand.gguf")
    assert header.tensors == (
        Tensor("a.weight", (4, 2), "F32"),
        Tensor("b", (32,), "Q8_0"),
        Tensor("c", (1, 1, 1, 3), "F16"),
    )
    begin = 24
    for key, each in zip(header.metadata, pairs, strict=True):
        assert header.spans[key] == (begin, begin + len(each)), key
        begin += len(each)
    end = begin + sum(map(len, tensors))
    assert (header.infos_at, header.infos_end, header.data_at) == (begin, end, -(-end // 32) * 32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 1}, "version 1; versions 2 and 3 in little-endian order are read"),
        ({"version": 4}, "version 4; "),
        ({"pairs": (ARCHITECTURE, ARCHITECTURE)}, "its key 'general.architecture' stands there twice"),
        ({"pairs": ()}, "it names no architecture"),
        ({"pairs": (pair("general.architecture", 4, b"\1\0\0\0"),)}, "it names no architecture"),
        ({"pairs": (ARCHITECTURE, pair("k", 13, b""))}, "a value of the unknown type 13"),
        (
            {"pairs": (ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 9, 1) + b"\0" * 20))},
            "a value of the unknown type 9",
        ),
        ({"pairs": (ARCHITECTURE, pair("split.count", 4, b"\3\0\0\0"))}, "it is part 1 of 3; join them first"),
        ({"tensors": (tensor("w", (4, 2, 1, 1, 1)),)}, "its tensor 'w' has 5 dimensions"),
        ({"tensors": (tensor("w", ()),)}, "its tensor 'w' has 0 dimensions"),
        ({"tensors": (tensor("w", (4,), 77),)}, "its tensor 'w' is of the unknown type 77"),
        ({"tensors": (WEIGHT, WEIGHT)}, "its tensor 'w' stands there twice"),
        ({"tensors": (tensor("w", (4, 0)),)}, r"its tensor 'w' of type F32 has the shape \(4, 0\)"),
        ({"tensors": (tensor("w", (31,), 8),)}, r"its tensor 'w' of type Q8_0 has the shape \(31,\)"),
        ({"tensors": ()}, r"it holds no tensors \(a vocabulary alone\)"),
        ({"data": 31}, "it is cut off: 'w' ends 1 bytes behind the file's end"),
        ({"tensors": (tensor("w", (4, 2), 0, 33),)}, "it is cut off: 'w' ends 1 bytes behind the file's end"),
    ],
)
def test_what_is_wrong_with_a_header_is_said(tmp_path, changes, said):
    with pytest.raises(UserError, match=rf"hand\.gguf is not a GGUF file that can be read: {said}"):
        read_header(file_of(tmp_path, **changes))


def test_what_just_fits_is_read(tmp_path):
    one_part = pair("split.count", 4, b"\1\0\0\0")
    assert len(read_header(file_of(tmp_path, (ARCHITECTURE, one_part), data=32)).tensors) == 1
    assert read_header(file_of(tmp_path, tensors=(tensor("w", (4, 2), 0, 32),))).tensors[0].shape == (4, 2)
    assert read_header(file_of(tmp_path, tensors=(tensor("w", (64,), 8),), data=68)).tensors[0].kind == "Q8_0"


@pytest.mark.parametrize(("alignment", "read"), [(0, False), (1, True), (64, True), (2**20, True), (2**20 + 1, False)])
def test_data_begin_at_the_alignment_that_the_file_names(tmp_path, alignment, read):
    named = pair("general.alignment", 4, struct.pack("<I", alignment))
    path = file_of(tmp_path, (ARCHITECTURE, named), alignment=max(1, alignment))
    if read:
        header = read_header(path)
        assert header.data_at == -(-header.infos_end // alignment) * alignment
    else:
        with pytest.raises(UserError, match=f"its alignment is {alignment}"):
            read_header(path)


@pytest.mark.parametrize(
    ("file_type", "kinds", "name"),
    [
        (15, ["Q4_K"], "Q4_K_M"),
        (7, [], "Q8_0"),
        (999, ["Q4_K", "Q6_K", "Q6_K"], "Q6_K"),
        (None, ["Q4_K", "F32"], "Q4_K"),
        (None, [], "F32"),
    ],
)
def test_a_quantization_is_named_as_its_makers_do_else_by_its_matrices(file_type, kinds, name):
    tensors = [Tensor("norm", (8,), "F16")] * 5 + [Tensor("m", (8, 8), kind) for kind in kinds]
    metadata = {} if file_type is None else {"general.file_type": file_type}
    assert Header(None, 3, metadata, {}, tuple(tensors), 0, 0, 0).quantization == name


# ---------------------------------------------------------------------------------------------------------------------
# The tokenizer that a file describes


def byte_level(**changes):
    tokenizer = bpe_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    facts = {"tokens": vocabulary, "merges": ["h e"], "model": "gpt2", "pre": "gpt-2", "bos_token_id": 2}
    named = {f"tokenizer.ggml.{name}": value for name, value in {**facts, **changes}.items() if value is not None}
    return build_tokenizer(Header("f.gguf", 3, named, {}, (), 0, 0, 0))


@pytest.mark.parametrize(
    ("cut", "parts"),
    [
        ("gpt-2", ["I", "'ll", "Ġpay", "Ġ1234", "!?", "ĊĊ", "Ġx"]),
        ("smollm", ["I", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "!?", "ĊĊ", "Ġx"]),
        ("llama-bpe", ["I", "'ll", "Ġpay", "Ġ", "123", "4", "!?ĊĊ", "Ġx"]),
        ("qwen2", ["I", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "!?ĊĊ", "Ġx"]),
    ],
)
def test_a_text_is_cut_as_the_file_says_before_it_is_merged(cut, parts):
    cutter = byte_level(pre=cut).backend_tokenizer.pre_tokenizer
    assert [part for part, _ in cutter.pre_tokenize_str("I'll pay 1234!?\n\n x")] == parts


@pytest.mark.parametrize(("adds", "begins"), [(None, False), (True, True), (False, False)])
def test_a_text_begins_with_the_token_that_begins_one_where_the_file_says_so(adds, begins):
    made = byte_level(add_bos_token=adds)
    ids = made("he")["input_ids"]
    assert ids == [*([2] * begins), made.convert_tokens_to_ids("he")]
    assert made.bos_token == "<bos>" and made.chat_template is None
    made.chat_template = tiny.CHAT_TEMPLATE  # which begins with that token itself
    assert encode_prompt(made, "he").count(2) == 1 and 2 not in encode_completion(made, "he")


def test_special_tokens_are_those_that_the_file_names_and_holds():
    made = byte_level(eos_token_id=1, unknown_token_id=0, padding_token_id=10**6)
    assert (made.eos_token, made.unk_token, made.pad_token) == ("<eos>", "<pad>", None)


def test_control_tokens_are_one_token_each_and_special_and_what_a_user_defined_is_not():
    size = len(bpe_tokenizer())
    made = byte_level(token_type=[3] * 4 + [4] + [1] * (size - 5))
    ids = made("a<bos><end_of_turn>")["input_ids"]
    assert ids == [made.convert_tokens_to_ids("a"), 2, 4]
    assert made.decode(ids, skip_special_tokens=True) == "a<end_of_turn>"


@pytest.mark.parametrize(
    ("prefix", "tokens"), [(None, ["\u2581a", "b"]), (True, ["\u2581a", "b"]), (False, ["a", "b"])]
)
def test_sentencepiece_puts_a_space_first_unless_the_file_says_otherwise(prefix, tokens):
    pieces, scores = ["<unk>", "\u2581", "a", "b", "\u2581a"], [0.0, -3.0, -2.0, -4.0, -1.0]
    facts = {"tokens": pieces, "scores": scores, "model": "llama", "unknown_token_id": 0, "add_space_prefix": prefix}
    named = {f"tokenizer.ggml.{name}": value for name, value in facts.items() if value is not None}
    made = build_tokenizer(Header("f.gguf", 3, named, {}, (), 0, 0, 0))
    ids = made("ab")["input_ids"]
    assert made.convert_ids_to_tokens(ids) == tokens and made.decode(ids) == "ab"


@pytest.mark.parametrize("scores", [None, "x", [0.0]])
def test_a_vocabulary_without_a_score_for_each_token_is_refused(scores):
    named = {"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": scores}
    with pytest.raises(UserError, match=r"f\.gguf: its vocabulary has no score for each token"):
        build_tokenizer(Header("f.gguf", 3, named, {}, (), 0, 0, 0))


# ---------------------------------------------------------------------------------------------------------------------
# What is recorded of it


def test_each_nth_layer_sees_all_and_the_scale_is_of_the_head(tmp_path):
    from transformers import AutoConfig

    path = write_gguf(tmp_path / "f.gguf", gemma3__attention__sliding_window_pattern=2, general__license=None)
    record = dequantize(path, tmp_path / "base", BaseRecord("f.gguf", "0" * 64))
    config = AutoConfig.from_pretrained(tmp_path / "base")
    assert config.layer_types == ["sliding_attention", "full_attention"] and config.query_pre_attn_scalar == 16
    assert record == BaseRecord("f.gguf", "0" * 64, "Q8_0", "gemma3", tokenizer="of the GGUF file")
    assert not (tmp_path / "base" / ".without-tokenizer.gguf").exists()


@pytest.mark.parametrize(
    ("cut", "pieces"), [("", ["a", "12", "-"]), ("digits", ["a", "1", "2", "-"]), ("[a-z]", ["a", "12-"])]
)
def test_a_text_is_cut_as_its_vocabulary_was(cut, pieces):
    cutter = pre_tokenizers.Sequence(make_cutters(cut))
    assert [piece for piece, _ in cutter.pre_tokenize_str("a12-")] == pieces
