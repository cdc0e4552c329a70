"""The S4 kernel: a diagonal-plus-low-rank state-space model as a convolution and as a recurrence.

Albert Gu, Karan Goel, Christopher Ré: Efficiently Modeling Long Sequences with Structured State Spaces (2021, ICLR
2022), arXiv 2111.00396, Section 3 and Appendix C.

    x' = A x + B u,   y = C x,   A = Λ − p p*                                   (continuous time; H independent copies)
    Ā = (I − Δ/2 A)⁻¹ (I + Δ/2 A),   B̄ = (I − Δ/2 A)⁻¹ Δ B                      (bilinear, step Δ)
    K[l] = C Ā^l B̄,   y = K ∗ u

Shapes: Λ, p, B, C, C̃ are complex [heads, n]; Δ is real [heads]; K is real [heads, length]. With `conjugate=True` (the
default) the n entries are one of each conjugate pair of a state of size N = 2n, and sums are twice their real part.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from claimbench.papers.sequence.s4.cauchy import cauchy


class Recurrence(NamedTuple):
    """One step in O(N): x ← decay∘x − column·(row·x) + inputs·u, then y = outputs·x; see `recurrence`."""

    decay: Complex[Tensor, "heads n"]
    column: Complex[Tensor, "heads n"]
    row: Complex[Tensor, "heads n"]
    inputs: Complex[Tensor, "heads n"]
    outputs: Complex[Tensor, "heads n"]


def frequencies(
    length: int, dtype: torch.dtype, device: torch.device | None = None
) -> Float[Tensor, " points"]:
    """tan(πj/L) for j = 0 .. ⌈L/2⌉−1: the roots of unity ω = exp(−2πij/L) under the bilinear map.

    (1−ω)/(1+ω) = i·tan(πj/L) and 2/(1+ω) = 1 + i·tan(πj/L). Computed in float64 whatever the kernel's precision: close
    to ω = −1 the tangent of a rounded angle would lose half of float32's digits. ω = −1 itself is left out.
    """
    j = torch.arange((length + 1) // 2, dtype=torch.float64, device=device)
    return torch.tan(j * (math.pi / length)).to(dtype)


def dplr_kernel(
    eigenvalues: Complex[Tensor, "heads n"],
    low_rank: Complex[Tensor, "heads n"] | None,
    inputs: Complex[Tensor, "heads n"],
    truncated: Complex[Tensor, "heads n"],
    step: Float[Tensor, " heads"],
    length: int,
    *,
    conjugate: bool = True,
) -> Float[Tensor, "heads length"]:
    """K[l] = C Ā^l B̄ for l < length, from Λ, p, B, C̃ = C (I − Ā^length) and Δ (Algorithm 1).

    The generating function Σ_l K[l] ω^l at the length-th roots of unity is

        K̂(ω) = 2/(1+ω) · [k(C̃,B) − k(C̃,p) k(p*,B) / (1 + k(p*,p))],   k(a,b) = Σ_n a_n b_n / (z − λ_n),
        z = 2/Δ · (1−ω)/(1+ω),   and (Δ/2)·C̃B where ω = −1 (even length),

    whose inverse transform is K. Time O(H·(N·L + L log L)), memory O(H·(N + L)). low_rank None means p = 0: a diagonal
    model. Differentiable once in all five tensors. Re Λ must be negative.
    """
    half_step = step[:, None] / 2
    if low_rank is None:
        weights = (truncated * inputs)[:, None]
    else:
        conjugated = low_rank.conj()
        weights = torch.stack(
            [truncated * inputs, truncated * low_rank, conjugated * inputs, conjugated * low_rank], dim=1
        )
    poles = eigenvalues
    if conjugate:
        poles = torch.cat([poles, poles.conj()], dim=-1)
        weights = torch.cat([weights, weights.conj()], dim=-1)
    y = frequencies(length, step.dtype, step.device)
    # z − λ = (2/Δ)(iy − λΔ/2): Δ enters through poles and weights, so the nodes are the same for all heads.
    sums = cauchy(y, poles * half_step, weights * half_step[:, None])
    spectrum = sums[:, 0]
    if low_rank is not None:
        spectrum = spectrum - sums[:, 1] * sums[:, 2] / (1 + sums[:, 3])
    spectrum = spectrum * torch.complex(torch.ones_like(y), y)
    if length % 2 == 0:
        spectrum = torch.cat([spectrum, half_step * weights[:, 0].sum(-1, keepdim=True)], dim=-1)
    return torch.fft.irfft(spectrum, n=length)


def recurrence(
    eigenvalues: Complex[Tensor, "heads n"],
    low_rank: Complex[Tensor, "heads n"] | None,
    inputs: Complex[Tensor, "heads n"],
    outputs: Complex[Tensor, "heads n"],
    step: Float[Tensor, " heads"],
) -> Recurrence:
    """Ā = A₁A₀ and B̄ = 2A₁B as diagonal plus rank one (Appendix C.2), for conjugate pairs. outputs is C, not C̃.

    A₁ = (2/Δ − A)⁻¹ = D − D p r p* D with D = (2/Δ − Λ)⁻¹ and r = 1/(1 + p*Dp), and A₀ = 4/Δ − (2/Δ − A), so
    Ā = 4/Δ·A₁ − I. Sums over all N entries are twice the real part of those over the n that are held.
    """
    over = 2 / step[:, None]
    d = 1 / (over - eigenvalues)
    if low_rank is None:
        zero = torch.zeros_like(d)
        return Recurrence(2 * over * d - 1, zero, zero, 2 * d * inputs, 2 * outputs)
    row = 2 * low_rank.conj() * d
    column = d * low_rank / (1 + (row * low_rank).real.sum(-1, keepdim=True))
    driven = d * inputs - column * (row * inputs).real.sum(-1, keepdim=True)
    return Recurrence(2 * over * d - 1, 2 * over * column, row, 2 * driven, 2 * outputs)


def advance(
    model: Recurrence, u: Float[Tensor, "batch heads"], state: Complex[Tensor, "batch heads n"]
) -> tuple[Float[Tensor, "batch heads"], Complex[Tensor, "batch heads n"]]:
    """One token: the output and the next state, in O(batch·heads·n)."""
    fed_back = _real_inner(model.row, state)
    state = model.decay * state
    # u and the fed-back number are real, so both rank-one terms are added to real and imaginary parts alike.
    parts = torch.view_as_real(state)
    parts.addcmul_(torch.view_as_real(model.inputs), u[..., None, None])
    parts.addcmul_(torch.view_as_real(model.column), fed_back[..., None, None], value=-1)
    return _real_inner(model.outputs, state), state


def _real_inner(
    row: Complex[Tensor, "heads n"], state: Complex[Tensor, "batch heads n"]
) -> Float[Tensor, "batch heads"]:
    """Re Σ_n row·state, as a product of the stored real and imaginary parts: Re(ab) = (Re ā)(Re b) + (Im ā)(Im b)."""
    left = torch.view_as_real(row.conj().resolve_conj()).flatten(-2)
    right = torch.view_as_real(state).flatten(-2)
    return torch.einsum("hn,bhn->bh", left, right)


def transition(model: Recurrence) -> Float[Tensor, "heads two_n two_n"]:
    """Ā on the real state [Re x; Im x], dense: for powers of Ā, which is where O(N³) cannot be avoided."""
    decay, column, row = model.decay, model.column, model.row
    left = torch.cat([column.real, column.imag], dim=-1)
    right = torch.cat([row.real, -row.imag], dim=-1)
    real, imag = torch.diag_embed(decay.real), torch.diag_embed(decay.imag)
    diagonal = torch.cat([torch.cat([real, -imag], dim=-1), torch.cat([imag, real], dim=-1)], dim=-2)
    return diagonal - left[:, :, None] * right[:, None, :]


def truncate(
    eigenvalues: Complex[Tensor, "heads n"],
    low_rank: Complex[Tensor, "heads n"] | None,
    outputs: Complex[Tensor, "heads n"],
    step: Float[Tensor, " heads"],
    length: int,
) -> Complex[Tensor, "heads n"]:
    """C̃ = C (I − Ā^length), which `dplr_kernel` takes. Conjugate pairs; computed in float64, O(H N³ log length)."""
    row, power = _row_and_power(eigenvalues, low_rank, outputs, step, length)
    return _from_row(row - row @ power).to(outputs.dtype)


def untruncate(
    eigenvalues: Complex[Tensor, "heads n"],
    low_rank: Complex[Tensor, "heads n"] | None,
    truncated: Complex[Tensor, "heads n"],
    step: Float[Tensor, " heads"],
    length: int,
) -> Complex[Tensor, "heads n"]:
    """C = C̃ (I − Ā^length)⁻¹, which `recurrence` takes: the inverse of `truncate`."""
    row, power = _row_and_power(eigenvalues, low_rank, truncated, step, length)
    factor = torch.eye(power.shape[-1], dtype=power.dtype, device=power.device) - power
    return _from_row(torch.linalg.solve(factor, row, left=False)).to(truncated.dtype)


def double(
    eigenvalues: Complex[Tensor, "heads n"],
    low_rank: Complex[Tensor, "heads n"] | None,
    truncated: Complex[Tensor, "heads n"],
    step: Float[Tensor, " heads"],
    length: int,
) -> Complex[Tensor, "heads n"]:
    """C̃ (I + Ā^length) = C (I − Ā^(2·length)): the same kernel, for sequences twice as long."""
    row, power = _row_and_power(eigenvalues, low_rank, truncated, step, length)
    return _from_row(row + row @ power).to(truncated.dtype)


def _row_and_power(
    eigenvalues: Tensor, low_rank: Tensor | None, outputs: Tensor, step: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """C as a real row [H, 1, 2n] on the real state [Re x; Im x], and Ā^length [H, 2n, 2n], both float64."""
    lam, c = eigenvalues.to(torch.complex128), outputs.to(torch.complex128)
    p = None if low_rank is None else low_rank.to(torch.complex128)
    dense = transition(recurrence(lam, p, torch.zeros_like(lam), c, step.double()))
    return torch.cat([c.real, -c.imag], dim=-1)[:, None], torch.linalg.matrix_power(dense, length)


def _from_row(row: Tensor) -> Tensor:
    real, imag = row[:, 0].chunk(2, dim=-1)
    return torch.complex(real, -imag)
