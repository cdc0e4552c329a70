"""Intervals of an effect over seeds, and what they say about a rule's bounds.

Every function takes any leading axes, so that `benchmarks/verdict_rates.py` simulates with the very code that
judges. Effects have shape (..., seeds, cells); ratios are on the log scale where the interval is Student's.

Sources: paired t, Student (1908, Biometrika 6:1). Sign test and its interval, Arbuthnot (1710), Thompson
(1936, Annals of Mathematical Statistics 7:122). Pseudo-counts of a share, Agresti and Coull (1998, The
American Statistician 52:119).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


def project(values: Array, weights: Array) -> Array:
    """Values (..., seeds, points) as effects (..., seeds, cells); weights (points, cells). A weight of 0
    hides any value."""
    if np.isfinite(values).all():
        return values @ weights
    with np.errstate(invalid="ignore"):
        return np.where(weights != 0, values[..., None] * weights, 0.0).sum(axis=-2)


def variance_floor(
    values: Array, weights: Array, *, quantile: float, resolution: float, items: int | None, log: bool
) -> Array:
    """The least variance that one seed's effect can have, of shape (..., cells), carried over to the effect
    linearly.

    A value is known to `resolution` at best. A proportion of `items` cases has at least the binomial
    variance; its share is first drawn towards one half by quantile^2 / 2 successes and as many failures, over
    all seeds together, so that 0 or 1 in every seed does not look certain (Agresti and Coull, with the t
    quantile in place of the normal one).

    values: (..., seeds, points), before the logarithm. weights: (points, cells). log: the effect is linear in
    log values.
    """
    mean = values.mean(axis=-2)
    variance = np.full(mean.shape, resolution * resolution)
    if items is not None:
        added = quantile * quantile / 2
        total = items * values.shape[-2]
        share = (total * mean + added) / (total + 2 * added)
        variance = np.maximum(variance, share * (1 - share) / items)
    if log:
        variance = variance / (mean * mean)
    return np.asarray(project(variance, weights * weights))


@dataclass(frozen=True)
class Moments:
    """What a t interval needs of the seeds: shape (..., cells) each."""

    mean: Array
    variance: Array  # with n - 1 in the denominator
    agree: Array  # every seed has the same effect
    seeds: int


def moments(effect: Array) -> Moments:
    """effect: (..., seeds, cells)."""
    seeds = effect.shape[-2]
    mean = effect.mean(axis=-2)
    spread = effect - mean[..., None, :]
    agree = (effect == effect[..., :1, :]).all(axis=-2)
    return Moments(mean, (spread * spread).sum(axis=-2) / max(seeds - 1, 1), np.asarray(agree), seeds)


def t_interval(of: Moments, floor: Array | float, quantile: float) -> tuple[Array, Array]:
    """Low and high, each (..., cells). NaN where the seeds agree exactly and no floor says how exact that is."""
    variance = np.where(of.agree & (np.asarray(floor) == 0), np.nan, np.maximum(of.variance, floor))
    half = quantile * np.sqrt(variance / of.seeds)
    return of.mean - half, of.mean + half


def sign_interval(ordered: Array, boundary: int | None) -> tuple[Array, Array]:
    """Low and high, each (..., cells): the bounds that a sign test with this boundary does not exclude.

    ordered: effects (..., seeds, cells), sorted over seeds. `boundary` of n seeds at or above b is the same as: the
    (n - boundary + 1)-th smallest is at least b. Unbounded if no count is rare enough.
    """
    if boundary is None:
        shape = ordered.shape[:-2] + ordered.shape[-1:]
        return np.full(shape, -np.inf), np.full(shape, np.inf)
    return ordered[..., ordered.shape[-2] - boundary, :], ordered[..., boundary - 1, :]


def snap(effect: Array, bounds: Bounds, magnitude: Array | float) -> Array:
    """Effects that differ from a bound by rounding alone are the bound: 0.29 - 0.26 is at least 0.03.

    For tests that count seeds at a bound, and for exact metrics; a t interval has no use for it.
    """
    size = np.maximum(magnitude, np.abs(effect))
    slack = 16 * np.finfo(float).eps * np.where(np.isfinite(size), size, 0.0)
    for bound in (bounds.at_least, bounds.at_most, bounds.sure):
        if bound is not None:
            effect = np.where(np.abs(effect - bound) <= slack, bound, effect)
    return effect


@dataclass(frozen=True)
class Bounds:
    """A rule's bounds, on the scale on which its effect is judged."""

    at_least: float | None = None
    at_most: float | None = None
    sure: float | None = None

    @property
    def both(self) -> bool:
        return self.at_least is not None and self.at_most is not None

    @property
    def any(self) -> bool:
        return self.at_least is not None or self.at_most is not None

    def map(self, function: np.ufunc) -> Bounds:
        return Bounds(
            *(None if b is None else float(function(b)) for b in (self.at_least, self.at_most, self.sure))
        )

    def inside(self, estimate: Array, low: Array, high: Array) -> Array:
        """Cells that hold. With `sure` the estimate meets the bound and the interval lies strictly beyond
        `sure`."""
        if self.sure is not None:
            if self.at_least is not None:
                return (estimate >= self.at_least) & (low > self.sure)
            return (estimate <= self.at_most) & (high < self.sure)
        inside = np.ones(np.shape(low), dtype=bool)
        if self.at_least is not None:
            inside &= low >= self.at_least
        if self.at_most is not None:
            inside &= high <= self.at_most
        return inside

    def outside(self, low: Array, high: Array) -> Array:
        """Cells whose interval lies wholly on the wrong side of a bound."""
        outside = np.zeros(np.shape(low), dtype=bool)
        if self.at_least is not None:
            outside |= high < self.at_least
        if self.at_most is not None:
            outside |= low > self.at_most
        return outside


def possible(inside: Array, outside: Array, needed: int) -> tuple[Array, Array]:
    """Whether enough of the cells (..., cells) hold, and whether too many lie outside for that to be
    possible."""
    cells = inside.shape[-1]
    return np.asarray(inside.sum(axis=-1) >= needed), np.asarray(outside.sum(axis=-1) >= cells - needed + 1)


def share_beyond(effect: Array, bounds: Bounds) -> Array:
    """The share of seeds (..., cells) that the sign test counts in favour of the rule."""
    if bounds.sure is not None:
        good = effect > bounds.sure if bounds.at_least is not None else effect < bounds.sure
    else:
        good = np.ones(effect.shape, dtype=bool)
        if bounds.at_least is not None:
            good &= effect >= bounds.at_least
        if bounds.at_most is not None:
            good &= effect <= bounds.at_most
    return np.asarray(good.mean(axis=-2))
