"""The Gaussian mixture: pretraining by EM, then one label a component (Ge et al., 2023, arXiv 2303.01566).

x | z = k ~ N(u_k, I_d) with K equal weights; the label is one bit of the component, flipped with a known probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp, softmax

from claimbench.errors import UserError

ROUNDS, SHORT_ROUNDS, TOLERANCE, STARTS = 200, 12, 1e-6, 8


@dataclass(frozen=True)
class MixtureTask:
    """means: u_k. bits: the label of each component. flip: how often a label is wrong."""

    means: Float[np.ndarray, "k d"]
    bits: Bool[np.ndarray, " k"]
    flip: float

    def sample(
        self, n: int, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
        """Inputs and labels 0 or 1."""
        component = rng.integers(len(self.means), size=n)
        x = self.means[component] + rng.standard_normal((n, self.means.shape[1]))
        return x, (self.bits[component] ^ (rng.random(n) < self.flip)).astype(np.int64)

    def chance(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """P(y = 1 | x), exactly."""
        share = responsibilities(X, self.means) @ self.bits
        return self.flip + (1 - 2 * self.flip) * share

    def excess_error(self, predicted: Bool[np.ndarray, " n"], X: Float[np.ndarray, "n d"]) -> float:
        """Error rate above the best rule's, over labels given these inputs: mean of |2 P(y = 1 | x) - 1| where they
        differ.
        """
        chance = self.chance(X)
        return float((np.abs(2 * chance - 1) * (predicted != (chance > 0.5))).mean())


def random_mixture(k: int, d: int, separation: float, flip: float, rng: np.random.Generator) -> MixtureTask:
    """k means whose pairwise distances are all `separation`, in random directions; half of the labels are 1.

    Raises UserError for more means than columns.
    """
    if k > d:
        raise UserError(f"{k} components in {d} columns; equal distances need at most {d}")
    directions = np.linalg.qr(rng.standard_normal((d, k)))[0].T
    bits = rng.permutation(k) < k // 2
    return MixtureTask(separation / math.sqrt(2) * directions, bits, flip)


def log_densities(X: Float[np.ndarray, "n d"], means: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "n k"]:
    """log (1/K) N(x; u_k, I), up to nothing."""
    squares = (X**2).sum(1)[:, None] - 2 * X @ means.T + (means**2).sum(1)
    return -0.5 * squares - 0.5 * X.shape[1] * math.log(2 * math.pi) - math.log(len(means))


def responsibilities(
    X: Float[np.ndarray, "n d"], means: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, "n k"]:
    """P(z = k | x): rows sum to 1."""
    return softmax(log_densities(X, means), axis=1)


def likelihood(X: Float[np.ndarray, "n d"], means: Float[np.ndarray, "k d"]) -> float:
    """Mean log density a point, in nats."""
    return float(logsumexp(log_densities(X, means), axis=1).mean())


def em_path(
    X: Float[np.ndarray, "m d"], means: Float[np.ndarray, "k d"], rounds: int = ROUNDS
) -> tuple[Float[np.ndarray, "k d"], list[float]]:
    """EM for the means from a start, equal weights and unit covariance known; the log likelihood before each round."""
    path: list[float] = []
    for _ in range(rounds):
        densities = log_densities(X, means)
        path.append(float(logsumexp(densities, axis=1).mean()))
        if len(path) > 1 and path[-1] - path[-2] < TOLERANCE:
            break
        shares = softmax(densities, axis=1)
        mass = shares.sum(0)
        # A component that no point belongs to stays where it is.
        means = np.where(mass[:, None] > 1e-12, shares.T @ X / np.maximum(mass, 1e-12)[:, None], means)
    return means, path


def fit_means(X: Float[np.ndarray, "m d"], k: int, rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    """Maximum likelihood by EM: eight short runs, each from k points far from one another (k-means++),
    of which the likeliest goes on to the end (Biernacki, Celeux and Govaert, 2003).

    Raises UserError for fewer points than components.
    """
    if len(X) < k:
        raise UserError(f"{len(X)} points for {k} components; give at least as many points")
    short = [em_path(X, _far_points(X, k, rng), SHORT_ROUNDS) for _ in range(STARTS)]
    likeliest = max(short, key=lambda found: found[1][-1])[0]
    return em_path(X, likeliest)[0]


def _far_points(X: Float[np.ndarray, "m d"], k: int, rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    """k-means++ (Arthur and Vassilvitskii, 2007): each further point drawn in proportion to its squared distance."""
    chosen = [int(rng.integers(len(X)))]
    nearest = ((X - X[chosen[0]]) ** 2).sum(1)
    for _ in range(k - 1):
        chosen.append(int(rng.choice(len(X), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, ((X - X[chosen[-1]]) ** 2).sum(1))
    return X[chosen]


def label_components(shares: Float[np.ndarray, "n k"], y: Int[np.ndarray, " n"]) -> Float[np.ndarray, " k"]:
    """The bit of each component with the fewest errors on the labelled points, weighted by responsibility.

    A component that no labelled point belongs to takes the majority's label.
    """
    votes = shares.T @ (2.0 * y - 1)
    mass = shares.sum(0)
    majority = float(2 * y.sum() >= len(y))
    return np.where(mass < 1e-3, majority, (votes > 0).astype(float))


def predict_labels(shares: Float[np.ndarray, "n k"], bits: Float[np.ndarray, " k"]) -> Bool[np.ndarray, " n"]:
    """The likelier label where each component has the label given."""
    return shares @ bits > 0.5
