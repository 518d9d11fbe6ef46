"""A tree computes what its sequences compute alone: log-probabilities, gradients, with windows, pads and LoRA."""

import itertools
import shutil
import sysconfig
from pathlib import Path
from unittest import mock

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schema_student.student import attention, prompt_tree

TOKENS = st.lists(st.integers(5, 8), min_size=1, max_size=10)
PAIRS = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=7)


def separate_logps(model, pairs):
    width = max(len(completion) for _, completion in pairs)
    rows = []
    for prompt, completion in pairs:
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        logps = -torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="none")
        rows.append(torch.nn.functional.pad(logps, (0, width - len(completion))))
    return torch.stack(rows)


def tree_logps(model, pairs, least_share=0.5):
    width = max(len(completion) for _, completion in pairs)
    batch = prompt_tree.pack_trees(prompt_tree.build_trees(pairs, least_share))
    return prompt_tree.packed_logps(model, batch, len(pairs), width)


@settings(max_examples=120, deadline=None)
@given(
    pairs=PAIRS,
    window=st.integers(1, 12),
    least_share=st.sampled_from([0.0, 0.5, 1.0]),
    block=st.sampled_from([1, 2, 3, 5, 256]),
)
def test_trees_give_the_logps_of_separate_sequences(pairs, window, least_share, block):
    model = tiny.tiny_model(sliding_window=window)
    with torch.no_grad(), mock.patch.object(attention, "BLOCK", block):
        torch.testing.assert_close(
            tree_logps(model, pairs, least_share), separate_logps(model, pairs), rtol=1e-4, atol=1e-5
        )


