"""A downstream task on frozen features: standardised features, a linear truth, noise, and the risk of a fitted head.

y = B' phi(x) + e, B isotropic with |B|_F = rho, e of covariance Sigma_e and independent of x. The risk is
E |phi'(B^ - B)|^2: how far the head's answer lies from the truth, noise apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError
from claimbench.papers.theory.hmm_complexity.heads import fit_heads

Sampler = Callable[[int], Float[Tensor, "count features"]]
"""Features of so many fresh, independent examples."""

RANK = 1e-10  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class Standard:
    """How raw features become standardised ones: centred, turned to the principal directions, scaled.

    scale: 1 / standard deviation of each direction (whitened), or one number for all so that variances average to 1.
    """

    mean: Float[Tensor, " features"]
    basis: Float[Tensor, "features rank"]
    scale: Float[Tensor, " rank"]
    spectrum: Float[Tensor, " rank"]
    """Eigenvalues of the covariance after scaling, as estimated."""

    def __call__(self, raw: Float[Tensor, "*count features"]) -> Float[Tensor, "*count rank"]:
        return (raw - self.mean) @ self.basis * self.scale


def standardise(fresh: Float[Tensor, "count features"], *, whiten: bool, most: int | None = None) -> Standard:
    """From examples that no head is fitted to; at least 5 a feature make the covariance usable.

    Directions of no variance are dropped (filters sum to 1, so that one always is). most: keep the leading ones.
    """
    mean = fresh.mean(0)
    covariance = (fresh - mean).T @ (fresh - mean) / (len(fresh) - 1)
    values, vectors = torch.linalg.eigh(covariance)
    kept = torch.nonzero(values > RANK * values[-1])[:, 0].flip(0)[:most]
    if not len(kept):
        raise UserError("features: no direction has any variance")
    values, vectors = values[kept], vectors[:, kept]
    if whiten:
        return Standard(mean, vectors, values.rsqrt(), torch.ones_like(values))
    scale = values.mean().rsqrt().expand(len(values))
    return Standard(mean, vectors, scale, values / values.mean())


def noise_root(outputs: int, noise: float, shape: str) -> Float[np.ndarray, "outputs outputs"]:
    """R with R R' = Sigma_e and trace `noise`. shape: `isotropic`, or `rank-one` (all outputs err together)."""
    if shape == "isotropic":
        return np.eye(outputs) * np.sqrt(noise / outputs)
    if shape == "rank-one":
        root = np.zeros((outputs, outputs))
        root[:, 0] = np.sqrt(noise / outputs)
        return root
    raise UserError(f'noise shape "{shape}": there are isotropic and rank-one')


@dataclass(frozen=True)
class Task:
    """A linear task. dimensions: the leading features that carry the signal, equally (None: all)."""

    outputs: int = 3
    signal: float = 1.0
    noise: float = 0.25
    shape: str = "isotropic"
    dimensions: int | None = None

    def truth(
        self, draws: int, features: int, generator: torch.Generator, device: str
    ) -> Float[Tensor, "draws features outputs"]:
        """B of each draw: isotropic, |B|_F^2 = signal exactly."""
        used = features if self.dimensions is None else min(self.dimensions, features)
        head = torch.zeros(draws, features, self.outputs, dtype=torch.float64, device=device)
        drawn = torch.randn(
            draws, used, self.outputs, dtype=torch.float64, device=device, generator=generator
        )
        head[:, :used] = drawn * (self.signal**0.5) / drawn.flatten(1).norm(dim=1)[:, None, None]
        return head

    def errors(
        self, draws: int, samples: int, generator: torch.Generator, device: str
    ) -> Float[Tensor, "draws samples outputs"]:
        root = torch.tensor(noise_root(self.outputs, self.noise, self.shape), device=device)
        drawn = torch.randn(
            draws, samples, self.outputs, dtype=torch.float64, device=device, generator=generator
        )
        return drawn @ root.T


def head_risks(
    head: str,
    train: Float[Tensor, "draws samples features"],
    test: Float[Tensor, "#draws count features"],
    task: Task,
    generator: torch.Generator,
    *,
    resolved: int | None = None,
) -> Float[Tensor, " draws"]:
    """Risk of a head in each draw of a truth, noise and training examples, over the test examples.

    resolved: how many leading features the head may use; the truth may use all.
    """
    draws, samples, features = train.shape
    device = str(train.device)
    truth = task.truth(draws, features, generator, device)
    targets = train @ truth + task.errors(draws, samples, generator, device)
    used = slice(0, resolved)
    fitted = fit_heads(head, train[..., used], targets)
    missed = test[..., used] @ fitted - test @ truth
    return (missed**2).sum(2).mean(1)
