"""Many sequences that share prefixes, computed once: a tree of token ids laid out as one row.

Every example of a batch repeats its schema, and a DPO pair repeats its whole prompt. Here each shared prefix stands
once: a token attends to its ancestors and itself, and its position is its depth, so that every sequence computes what
it would compute alone, up to rounding. A token that several branches follow predicts the first token of each of them:
the predictions are listed as (position, target), so no token is laid out twice and logits are made where needed.

    forest = grow(sequences)                      # sequences: (prompt ids, completion ids)
    logps_BC = forest_logps(model, plant(forest, pad_id, device))

Shapes: B sequences, C columns of completion, R rows (trees), T tokens of the longest row, N predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids


@dataclass
class Tree:
    """One row: tokens with depth and segment, which segments each segment can see, and what is predicted where."""

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    ancestors: list[list[int]] = field(default_factory=list)  # of a segment: itself and all above it
    predictions: list[tuple[int, int, int, int]] = field(default_factory=list)  # position, target, sequence, column


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def grow(pairs: Sequence[Pair], least_share: float = 0.5) -> list[Tree]:
    """Trees of the pairs; two neighbors in order of their tokens share a tree if they share half of the shorter prompt.

    Rows of a batch stay short that way: a prefix of a few tokens is not worth a row in which most tokens do not see
    each other. Raises ValueError for a pair without prompt or completion.
    """
    if any(not prompt or not completion for prompt, completion in pairs):
        raise ValueError("a sequence needs a prompt and a completion of at least one token each")
    order = sorted(range(len(pairs)), key=lambda i: [*pairs[i][0], *pairs[i][1]])
    groups: list[list[int]] = []
    for i in order:
        prompt = pairs[i][0]
        before = pairs[groups[-1][-1]][0] if groups else []
        if groups and shared_length(before, prompt) >= least_share * min(len(before), len(prompt)):
            groups[-1].append(i)
        else:
            groups.append([i])
    return [_grow_one(pairs, group) for group in groups]


def _grow_one(pairs: Sequence[Pair], group: list[int]) -> Tree:
    tree = Tree()
    tokens = {i: [*pairs[i][0], *pairs[i][1]] for i in group}
    _branch(tree, tokens, {i: len(pairs[i][0]) for i in group}, group, 0, [], None)
    return tree


def _branch(
    tree: Tree,
    tokens: dict[int, list[int]],
    starts: dict[int, int],
    group: list[int],
    depth: int,
    above: list[int],
    parent: int | None,
) -> None:
    """Lay out what the group (sorted by tokens) shares from `depth` on, then each of its branches.

    `parent` is the row position of the token before, which predicts the first token here. The last token of a sequence
    predicts nothing and is not laid out, unless another sequence goes on through it.
    """
    first, last = tokens[group[0]], tokens[group[-1]]
    end = depth + shared_length(first[depth:], last[depth:])
    segment = len(tree.ancestors)
    path = [*above, segment]
    tree.ancestors.append(path)
    here = parent
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
        tree.segments.append(segment)
    rest = [i for i in group if len(tokens[i]) > end]
    while rest:
        same = [i for i in rest if tokens[i][end] == tokens[rest[0]][end]]
        _branch(tree, tokens, starts, same, end, path, here)
        rest = rest[len(same) :]


def plant(forest: Sequence[Tree], pad_id: int) -> dict[str, Any]:
    """Tensors of a batch of trees.

    ids_RT, positions_RT, segments_RT (-1 where padded), visible_RSS (which segment sees which); of the N predictions
    rows_N and columns_N (where), targets_N (the token), sequences_N and places_N (whose, and which of its tokens).
    """
    import torch

    T = -(-max(len(tree.ids) for tree in forest) // 8) * 8
    S = max(len(tree.ancestors) for tree in forest)
    visible = torch.zeros(len(forest), S, S, dtype=torch.bool)
    for r, tree in enumerate(forest):
        for segment, path in enumerate(tree.ancestors):
            visible[r, segment, path] = True

    def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (T - len(row)) for row in rows])

    found = [(r, *prediction) for r, tree in enumerate(forest) for prediction in tree.predictions]
    rows, columns, targets, sequences, places = torch.tensor(found).T
    return {
        "ids": padded([tree.ids for tree in forest], pad_id),
        "positions": padded([tree.depths for tree in forest], 0),
        "segments": padded([tree.segments for tree in forest], -1),
        "visible": visible,
        "rows": rows,
        "columns": columns,
        "targets": targets,
        "sequences": sequences,
        "places": places,
    }


def tree_mask(batch: dict[str, Any], window: int | None = None) -> Any:
    """mask_R1TT: a token sees ancestors and itself; with a window only those less than `window` deeper-level steps up.

    A sliding window counts depth and not place in the row: neighbors in the row may lie in different branches.
    """
    import torch

    segments, depths = batch["segments"], batch["positions"]
    padding = segments < 0
    known = segments.clamp(min=0)
    rows = torch.arange(len(known), device=known.device)[:, None, None]
    mask = batch["visible"][rows, known[:, :, None], known[:, None, :]]
    apart = depths[:, :, None] - depths[:, None, :]
    mask = mask & (apart >= 0) & ~padding[:, None, :]
    if window is not None:
        mask = mask & (apart < window)
    itself = torch.eye(known.shape[1], dtype=torch.bool, device=known.device)
    return (mask | itself)[:, None]  # a padded token sees itself, so that no row of attention is empty


def forest_logps(model: Any, batch: dict[str, Any], count: int, width: int) -> Any:
    """log p of each completion token, (count, width) = (B, C), 0 where a completion is shorter; float32."""
    import torch

    logps_N = prediction_logps(model, batch)
    logps_BC = torch.zeros(count, width, dtype=logps_N.dtype, device=logps_N.device)
    return logps_BC.index_put((batch["sequences"], batch["places"]), logps_N)


def prediction_logps(model: Any, batch: dict[str, Any]) -> Any:
    """log p of every predicted token (N,), float32; gradients flow as for separate sequences.

    `model` is a Gemma 3 causal model of transformers, with a LoRA or without.
    """
    import torch

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = causal.config.get_text_config()
    masks = {"full_attention": tree_mask(batch), "sliding_attention": tree_mask(batch, config.sliding_window)}
    hidden_RTD = causal.model(
        input_ids=batch["ids"], position_ids=batch["positions"], attention_mask=masks, use_cache=False
    ).last_hidden_state
    logits_NV = causal.lm_head(hidden_RTD[batch["rows"], batch["columns"]]).float()
    if config.final_logit_softcapping is not None:
        logits_NV = torch.tanh(logits_NV / config.final_logit_softcapping) * config.final_logit_softcapping
    return -torch.nn.functional.cross_entropy(logits_NV, batch["targets"], reduction="none")


def takes_tree_masks(model: Any) -> bool:
    """Whether the model is one whose attention takes a dict of ready 4-D masks: transformers' own Gemma 3."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(causal).__name__ == "Gemma3ForCausalLM" and type(causal).__module__.startswith("transformers.")
