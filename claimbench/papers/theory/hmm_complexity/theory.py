"""The risk of a head fitted by least squares on frozen features, in closed form and by the spectrum's fixed point.

y = B' phi + e with k outputs, |B|_F = rho, noise e of covariance Sigma_e, n examples, p features. With
g = p/n fixed and n large, isotropic features and a minimum-norm head (Hastie, Montanari, Rosset and Tibshirani 2022,
Annals of Statistics 50:949, theorem 1, output by output; arXiv 2410.00699 reads it as a law of model size):

    g < 1:  tr(Sigma_e) g / (1 - g)
    g > 1:  rho^2 (1 - 1/g) + tr(Sigma_e) / (g - 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from claimbench.errors import UserError


def isotropic_risk(ratio: float, signal: float, noise: float) -> float:
    """The limit above. ratio: g = p/n > 0. signal: rho^2. noise: tr(Sigma_e). Infinite at g = 1 unless noise is 0."""
    if ratio <= 0:
        raise UserError(f"ratio = {ratio}: features over examples is positive")
    if ratio == 1:
        return math.inf if noise > 0 else 0.0
    if ratio < 1:
        return noise * ratio / (1 - ratio)
    return signal * (1 - 1 / ratio) + noise / (ratio - 1)


def gaussian_risk(features: int, samples: int, signal: float, noise: float) -> float:
    """The exact mean for isotropic Gaussian features at finite size: tr(Sigma_e) p / (n - p - 1) for p < n - 1 and
    rho^2 (1 - n/p) + tr(Sigma_e) n / (p - n - 1) for p > n + 1; infinite between.
    """
    if features < samples - 1:
        return noise * features / (samples - features - 1)
    if features > samples + 1:
        return signal * (1 - samples / features) + noise * samples / (features - samples - 1)
    return math.inf


def best_overparametrised(signal: float, noise: float) -> tuple[float, float]:
    """Where the risk above g = 1 is least, and that risk: g = s / (s - 1) with s = rho / sqrt(tr(Sigma_e)) > 1, else
    (inf, rho^2): it falls towards the null predictor's.
    """
    root = math.sqrt(signal / noise) if noise > 0 else math.inf
    if root <= 1:
        return math.inf, signal
    ratio = 1.0 if math.isinf(root) else root / (root - 1)
    return ratio, 0.0 if ratio == 1 else isotropic_risk(ratio, signal, noise)


def optimal_penalty(features: int, signal: float, noise: float) -> float:
    """The best ridge penalty for isotropic features, in Phi'Phi + penalty I: p tr(Sigma_e) / rho^2."""
    return features * noise / signal


def misspecified_risk(features: int, dimensions: int, samples: int, signal: float, noise: float) -> float:
    """Where `dimensions` whitened features carry the signal equally and the head sees the first `features` < n of them:

    u + (tr(Sigma_e) + u) g / (1 - g), where u = rho^2 (1 - p/d) for p < d is unexplained, and so is noise to the head.
    Raises UserError for p >= n.
    """
    if features >= samples:
        raise UserError(
            f"{features} features of {samples} examples: this formula is for fewer features than examples"
        )
    unexplained = signal * max(0.0, 1 - features / dimensions)
    return unexplained + (noise + unexplained) * features / (samples - features)


def spectral_risk(
    spectrum: Sequence[float] | Float[np.ndarray, " features"],
    samples: int,
    signal: float | Float[np.ndarray, " features"],
    noise: float,
    penalty: float = 0.0,
) -> float:
    """The limit for correlated features, with any ridge penalty (0: minimum norm).

    With kappa the root of n = penalty/kappa + sum_i s_i / (s_i + kappa) and D = sum_i s_i^2 / (s_i + kappa)^2,

        risk = [n kappa^2 sum_i b_i s_i / (s_i + kappa)^2 + tr(Sigma_e) D] / (n - D).

    spectrum: eigenvalues s_i of Cov(phi). signal: |B|_F^2, spread equally over the eigenvectors, or b_i of each.
    penalty: in Phi'Phi + penalty I. For p < n and no penalty kappa is 0, and the spectrum drops out.
    Raises UserError for a negative penalty or eigenvalue.
    """
    s = np.asarray(spectrum, dtype=float)
    if (s < 0).any() or penalty < 0:
        raise UserError("eigenvalues and penalty are not negative")
    shares = (
        np.full(len(s), float(signal) / len(s)) if np.ndim(signal) == 0 else np.asarray(signal, dtype=float)
    )
    shares, s = shares[s > 0], s[s > 0]
    if penalty == 0 and len(s) < samples:
        return noise * len(s) / (samples - len(s))
    if penalty == 0 and len(s) == samples:
        return math.inf

    def excess(log_kappa: float) -> float:
        kappa = math.exp(log_kappa)
        return float(penalty / kappa + (s / (s + kappa)).sum() - samples)

    # At kappa = (sum s + penalty)/n both terms together are below n; towards 0 they exceed it.
    high = math.log((s.sum() + penalty) / samples)
    low = high - 1.0
    while excess(low) < 0:
        low -= 2.0
    kappa = math.exp(float(brentq(excess, low, high + 1e-9, xtol=1e-13)))
    weight = s / (s + kappa)
    freedom = float((weight**2).sum())
    bias = kappa**2 * float((shares * s / (s + kappa) ** 2).sum())
    return (samples * bias + noise * freedom) / (samples - freedom)
