"""Compute sequences that share prefixes once: trees of token ids, laid out one after the other as one row.

Every example of a batch repeats its schema, and a DPO pair repeats its whole prompt. Here each shared prefix stands
once: a token attends to its ancestors and itself, and its position is its depth, so that every sequence computes what
it would compute alone, up to rounding. A token that several branches follow predicts the first token of each of them:
the predictions are listed as (position, target), so no token is laid out twice and logits are made where needed.

    trees = build_trees(pairs)                         # pairs: (prompt ids, completion ids)
    logps_BC = packed_logps(model, pack_trees(trees), count, width)

A tree is laid out depth first, so token k is an ancestor of token q where k <= q < ends[k], `ends` being where the
subtree of each token ends; `attention` computes no more than what tokens see by that rule.

Shapes: B sequences, C columns of completion, T tokens of the row, N predictions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Pair = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids
LEAST_SHARE = 0.5  # of the shorter of two prompts: below that they are in trees of their own


@dataclass
class Tree:
    """Tokens with their depth and the end of their subtree, and what is predicted where."""

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    predictions: list[tuple[int, int, int, int]] = field(default_factory=list)  # position, target, sequence, column


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Count the tokens that two lists begin with in common, by halves, as lists compare fast."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def build_trees(pairs: Sequence[Pair], least_share: float = LEAST_SHARE) -> list[Tree]:
    """Build the prefix trees of the pairs; neighbours in order of their tokens share one if half a prompt is common.

    Half of the shorter prompt is meant. Rows of a batch stay short that way: a prefix of a few tokens is not worth a
    row in which most tokens do not see each other. Raises ValueError for a pair without prompt or completion.
    """
    if any(not prompt or not completion for prompt, completion in pairs):
        raise ValueError("a sequence needs a prompt and a completion of at least one token each")
    return [_build_tree(pairs, group) for group in _group_by_prefix(pairs, least_share)]


def _group_by_prefix(pairs: Sequence[Pair], least_share: float) -> list[list[int]]:
    """Which pairs share a tree, each group in order of tokens."""
    order = sorted(range(len(pairs)), key=lambda i: [*pairs[i][0], *pairs[i][1]])
    groups: list[list[int]] = []
    for i in order:
        prompt = pairs[i][0]
        before = pairs[groups[-1][-1]][0] if groups else []
        if groups and shared_length(before, prompt) >= least_share * min(len(before), len(prompt)):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def count_tokens(pairs: Sequence[Pair]) -> int:
    """Count the tokens of the pairs, those that their trees share once."""
    count = 0
    for group in _group_by_prefix(pairs, LEAST_SHARE):
        tokens = [[*pairs[i][0], *pairs[i][1]] for i in group]
        shared = sum(shared_length(a, b) for a, b in pairwise(tokens))
        count += sum(map(len, tokens)) - shared
    return count


def _build_tree(pairs: Sequence[Pair], group: list[int]) -> Tree:
    tree = Tree()
    tokens = {i: [*pairs[i][0], *pairs[i][1]] for i in group}
    _add_branch(tree, tokens, {i: len(pairs[i][0]) for i in group}, group, 0, None)
    return tree


def _add_branch(
    tree: Tree,
    tokens: dict[int, list[int]],
    starts: dict[int, int],
    group: list[int],
    depth: int,
    parent: int | None,
) -> None:
    """Lay out what the group (sorted by tokens) shares from `depth` on, then each of its branches.

    `parent` is the row position of the token before, which predicts the first token here. The last token of a sequence
    predicts nothing and is not laid out, unless another sequence goes on through it.
    """
    first, last = tokens[group[0]], tokens[group[-1]]
    end = depth + shared_length(first[depth:], last[depth:])
    begin, here = len(tree.ids), parent
    for d in range(depth, end):
        for i in group:
            if d >= starts[i]:
                assert here is not None  # a prompt has at least one token
                tree.predictions.append((here, first[d], i, d - starts[i]))
        if all(len(tokens[i]) == d + 1 for i in group):
            break
        here = len(tree.ids)
        tree.ids.append(first[d])
        tree.depths.append(d)
    own = len(tree.ids) - begin
    tree.ends += [0] * own
    rest = [i for i in group if len(tokens[i]) > end]
    while rest:
        same = [i for i in rest if tokens[i][end] == tokens[rest[0]][end]]
        _add_branch(tree, tokens, starts, same, end, here)
        rest = rest[len(same) :]
    tree.ends[begin : begin + own] = [len(tree.ids)] * own


def pack_trees(trees: Sequence[Tree]) -> dict[str, Any]:
    """Pack trees, one after the other, into the tensors of one row.

    ids_1T, positions_1T, ends_T; of the N predictions columns_N (where), targets_N (the token), sequences_N and
    places_N (whose, and which of its tokens).
    """
    import torch

    offsets = [0]
    for tree in trees:
        offsets.append(offsets[-1] + len(tree.ids))
    pairs = list(zip(trees, offsets, strict=False))
    found = [(at + here, *rest) for tree, at in pairs for here, *rest in tree.predictions]
    columns, targets, sequences, places = torch.tensor(found).T
    return {
        "ids": torch.tensor([[i for tree in trees for i in tree.ids]]),
        "positions": torch.tensor([[depth for tree in trees for depth in tree.depths]]),
        "ends": torch.tensor([at + end for tree, at in pairs for end in tree.ends]),
        "columns": columns,
        "targets": targets,
        "sequences": sequences,
        "places": places,
    }


# ------------------------------------------------------------------------------------------------- log-probabilities


def packed_logps(model: Any, batch: dict[str, Any], count: int, width: int) -> Any:
    """Compute log p of each completion token, (count, width) = (B, C), 0 where a completion is shorter; float32."""
    return _place(prediction_logps(model, batch), batch, count, width)


def packed_states(model: Any, batch: dict[str, Any], count: int, width: int) -> tuple[Any, Any]:
    """Compute packed_logps, and the hidden state (B, C, D) that predicts each completion token."""
    hidden_ND = prediction_states(model, batch)
    logps_N = _logps_of_states(model, hidden_ND, batch)
    return _place(logps_N, batch, count, width), _place(hidden_ND, batch, count, width)


def _place(values_N: Any, batch: dict[str, Any], count: int, width: int) -> Any:
    """What belongs to each prediction at its place among the sequences (B, C, ...), 0 elsewhere."""
    placed = values_N.new_zeros(count, width, *values_N.shape[1:])
    return placed.index_put((batch["sequences"], batch["places"]), values_N)


def prediction_logps(model: Any, batch: dict[str, Any]) -> Any:
    """Compute log p of every predicted token (N,), float32; gradients flow as for separate sequences.

    `model` is a Gemma 3 causal model of transformers, with a LoRA or without.
    """
    return _logps_of_states(model, prediction_states(model, batch), batch)


def _logps_of_states(model: Any, hidden_ND: Any, batch: dict[str, Any]) -> Any:
    from schema_student.student.attention import text_model
    from schema_student.student.blockwise_head import token_logps

    causal = text_model(model)
    softcap = getattr(causal.config, "final_logit_softcapping", None)
    return token_logps(hidden_ND, batch["targets"], causal.lm_head, softcap)


def prediction_states(model: Any, batch: dict[str, Any]) -> Any:
    """Compute the hidden state that makes each prediction (N, D)."""
    from schema_student.student.attention import TreeMask, text_model, use_attention

    use_attention(model)
    causal = text_model(model)
    masks = {
        "full_attention": TreeMask(batch["ends"], batch["positions"][0], None),
        "sliding_attention": TreeMask(batch["ends"], batch["positions"][0], causal.config.sliding_window),
    }
    hidden_1TD = causal.model(
        input_ids=batch["ids"], position_ids=batch["positions"], attention_mask=masks, use_cache=False
    ).last_hidden_state
    return hidden_1TD[0, batch["columns"]]


def why_unsupported(model: Any) -> str:
    """Find why a model cannot compute trees, "" where it can, by a few sequences together and alone.

    Rounding moves a log-probability by some spacings of the largest logit: 0.125 each in bfloat16 where it is 16 to 32.
    """
    import torch

    from schema_student.student.attention import text_model, use_attention

    causal, attends = text_model(model), use_attention(model)
    if not hasattr(causal, "model") or not hasattr(causal.config, "sliding_window"):
        return f"{type(causal).__name__} takes no masks by kind of layer"
    if not attends:
        return f"its attention is {causal.config._attn_implementation}, not sdpa"
    pairs, eps = _probes(causal.config), torch.finfo(model.dtype).eps
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            batch = {name: x.to(model.device) for name, x in pack_trees(build_trees(pairs)).items()}
            together = packed_logps(model, batch, len(pairs), max(len(completion) for _, completion in pairs))
            for i, (prompt, completion) in enumerate(pairs):
                ids = torch.tensor([[*prompt, *completion]], device=model.device)
                keep = len(completion) + 1  # the token before a completion predicts its first
                logits_CV = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0, -keep:-1].float()
                alone = logits_CV.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
                apart = float((together[i, : len(completion)] - alone).abs().max())
                rounding = max(eps**0.5, 4 * eps * float(logits_CV.abs().max()))  # 0.0003 in float32, 0.09 in bfloat16
                if not apart < rounding:  # NaN is more
                    return f"its log-probabilities on trees are off by {apart:.2g}"
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        return f"it fails on trees: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
    finally:
        model.train(was_training)
    return ""


def _probes(config: Any) -> list[Pair]:
    """Short pairs, and pairs longer than the sliding window and than a block of FlexAttention (128 tokens).

    The long ones begin with the token that trained models attend to most, and their prompt just fills the window: one
    token more or less in it shows, in float32 with any weights.
    """
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    window = min(config.sliding_window, 4096) if sliding else 128
    begin = config.bos_token_id if isinstance(config.bos_token_id, int) else 5
    long = [begin, *(5 + i * i % 7 for i in range(window - 1))]
    branches = [[*(5 + i * step % 5 for i in range(max(32, 160 - window)))] for step in (1, 2)]
    short = [5, 6, 7, 8, 9]
    return [(short, [6, 5, 7]), (short, [6, 8]), ([5, 6, 7, 9, 8], [7, 7]), *((long, branch) for branch in branches)]
