"""Kernels of a dense state-space model: what S4's kernel is compared with.

All take a real A [heads, n, n], B and C [heads, n] and a step Δ [heads], discretise with the bilinear transform (its
solve is part of their cost, as it is in training, where A and Δ change every step) and return
K[l] = C Ā^l B̄ [heads, length]. They differ only in how the powers are walked:

* `recurrence`: one matrix-vector product a step, O(N²L) time. The definition.
* `doubling`: [K, Ā^(2^k) K], O(N²L + N³ log L) time in log L matrix products, O(NL) memory: the Krylov function of
  the linear state-space layer (Gu et al. 2021, arXiv 2110.13985).
* `baby_giant`: C Ā^(s·i) for √L values of i times Ā^j B̄ for √L values of j, O(NL + N²√L + N³ log L) time. Paterson and
  Stockmeyer's baby steps and giant steps (1973); the strongest dense method here, and not in the paper.
* `eigen`: diagonalise A, then a Vandermonde product. HiPPO's eigenvectors are too ill-conditioned for this
  (arXiv 2111.00396, Lemma 3.2); it is here to show that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

Dense = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]

STATES_AT_ONCE = 256  # recurrence: how many states are held before they meet C


def discretise(
    a: Float[Tensor, "heads n n"], b: Float[Tensor, "heads n"], step: Float[Tensor, " heads"]
) -> tuple[Float[Tensor, "heads n n"], Float[Tensor, "heads n"]]:
    """Bilinear: Ā = (I − Δ/2 A)⁻¹ (I + Δ/2 A), B̄ = (I − Δ/2 A)⁻¹ Δ B."""
    half = a * (step[:, None, None] / 2)
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    right = torch.cat([identity + half, (step[:, None] * b)[..., None]], dim=-1)
    solved = torch.linalg.solve(identity - half, right)
    return solved[..., :-1].contiguous(), solved[..., -1].contiguous()


def recurrence(a: Tensor, b: Tensor, c: Tensor, step: Tensor, length: int) -> Float[Tensor, "heads length"]:
    """xᵀ ← xᵀ Āᵀ from x = B̄, one state after another, each met with C; memory O(N²) beside a fixed number of states.

    Written with rows because torch's batched product of a matrix and a column takes two to five times as long.
    """
    transition, first = discretise(a, b, step)
    transition = transition.transpose(1, 2).contiguous()
    heads, n = first.shape
    held = torch.empty(min(STATES_AT_ONCE, length), heads, 1, n, dtype=a.dtype, device=a.device)
    held[0, :, 0] = first
    slots = held.unbind(0)
    kernel = torch.empty(heads, length, dtype=a.dtype, device=a.device)
    for start in range(0, length, len(slots)):
        if start:
            torch.bmm(slots[-1], transition, out=slots[0])
        count = min(len(slots), length - start)
        for before, after in pairwise(slots[:count]):
            torch.bmm(before, transition, out=after)
        kernel[:, start : start + count] = torch.einsum("lhn,hn->hl", held[:count, :, 0], c)
    return kernel


def doubling(a: Tensor, b: Tensor, c: Tensor, step: Tensor, length: int) -> Float[Tensor, "heads length"]:
    """All states [B̄, ĀB̄, Ā²B̄, ...], twice as many with each matrix product."""
    power, x = discretise(a, b, step)
    states = torch.empty(*x.shape, length, dtype=a.dtype, device=a.device)
    states[..., 0] = x
    done = 1
    while done < length:
        count = min(done, length - done)
        states[..., done : done + count] = power @ states[..., :count]
        done += count
        if done < length:
            power = power @ power
    return (c[:, None] @ states)[:, 0]


def baby_giant(a: Tensor, b: Tensor, c: Tensor, step: Tensor, length: int) -> Float[Tensor, "heads length"]:
    """K[s·i + j] = (C Ā^(s·i)) (Ā^j B̄), with s the power of two nearest √L; the giant steps are doubled too."""
    power, x = discretise(a, b, step)
    doublings = round(math.log2(length) / 2) if length > 1 else 0
    right = x[..., None]
    for _ in range(doublings):
        right = torch.cat([right, power @ right], dim=-1)
        power = power @ power
    giants = -(-length // 2**doublings)
    left = c[:, None]
    while left.shape[1] < giants:
        left = torch.cat([left, left @ power], dim=1)
        if left.shape[1] < giants:
            power = power @ power
    return (left[:, :giants] @ right).flatten(1)[:, :length]


def eigen(a: Tensor, b: Tensor, c: Tensor, step: Tensor, length: int) -> Float[Tensor, "heads length"]:
    """K[l] = Re Σ_n (C V)_n λ̄_n^l (V⁻¹ B̄)_n from a general eigensolver. Exact on paper, meaningless for HiPPO."""
    eigenvalues, basis = torch.linalg.eig(a)
    over = 2 / step[:, None]
    discrete = (over + eigenvalues) / (over - eigenvalues)
    driven = torch.linalg.solve_ex(basis, b.to(basis.dtype)).result * (2 / (over - eigenvalues))
    weights = (c.to(basis.dtype)[:, None] @ basis)[:, 0] * driven
    exponents = torch.arange(length, dtype=step.dtype, device=step.device)
    powers = torch.exp(torch.log(discrete)[..., None] * exponents)
    return (weights[:, None] @ powers)[:, 0].real


METHODS: dict[str, Dense] = {
    "dense-recurrence": recurrence,
    "dense-doubling": doubling,
    "dense-baby-giant": baby_giant,
    "dense-eigen": eigen,
}
