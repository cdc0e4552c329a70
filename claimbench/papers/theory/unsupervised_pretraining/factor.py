"""The factor model: pretraining by maximum likelihood in closed form, and the exact risk of a linear predictor.

Ge, Tang, Fan and Jin, "On the Provable Advantage of Unsupervised Pretraining", 2023, arXiv 2303.01566, section on
factor models: x = B z + u, z ~ N(0, I_r), u ~ N(0, I_d), and downstream y = beta'z + noise. With the noise of x known
the maximum-likelihood B is that of probabilistic principal components (Tipping and Bishop, 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from claimbench.errors import UserError


@dataclass(frozen=True)
class FactorTask:
    """A factor model with a downstream target.

    loadings: B. weights: beta. noise: standard deviation of y given z. hidden: gamma, of directions orthogonal to B, on
    which y may depend as well (y = beta'z + gamma'x + noise); none by default.
    """

    loadings: Float[np.ndarray, "d r"]
    weights: Float[np.ndarray, " r"]
    noise: float
    hidden: Float[np.ndarray, " d"] | None = None

    @cached_property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """Sigma = B B' + I, of x."""
        return self.loadings @ self.loadings.T + np.eye(len(self.loadings))

    @cached_property
    def cross(self) -> Float[np.ndarray, " d"]:
        """E x y."""
        crossed = self.loadings @ self.weights
        return crossed if self.hidden is None else crossed + self.covariance @ self.hidden

    @cached_property
    def best(self) -> Float[np.ndarray, " d"]:
        """The best linear predictor, c* = Sigma^-1 E x y, which is the best of all since (x, y) is normal."""
        return np.linalg.solve(self.covariance, self.cross)

    @cached_property
    def residual_variance(self) -> float:
        """sigma_eff^2 = noise^2 + beta'(I + B'B)^-1 beta: what no predictor from x explains, since z is not seen."""
        r = len(self.weights)
        inner = np.eye(r) + self.loadings.T @ self.loadings
        return self.noise**2 + float(self.weights @ np.linalg.solve(inner, self.weights))

    def excess_risk(self, predictor: Float[np.ndarray, " d"]) -> float:
        """(c - c*)'Sigma(c - c*): expected squared error of x -> c'x above the best one's."""
        gap = predictor - self.best
        return float(gap @ self.covariance @ gap)

    def sample(
        self, n: int, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
        """Inputs and targets of n independent points."""
        z = rng.standard_normal((n, len(self.weights)))
        x = z @ self.loadings.T + rng.standard_normal((n, len(self.loadings)))
        y = z @ self.weights + self.noise * rng.standard_normal(n)
        return x, y if self.hidden is None else y + x @ self.hidden

    def sample_moments(self, n: int, rng: np.random.Generator) -> Moments:
        """X'X/n and X'y/n of n fresh points, not drawn where n is large: their law is Wishart's (Bartlett)."""
        d = len(self.loadings)
        if n <= 4 * (d + 1):
            return Moments.of(*self.sample(n, rng))
        y_variance = float(self.best @ self.covariance @ self.best) + self.residual_variance
        joint = np.block(
            [[self.covariance, self.cross[:, None]], [self.cross[None, :], np.array([[y_variance]])]]
        )
        lower = np.tril(rng.standard_normal((d + 1, d + 1)), -1)
        lower[np.diag_indices(d + 1)] = np.sqrt(rng.chisquare(n - np.arange(d + 1)))
        root = np.linalg.cholesky(joint) @ lower
        gram = root @ root.T / n
        return Moments(gram[:d, :d], gram[:d, d], float(gram[d, d]), n)


@dataclass(frozen=True)
class Moments:
    """What squared error needs to know of a labelled set: X'X/n, X'y/n, y'y/n and n."""

    gram: Float[np.ndarray, "d d"]
    cross: Float[np.ndarray, " d"]
    square: float
    n: int

    @classmethod
    def of(cls, X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> Moments:
        n = len(y)
        return cls(X.T @ X / n, X.T @ y / n, float(y @ y) / n, n)

    def through(self, features: Float[np.ndarray, "d k"]) -> Moments:
        """Of the same set with the inputs x replaced by features'x."""
        return Moments(features.T @ self.gram @ features, features.T @ self.cross, self.square, self.n)


def random_task(
    d: int, r: int, strength: float, noise: float, rng: np.random.Generator, *, hidden: bool = False
) -> FactorTask:
    """Loadings with all r singular values equal to `strength` in random directions, and a target of unit norm.

    hidden: the target depends on a random direction orthogonal to the loadings instead of on the factors.
    """
    directions = np.linalg.qr(rng.standard_normal((d, r)))[0]
    weights = rng.standard_normal(r)
    weights /= np.linalg.norm(weights)
    if not hidden:
        return FactorTask(strength * directions, weights, noise)
    gamma = rng.standard_normal(d)
    gamma -= directions @ (directions.T @ gamma)
    return FactorTask(strength * directions, np.zeros(r), noise, gamma / np.linalg.norm(gamma))


def fit_loadings(gram: Float[np.ndarray, "d d"], r: int) -> Float[np.ndarray, "d r"]:
    """The maximum-likelihood B of r factors with unit noise: V diag(sqrt(max(l_j - 1, 0))) of the top eigenpairs.

    gram: X'X/m of the unlabelled inputs, whose mean is known to be 0. Raises UserError unless 0 < r <= d.
    """
    d = len(gram)
    if not 0 < r <= d:
        raise UserError(f"r = {r} factors of {d} columns; choose 1 to {d}")
    values, vectors = eigh(gram, subset_by_index=(d - r, d - 1))
    return (vectors * np.sqrt(np.maximum(values - 1, 0)))[:, ::-1]


def log_likelihood(loadings: Float[np.ndarray, "d r"], gram: Float[np.ndarray, "d d"]) -> float:
    """Mean log density a point under N(0, B B' + I), in nats."""
    covariance = loadings @ loadings.T + np.eye(len(loadings))
    log_determinant = float(np.linalg.slogdet(covariance)[1])
    trace = float(np.trace(np.linalg.solve(covariance, gram)))
    return -0.5 * (len(loadings) * math.log(2 * math.pi) + log_determinant + trace)


def choose_factors(gram: Float[np.ndarray, "d d"], m: int) -> int:
    """The number of factors with the least Bayesian information criterion, at least 1.

    The profile likelihood of r factors differs from that of none by m/2 sum_j (l_j - 1 - log l_j) over the top
    eigenvalues above 1; B has d r - r (r - 1) / 2 free numbers.
    """
    d = len(gram)
    values = np.linalg.eigvalsh(gram)[::-1]
    above = np.maximum(values, 1)
    gains = m / 2 * np.cumsum(above - 1 - np.log(above))
    r = np.arange(1, d + 1)
    numbers = d * r - r * (r - 1) / 2
    return int(np.argmax(gains - numbers / 2 * math.log(m))) + 1


def posterior_map(loadings: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
    """A with E(z | x) = A'x: B (I + B'B)^-1."""
    r = loadings.shape[1]
    return np.linalg.solve(np.eye(r) + loadings.T @ loadings, loadings.T).T


def fit_two_stage(features: Float[np.ndarray, "d r"], labelled: Moments) -> Float[np.ndarray, " d"]:
    """Least squares on the frozen features A'x, as a predictor of x: c = A psi. Features without variance get 0."""
    inner = labelled.through(features)
    return features @ (np.linalg.pinv(inner.gram, rcond=1e-10, hermitian=True) @ inner.cross)
