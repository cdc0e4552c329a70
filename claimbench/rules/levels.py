"""How much error one look at the seeds may spend, so that all looks together keep what was promised.

A set may be looked at after 5, 8 and 12 seeds. Testing at the full level each time would err about twice as
often as promised, so every look tests at a smaller one. The equal level at each look is the boundary of
Pocock (1977, Biometrika 64:191); here it is computed for the t statistic itself, not for its normal limit,
because 5 seeds are few. The sign test has its own, exact boundary: paths of coin tosses are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.special import beta, betainc, stdtrit

ALPHA = 0.025
"""One-sided: the largest probability that a false claim is said to hold, and that a true one is said to
fail."""

_NODES = 40  # Gauss-Legendre nodes an integral
_GRID = 1000  # points of the value function between looks; both give the level within about 0.1 % of itself


def t_quantile(level: float, degrees: int) -> float:
    """The point that Student's t with these degrees of freedom exceeds with probability `level`."""
    return -float(stdtrit(degrees, level))


@lru_cache(maxsize=4096)
def look_level(share: float, looks: tuple[int, ...]) -> float:
    """The one-sided level of a t test at each of these numbers of seeds that spends `share` over all of them.

    At 5, 8 and 12 seeds a share of 2.5 % gives 1.06 % a look; smaller shares give relatively smaller levels
    (the looks' errors coincide less often), which is why the level is solved for and not scaled.
    """
    _check(share, looks)
    if len(looks) == 1:
        return share
    # The share is nearly a power of the level: the secant method on logarithms needs three or four
    # evaluations.
    old, new = math.log(share * 0.36), math.log(share * 0.42)
    target = math.log(share)
    error = math.log(t_crossing(math.exp(old), looks)) - target
    for _ in range(12):
        latest = math.log(t_crossing(math.exp(new), looks)) - target
        if abs(latest) < 1e-7:
            break
        old, new, error = new, new - latest * (new - old) / (latest - error), latest
    return math.exp(new)


def t_crossing(level: float, looks: Sequence[int]) -> float:
    """The probability that a one-sided t test at `level` rejects at one look or more when the mean is at the
    bound.

    For n normal seeds with mean 0 let r_n = S_n / sqrt(n Q_n), with S_n their sum and Q_n their sum of
    squares; then t_n = r_n sqrt(n - 1) / sqrt(1 - r_n^2). The direction of a normal vector, the direction of
    a further block of b seeds and the share B of the first block in the joint sum of squares are independent,
    so that the r of successive looks is a Markov chain in one dimension:

        r_{n+b} = sqrt(n B / (n + b)) r_n + sqrt(b (1 - B) / (n + b)) r_b,    B ~ Beta(n/2, b/2),

    and the angle arcsin r_n has a density proportional to cos^(n-2). The chain is integrated backwards by
    Gauss-Legendre quadrature: `later` holds the probability of rejecting at a later look, by the angle at
    this one.
    """
    limits = []
    for n in looks:
        t = t_quantile(level, n - 1)
        limits.append(t / math.sqrt(n - 1 + t * t))
    nodes, weights = (np.asarray(a) for a in np.polynomial.legendre.leggauss(_NODES))
    nodes, weights = (nodes + 1) / 2, weights / 2
    share = nodes * math.pi / 2  # B = sin(share)^2
    first = math.asin(limits[0]) + math.pi / 2
    later: tuple[np.ndarray, np.ndarray] | None = None
    for k in range(len(looks) - 2, -1, -1):
        n, total = looks[k], looks[k + 1]
        block = total - n
        # The first look's values are only integrated, those of later looks are interpolated and need a finer
        # grid.
        angle = (
            nodes * first - math.pi / 2 if k == 0 else np.linspace(-math.pi / 2, math.asin(limits[k]), _GRID)
        )
        density = (
            np.sin(share) ** (n - 1)
            * np.cos(share) ** (block - 1)
            * math.pi
            / beta(n / 2, block / 2)
            * weights
        )
        carried = math.sqrt(n / total) * np.sin(share) * np.sin(angle)[:, None]
        step = math.sqrt(block / total) * np.cos(share)
        needed = (limits[k + 1] - carried) / step  # the block's r that rejects at the next look
        value = _tail(block, needed) @ density
        if later is not None:
            top = np.arcsin(np.clip(needed, -1, 1)) + math.pi / 2
            inner = top[..., None] * nodes - math.pi / 2
            reached = np.arcsin(np.clip(carried[..., None] + step[:, None] * np.sin(inner), -1, 1))
            onward = np.interp(reached, *later) * _angle_density(block, inner)
            value += (onward @ weights * top) @ density
        later = (angle, value)
    if later is None:
        return level
    angle, value = later
    return level + float((value * _angle_density(looks[0], angle)) @ weights) * first


def _tail(size: int, r: np.ndarray) -> np.ndarray:
    """P(r_size > r): half a regularised incomplete beta function."""
    r = np.clip(r, -1, 1)
    upper = 0.5 * betainc((size - 1) / 2, 0.5, 1 - r * r)
    return np.where(r >= 0, upper, 1 - upper)


def _angle_density(size: int, angle: np.ndarray) -> np.ndarray:
    return np.asarray(np.cos(angle) ** (size - 2) / beta(0.5, (size - 1) / 2))


@lru_cache(maxsize=4096)
def sign_boundary(share: float, looks: tuple[int, ...]) -> tuple[int | None, ...]:
    """How many seeds must lie on one side at each look for a sign test that spends at most `share` over all
    looks.

    Exact for any distribution: under the null a seed lies on that side with probability at most one half.
    Each look in turn takes the smallest count that the share still allows, so that as much as possible can be
    decided early. None: no count at this look is rare enough. Example: 2.5 % at 6, 9 and 12 seeds gives 6 of
    6, 9 of 9, 11 of 12 (1.71 % in all).
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"share = {share}; an error probability lies between 0 and one half")
    left = Fraction(share)
    paths = [1]  # paths[i]: sequences that have i seeds on that side and crossed no boundary
    boundaries: list[int | None] = []
    previous = 0
    for n in looks:
        block = n - previous
        tosses = [math.comb(block, j) for j in range(block + 1)]
        grown = [0] * (n + 1)
        for i, count in enumerate(paths):
            if count:
                for j, ways in enumerate(tosses):
                    grown[i + j] += count * ways
        boundary, crossed = n + 1, 0
        while boundary > 0 and crossed + grown[boundary - 1] <= left * 2**n:
            boundary -= 1
            crossed += grown[boundary]
        boundaries.append(boundary if boundary <= n else None)
        left -= Fraction(crossed, 2**n)
        paths = grown[:boundary]
        previous = n
    return tuple(boundaries)


@lru_cache(maxsize=4096)
def sign_level(boundary: int, seeds: int) -> float:
    """The probability that at least `boundary` of `seeds` fair coins show heads."""
    return sum(math.comb(seeds, i) for i in range(boundary, seeds + 1)) / 2**seeds


def _check(share: float, looks: tuple[int, ...]) -> None:
    if not 0 < share <= 0.5:
        raise ValueError(f"share = {share}; an error probability lies between 0 and one half")
    if not looks or looks[0] < 2 or any(b - a < 2 for a, b in pairwise(looks)):
        raise ValueError(
            f"looks = {looks}; the first needs 2 seeds or more, and each later one at least 2 further seeds"
        )