def add_lora(model):
    """A LoRA whose weights are random, and not 0 as they begin."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))


@settings(max_examples=40, deadline=None)
@given(
    pairs=PAIRS,
    order=st.randoms(use_true_random=False),
    window=st.integers(1, 12),
    block=st.sampled_from([2, 256]),
    trained=st.sampled_from(["all", "all but the head", "LoRA"]),
)
def test_trees_give_the_gradients_of_separate_sequences_in_any_order(pairs, order, window, block, trained):
    gradients = []
    for logps, some in ((tree_logps, order.sample(pairs, len(pairs))), (separate_logps, pairs)):
        model = tiny.tiny_model(sliding_window=window)
        model.lm_head.weight.requires_grad_(trained == "all")  # tied to the embedding
        model = add_lora(model) if trained == "LoRA" else model
        with mock.patch.object(attention, "BLOCK", block):
            logps(model, some).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for tree, separate in zip(*gradients, strict=True):
        torch.testing.assert_close(tree, separate, rtol=1e-3, atol=1e-4)


def test_identical_sequences_are_laid_out_once_and_each_keeps_its_logps_and_gradient():
    pair = ([5, 6, 7, 8], [6, 5, 7])
    (tree,) = prompt_tree.build_trees([pair] * 3)
    assert tree.ids == [5, 6, 7, 8, 6, 5]
    gradients = []
    for logps, pairs, weight in ((tree_logps, [pair] * 3, 1), (separate_logps, [pair], 3)):
        model = tiny.tiny_model()
        found = logps(model, pairs)
        torch.testing.assert_close(found, separate_logps(model, pairs))
        (weight * found.square().sum()).backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_the_block_mask_of_a_gpu_gives_the_same():
    """FlexAttention, uncompiled and on a CPU; the mask is the one that a GPU gets."""
    from torch.nn.attention.flex_attention import flex_attention

    pairs, model = [([1, 2, 3, 4], [5, 6]), ([1, 2, 3, 4], [5, 7, 8]), ([1, 2, 9], [5])], tiny.tiny_model()
    with (
        torch.no_grad(),
        mock.patch.object(attention, "flex", return_value=flex_attention),
        mock.patch.object(attention, "attend_by_branches", attention.attend_by_blocks),
    ):
        torch.testing.assert_close(tree_logps(model, pairs, 0.0), separate_logps(model, pairs), rtol=1e-4, atol=1e-5)


COMPILES = shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.mark.slow
@pytest.mark.skipif(not COMPILES, reason="torch.compile needs g++ and Python.h")
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
@pytest.mark.parametrize("window", [None, 100])
def test_compiled_flex_attention_computes_the_tiles_that_the_block_mask_names(window, monkeypatch):
    """PyTorch has it for CPUs too, without gradients; there as on a GPU only the listed tiles are computed."""
    from torch.nn.attention.flex_attention import flex_attention

    flex = torch.compile(flex_attention, dynamic=False)
    monkeypatch.setattr(attention, "flex", lambda: flex)
    branches = [[*range(800 + i, 837 + i)] for i in range(3)]
    pairs = [([*range(700), *branch], [*branch, last]) for branch in branches for last in (1, 2)]
    row = prompt_tree.pack_trees(prompt_tree.build_trees(pairs))
    T = len(row["ends"])
    mask = attention.TreeMask(row["ends"], row["positions"][0], window)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, T, 64) for heads in (4, 1, 1))
    with torch.no_grad():
        right = attention.attend_by_branches(query, key, value, mask, 0.125)
        torch.testing.assert_close(attention.attend_by_blocks(query, key, value, mask, 0.125), right)
        some, full = mask.tiles
        for wrong in ((some & (full | torch.eye(len(some)).bool()), full), (some, some)):
            monkeypatch.setattr(attention.TreeMask, "tiles", wrong)
            mask = attention.TreeMask(row["ends"], row["positions"][0], window)
            found = attention.attend_by_blocks(query, key, value, mask, 0.125)
            assert (found - right).abs().max() > 0.01


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_flex_attention_is_compiled_once_for_all_lengths_windows_and_with_autocast(monkeypatch):
    """A ninth variant would be computed uncompiled, all T x T pairs of it."""
    from torch._dynamo.testing import CompileCounter
    from torch.nn.attention.flex_attention import flex_attention

    compiled = CompileCounter()
    flex = torch.compile(flex_attention, backend=compiled, dynamic=True)
    monkeypatch.setattr(attention, "flex", lambda: flex)
    for length, window, autocast in itertools.product((300, 450, 700), (None, 64, 100), (False, True)):
        row = prompt_tree.pack_trees(prompt_tree.build_trees([([5] * length + [7, i], [8, 9]) for i in range(3)]))
        mask = attention.TreeMask(row["ends"], row["positions"][0], window)
        query, key, value = (torch.randn(1, heads, len(row["ends"]), 16).bfloat16() for heads in (4, 1, 1))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            attention.attend_by_blocks(query, key, value, mask, 0.25)
    assert compiled.frame_count == 1


@settings(max_examples=200, deadline=None)
@given(pairs=PAIRS, window=st.none() | st.integers(1, 12), tile=st.integers(1, 6))
def test_the_block_mask_names_the_tiles_that_hold_what_is_seen(pairs, window, tile):
    row = prompt_tree.pack_trees(prompt_tree.build_trees(pairs, least_share=0.0))
    mask = attention.TreeMask(row["ends"], row["positions"][0], window)
    T = len(row["ends"])
    N, places = -(-T // tile), torch.arange(T)
    seen = torch.zeros(N * tile, N * tile, dtype=torch.bool)
    seen[:T, :T] = mask.allows(places[:, None], places)
    seen = seen.reshape(N, tile, N, tile)
    with mock.patch.object(attention, "TILE", tile):
        some, full = mask.tiles
        listed = mask.block_mask.to_dense()[0, 0].bool()
    whole = seen.all(1).all(-1).tril(-1)
    assert not (full & ~whole).any() and not (seen.any(1).any(-1) & ~some).any()
    assert torch.equal(listed, some) and some.triu(1).sum() == 0
    if window is None:
        assert torch.equal(full, whole) and torch.equal(some, seen.any(1).any(-1))


def test_a_block_mask_costs_less_than_the_square_of_the_row():
    """150,000 tokens: all pairs would be 22 GB at a byte each."""
    trunk, branches, length = 100_000, 50, 1_000
    own = [trunk + length * (i + 1) for i in range(branches)]
    ends = torch.tensor([own[-1]] * trunk + [end for end in own for _ in range(length)])
    depths = torch.tensor([*range(trunk), *[*range(trunk, trunk + length)] * branches])
    for window, most in ((None, 0.46), (512, 0.01)):
        some, full = attention.TreeMask(ends, depths, window).tiles
        assert some.float().mean() < most and full.sum() > 0.4 * some.sum()


def test_a_gemma_supports_trees_and_is_left_as_it_was():
    model = tiny.tiny_model().train()
    assert prompt_tree.why_unsupported(model) == ""
    assert model.training


def test_a_gemma_that_attends_by_the_name_that_unsloth_gives_it_computes_trees(monkeypatch):
    name, pairs = attention.UNSLOTHS, [([1, 2, 3], [5, 6]), ([1, 2, 3], [5, 7, 8])]
    # Assigned back after the test.
    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS, name, attention.ALL_ATTENTION_FUNCTIONS[name])
    monkeypatch.setitem(attention.ALL_MASK_ATTENTION_FUNCTIONS, name, attention.ALL_MASK_ATTENTION_FUNCTIONS[name])
    right, model = tiny.tiny_model(), tiny.tiny_model()
    model.config._attn_implementation = name
    assert prompt_tree.why_unsupported(model) == ""
    for logps in (tree_logps, separate_logps):
        torch.testing.assert_close(logps(model, pairs), separate_logps(right, pairs))


def test_a_model_that_ignores_our_masks_is_found_out():
    model = tiny.tiny_model()
    causal = attention.sdpa_attention_forward

    def ignore(module, query, key, value, mask, **options):
        return causal(module, query, key, value, None, **options)

    prompt_tree.why_unsupported(model)  # registers the attention
    attention.AttentionInterface.register(attention.NAME, ignore)
    try:
        assert "off by" in prompt_tree.why_unsupported(model)
    finally:
        attention.AttentionInterface.register(attention.NAME, attention.attend)


@pytest.mark.parametrize("window", [16, 512])
@pytest.mark.parametrize("wrong", [None, 1, -1])
def test_a_model_whose_window_we_get_wrong_is_found_out(window, wrong, monkeypatch):
    class WrongMask(attention.TreeMask):
        def __init__(self, ends_T, depths_T, right):
            super().__init__(ends_T, depths_T, right and wrong and right + wrong)

    model = tiny.tiny_model(sliding_window=window)
    assert prompt_tree.why_unsupported(model) == ""
    monkeypatch.setattr(attention, "TreeMask", WrongMask)
    assert "off by" in prompt_tree.why_unsupported(model)


def test_rounding_of_great_logits_in_bfloat16_is_allowed_but_a_wrong_mask_is_not(monkeypatch):
    model = tiny.tiny_model()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(2 if "embed" in name else 10)
        model.model.norm.weight.fill_(45)
    model = model.to(torch.bfloat16)
    assert 16 < model(torch.arange(5, 60)[None]).logits.abs().max() < 64
    monkeypatch.setattr(attention, "BLOCK", 3)
    assert prompt_tree.why_unsupported(model) == ""
    monkeypatch.setattr(attention.TreeMask, "allows", lambda self, q, k: k <= q)
    assert "off by" in prompt_tree.why_unsupported(model)


@pytest.mark.parametrize("window", [None, 16])
def test_a_qwen_computes_trees_with_a_window_and_without(window):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {"vocab_size": 20, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "use_sliding_window": bool(window)}
    config = Qwen2Config(**shape, **heads, sliding_window=window, max_window_layers=1)
    assert config.layer_types[1] == ("sliding_attention" if window else "full_attention")
    assert prompt_tree.why_unsupported(Qwen2ForCausalLM(config)) == ""


def test_another_attention_is_unsupported():
    model = tiny.tiny_model()
    model.set_attn_implementation("eager")
    assert "eager" in prompt_tree.why_unsupported(model)


def test_a_lora_computes_the_same_on_trees():
    model = add_lora(tiny.tiny_model())
    pairs = [([1, 2, 3, 4], [5, 6]), ([1, 2, 3, 4], [5, 7, 8]), ([1, 2, 3, 9], [5])]
    torch.testing.assert_close(tree_logps(model, pairs), separate_logps(model, pairs), rtol=1e-4, atol=1e-5)


@given(pairs=PAIRS)
def test_every_completion_token_is_predicted_once_and_no_shared_token_stands_twice(pairs):
    trees = prompt_tree.build_trees(pairs, least_share=0.0)
    predicted = sorted((i, c, target) for tree in trees for _, target, i, c in tree.predictions)
    assert predicted == sorted((i, c, t) for i, (_, completion) in enumerate(pairs) for c, t in enumerate(completion))
    for tree in trees:
        paths = set()
        for place in range(len(tree.ids)):
            seen = [p for p in range(place + 1) if place < tree.ends[p]]
            paths.add(tuple(tree.ids[p] for p in seen))
        assert len(paths) == len(tree.ids)


def test_the_order_of_the_batch_does_not_matter():
    pairs = [([1, 2, 3], [4, 5]), ([1, 2, 6], [7]), ([8, 8], [4]), ([1, 2, 3], [4, 6])]
    model, order = tiny.tiny_model(), [2, 0, 3, 1]
    with torch.no_grad():
        shuffled = tree_logps(model, [pairs[i] for i in order])
        torch.testing.assert_close(shuffled, tree_logps(model, pairs)[order])


def test_eight_requests_of_one_schema_are_laid_out_once():
    schema = list(range(100))
    pairs = [([*schema, 200 + i], [300, 301]) for i in range(8)]
    (tree,) = prompt_tree.build_trees(pairs)
    assert len(tree.ids) == 100 + 8 * 2


def test_unrelated_prompts_get_rows_of_their_own():
    assert len(prompt_tree.build_trees([([1, 2, 3, 4], [5]), ([1, 9, 9, 9], [5])])) == 2


@pytest.mark.parametrize("pair", [([], [1]), ([1], [])])
def test_an_empty_prompt_or_completion_is_refused(pair):
    with pytest.raises(ValueError, match="at least one token"):
        prompt_tree.build_trees([pair])
