"""Keep the keys and values of prompts and of the rows that are being written; compute the logits of what follows.

A prompt is read as part of a prompt tree, so that what several prompts begin with (their schema) is computed once. To
be continued it is copied into a slot, where the token at position p stands in column p: rows of any length share a
batch, and a slot whose row has ended takes the next one.

Shapes: B slots, H heads of keys, L columns, T tokens of the trees, N prompts, D head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from schema_student.student.attention import NAME, TreeMask, text_model
from schema_student.student.prompt_tree import build_trees, pack_trees, shared_length

READ_TOKENS = 1024  # a reading ends before so many tokens: more are no faster, and are kept until they are written on
ENDLESS = 2**62  # a window that holds all
COLUMNS = 128  # slots grow by this many columns at a time


@dataclass(frozen=True)
class Prefix:
    """What prompts begin with, read before: its ids (P), and the keys and values of each layer (H, P, D)."""

    ids: list[int]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def cut(self, length: int) -> Prefix:
        """Return its first tokens."""
        return Prefix(self.ids[:length], [x[:, :length] for x in self.keys], [x[:, :length] for x in self.values])


@dataclass(frozen=True)
class Prompts:
    """Prompts that were read together: keys and values of each layer (H, T, D), where each one's tokens stand in them,
    and the logits (N, V) of the token after each."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    places: list[torch.Tensor]
    logits_NV: torch.Tensor

    def prefix(self, number: int, ids: list[int]) -> Prefix:
        """Copy what was read of one prompt, whose ids these are."""
        keys, values = ([x[:, self.places[number]] for x in kind] for kind in (self.keys, self.values))
        return Prefix(ids, keys, values)


def cut_reading(prompts: Sequence[list[int]], most: int = READ_TOKENS) -> int:
    """Count the prompts, from the first on, that are read together: of `most` tokens, or of twice the first one's.

    What neighbours begin with counts once.
    """
    tokens, most = len(prompts[0]), max(most, 2 * len(prompts[0]))
    for count in range(1, len(prompts)):
        before, prompt = prompts[count - 1], prompts[count]
        tokens += len(prompt) - shared_length(before, prompt)
        if tokens > most:
            return count
    return len(prompts)


def read_prompts(model: Any, prompts: Sequence[list[int]], prefix: Prefix | None = None) -> Prompts:
    """Read prompts as trees in one row; of a prefix that all of them begin with, only what follows it."""
    known = len(prefix.ids) if prefix else 0
    packed = pack_trees(build_trees([(ids[known:], [0]) for ids in prompts]))
    last_N = torch.empty(len(prompts), dtype=torch.long)
    last_N[packed["sequences"]] = packed["columns"]
    places_T, ends_T, device = torch.arange(len(packed["ends"])), packed["ends"], model.device
    output = model(
        input_ids=packed["ids"].to(device),
        attention_mask=_tree_masks(model, ends_T.to(device), packed["positions"][0].to(device), known),
        position_ids=(packed["positions"] + known).to(device),
        past_key_values=(cache := _start_cache(prefix)),
        use_cache=True,
        logits_to_keep=last_N.to(device),
    )
    ancestors = [((places_T <= last) & (ends_T > last)).nonzero()[:, 0] + known for last in last_N]
    places = [torch.cat([torch.arange(known), each]).to(device) for each in ancestors]
    keys, values = ([getattr(layer, kind)[0] for layer in cache.layers] for kind in ("keys", "values"))
    return Prompts(keys, values, places, output.logits[0])


def _start_cache(prefix: Prefix | None) -> Cache:
    cache = Cache(layer_class_to_replicate=DynamicLayer)
    if prefix:
        for i, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            cache.update(keys[None], values[None], i)
    return cache


def _tree_masks(model: Any, ends_T: torch.Tensor, depths_T: torch.Tensor, known: int) -> Any:
    """What each token of the trees sees, by kind of layer: its ancestors, and of a prefix all; or what a window holds.

    Depths count from the end of the prefix.
    """
    config = text_model(model).config.get_text_config()
    # A GPU compiles a kernel for the branches' shape.
    along_branches = config._attn_implementation == NAME and not ends_T.is_cuda and not known
    places_T = torch.arange(len(ends_T), device=ends_T.device)
    distance_TP = known + depths_T[:, None] - torch.arange(known, device=ends_T.device)

    def mask(window: int | None) -> Any:
        tree = TreeMask(ends_T, depths_T, window)
        if along_branches:
            return tree
        own_TT, before_TP = tree.allows(places_T[:, None], places_T[None]), distance_TP < (window or ENDLESS)
        return torch.cat([before_TP, own_TT], dim=1)[None, None]

    return by_kind_of_layer(config, mask)


def by_kind_of_layer(config: Any, mask: Callable[[int | None], Any]) -> Any:
    """Make the mask of each kind of layer that a model names, by its window; one mask for a model that names none."""
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return mask(None)
    masks = {"full_attention": mask(None)}
    return masks | ({"sliding_attention": mask(config.sliding_window)} if "sliding_attention" in kinds else {})


