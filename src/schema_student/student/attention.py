"""Compute attention that transformers does not offer: along the branches of a tree, and to a long cache.

One attention function serves training and generation. `use_attention` registers it with transformers and sets it for a
model; nothing else about the model changes, nor what is saved of it. What it does depends on the mask:

    TreeMask, of packed trees           each token attends to its path; costs what the tree costs, not its square
    a tensor, on a CPU or without grad  queries that share a head of keys are folded together, keys not repeated
    anything else                       transformers' own `sdpa`

Shapes: B rows, T tokens, L keys, H heads, D size of a head; of a block mask N tiles, Q of queries and K of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "schema_student"  # of this attention among those of transformers
UNSLOTHS = "flex_attention"  # what Unsloth gives a Gemma 3, whose attention there knows no other name but sdpa
BLOCK = 256  # tokens that attend as one block on a CPU, at most
TILE = 128  # tokens of a tile of FlexAttention's block mask: its own default


@dataclass
class TreeMask:
    """The attention mask of packed trees in one kind of layer. `window` counts depth, not places in the row."""

    ends_T: Any
    depths_T: Any
    window: int | None

    def allows(self, q: Any, k: Any) -> Any:
        """Return whether token q attends to token k; both are tensors of places."""
        return _allows(q, k, self.ends_T, self.depths_T, self.reach)

    @cached_property
    def reach(self) -> Any:
        """Return the window as a tensor; without one, more than any depth."""
        return torch.full((), len(self.ends_T) if self.window is None else self.window, device=self.ends_T.device)

    @cached_property
    def block_mask(self) -> Any:
        """Make FlexAttention's block mask: tiles in which nothing is seen are not computed.

        Its own create_block_mask looks at all T x T pairs; here the extremes of each tile are enough. All that a row
        decides is in tensors, so that one compiled kernel serves every row and both kinds of layer.
        """
        from torch.nn.attention.flex_attention import BlockMask

        T, ends_T, depths_T, reach = len(self.ends_T), self.ends_T, self.depths_T, self.reach
        some_QK, all_QK = self.tiles
        return BlockMask.from_kv_blocks(
            *_list_tiles(some_QK & ~all_QK),
            *_list_tiles(all_QK),
            TILE,
            lambda b, h, q, k: _allows(q, k, ends_T, depths_T, reach),
            (T, T),
        )

    @property
    def tiles(self) -> tuple[Any, Any]:
        """Find, for each tile of queries x keys, whether some query may see some key, and whether all see all.

        With a window, some of the first kind may hold no pair that sees each other: `allows` decides within a tile.
        """
        T = len(self.ends_T)
        places_NT = torch.arange(-(-T // TILE) * TILE, device=self.ends_T.device).clamp(max=T - 1).reshape(-1, TILE)
        first_end_N, last_end_N = self.ends_T[places_NT].aminmax(dim=-1)
        top_N, bottom_N = self.depths_T[places_NT].aminmax(dim=-1)
        start_N, start_Q1 = places_NT[:, 0], places_NT[:, :1]
        # A key's subtree reaches into a tile where it ends after the tile's start, and fills a later one up to its end.
        some_QK = (start_N <= start_Q1) & (last_end_N > start_Q1)
        all_QK = (start_N < start_Q1) & (first_end_N >= start_Q1 + TILE)
        if self.window is not None:
            some_QK &= top_N[:, None] - bottom_N < self.window
            all_QK &= bottom_N[:, None] - top_N < self.window
        return some_QK, all_QK

    @cached_property
    def branches(self) -> list[tuple[int, list[tuple[int, int]], Any]]:
        """Per branch, in the row's order: its length; of the branches that it sees (the last is itself) number and
        first token seen; and 0 or -inf for its tokens x the seen ones."""
        units: list[tuple[int, int]] = []
        paths: list[list[int]] = []
        _split_branches(self.ends_T.tolist(), 0, len(self.ends_T), [], units, paths)
        depths, branches = self.depths_T.tolist(), []
        for (start, end), path in zip(units, paths, strict=True):
            horizon = 0 if self.window is None else depths[start] - self.window + 1
            cuts = [(unit, max(0, horizon - depths[units[unit][0]])) for unit in path[:-1]]
            seen = [(unit, cut) for unit, cut in cuts if units[unit][0] + cut < units[unit][1]] + [(path[-1], 0)]
            places = torch.cat([torch.arange(units[unit][0] + cut, units[unit][1]) for unit, cut in seen])
            mask = self.allows(torch.arange(start, end)[:, None], places[None])
            branches.append((end - start, seen, torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)))
        return branches


def _allows(q: Any, k: Any, ends_T: Any, depths_T: Any, reach: Any) -> Any:
    return (k <= q) & (q < ends_T[k]) & (depths_T[q] - depths_T[k] < reach)


def _list_tiles(tiles_QK: Any) -> tuple[Any, Any]:
    """How many tiles of each row are set, and their numbers (then those of the others), as FlexAttention reads them."""
    order_QK = tiles_QK.int().argsort(dim=-1, descending=True, stable=True)
    return tiles_QK.sum(-1).int()[None, None], order_QK.int()[None, None]


def _split_branches(
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
        _split_branches(ends, own, end, here, units, paths)
        start = end


def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> tuple[Any, None]:
    """Compute attention as transformers' models call it: query (B, H, T, D) -> (B, T, H, D)."""
    if isinstance(attention_mask, TreeMask):
        along = attend_by_blocks if query.is_cuda else attend_by_branches
        made = along(query, key, value, attention_mask, options["scaling"])
    elif isinstance(attention_mask, torch.Tensor) and not (query.is_cuda and torch.is_grad_enabled()):
        made = _attend_folded(query, key, value, attention_mask, options["scaling"])
    else:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return made.transpose(1, 2).contiguous(), None


