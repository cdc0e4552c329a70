"""The Rashomon set of ridge regression: an ellipsoid with a closed-form volume (arXiv 1908.01755, section on ridge).

With the loss L(w) = ||X w - y||^2 + C ||w||^2, a sum over rows, and the best w*, L(w) - L(w*) is the quadratic form
(w - w*)' (X'X + C I) (w - w*). So the models within theta of the best fill an ellipsoid of volume

    pi^(p/2) theta^(p/2) / Gamma(p/2 + 1) * prod_i (sigma_i^2 + C)^(-1/2),

sigma_i the singular values of X. theta is in units of the summed loss; with a loss per row it would be n times as
large.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from claimbench.errors import UserError


def log_rashomon_volume(X: Float[np.ndarray, "n p"], theta: float, C: float = 1.0) -> float:
    """Natural logarithm of the set's volume; -infinity for theta = 0.

    Raises UserError if theta or C is negative, or if the set is unbounded (C = 0 and columns that depend on each
    other).

        >>> log_rashomon_volume(X, theta=1.0)
    """
    X = np.asarray(X, dtype=np.float64)
    if theta < 0 or C < 0:
        raise UserError(f"theta = {theta}, C = {C}; neither may be negative")
    p = X.shape[1]
    eigenvalues = np.zeros(p)
    singular = np.linalg.svd(X, compute_uv=False)
    eigenvalues[: len(singular)] = singular**2
    if C == 0 and eigenvalues.min() <= np.finfo(float).eps * max(X.shape) * eigenvalues.max():
        raise UserError("C = 0 and dependent columns: the Rashomon set is unbounded; give C > 0")
    if theta == 0:
        return -math.inf
    scale = p / 2 * math.log(math.pi * theta) - gammaln(p / 2 + 1)
    return float(scale - np.log(eigenvalues + C).sum() / 2)


def ridge_loss(
    X: Float[np.ndarray, "n p"], y: Float[np.ndarray, " n"], w: Float[np.ndarray, "models p"], C: float = 1.0
) -> Float[np.ndarray, " models"]:
    """||X w - y||^2 + C ||w||^2 of each row of w."""
    return np.square(w @ X.T - y).sum(axis=1) + C * np.square(w).sum(axis=1)


def ridge_fit(
    X: Float[np.ndarray, "n p"], y: Float[np.ndarray, " n"], C: float = 1.0
) -> Float[np.ndarray, " p"]:
    """The model of least loss."""
    return np.linalg.solve(X.T @ X + C * np.eye(X.shape[1]), X.T @ y)


def sampled_log_volume(
    X: Float[np.ndarray, "n p"],
    y: Float[np.ndarray, " n"],
    theta: float,
    draws: int,
    rng: np.random.Generator,
    C: float = 1.0,
) -> float:
    """The same by Monte Carlo on the losses: the share of a box around the set whose models are within theta of the
    best.

    The box is the smallest with sides along the axes. Losses are those of X reduced to its triangular factor, which
    differ from the full ones by a constant. Raises UserError if no draw falls into the set.
    """
    p = X.shape[1]
    best = ridge_fit(X, y, C)
    reduced = np.asarray(np.linalg.qr(np.column_stack([X, y]), mode="r"))
    R, z = reduced[:, :p], reduced[:, p]
    half = np.sqrt(theta * np.diag(np.linalg.inv(X.T @ X + C * np.eye(p))))
    least = ridge_loss(R, z, best[None], C)[0]
    inside = 0
    for size in [100_000] * (draws // 100_000) + [draws % 100_000]:
        w = best + half * rng.uniform(-1, 1, (size, p))
        inside += int((ridge_loss(R, z, w, C) <= least + theta).sum())
    if not inside:
        raise UserError(f"none of {draws} draws fell into the set; ask for more")
    return float(np.log(2 * half).sum() + math.log(inside / draws))


def log_rashomon_ratio(X: Float[np.ndarray, "n p"], theta: float, radius: float, C: float = 1.0) -> float:
    """Logarithm of the ratio of the set to the ball of this radius: what prior w has. The set must lie inside it."""
    p = X.shape[1]
    ball = p / 2 * math.log(math.pi) - gammaln(p / 2 + 1) + p * math.log(radius)
    return log_rashomon_volume(X, theta, C) - float(ball)