class Slots:
    """Rows that are being written: a slot holds the keys and values of one; its token at position p is in column p.

    `fused` computes what the model would, with the ids, their positions, the masks and the layers of the cache.
    """

    def __init__(self, model: Any, count: int, prompts: Prompts, fused: Callable[..., torch.Tensor] | None = None):
        self.model, self.fused, self.config = model, fused, text_model(model).config.get_text_config()
        self.lengths_B = torch.zeros(count, dtype=torch.long)
        layers = [_SlotLayer(count, *kinds) for kinds in zip(prompts.keys, prompts.values, strict=True)]
        self.cache = Cache(layers=layers)

    def put(self, slot: int, prompts: Prompts, number: int) -> None:
        """Put a prompt that was read into a slot, over what is there."""
        places = prompts.places[number]
        self.lengths_B[slot] = len(places)
        for layer, keys, values in zip(self.cache.layers, prompts.keys, prompts.values, strict=True):
            layer.put(slot, keys[:, places], values[:, places])

    def add(self, count: int) -> None:
        """Add empty slots."""
        self.lengths_B = torch.nn.functional.pad(self.lengths_B, (0, count))
        for layer in self.cache.layers:
            layer.add(count)

    def keep(self, slots: list[int]) -> None:
        """Keep these slots, in this order."""
        chosen = torch.tensor(slots)
        self.lengths_B = self.lengths_B[chosen]
        for layer in self.cache.layers:
            layer.batch_select_indices(chosen.to(self.model.device))

    def write(self, ids: list[list[int]]) -> torch.Tensor:
        """Write as many further tokens in every slot; returns the logits after each (B, T, V).

        They stay only as far as `advance` says: what comes next is written over the others.
        """
        ids_BT, device = torch.tensor(ids), self.model.device
        position_BT = self.lengths_B[:, None] + torch.arange(ids_BT.shape[1])
        width = int(position_BT.max()) + 1
        for layer in self.cache.layers:
            layer.begin(position_BT.to(device), width)
        distance_BTL = position_BT[:, :, None] - torch.arange(width)

        def mask(window: int | None) -> torch.Tensor:
            seen_BTL = (distance_BTL >= 0) & (distance_BTL < (window or width))
            return seen_BTL[:, None].to(device)

        masks = by_kind_of_layer(self.config, mask)
        if self.fused:
            return self.fused(ids_BT, position_BT, masks, self.cache.layers)
        output = self.model(
            input_ids=ids_BT.to(device),
            attention_mask=masks,
            position_ids=position_BT.to(device),
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits

    def advance(self, counts: list[int]) -> None:
        """Keep so many of the tokens that were written last in each slot."""
        self.lengths_B = self.lengths_B + torch.tensor(counts)


class _SlotLayer(DynamicLayer):
    """Keys and values (B, H, L, D) of one layer; sliding windows are the mask's work."""

    def __init__(self, count: int, keys_HTD: torch.Tensor, values_HTD: torch.Tensor) -> None:
        super().__init__()
        (heads, _, size), (_, _, value_size) = keys_HTD.shape, values_HTD.shape
        self.keys, self.values = (
            keys_HTD.new_zeros(count, heads, 0, size),
            values_HTD.new_zeros(count, heads, 0, value_size),
        )
        self.is_initialized, self.width = True, 0
        self.slots_B1 = self.position_BT = torch.arange(count, device=keys_HTD.device)[:, None]

    def put(self, slot: int, keys_HLD: torch.Tensor, values_HLD: torch.Tensor) -> None:
        self._make_room(keys_HLD.shape[1])
        self.keys[slot, :, : keys_HLD.shape[1]] = keys_HLD
        self.values[slot, :, : keys_HLD.shape[1]] = values_HLD

    def add(self, count: int) -> None:
        """Add empty slots."""
        self.keys, self.values = (torch.nn.functional.pad(x, (0,) * 7 + (count,)) for x in (self.keys, self.values))

    def begin(self, position_BT: torch.Tensor, width: int) -> None:
        """Say where the next tokens of each slot stand, and how many columns hold something then."""
        self._make_room(width)
        self.slots_B1 = torch.arange(len(position_BT), device=self.keys.device)[:, None]
        self.position_BT, self.width = position_BT, width

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.keys[self.slots_B1, :, self.position_BT] = key_states.transpose(1, 2)
        self.values[self.slots_B1, :, self.position_BT] = value_states.transpose(1, 2)
        return self.keys[:, :, : self.width], self.values[:, :, : self.width]

    def _make_room(self, columns: int) -> None:
        more = columns - self.keys.shape[2]
        if more > 0:
            pad = (0, 0, 0, -(-more // COLUMNS) * COLUMNS)
            self.keys, self.values = (torch.nn.functional.pad(x, pad) for x in (self.keys, self.values))