def attend_by_branches(query: Any, key: Any, value: Any, mask: TreeMask, scale: float) -> Any:
    """Each branch attends to its own path; batch size 1.

    Plain matrix products: in bfloat16 on a CPU they are 2 to 3 times as fast as its flash kernel at these sizes.
    """
    _, H, _, D = query.shape
    shared = key.shape[1]  # heads of keys and values; H / shared heads of queries read each, here as more rows
    dtype = compute_dtype(query)
    lengths = [length for length, _, _ in mask.branches]
    keys, values = (x[0].split(lengths, dim=1) for x in (key, value))
    made = []
    for own, (length, seen, bias) in zip(query[0].split(lengths, dim=1), mask.branches, strict=True):
        k, v = (torch.cat([x[unit][:, cut:] for unit, cut in seen], dim=1) for x in (keys, values))
        bias = bias.to(dtype).repeat(H // shared, 1).expand(shared, -1, -1)
        scores = torch.baddbmm(bias, own.reshape(shared, -1, D), k.transpose(1, 2), alpha=scale)
        made.append(torch.bmm(torch.softmax(scores, -1), v).reshape(H, length, D))
    return torch.cat(made, dim=1)[None]


def attend_by_blocks(query: Any, key: Any, value: Any, mask: TreeMask, scale: float) -> Any:
    """FlexAttention: blocks of tokens that do not see each other are not computed."""
    dtype = compute_dtype(query)
    query, key, value = (x.to(dtype) for x in (query, key, value))  # autocast does not know this function
    options = {"BACKEND": "TRITON"} if query.is_cuda else {}  # its kernel for short rows has no tiles for shared keys
    with torch.autocast(query.device.type, enabled=False):  # compiled anew where autocast is on and where it is off
        return flex()(
            query, key, value, block_mask=mask.block_mask, scale=scale, enable_gqa=True, kernel_options=options
        )


def compute_dtype(tensor: Any) -> torch.dtype:
    """Find the dtype that a product with the tensor is computed in: autocast's where it is on, else its own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


@cache
def flex() -> Any:
    """Compile FlexAttention once for all lengths and windows."""
    from torch.nn.attention.flex_attention import flex_attention

    # After 8 variants (types, gradients or none, one tile or several) all T x T pairs would be computed, uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(flex_attention, dynamic=True)


def _attend_folded(query: Any, key: Any, value: Any, mask: Any, scale: float) -> Any:
    """The queries that share a head of keys stand as more tokens: repeating keys is two thirds of a decoding step."""
    B, H, T, D = query.shape
    folds = H // key.shape[1]
    folded = query.reshape(B, key.shape[1], folds * T, D)
    return scaled_dot_product_attention(folded, key, value, mask.repeat(1, 1, folds, 1), scale=scale).reshape(
        B, H, T, D
    )


def use_attention(model: Any) -> bool:
    """Let a model that attends by transformers' `sdpa`, or through Unsloth, attend by `attend`; says if it does."""
    # cuDNN's attention plans each shape anew, and in decoding every step has another one.
    torch.backends.cuda.enable_cudnn_sdp(False)
    config = text_model(model).config
    if config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        config._attn_implementation = NAME
    elif config._attn_implementation == UNSLOTHS:
        ALL_ATTENTION_FUNCTIONS[UNSLOTHS] = _attend_uncompiled
        ALL_MASK_ATTENTION_FUNCTIONS[UNSLOTHS] = sdpa_mask
    return config._attn_implementation in (NAME, UNSLOTHS)


@torch.compiler.disable
def _attend_uncompiled(*args: Any, **options: Any) -> Any:
    """For layers that Unsloth compiles whole: a TreeMask is no tensor."""
    return attend(*args, **options)


def text_model(model: Any) -> Any:
    """Unwrap the causal model inside an adapter, and inside the wrapper of several processes."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
