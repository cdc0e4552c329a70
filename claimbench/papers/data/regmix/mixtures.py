"""Random data mixtures around a prior (Liu et al. 2024, arXiv 2407.01492, section 3 and the released generator).

A mixture w is a row of shares over K domains. The prior p, the domains' own shares, is tempered; a strength s is drawn
for each mixture, w ~ Dirichlet(s q), so that the set runs from almost one domain to almost the prior. Shares that the
large run could not fill within `epochs` passes over a domain are rejected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from claimbench.errors import UserError

STRENGTHS = np.logspace(-1, np.log10(5.0), 15)
"""Concentrations of the Dirichlet: 15 from 0.1 (near one domain) to 5 (near the tempered prior)."""
GRAIN = 2e-4
"""The least share that a run of a billion tokens notices; shares are multiples of it."""
EPOCHS = 15.0
"""How often a domain may be repeated by a run as long as all domains together."""
SURPLUS = 100
"""Candidates drawn for each mixture wanted."""
SAME = 1e-5
"""Mixtures nearer than this in L1 are one."""


def normalised(prior: Sequence[float] | Float[np.ndarray, " domains"]) -> Float[np.ndarray, " domains"]:
    """Domain sizes as shares. Raises UserError if one is negative or not finite, or all are zero."""
    sizes = np.asarray(prior, dtype=float)
    if sizes.ndim != 1 or not np.isfinite(sizes).all() or (sizes < 0).any() or sizes.sum() <= 0:
        raise UserError(f"prior: {sizes.tolist()}; give one size of at least 0 for each domain, not all 0")
    return sizes / sizes.sum()


def tempered(prior: Float[np.ndarray, " domains"], temperature: float = 0.5) -> Float[np.ndarray, " domains"]:
    """q proportional to p^temperature: 1 keeps the prior, 0 makes it uniform."""
    return normalised(normalised(prior) ** temperature)


def upper_bounds(
    prior: Float[np.ndarray, " domains"], epochs: float = EPOCHS
) -> Float[np.ndarray, " domains"]:
    """min(epochs p_k, 1), of the prior before tempering."""
    return np.minimum(epochs * normalised(prior), 1.0)


def rounded(mixtures: Float[np.ndarray, "n domains"], grain: float = GRAIN) -> Float[np.ndarray, "n domains"]:
    """Shares below the grain become 0; the rest, renormalised, multiples of the grain. A row sums to 1 within
    K grain / 2.
    """
    kept = np.where(mixtures < grain, 0.0, mixtures)
    return np.round(kept / kept.sum(axis=1, keepdims=True) / grain) * grain


def distinct(
    mixtures: Float[np.ndarray, "n domains"], nearest: float = SAME
) -> Float[np.ndarray, "m domains"]:
    """The mixtures in lexical order, without those within `nearest` (L1) of the one before."""
    ordered = mixtures[np.lexsort(mixtures.T[::-1])]
    far = np.abs(np.diff(ordered, axis=0)).sum(axis=1) >= nearest
    return ordered[np.concatenate([[True], far])]


def dirichlet(
    concentrations: Float[np.ndarray, "n domains"], rng: np.random.Generator
) -> Float[np.ndarray, "n domains"]:
    """A draw from each row's Dirichlet; a concentration of 0 gives a share of 0.

    Normalised gammas, as logarithms: those of small shapes underflow, Gamma(a) = Gamma(a + 1) U^(1/a) does not.
    """
    shapes = np.maximum(concentrations, 1e-12)
    logs = np.log(rng.standard_gamma(shapes + 1)) + np.log1p(-rng.random(shapes.shape)) / shapes
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def sample_mixtures(
    prior: Sequence[float] | Float[np.ndarray, " domains"],
    count: int,
    *,
    seed: int | Sequence[int],
    temperature: float = 0.5,
    strengths: Sequence[float] | Float[np.ndarray, " strengths"] = STRENGTHS,
    epochs: float | None = EPOCHS,
    grain: float = GRAIN,
    surplus: int = SURPLUS,
) -> Float[np.ndarray, "count domains"]:
    """`count` different mixtures, in random order, from `surplus` times as many candidates.

    prior: sizes or shares of the domains. epochs: the bound's passes over a domain; None for no bound. grain: of the
    rounding; after it a share may exceed the bound by less than a grain, and is then cut to it.
    Raises UserError where too few candidates are within the bounds.
    """
    shares = normalised(prior)
    if len(shares) == 1:
        return np.ones((count, 1))
    rng = np.random.default_rng(seed)
    centre = tempered(shares, temperature)
    strength = rng.choice(np.asarray(strengths, dtype=float), size=count * surplus)
    candidates = dirichlet(strength[:, None] * centre, rng)
    bounds = np.full_like(shares, 1.0) if epochs is None else upper_bounds(shares, epochs)
    candidates = rounded(candidates[(candidates <= bounds).all(axis=1)], grain)
    found = distinct(np.minimum(candidates, bounds)) if len(candidates) else candidates
    if len(found) < count:
        raise UserError(
            f"{len(found)} different mixtures within {epochs:g} epochs of a domain were drawn and {count} are "
            "wanted; raise epochs, or merge the smallest domains"
            if epochs is not None
            else f"{len(found)} different mixtures were drawn and {count} are wanted; lower grain"
        )
    return found[rng.permutation(len(found))[:count]]
