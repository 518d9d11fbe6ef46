"""A GGUF file is a base: dequantized once, with its tokenizer; a broken or hostile one is refused by name."""

import random

import numpy as np
import pytest
import tiny
import torch
from gguf_files import bpe_tokenizer, write_gguf

from schema_student import Student
from schema_student.core.errors import UserError
from schema_student.student.bases import locate
from schema_student.student.bases.comparison import compare_tokenizers, describe_vocabulary, probe_texts
from schema_student.student.bases.dequantize import dequantize
from schema_student.student.bases.gguf_header import Header, read_header
from schema_student.student.bases.gguf_tokenizer import build_tokenizer
from schema_student.student.bases.record import BaseRecord, read_record
from schema_student.student.tokens import encode_prompt

FACTS = BaseRecord("tiny.gguf", "0" * 64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def models(monkeypatch, tmp_path):
    """An empty folder of fetched bases."""
    for module in ("locate", "placing", "fetch"):
        monkeypatch.setattr(f"schema_student.student.bases.{module}.models_dir", lambda: tmp_path / "models")
    return tmp_path / "models"


# ---------------------------------------------------------------------------------------------------------------------
# Whole files


def test_a_gguf_file_is_a_base_with_the_models_own_weights_and_prompts(whole, models):
    student = Student.load(whole, dtype="float32")
    expected = type(student.model)(student.model.config).eval()  # GGUF has no layer_types: Gemma's own pattern
    expected.load_state_dict(tiny.tiny_model().bfloat16().float().state_dict())
    ids = torch.tensor([encode_prompt(bpe_tokenizer(), "hello")])
    assert encode_prompt(student.tokenizer, "hello") == ids[0].tolist()
    torch.testing.assert_close(student.model(ids).logits, expected(ids).logits)
    assert student.tokenizer.eos_token == "<eos>" and student.tokenizer.pad_token == "<pad>"


def test_it_is_dequantized_once_and_says_what_from(whole, models, monkeypatch):
    path = write_gguf(whole.with_name("q8.gguf"), "Q8_0")
    first = Student.load(path)
    monkeypatch.setattr(locate, "place_base", lambda *given: pytest.fail("dequantized again"))
    again = Student.load(path)
    assert first.choice.base == again.choice.base and first.digest == again.digest
    assert "dequantized from Q8_0" in first.choice.name
    record = read_record(next(models.glob("q8-*")))
    assert (record.source, record.licence, record.architecture) == ("q8.gguf", "mit", "gemma3")
    assert record.tokenizer == "of the GGUF file"


def test_weights_that_are_not_quantized_are_not_said_to_have_been(whole, tmp_path):
    assert (
        dequantize(write_gguf(tmp_path / "f.gguf", general__file_type=0), tmp_path / "f", FACTS).describe()
        == "read from F32"
    )


def test_a_dry_run_dequantizes_nothing(whole, models):
    assert locate.locate_base(str(whole), just_look=True) == str(whole)
    assert not models.exists()


def test_a_better_tokenizer_is_taken_and_compared_and_another_models_is_refused(whole, tmp_path):
    named = tmp_path / "named"
    bpe_tokenizer().save_pretrained(named)
    record = dequantize(whole, tmp_path / "base", FACTS, named)
    assert record.tokenizer_differs == [] and record.left_out == []
    (named / "tokenizer.json").write_text((named / "tokenizer.json").read_text().replace('"a"', '"aa"', 1))
    with pytest.raises(UserError, match=r"is not that of .*differ"):
        dequantize(whole, tmp_path / "other", FACTS, named)


def test_tokens_without_a_row_in_the_embedding_are_left_out(whole, tmp_path):
    """Gemma's <image_soft_token> is one behind the last row: a request with that text would end a run."""
    tokenizer = bpe_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(tmp_path / "named")
    assert dequantize(whole, tmp_path / "base", FACTS, tmp_path / "named").left_out == ["<image>"]
    loaded = Student.load(tmp_path / "base")
    assert max(encode_prompt(loaded.tokenizer, "an <image> of it")) < loaded.model.get_input_embeddings().num_embeddings


def test_sentencepieces_bpe_merges_by_score_and_falls_back_to_bytes():
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "  ", "\n\n"]
    pieces += ["\u2581", "a", "b", "ab", "\u2581a", "\u2581ab", "\n"]
    scores = [-1000.0] * 262 + [-float(each) for each in (9, 8, 7, 2, 1, 3, 9)]
    kinds = [3] * 4 + [6] * 256 + [4, 4] + [1] * 7
    facts = {"tokens": pieces, "scores": scores, "token_type": kinds, "model": "llama", "add_space_prefix": False}
    facts |= {"bos_token_id": 2, "eos_token_id": 1, "unknown_token_id": 3, "padding_token_id": 0}
    named = {f"tokenizer.ggml.{name}": value for name, value in facts.items()}
    tokenizer = build_tokenizer(Header(None, 3, named, {}, (), 0, 0, 0))
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("ab ab  a\n\n\u00e9")["input_ids"])
    assert tokens == ["<bos>", "ab", "\u2581ab", "\u2581\u2581", "a", "\n\n", "<0xC3>", "<0xA9>"]
    assert (
        tokenizer.decode(tokenizer("ab ab  a\n\n\u00e9", add_special_tokens=False)["input_ids"]) == "ab ab  a\n\n\u00e9"
    )


