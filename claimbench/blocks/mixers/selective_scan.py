"""The selective scan of Mamba: a linear recurrence whose coefficients depend on the input (Gu and Dao 2023, arXiv
2312.00752, Algorithm 2), forward and backward without a graph over tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

TIME = -3
ONE_CHUNK = 64
"""Up to this length one chunk is faster on a CPU: a second level reads and writes everything twice more."""


def linear_scan(
    a: Float[Tensor, "*batch length state channels"],
    b: Float[Tensor, "*batch length state channels"],
    *,
    backward: bool = False,
    chunk: int = 0,
) -> Float[Tensor, "*batch length state channels"]:
    """h_t = a_t ⊙ h_{t−1} + b_t for all t from zero; backward the adjoint, h_t = a_{t+1} ⊙ h_{t+1} + b_t from the end.

    The length is cut into chunks (of √length, unless given) which advance together, each from zero; then the state at
    the end of each chunk is carried into the next. 2√length steps over whole tensors, and no product of many a's is
    ever divided by. Differentiable in no argument: see `selective_scan`.
    """
    return _scan(a, b.clone(memory_format=torch.contiguous_format), backward, chunk)


def _scan(a: Tensor, h: Tensor, backward: bool, chunk: int = 0) -> Tensor:
    """`linear_scan` with b in h, which may be overwritten by the result."""
    shape, length = a.shape, a.shape[TIME]
    size = chunk or (length if length <= ONE_CHUNK else math.isqrt(length - 1) + 1)
    chunks = -(-length // size)
    if chunks == 1:
        return _advance(a, h, backward, adjoint=backward)
    if backward:  # the adjoint's coefficient belongs to the step before, which may lie in another chunk
        a = functional.pad(a[..., 1:, :, :], (0, 0, 0, 0, 0, 1))
    a, h = (functional.pad(x, (0, 0, 0, 0, 0, chunks * size - length)) for x in (a, h))
    a, own = (x.unflatten(TIME, (chunks, size)) for x in (a, h))
    _advance(a, own, backward)
    decay = _products(a, backward)
    end, here, other = (
        (0, slice(None, -1), slice(1, None)) if backward else (-1, slice(1, None), slice(None, -1))
    )
    ends = _advance(decay[..., end, :, :], own[..., end, :, :].clone(), backward)
    own[..., here, :, :, :] += decay[..., here, :, :, :] * ends[..., other, None, :, :]
    return own.reshape(*shape[:TIME], chunks * size, *shape[TIME + 1 :])[..., :length, :, :]


def _in_order(x: Tensor, backward: bool) -> Sequence[Tensor]:
    """Views of x at each time, in the order in which a scan meets them."""
    times = x.unbind(TIME)
    return times[::-1] if backward else times


def _advance(a: Tensor, h: Tensor, backward: bool, *, adjoint: bool = False) -> Tensor:
    """The recurrence along the time in place, one step after the other; the adjoint takes each earlier step's a."""
    states, decays = _in_order(h, backward), _in_order(a, backward)
    chosen = decays[:-1] if adjoint else decays[1:]
    for (previous, following), decay in zip(itertools.pairwise(states), chosen, strict=True):
        following.addcmul_(decay, previous)
    return h


def _products(a: Tensor, backward: bool) -> Tensor:
    """Products of all a so far."""
    products = a.clone(memory_format=torch.contiguous_format)
    for previous, following in itertools.pairwise(_in_order(products, backward)):
        following.mul_(previous)
    return products


class _SelectiveScan(torch.autograd.Function):
    """Forward keeps h; backward runs the adjoint recurrence g_t = C_t ∂y_t + a_{t+1} g_{t+1} from the end.

    Arguments may have further axes before those of `selective_scan`: models of a stack, each with an A of its own.
    """

    @staticmethod
    def forward(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        inputs = (delta * u)[..., None, :] * b[..., None]
        h = _scan((delta[..., None, :] * a[..., None, None, :, :]).exp_(), inputs, backward=False)
        return (c[..., None, :] @ h)[..., 0, :], h

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        u, delta, a, b, c, h = ctx.saved_tensors
        dy, a = gradients[0], a[..., None, None, :, :]
        decay = (delta[..., None, :] * a).exp_()
        g = _scan(decay, dy[..., None, :] * c[..., None], backward=True)
        from_decay = (
            decay  # becomes ∂/∂(Δ A) = decay ⊙ h_{t−1} ⊙ g in place: a copy more of every state is slow
        )
        from_decay[..., 0, :, :] = 0
        from_decay[..., 1:, :, :].mul_(h[..., :-1, :, :]).mul_(g[..., 1:, :, :])
        from_input = (b[..., None, :] @ g)[..., 0, :]  # ∂/∂(Δ u)
        from_step = (from_decay * a).sum(-2) + u * from_input
        from_a = from_decay.mul_(delta[..., None, :]).sum((TIME - 1, TIME))
        from_b = g.mul_((delta * u)[..., None, :]).sum(-1)
        from_c = (h * dy[..., None, :]).sum(-1)
        return delta * from_input, from_step, from_a, from_b, from_c

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Models become a leading axis: one scan for all of them."""
        moved = [
            x.expand(info.batch_size, *x.shape) if axis is None else x.movedim(axis, 0)
            for x, axis in zip(inputs, in_dims, strict=True)
        ]
        y, h = _SelectiveScan.apply(*moved)
        return (y, h), (0, 0)


def selective_scan(
    u: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "state channels"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch length state channels"]]:
    """y_t = C_t h_t with h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t, and all h (from which no gradient flows).

    Channels stand last, so that every step is a few long rows; with the state last, of which there are few, each
    product of Δ with B is three times as slow and more.
    """
    y, h = _SelectiveScan.apply(u, delta, a, b, c)
    return y, h
