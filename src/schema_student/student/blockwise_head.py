"""Compute log-probabilities of target tokens from hidden states without the logits of the whole vocabulary.

The gradient of a log-probability in its hidden state is W[target] - p W, whatever is done with it later. So where the
head W is frozen, as under a LoRA, the forward pass leaves these D numbers behind instead of V logits: Gemma's 262,144
logits a token are never kept, and no matrix product is done twice.

Shapes: N predictions, D hidden size, V vocabulary, K a block of it.
"""

from __future__ import annotations

from typing import Any

import torch

from schema_student.student.attention import compute_dtype

# Logits that exist at once where the head is frozen, rows x columns: what caches hold (8 MB), a GPU needs (256 MB).
ROWS, COLUMNS, CUDA_COLUMNS = 2**10, 2**11, 2**16


def token_logps(hidden_ND: Any, targets_N: Any, head: Any, softcap: float | None = None) -> Any:
    """Compute log p of each target after its hidden state (N,), float32; a frozen head has logits in blocks only."""
    if not head.weight.requires_grad and head.bias is None:
        rows = zip(hidden_ND.split(ROWS), targets_N.split(ROWS), strict=True)
        return torch.cat([FrozenHeadLogps.apply(hidden, head.weight, targets, softcap) for hidden, targets in rows])
    logits_NV = head(hidden_ND).float()
    if softcap is not None:
        logits_NV = torch.tanh(logits_NV / softcap) * softcap
    return -torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")


class FrozenHeadLogps(torch.autograd.Function):
    """token_logps of some rows with a frozen head; its forward pass computes the gradient too."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Any, head_VD: Any, targets_N: Any, softcap: float | None) -> Any:
        """Compute log p of each target (N,)."""
        dtype, wanted = compute_dtype(hidden_ND), hidden_ND.requires_grad
        with torch.autocast(hidden_ND.device.type, enabled=False):
            logps_N, gradient_ND = logps_and_gradients(hidden_ND.to(dtype), head_VD, targets_N, softcap, wanted)
        if gradient_ND is not None:
            ctx.save_for_backward(gradient_ND.to(hidden_ND.dtype))
        return logps_N

    @staticmethod
    def backward(ctx: Any, upstream_N: Any) -> Any:
        """Return the gradient in the hidden states."""
        (gradient_ND,) = ctx.saved_tensors
        return (upstream_N[:, None] * gradient_ND).to(gradient_ND.dtype), None, None, None


def logps_and_gradients(
    hidden_ND: Any, head_VD: Any, targets_N: Any, softcap: float | None, with_gradients: bool
) -> tuple[Any, Any]:
    """Compute log p (N,) and its gradient in the hidden states (N, D) or None, float32, by blocks of the vocabulary.

    It goes over the head as FlashAttention goes over keys and values (Dao et al. 2022, algorithm 1): what is summed so
    far is scaled down where a block has a greater logit. The target is left out of the sums, so that 1 - p keeps its
    digits in bfloat16 where p is nearly 1.
    """
    weighted_heads_ND = torch.zeros_like(hidden_ND, dtype=torch.float32)  # sum of exp(logit - maximum) W[token]
    maximum_N1 = torch.full_like(weighted_heads_ND[:, :1], -torch.inf)
    target_N1, others_N1 = torch.zeros_like(maximum_N1), torch.zeros_like(maximum_N1)
    begin = 0
    for block_KD in head_VD.split(CUDA_COLUMNS if hidden_ND.is_cuda else COLUMNS):
        head_KD = block_KD.to(hidden_ND.dtype)
        logits_NK = (hidden_ND @ head_KD.T).float()
        if softcap is not None:
            logits_NK.div_(softcap).tanh_().mul_(softcap)
        column_N1 = (targets_N - begin)[:, None]
        inside_N1 = (column_N1 >= 0) & (column_N1 < len(head_KD))
        column_N1 = column_N1.clamp(0, len(head_KD) - 1)
        target_N1 = torch.where(inside_N1, logits_NK.gather(-1, column_N1), target_N1)
        before_N1, maximum_N1 = maximum_N1, torch.maximum(maximum_N1, logits_NK.amax(-1, keepdim=True))
        rescale_N1 = (before_N1 - maximum_N1).exp_()
        slope_NK = softcap_slope(logits_NK, softcap) if with_gradients else None
        weights_NK = logits_NK.sub_(maximum_N1).exp_()
        weights_NK.scatter_(-1, column_N1, weights_NK.gather(-1, column_N1).masked_fill_(inside_N1, 0.0))
        others_N1 = others_N1 * rescale_N1 + weights_NK.sum(-1, keepdim=True)
        if with_gradients:
            weights_NK = weights_NK if slope_NK is None else weights_NK.mul_(slope_NK)
            weighted_heads_ND.mul_(rescale_N1).add_(weights_NK.to(head_KD.dtype) @ head_KD)
        begin += len(head_KD)
    total_N1 = others_N1 + (target_N1 - maximum_N1).exp()
    logps_N = (target_N1 - maximum_N1 - total_N1.log())[:, 0]
    if not with_gradients:
        return logps_N, None
    slope_N1 = softcap_slope(target_N1, softcap)
    of_target_ND = others_N1 * (1.0 if slope_N1 is None else slope_N1) * head_VD[targets_N].float()
    return logps_N, (of_target_ND - weighted_heads_ND) / total_N1


def softcap_slope(capped: Any, softcap: float | None) -> Any:
    """Compute the derivative of softcap tanh(x / softcap) where it has the given value; None without a cap."""
    return None if softcap is None else 1 - (capped / softcap) ** 2
