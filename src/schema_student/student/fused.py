"""Compute what a small Gemma 3 writes next in few operations: most of a pass is else the time of calling its modules.

The same products and sums as its modules compute, with a layer's projections fused and a LoRA added to its weights.

Shapes: B slots, T tokens of a pass, D size of a head, C columns of a cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from schema_student.student.attention import text_model

MOST_PARAMETERS = 20_000_000  # of a model whose passes take longer to call than to compute
POSITIONS = 4096  # that the tables of rotations begin with


@dataclass(frozen=True)
class _Layer:
    """The weights of a layer, those that read the same input as one matrix; scales of norms with their 1 added."""

    kind: str
    before_attention: torch.Tensor
    qkv: torch.Tensor
    of_queries: torch.Tensor
    of_keys: torch.Tensor
    out: torch.Tensor
    after_attention: torch.Tensor
    before_mlp: torch.Tensor
    gate_up: torch.Tensor
    activation: Callable[[torch.Tensor], torch.Tensor]
    down: torch.Tensor
    after_mlp: torch.Tensor


def fuse(model: Any) -> FusedGemma3 | None:
    """Fuse the weights that a model has now; None for one that is not a small Gemma 3 in float32 on a CPU."""
    causal = text_model(model)
    if type(causal).__name__ != "Gemma3ForCausalLM" or not _is_plain(causal):
        return None
    with torch.no_grad():
        return _fuse(causal)


def _fuse(causal: Any) -> FusedGemma3 | None:
    layers = [
        _fuse_layer(layer, kind) for layer, kind in zip(causal.model.layers, causal.config.layer_types, strict=True)
    ]
    return FusedGemma3(causal, [layer for layer in layers if layer]) if all(layers) else None


def _is_plain(causal: Any) -> bool:
    """Whether nothing in a Gemma 3 is computed that is not computed here."""
    config = causal.config
    rotations = {rope["rope_type"] for rope in config.rope_parameters.values()}
    odd = config.attn_logit_softcapping or config.final_logit_softcapping or config.use_bidirectional_attention
    ends = type(causal.model.embed_tokens).__name__, type(causal.lm_head)
    return (
        not odd
        and rotations == {"default"}
        and ends == ("Gemma3TextScaledWordEmbedding", torch.nn.Linear)
        and causal.device.type == "cpu"
        and causal.dtype == torch.float32
        and sum(weight.numel() for weight in causal.parameters()) <= MOST_PARAMETERS
    )


def _fuse_layer(layer: Any, kind: str) -> _Layer | None:
    attention, mlp = layer.self_attn, layer.mlp
    modules = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    weights = [_find_weight(module) for module in (*modules, mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    if any(weight is None for weight in weights):
        return None
    q, k, v, out, gate, up, down = weights
    return _Layer(
        kind,
        1.0 + layer.input_layernorm.weight,
        torch.cat([q, k, v]),
        1.0 + attention.q_norm.weight,
        1.0 + attention.k_norm.weight,
        out,
        1.0 + layer.post_attention_layernorm.weight,
        1.0 + layer.pre_feedforward_layernorm.weight,
        torch.cat([gate, up]),
        mlp.act_fn,
        down,
        1.0 + layer.post_feedforward_layernorm.weight,
    )


def _find_weight(module: Any) -> Any:
    """The weight of a linear module with that of its LoRA; None for a module that computes something else as well."""
    if type(module) is torch.nn.Linear:
        return module.weight if module.bias is None else None
    base: Any = getattr(module, "base_layer", None)
    is_lora = type(base) is torch.nn.Linear and base.bias is None and hasattr(module, "get_delta_weight")
    if not is_lora or getattr(module, "lora_variant", None) or any(getattr(module, "lora_bias", {}).values()):
        return None
    names = (
        []
        if module.merged or module.disable_adapters
        else [each for each in module.active_adapters if each in module.lora_A]
    )
    return sum((module.get_delta_weight(name) for name in names), base.weight)


class FusedGemma3:
    """A Gemma 3 with its weights fused: a call gives the logits after each of further tokens."""

    def __init__(self, causal: Any, layers: Sequence[_Layer]) -> None:
        self.config, self.layers = causal.config, layers
        self._embedding, self._head = causal.model.embed_tokens, causal.lm_head.weight
        self._last_norm, self._rotary = 1.0 + causal.model.norm.weight, causal.model.rotary_emb
        self._scale = causal.config.query_pre_attn_scalar**-0.5
        self._tables = self._make_tables(POSITIONS)

    def _make_tables(self, count: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """For each kind of layer cosines and sines of positions; of the first half of a head the sines are negative."""
        positions, signs = torch.arange(count)[None], torch.ones(self.config.head_dim)
        signs[: self.config.head_dim // 2] = -1.0
        tables = {}
        for kind in {layer.kind for layer in self.layers}:
            cos_1PD, sin_1PD = self._rotary(self._head, positions, kind)
            tables[kind] = cos_1PD[0], sin_1PD[0] * signs
        return tables

    def __call__(
        self, ids_BT: torch.Tensor, position_BT: torch.Tensor, masks: Any, cache: Sequence[Any]
    ) -> torch.Tensor:
        """Compute logits (B, T, V); `masks` are those of kinds of layers (or one), `cache` takes keys and values."""
        if int(position_BT.max()) >= len(next(iter(self._tables.values()))[0]):
            self._tables = self._make_tables(2 * int(position_BT.max()))
        folds = self.config.num_attention_heads // self.config.num_key_value_heads
        kinds = masks if isinstance(masks, dict) else dict.fromkeys(self._tables, masks)
        masks = {kind: mask.repeat(1, 1, folds, 1) for kind, mask in kinds.items() if kind in self._tables}
        turns = {
            kind: (cos[position_BT][:, :, None], sin[position_BT][:, :, None])
            for kind, (cos, sin) in self._tables.items()
        }
        hidden = self._embedding(ids_BT)
        for layer, keys_values in zip(self.layers, cache, strict=True):
            hidden = hidden + self._attend(layer, hidden, *turns[layer.kind], masks[layer.kind], keys_values)
            hidden = hidden + self._compute_mlp(layer, hidden)
        return F.linear(self._norm(hidden, self._last_norm), self._head)

    def _attend(self, layer: _Layer, hidden: Any, cos: Any, sin: Any, mask: Any, cache: Any) -> torch.Tensor:
        config, (B, T, _) = self.config, hidden.shape
        heads, shared, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        projected = F.linear(self._norm(hidden, layer.before_attention), layer.qkv).view(B, T, heads + 2 * shared, size)
        queries, keys, values = projected.split((heads, shared, shared), dim=2)
        queries, keys = self._norm(queries, layer.of_queries), self._norm(keys, layer.of_keys)
        queries, keys = (x * cos + x.roll(size // 2, -1) * sin for x in (queries, keys))
        keys, values = cache.update(keys.transpose(1, 2), values.transpose(1, 2))
        folded = queries.transpose(1, 2).reshape(B, shared, heads // shared * T, size)
        made = F.scaled_dot_product_attention(folded, keys, values, mask, scale=self._scale)
        made = made.reshape(B, heads, T, size).transpose(1, 2).reshape(B, T, heads * size)
        return self._norm(F.linear(made, layer.out), layer.after_attention)

    def _compute_mlp(self, layer: _Layer, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = F.linear(self._norm(hidden, layer.before_mlp), layer.gate_up).chunk(2, -1)
        return self._norm(F.linear(layer.activation(gate) * up, layer.down), layer.after_mlp)

    def _norm(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, scale.shape, scale, self.config.rms_norm_eps)
