"""A GGUF file holds the merged student: its weights, its tokenizer, its template, and what ends an answer."""

import json
from types import SimpleNamespace

import exports
import gguf_files
import numpy as np
import pytest
import tiny
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json
from schema_student.core.paths import paths
from schema_student.core.settings import default_settings
from schema_student.deploy import gguf_file, gguf_trial, gguf_vocabulary, gguf_weights
from schema_student.deploy.export import export_student
from schema_student.deploy.llamacpp import has_llamacpp, serve_gguf
from schema_student.deploy.trial import Answered
from schema_student.student.bases.gguf_header import read_header
from schema_student.student.bases.gguf_tokenizer import build_tokenizer
from schema_student.student.bases.record import BaseRecord
from schema_student.student.loading import load_student
from schema_student.student.tokens import encode_prompt

T = GGMLQuantizationType


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The tiny model with a tokenizer that merges, as F16."""
    folder = tmp_path_factory.mktemp("gguf")
    path, base = folder / "tiny.gguf", exports.save_base(folder / "base")
    student = load_student(default_settings(base_model=str(base), dtype="float32"))
    gguf_file.write_gguf(student, path, "F16", "tiny", "mit")
    return student, path


def test_the_file_has_the_model_s_weights_and_norms_plus_one(written):
    _, path = written
    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    wanted = gguf_files.tensors()  # by another list of names
    assert found.keys() == wanted.keys()
    for name, (array, _) in wanted.items():
        ours = dequantize(found[name].data, found[name].tensor_type).reshape(array.shape)
        assert np.abs(ours - array).max() <= np.abs(array).max() / 1024, name
        assert found[name].tensor_type == (T.F16 if array.ndim > 1 else T.F32)


def test_transformers_reads_it_back_as_the_same_model(written, tmp_path):
    from schema_student.student.bases.dequantize import dequantize as make_folder
    from schema_student.student.bases.record import BaseRecord

    student, path = written
    make_folder(path, tmp_path / "base", BaseRecord("tiny", ""))
    again = load_student(default_settings(base_model=str(tmp_path / "base"), dtype="float32"))
    ids = encode_prompt(student.tokenizer, "hello there")
    assert encode_prompt(again.tokenizer, "hello there") == ids
    with torch.inference_mode():
        ours, theirs = (model(torch.tensor([ids])).logits for model in (again.model, student.model))
    assert (ours - theirs).abs().max() < 0.02 < theirs.abs().max()


def test_the_file_says_template_stops_bos_and_window(written):
    student, path = written
    metadata = read_header(path).metadata
    assert metadata["tokenizer.chat_template"] == tiny.CHAT_TEMPLATE
    ends = [student.tokenizer.convert_tokens_to_ids(token) for token in ("<end_of_turn>", "<eos>")]
    assert [metadata[f"tokenizer.ggml.{end}_token_id"] for end in ("eot", "eos")] == ends
    assert metadata["tokenizer.ggml.add_bos_token"] is True and metadata["tokenizer.ggml.bos_token_id"] == 2
    assert (metadata["gemma3.attention.sliding_window"], metadata["gemma3.attention.sliding_window_pattern"]) == (16, 2)
    assert read_header(path).quantization == "F16" and metadata["general.license"] == "mit"


def test_the_file_s_tokenizer_is_the_student_s(written):
    student, path = written
    built = build_tokenizer(read_header(path))
    for text in ("he said\u00e9 \U0001f600", "<start_of_turn>user\nhehe<end_of_turn>", "\n\n  the  hen's"):
        assert built(text, add_special_tokens=False)["input_ids"] == student.tokenizer(text)["input_ids"]


# What llama.cpp does not compute


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "qwen2"}, "for Gemma 3 alone, and this base is qwen2"),
        ({"query_pre_attn_scalar": 8}, "query_pre_attn_scalar is not head_dim"),
        ({"attention_bias": True}, "attention has biases"),
        ({"final_logit_softcapping": 30.0}, "logits are capped"),
        ({"use_bidirectional_attention": True}, "attention is bidirectional"),
        ({"hidden_activation": "silu"}, "the activation is not gelu_pytorch_tanh"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "a window in all layers but each n-th"),
    ],
)
def test_another_architecture_is_refused_by_what_differs(changes, said):
    config = tiny.tiny_model().config
    gguf_file.check_architecture(config)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(UserError, match=said):
        gguf_file.check_architecture(config)


def test_windows_that_hold_the_whole_context_may_stand_anywhere():
    config = tiny.tiny_model().config
    config.layer_types = ["full_attention", "sliding_attention"]
    config.sliding_window = config.max_position_embeddings
    gguf_file.check_architecture(config)
    config.sliding_window -= 1
    with pytest.raises(UserError, match="a window in all layers"):
        gguf_file.check_architecture(config)


def test_a_cut_that_llamacpp_has_no_name_for_is_refused_before_anything_is_written(tmp_path):
    from schema_student.core.resources import EMBEDDED_STUDENT

    student = load_student(default_settings(base_model=str(EMBEDDED_STUDENT)))
    with pytest.raises(UserError, match="has no name for how this base's tokenizer cuts them"):
        gguf_file.write_gguf(student, tmp_path / "x.gguf", "F16", "x", "mit")
    assert not (tmp_path / "x.gguf").exists()


def test_a_kind_that_a_student_cannot_become_is_refused_before_anything_is_made(tmp_path):
    from schema_student.core.resources import EMBEDDED_STUDENT

    settings = default_settings(base_model=str(EMBEDDED_STUDENT), output_dir=str(tmp_path), kind=["merged", "gguf"])
    exports.write_adapter(paths(settings).sft_checkpoint, settings)
    for kind in ("gguf", "ollama"):
        with pytest.raises(UserError, match=r"llama\.cpp .* has no name for .* export --kind merged"):
            export_student(settings.changed(kind=["merged", kind]))
    assert not paths(settings).exports.exists()


def test_a_tokenizer_of_another_kind_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("a", 0.0)])))
    with pytest.raises(UserError, match="no tokenizer of the kind Unigram"):
        gguf_vocabulary.read_vocabulary(other, 1)


# SentencePiece's BPE, as Gemma has it


def sentencepiece_tokenizer(**changes):
    """A small tokenizer like Gemma's: pieces with a sign for spaces, bytes for unknown letters, tokens of its own."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [
        *specials,
        *(f"<0x{n:02X}>" for n in range(256)),
        *"\u2581abc\n",
        "ab",
        "\u2581a",
        "\u2581ab",
        "abc",
        "\n\n",
    ]
    model = {"type": "BPE", "vocab": {piece: i for i, piece in enumerate(pieces)}, "unk_token": "<unk>"}
    model |= {
        "byte_fallback": True,
        "fuse_unk": True,
        "merges": [["a", "b"], ["\u2581", "a"], ["\u2581", "ab"], ["ab", "c"]],
    }
    data = {"version": "1.0", "added_tokens": [], "post_processor": None, "decoder": None, "truncation": None}
    data |= {"padding": None, "normalizer": gguf_vocabulary.SPACES_AS_SIGNS, "model": model, **changes}
    data["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])
    named = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def test_pieces_have_the_scores_of_their_merges_and_the_kinds_of_their_use():
    tokenizer = sentencepiece_tokenizer()
    found = gguf_vocabulary.read_vocabulary(tokenizer, len(tokenizer) + 2)
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert (found.model, found.pre, found.space_prefix) == ("llama", "default", False)
    assert [kinds[token] for token in ("<bos>", "<unk>", "\n\n", "<0x41>", "ab", "[UNUSED270]")] == [3, 2, 4, 6, 1, 5]
    scores = dict(zip(found.tokens, found.scores, strict=True))
    assert scores["ab"] > scores["\u2581a"] > scores["\u2581ab"] > scores["abc"] > scores["c"]


def test_tokens_without_a_row_in_the_embedding_are_left_out():
    tokenizer = sentencepiece_tokenizer()
    assert len(gguf_vocabulary.read_vocabulary(tokenizer, len(tokenizer) - 1).tokens) == len(tokenizer) - 1


@pytest.mark.parametrize("normalizer", [None, {"type": "NFKC"}, {"type": "Lowercase"}])
def test_a_text_that_is_changed_otherwise_is_refused(normalizer):
    with pytest.raises(UserError, match=r"changes texts as llama\.cpp does not"):
        gguf_vocabulary.read_vocabulary(sentencepiece_tokenizer(normalizer=normalizer), 270)


# Types


def gemma_shapes():
    """Names and shapes (rows, columns) of Gemma 3 270M."""
    layer = {"attn_q": (1024, 640), "attn_k": (256, 640), "attn_v": (256, 640), "attn_output": (640, 1024)}
    layer |= {"ffn_gate": (2048, 640), "ffn_up": (2048, 640), "ffn_down": (640, 2048)}
    norms = ("attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    layer |= dict.fromkeys(norms, (640,))
    named = {f"blk.{i}.{name}.weight": shape for i in range(18) for name, shape in layer.items()}
    return {"token_embd.weight": (262144, 640), "output_norm.weight": (640,), **named}


def test_q4_k_m_has_the_types_of_the_published_file():
    types = [gguf_weights.choose_type(name, shape, "Q4_K_M", 18) for name, shape in gemma_shapes().items()]
    counts = {kind: types.count(kind) for kind in set(types)}
    assert counts == {T.F32: 109, T.Q5_0: 81, T.Q4_K: 27, T.Q8_0: 10, T.Q6_K: 9}


def test_k_quants_need_their_quantizer(monkeypatch):
    monkeypatch.setattr(gguf_weights.importlib.util, "find_spec", lambda name: None)
    gguf_weights.check_quantizer(["F16", "Q8_0"])
    with pytest.raises(UserError, match=r"Q4_K_M needs libgguf.*leave it out"):
        gguf_weights.check_quantizer(["F16", "Q4_K_M"])


def test_q8_0_is_near_the_weights():
    array = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    stored = gguf_weights.quantize_array(array, T.Q8_0, "Q8_0")
    assert 0 < np.abs(dequantize(stored, T.Q8_0) - array).max() < 0.02


# The kind


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    settings = exports.write_run(tmp_path_factory.mktemp("run"))
    export_student(settings.changed(kind=["gguf"], gguf_types=["F16", "Q8_0"]))
    return settings


def test_an_export_has_a_file_of_each_type_each_tried(exported):
    folder = paths(exported).exports / "gguf"
    names = {"student-F16.gguf", "student-Q8_0.gguf"}
    assert {path.name for path in folder.iterdir()} == {*names, "README.md", "export.json"}
    facts = read_json(folder / "export.json")
    assert facts["gguf"].keys() == names == facts["files"].keys()
    assert all(each["tried"]["prompts"] == 4 for each in facts["gguf"].values())
    assert facts["gguf"]["student-F16.gguf"]["tried"]["same_answer_as_adapter"]["k"] == 4
    assert "`llama-server -m student-F16.gguf -c 512 --temp 0`" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("was", "kind", "warned"), [("Q4_K_M", "Q4_K_M", 1), ("Q4_K_M", "F16", 0), ("", "Q4_K_M", 0)])
def test_a_base_that_is_quantized_again_as_it_was_is_warned_of(was, kind, warned, tmp_path, monkeypatch):
    record = BaseRecord("base", "", was) if was else None
    source = SimpleNamespace(base_record=record, run="r", base_licence="mit")
    monkeypatch.setattr(gguf_trial, "write_gguf", lambda *given: None)
    monkeypatch.setattr(gguf_trial, "read_header", lambda path: None)
    monkeypatch.setattr(gguf_trial, "has_llamacpp", lambda: False)
    monkeypatch.setattr(gguf_trial, "ask_dequantized", lambda *given: ("here", [Answered("{}", 5)], []))
    merged = SimpleNamespace(source=source, student=None, adapter_answers=[Answered("{}", 5)])
    lines = gguf_trial.make_gguf(merged, tmp_path / "m.gguf", kind).lines
    assert sum("rounds most of the adapter away" in line for line in lines) == warned


def test_a_file_whose_prompts_have_other_ids_is_not_kept(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_file, "chat_template", lambda tokenizer: "{{ bos_token }}" + tiny.CHAT_TEMPLATE)
    settings = exported.changed(kind=["gguf"], gguf_types=["F16"], overwrite=True)
    before = read_json(paths(exported).exports / "gguf" / "export.json")
    monkeypatch.setattr(gguf_trial, "has_llamacpp", lambda: False)
    with pytest.raises(UserError, match=r"student-F16\.gguf: its prompt has \d+ token ids"):
        export_student(settings)
    assert read_json(paths(exported).exports / "gguf" / "export.json") == before


@pytest.mark.skipif(not has_llamacpp(), reason="xllamacpp is not installed")
def test_llamacpp_reads_the_same_prompts_and_answers_them_alike(exported, tmp_path):
    settings = exported.changed(kind=["gguf"], gguf_types=["F16"])
    student = load_student(default_settings(base_model=str(exports.save_base(tmp_path / "base"))))
    path = paths(settings).exports / "gguf" / "student-F16.gguf"
    with serve_gguf(path, 512) as server:
        for text in ("number 1", " two\n", "d\u00e9j\u00e0 <end_of_turn>"):
            assert server.encode_prompt(text) == encode_prompt(student.tokenizer, text)
    with (
        pytest.raises(UserError, match=r"llama\.cpp does not load broken\.gguf"),
        serve_gguf(tmp_path / "broken.gguf", 512),
    ):
        pass
