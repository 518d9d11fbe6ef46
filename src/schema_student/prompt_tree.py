"""Many sequences that share prefixes, computed once: trees of token ids, laid out one after the other as one row.

Every example of a batch repeats its schema, and a DPO pair repeats its whole prompt. Here each shared prefix stands
once: a token attends to its ancestors and itself, and its position is its depth, so that every sequence computes what
it would compute alone, up to rounding. A token that several branches follow predicts the first token of each of them:
the predictions are listed as (position, target), so no token is laid out twice and logits are made where needed.

    forest = grow(sequences)                      # sequences: (prompt ids, completion ids)
    logps_BC = forest_logps(model, plant(forest), count, width)

A tree is laid out depth first, so token k is an ancestor of token q where k <= q < ends[k], `ends` being where the
subtree of each token ends. Attention costs what the tree costs and not its square: on a CPU each branch attends to
its own path (`attend`), on a GPU a block mask leaves out what no token sees (FlexAttention).

Shapes: B sequences, C columns of completion, T tokens of the row, N predictions, H heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

Pair = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids
NAME = "prompt_tree"  # of this attention among those of transformers
BLOCK = 256  # tokens that attend as one block on a CPU, at most


@dataclass
class Tree:
    """Tokens with their depth and the end of their subtree, and what is predicted where."""

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
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
    _branch(tree, tokens, {i: len(pairs[i][0]) for i in group}, group, 0, None)
    return tree


def _branch(
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
        _branch(tree, tokens, starts, same, end, here)
        rest = rest[len(same) :]
    tree.ends[begin : begin + own] = [len(tree.ids)] * own


def plant(forest: Sequence[Tree]) -> dict[str, Any]:
    """Tensors of a forest, its trees one after the other.

    ids_1T, positions_1T, ends_T; of the N predictions columns_N (where), targets_N (the token), sequences_N and
    places_N (whose, and which of its tokens).
    """
    import torch

    offsets = [0]
    for tree in forest:
        offsets.append(offsets[-1] + len(tree.ids))
    pairs = list(zip(forest, offsets, strict=False))
    found = [(at + here, *rest) for tree, at in pairs for here, *rest in tree.predictions]
    columns, targets, sequences, places = torch.tensor(found).T
    return {
        "ids": torch.tensor([[i for tree in forest for i in tree.ids]]),
        "positions": torch.tensor([[depth for tree in forest for depth in tree.depths]]),
        "ends": torch.tensor([at + end for tree, at in pairs for end in tree.ends]),
        "columns": columns,
        "targets": targets,
        "sequences": sequences,
        "places": places,
    }


# --------------------------------------------------------------------------------------------------------- attention


@dataclass
class Sight:
    """What a planted row's tokens see in one kind of layer: attend's mask. `window` counts depth, not places."""

    ends_T: Any
    depths_T: Any
    window: int | None

    def sees(self, q: Any, k: Any) -> Any:
        """Whether token q attends to token k; both are tensors of places."""
        seen = (k <= q) & (q < self.ends_T[k])
        return seen if self.window is None else seen & (self.depths_T[q] - self.depths_T[k] < self.window)

    @property
    def blocks(self) -> Any:
        """The block mask of FlexAttention: blocks of tokens that do not see each other are not computed."""
        from torch.nn.attention.flex_attention import create_block_mask

        if not hasattr(self, "_blocks"):
            T = len(self.ends_T)
            self._blocks = create_block_mask(lambda b, h, q, k: self.sees(q, k), None, None, T, T, self.ends_T.device)
        return self._blocks

    @property
    def branches(self) -> list[tuple[int, list[tuple[int, int]], Any]]:
        """Per branch, in the row's order: its length; of the branches that it sees (the last is itself) number and
        first token seen; and 0 or -inf for its tokens x the seen ones."""
        import torch

        if not hasattr(self, "_branches"):
            units: list[tuple[int, int]] = []
            paths: list[list[int]] = []
            _cut(self.ends_T.tolist(), 0, len(self.ends_T), [], units, paths)
            depths = self.depths_T.tolist()
            self._branches = []
            for (start, end), path in zip(units, paths, strict=True):
                horizon = 0 if self.window is None else depths[start] - self.window + 1
                cuts = [(unit, max(0, horizon - depths[units[unit][0]])) for unit in path[:-1]]
                seen = [(unit, cut) for unit, cut in cuts if units[unit][0] + cut < units[unit][1]] + [(path[-1], 0)]
                places = torch.cat([torch.arange(units[unit][0] + cut, units[unit][1]) for unit, cut in seen])
                mask = self.sees(torch.arange(start, end)[:, None], places[None])
                self._branches.append((end - start, seen, torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)))
        return self._branches


def _cut(
    ends: list[int], start: int, stop: int, path: list[int], units: list[tuple[int, int]], paths: list[list[int]]
) -> None:
    """Cut ends[start:stop] into units that attend as one block: small subtrees of one parent, or a piece of a branch.

    `paths` gets the numbers of the units that each one sees.
    """
    while start < stop:
        end = ends[start]
        if end - start <= BLOCK:
            while end < stop and ends[end] - start <= BLOCK:
                end = ends[end]
            own = end
        else:
            own = next((i for i in range(start, min(end, start + BLOCK)) if ends[i] != end), start + BLOCK)
        here = [*path, len(units)]
        units.append((start, own))
        paths.append(here)
        _cut(ends, own, end, here, units, paths)
        start = end


def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> tuple[Any, None]:
    """Attention as transformers' models call it, (1, H, T, D) -> (1, T, H, D), each token to its path alone.

    For any other mask than a Sight it is transformers' own `sdpa`, so that generation goes on as before.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not isinstance(attention_mask, Sight):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scale = options["scaling"]
    if query.is_cuda:
        made = _flex()(query, key, value, block_mask=attention_mask.blocks, scale=scale, enable_gqa=True)
        return made.transpose(1, 2).contiguous(), None
    # Plain matrix products: in bfloat16 on a CPU they are 2 to 3 times as fast as its flash kernel at these sizes.
    _, H, _, D = query.shape
    shared = key.shape[1]  # heads of keys and values; H / shared query heads read each, here as more rows
    branches = attention_mask.branches
    lengths = [length for length, _, _ in branches]
    keys, values = (x[0].split(lengths, dim=1) for x in (key, value))
    made = []
    for own, (length, seen, mask) in zip(query[0].split(lengths, dim=1), branches, strict=True):
        k, v = (torch.cat([x[unit][:, cut:] for unit, cut in seen], dim=1) for x in (keys, values))
        rows = own.reshape(shared, -1, D)
        mask = mask.to(_compute_dtype(own)).repeat(H // shared, 1)
        scores = torch.baddbmm(mask.expand(shared, -1, -1), rows, k.transpose(1, 2), alpha=scale)
        made.append(torch.bmm(torch.softmax(scores, -1), v).reshape(H, length, D))
    return torch.cat(made, dim=1).transpose(0, 1)[None].contiguous(), None


def _compute_dtype(tensor: Any) -> Any:
    import torch

    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


@cache
def _flex() -> Any:
    """FlexAttention, compiled once; its cost follows the blocks that the mask leaves."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def use_tree_attention(model: Any) -> None:
    """Let a Gemma 3 of transformers attend by `attend`; nothing else about it changes, nor what is saved."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    _causal(model).config._attn_implementation = NAME


def takes_trees(model: Any) -> bool:
    """Whether the model is one that `use_tree_attention` can teach: transformers' own Gemma 3, with sdpa."""
    causal = _causal(model)
    own = type(causal).__name__ == "Gemma3ForCausalLM" and type(causal).__module__.startswith("transformers.")
    return own and causal.config._attn_implementation in ("sdpa", NAME)


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


# ------------------------------------------------------------------------------------------------- log-probabilities


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

    use_tree_attention(model)
    causal = _causal(model)
    config = causal.config
    full = Sight(batch["ends"], batch["positions"][0], None)
    sliding = Sight(batch["ends"], batch["positions"][0], config.sliding_window)
    hidden_1TD = causal.model(
        input_ids=batch["ids"],
        position_ids=batch["positions"],
        attention_mask={"full_attention": full, "sliding_attention": sliding},
        use_cache=False,
    ).last_hidden_state
    logits_NV = causal.lm_head(hidden_1TD[0, batch["columns"]]).float()
    if config.final_logit_softcapping is not None:
        logits_NV = torch.tanh(logits_NV / config.final_logit_softcapping) * config.final_logit_softcapping
    return -torch.nn.functional.cross_entropy(logits_NV, batch["targets"], reduction="none")