def test_a_difference_between_tokenizers_is_named():
    one, other = tiny.tiny_tokenizer(), tiny.tiny_tokenizer.__wrapped__()
    other.add_tokens(["capital"])
    assert compare_tokenizers(one, other) == ["English"]
    tokens = one.convert_ids_to_tokens(range(len(one)))
    assert describe_vocabulary(one, tokens) == ""
    assert describe_vocabulary(one, [*tokens[:-1], "?"]).startswith(f"1 of {len(tokens)} tokens differ")


def test_the_texts_are_of_every_kind_that_tokenizers_differ_on():
    texts = "".join(probe_texts().values())
    assert all(
        sign in texts
        for sign in ("\u4f60", "\u0627", "\u0928", "\U0001f600", "\n\n", "\t", "<end_of_turn>", '{"a"', "\r")
    )


# ---------------------------------------------------------------------------------------------------------------------
# Broken and hostile files


def test_a_file_that_is_cut_off_anywhere_is_refused(whole, tmp_path):
    data = whole.read_bytes()
    for length in [0, 3, 4, 7, 23, 24, 30, *range(100, len(data) - 32, len(data) // 40)]:
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut\.gguf is not a GGUF file that can be read"):
            read_header(tmp_path / "cut.gguf")


def test_a_file_with_any_byte_changed_is_read_or_refused(whole, tmp_path):
    data, draw = whole.read_bytes(), random.Random(13)
    end = read_header(whole).data_at
    for _ in range(300):
        changed = bytearray(data)
        changed[draw.randrange(end)] = draw.choice([0, 1, 127, 255])
        (tmp_path / "changed.gguf").write_bytes(changed)
        try:
            read_header(tmp_path / "changed.gguf").quantization  # noqa: B018
        except UserError:
            continue


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"PK\3\4", "begins with"),
        (4, (1).to_bytes(4, "little"), "version 1"),
        (4, (3).to_bytes(4, "big"), "little-endian"),
        (8, (2**63).to_bytes(8, "little"), "ends at byte"),
        (16, (2**60).to_bytes(8, "little"), "ends at byte"),
        (24, (2**62).to_bytes(8, "little"), "ends at byte"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(whole, tmp_path, at, value, words):
    data = bytearray(whole.read_bytes())
    data[at : at + len(value)] = value
    (tmp_path / "lies.gguf").write_bytes(data)
    with pytest.raises(UserError, match=words):
        read_header(tmp_path / "lies.gguf")


def lose(name):
    return lambda found: found.pop(name)


def spoil(found):
    array, kind = found["blk.0.ffn_up.weight"]
    found["blk.0.ffn_up.weight"] = (np.full_like(array, np.nan), kind)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"split__count": 3, "split__no": 1}, "part 2 of 3"),
        ({"architecture": "clip"}, "architecture 'clip'"),
        ({"architecture": "unheard-of"}, "architecture 'unheard-of'"),
        ({"gemma3__block_count": 10**9}, "announces 1000000000 layers"),
        ({"gemma3__feed_forward_length": 2**30}, "describes a model of"),
        ({"gemma3__embedding_length": 2**20}, "describes a model of"),
        ({"gemma3__embedding_length": 16}, "describes a model of"),
        ({"tokenizer__ggml__tokens": None}, "holds no tokenizer"),
        ({"tokenizer__ggml__tokens": ["a", "a"]}, "same token twice"),
        ({"tokenizer__ggml__token_type": [1, 1]}, "no kind for each token"),
        ({"tokenizer__ggml__model": "bert"}, "kind 'bert'"),
        ({"tokenizer__ggml__pre": "unheard-of"}, "cuts texts as 'unheard-of'"),
        ({"tokenizer__ggml__merges": ["no such"]}, "merges are not of its vocabulary"),
        ({"tensors": lose("token_embd.weight")}, "is not a language model"),
        ({"tensors": lose("blk.1.ffn_up.weight")}, "lacks 1 of its model's weights|describes a model of"),
        ({"tensors": dict.clear}, "holds no tensors"),
        ({"tensors": spoil}, "not finite"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_a_file_that_is_no_fit_base_is_refused_by_name(tmp_path, faults, words):
    path = write_gguf(tmp_path / "faulty.gguf", **faults)
    with pytest.raises(UserError, match=words):
        dequantize(path, tmp_path / "base", FACTS)


def test_what_fails_leaves_nothing_in_the_folder_of_bases(tmp_path, models):
    path = write_gguf(tmp_path / "faulty.gguf", tensors=spoil)
    with pytest.raises(UserError, match="not finite"):
        Student.load(path)
    assert not [folder for folder in models.iterdir() if folder.name[0] != "."]


def test_a_missing_gguf_file_is_said(models):
    with pytest.raises(UserError, match=r"there is no file nowhere\.gguf"):
        Student.load("nowhere.gguf")


def test_a_files_own_name_leads_nowhere_else(models, tmp_path):
    """general.name of the tiny file is ../../tiny; the folder is named after the file."""
    path = write_gguf(tmp_path / "we ird;$(x).gguf")
    assert Student.load(path).choice.base.startswith(str(models / "we-ird-x-"))
