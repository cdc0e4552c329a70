"""Contrastive pretraining: which of two inputs belong together (Ge et al., 2023, arXiv 2303.01566).

Pairs (x, x') carry t in {0, 1} with P(t = 1 | x, x') = sigmoid(f(x)'f(x')), f(x) = B'x of rank r. B is fitted by
maximum likelihood; downstream y = beta'f(x) + noise.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import expit

from claimbench.errors import UserError

MOST_ROUNDS = 300


def sample_pairs(
    loadings: Float[np.ndarray, "d r"], m: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m d"], Int[np.ndarray, " m"]]:
    """m pairs of standard normal inputs, and whether they belong together."""
    left, right = rng.standard_normal((2, m, len(loadings)))
    together = rng.random(m) < expit(((left @ loadings) * (right @ loadings)).sum(1))
    return left, right, together.astype(np.int64)


def pair_loss(
    loadings: Float[np.ndarray, "d r"],
    left: Float[np.ndarray, "m d"],
    right: Float[np.ndarray, "m d"],
    together: Int[np.ndarray, " m"],
) -> tuple[float, Float[np.ndarray, "d r"]]:
    """Mean logistic loss in nats, and its slope in B."""
    u, v = left @ loadings, right @ loadings
    logits = (u * v).sum(1)
    loss = float(np.mean(np.logaddexp(0, logits) - together * logits))
    gap = (expit(logits) - together)[:, None] / len(together)
    return loss, left.T @ (gap * v) + right.T @ (gap * u)


def fit_contrastive(
    left: Float[np.ndarray, "m d"],
    right: Float[np.ndarray, "m d"],
    together: Int[np.ndarray, " m"],
    r: int,
) -> Float[np.ndarray, "d r"]:
    """B by maximum likelihood (L-BFGS), up to rotation, started at the spectrum of the pairs.

    E (t - 1/2) x x'^T is positive semi-definite with the range of B, which its top eigenvectors estimate. Raises
    UserError unless 0 < r <= d.
    """
    d = left.shape[1]
    if not 0 < r <= d:
        raise UserError(f"r = {r} features of {d} columns; choose 1 to {d}")
    moment = left.T @ ((together - 0.5)[:, None] * right) / len(together)
    values, vectors = np.linalg.eigh((moment + moment.T) / 2)
    start = vectors[:, -r:] * np.sqrt(np.maximum(4 * values[-r:], 0.1))

    def objective(flat: Float[np.ndarray, " numbers"]) -> tuple[float, Float[np.ndarray, " numbers"]]:
        loss, slope = pair_loss(flat.reshape(d, r), left, right, together)
        return loss, slope.ravel()

    found = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MOST_ROUNDS, "ftol": 1e-12}
    )
    return found.x.reshape(d, r)
