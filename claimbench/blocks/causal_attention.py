"""Causal attention that stays one kernel when models are stacked.

torch's scaled_dot_product_attention has no batching rule on a CPU: under vmap it runs model by model, and its backward
pass then adds one gradient of the whole stack for every model. The operator here is the same function with a rule:
models are folded into the batch. Where sequences are short the fused kernel of a CPU, made for long ones, takes longer
than its three plain operations, which then stand in for it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_NAME = "claimbench::causal_attention"
SHORT = 64  # positions up to which plain operations are the faster on a CPU, for hundreds of sequences


def causal_attention(
    query: Float[Tensor, "batch heads time size"],
    key: Float[Tensor, "batch heads time size"],
    value: Float[Tensor, "batch heads time size"],
) -> Float[Tensor, "batch heads time size"]:
    """softmax(query key' / sqrt(size)) value, each position seeing itself and those before it (Vaswani et al. 2017)."""
    return torch.ops.claimbench.causal_attention(query, key, value)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    *lead, time, size = query.shape
    hidden = torch.full((time, time), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
    folded = [tensor.reshape(-1, time, size) for tensor in (query, key, value)]
    scores = torch.baddbmm(hidden, folded[0], folded[1].mT, alpha=size**-0.5)
    return torch.bmm(scores.softmax(-1), folded[2]).view(*lead, time, size)


def _attend_stacked(info: Any, axes: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
    """The rule for vmap: `axes` says where each tensor has its models, None that all models share it."""
    folded = [
        (tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)).flatten(
            0, 1
        )
        for tensor, axis in zip(tensors, axes, strict=True)
    ]
    short = folded[0].device.type == "cpu" and folded[0].shape[-2] <= SHORT
    attend = _attend_plainly if short else _attend
    return attend(*folded).unflatten(0, (info.batch_size, -1)), 0


torch.library.define(_NAME, "(Tensor query, Tensor key, Tensor value) -> Tensor")
torch.library.impl(_NAME, "CompositeImplicitAutograd", _attend)
torch.library.register_vmap(_NAME, _attend_stacked)
