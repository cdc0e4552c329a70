"""State matrices: HiPPO-LegS, its normal-plus-low-rank form, and the initialisations that are compared with it.

HiPPO: Gu, Dao, Ermon, Rudra, Ré 2020, arXiv 2008.07669. NPLR: Gu, Goel, Ré 2021, arXiv 2111.00396, Theorem 1 and
Appendix C. S4D-Lin: Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893.

A state-space model is x' = A x + B u, y = C x. Every function here returns float64 or complex128: the eigenvectors
are wanted to full precision, and a model casts afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor


class HalfSSM(NamedTuple):
    """A = Λ − p p* and B in the eigenbasis of the normal part: one member of each conjugate pair.

    eigenvalues Λ, low_rank p and inputs B are complex128 of shape [N/2]. The other N/2 entries are their conjugates,
    so a real output is twice the real part of a sum over these.
    """

    eigenvalues: Complex[Tensor, " half"]
    low_rank: Complex[Tensor, " half"]
    inputs: Complex[Tensor, " half"]


class NPLR(NamedTuple):
    """A = V (Λ − p p*) V*: normal plus low rank, all N eigenvalues, V unitary. Ascending imaginary part."""

    eigenvalues: Complex[Tensor, " n"]
    low_rank: Complex[Tensor, " n"]
    inputs: Complex[Tensor, " n"]
    basis: Complex[Tensor, "n n"]


Initialisation = Callable[[int, "torch.Generator | None"], HalfSSM]


def hippo_legs(n: int) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """HiPPO-LegS (Eq. 2): A[i,k] = −√((2i+1)(2k+1)) if i > k, −(i+1) if i = k, 0 if i < k; B[i] = √(2i+1)."""
    if n < 1:
        raise ValueError(f"a state has at least one dimension, not {n}")
    root = torch.sqrt(2 * torch.arange(n, dtype=torch.float64) + 1)
    a = -torch.tril(torch.outer(root, root), diagonal=-1) - torch.diag(
        torch.arange(1, n + 1, dtype=torch.float64)
    )
    return a, root


def nplr(n: int) -> NPLR:
    """HiPPO-LegS as normal plus low rank: with P[i] = √(i+½), A + P Pᵀ = −½ I + S and S is skew-symmetric.

    −i S is Hermitian, so a Hermitian eigensolver gives a unitary V, where HiPPO's own eigenvectors have a condition
    number that grows as 2^(4N/3) (Lemma 3.2). The real part of every eigenvalue is −½ by construction.
    """
    a, b = hippo_legs(n)
    p = torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)
    skew = a + torch.outer(p, p) + 0.5 * torch.eye(n, dtype=torch.float64)
    frequencies, basis = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    adjoint = basis.conj().T
    return NPLR(-0.5 + 1j * frequencies, adjoint @ p.to(basis.dtype), adjoint @ b.to(basis.dtype), basis)


def _even(n: int) -> int:
    if n < 2 or n % 2:
        raise ValueError(
            f"the state is held as conjugate pairs, so its size must be even and positive, not {n}"
        )
    return n // 2


def hippo(n: int, generator: torch.Generator | None = None) -> HalfSSM:
    """HiPPO-LegS in NPLR form, the half with positive imaginary parts. Deterministic."""
    half = _even(n)
    full = nplr(n)
    return HalfSSM(full.eigenvalues[half:], full.low_rank[half:], full.inputs[half:])


def s4d_lin(n: int, generator: torch.Generator | None = None) -> HalfSSM:
    """S4D-Lin: Λ[k] = −½ + iπk, B = 1, no low-rank term (arXiv 2206.11893, Eq. 9). Deterministic."""
    half = _even(n)
    eigenvalues = -0.5 + 1j * math.pi * torch.arange(half, dtype=torch.float64)
    return HalfSSM(eigenvalues, torch.zeros_like(eigenvalues), torch.ones_like(eigenvalues))


def random_dplr(n: int, generator: torch.Generator | None = None) -> HalfSSM:
    """A random stable diagonal plus a random rank-1 term: the same structure as HiPPO's, without its values.

    Frequencies are uniform over S4D-Lin's range [0, πN/2) and decays are its ½, so that the baseline is not handicapped
    by a bad scale; p and B are complex Gaussian of unit variance. A − (−½ I) is skew-Hermitian minus p p*: stable.
    """
    half = _even(n)
    frequencies = math.pi * half * torch.rand(half, dtype=torch.float64, generator=generator)
    p, b = torch.randn(2, half, dtype=torch.complex128, generator=generator)
    return HalfSSM(-0.5 + 1j * frequencies, p, b)


def random_normal(n: int, generator: torch.Generator | None = None) -> HalfSSM:
    """A random structured matrix as one draws it without the theory: frequencies, p and B standard normal, decays ½."""
    half = _even(n)
    frequencies = torch.randn(half, dtype=torch.float64, generator=generator)
    p, b = torch.randn(2, half, dtype=torch.complex128, generator=generator)
    return HalfSSM(-0.5 + 1j * frequencies, p, b)


def random_dense(
    n: int, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """A dense Gaussian A, scaled to spectral radius N/2, shifted so that its slowest mode decays at rate ½; B Gaussian.

    The shift is the least that makes it as stable as the other initialisations; the radius gives its fastest modes a
    range of N/2, and the step size is chosen for it as for the others.
    """
    a = torch.randn(n, n, dtype=torch.float64, generator=generator)
    eigenvalues = torch.linalg.eigvals(a)
    a = a * (0.5 * n / eigenvalues.abs().max())
    slowest = torch.linalg.eigvals(a).real.max()
    b = torch.randn(n, dtype=torch.float64, generator=generator)
    return a - (slowest + 0.5) * torch.eye(n, dtype=torch.float64), b


INITIALISATIONS: dict[str, Initialisation] = {
    "hippo": hippo,
    "s4d-lin": s4d_lin,
    "random-dplr": random_dplr,
    "random-normal": random_normal,
}


def real_form(half: HalfSSM) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """The same system with a real state: x = √2 [Re z; Im z] of the half state z. A [N, N] and B [N], float64.

    z' = Λz − p·2Re(p*z) + B u for a real input, because the conjugate half of the state is z's conjugate.
    """
    lam, p, b = half
    diagonal = torch.cat(
        [
            torch.cat([torch.diag(lam.real), -torch.diag(lam.imag)], dim=1),
            torch.cat([torch.diag(lam.imag), torch.diag(lam.real)], dim=1),
        ]
    )
    stacked = torch.cat([p.real, p.imag])
    a = diagonal - 2 * torch.outer(stacked, stacked)
    return a, math.sqrt(2) * torch.cat([b.real, b.imag])
