"""Rashomon ratios of decision trees of a fixed depth: the share of all trees whose error is within theta of the best.

Semenova, Rudin and Parr (arXiv 1908.01755) sample trees of depth 7 and weight them back to uniform labels. Both
estimators here sum over labels exactly (`polynomials`) and are unbiased for the ratio under the prior in `splits`:

    rashomon_ratio     at every node, average the product of the two children over some splits, each child estimated
                       independently in the same way, so that one pass holds a great many trees. A split is chosen
                       among candidates from the prior in proportion to g = exp(tilt * information gain in nats over
                       the node's rows) and weighted by (mean of g over the candidates) / g, which leaves the
                       expectation as it is.
    structure_ratio    the share of good labelings of one random tree, averaged over trees: the paper's sampling.

The distribution of one pass is skewed: most passes lie below the mean, so that few passes rather understate a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice

import numpy as np
from jaxtyping import Float, Int
from scipy.special import xlogy

from claimbench.errors import UserError
from claimbench.papers.theory.rashomon.polynomials import (
    Polynomials,
    average,
    leaves,
    log_share,
    multiply,
)
from claimbench.papers.theory.rashomon.splits import Splits, all_splits

MOST_ITEMS = 4_000_000  # (node, row) pairs that a pass may hold on one level


@dataclass(frozen=True)
class Sampling:
    """How a pass samples trees; none of it changes what is estimated.

    branches: splits averaged at a node of each level, root first; 1 on further levels. candidates: splits drawn from
    the prior, among which a node's splits are chosen. tilts: passes take them in turn; small ones serve ratios that
    are not tiny, large ones find trees that are almost as good as the best.
    """

    branches: Sequence[int] = (4, 4, 2, 2, 2)
    candidates: int = 32
    tilts: Sequence[float] = (0.03, 0.2, 0.5, 2.0)
    passes: int = 8

    def __post_init__(self) -> None:
        if min(self.branches, default=0) < 1 or self.candidates < 1 or self.passes < 1:
            raise UserError(
                f"branches = {list(self.branches)}, candidates = {self.candidates}, passes = {self.passes}: "
                "each must be 1 or more"
            )
        if not self.tilts or min(self.tilts) < 0:
            raise UserError(f"tilts = {list(self.tilts)}; give one or more, 0 or larger")

    def at(self, depth: int) -> list[int]:
        """Branches of each of `depth` levels."""
        return [*self.branches, *[1] * depth][:depth]


@dataclass(frozen=True)
class Ratio:
    """An estimated Rashomon ratio. `log10` is -infinity where no sampled tree lies in the set: then it is unknown."""

    log10: float
    standard_error: float  # over passes, as a share of the ratio; infinite where it cannot be told
    budget: int  # errors that a tree in the set may make
    best: int  # errors of the best tree known
    rows: int
    logs: Float[np.ndarray, " passes"] = field(repr=False)  # natural logarithm of each pass' estimate

    @property
    def support(self) -> float:
        """Share of passes with a tree in the set."""
        return float(np.isfinite(self.logs).mean())


def error_budget(best: int, theta: float, rows: int) -> int:
    """Errors that a tree may make: at most theta above the best in 0-1 loss. theta is in [0, 1], as a share of rows."""
    if not 0 <= theta <= 1:
        raise UserError(f"theta = {theta}; a slack in accuracy lies between 0 and 1")
    return min(rows, best + math.floor(theta * rows + 1e-9))


def best_tree_errors(X: Float[np.ndarray, "rows columns"], y: Int[np.ndarray, " rows"], depth: int) -> int:
    """The fewest errors of greedy trees of this depth (CART, two criteria, three seeds each): an upper bound on the
    best of the class.
    """
    from sklearn.tree import DecisionTreeClassifier

    if depth == 0:
        return len(y) - int(np.bincount(y).max())
    trees = (
        DecisionTreeClassifier(max_depth=depth, criterion=criterion, random_state=seed).fit(X, y)
        for criterion in ("gini", "entropy")
        for seed in range(3)
    )
    return min(int((tree.predict(X) != y).sum()) for tree in trees)


def rashomon_ratio(
    X: Float[np.ndarray, "rows columns"],
    y: Int[np.ndarray, " rows"],
    *,
    depth: int = 7,
    theta: float = 0.05,
    sampling: Sampling | None = None,
    seed: int = 0,
    splits: Splits | None = None,
    best: int | None = None,
) -> Ratio:
    """The Rashomon ratio of trees of `depth` on a table.

    y: class codes 0, 1, .... splits: every midpoint unless given. best: errors of the best tree known (default:
    greedy trees); where a sampled tree is better, that one is the anchor. Raises UserError if a pass would not fit
    into memory.

        >>> from claimbench.papers.theory.rashomon import rashomon_ratio
        >>> rashomon_ratio(X, y, depth=7, theta=0.05).log10
    """
    y, sampling = np.asarray(y), sampling or Sampling()
    if depth < 0:
        raise UserError(f"depth = {depth}; trees have depth 0 or more")
    branches = sampling.at(depth)
    if len(y) * math.prod(branches) > MOST_ITEMS:
        raise UserError(
            f"branches {branches} make {math.prod(branches)} copies of {len(y)} rows, more than {MOST_ITEMS:,}; "
            "give fewer branches or fewer rows"
        )
    splits = all_splits(X) if splits is None else splits
    best = best_tree_errors(X, y, depth) if best is None else best
    budget, rng = error_budget(best, theta, len(y)), np.random.default_rng(seed)
    found = [
        sampled_shares(splits, y, budget, branches, rng, candidates=sampling.candidates, tilt=tilt)
        for tilt in islice(cycle(sampling.tilts), sampling.passes)
    ]
    return _judged(found, best, theta, len(y))


def structure_ratio(
    X: Float[np.ndarray, "rows columns"],
    y: Int[np.ndarray, " rows"],
    *,
    depth: int = 7,
    theta: float = 0.05,
    structures: int = 2000,
    seed: int = 0,
    splits: Splits | None = None,
    best: int | None = None,
) -> Ratio:
    """The same from `structures` random trees, each with its labelings counted exactly. Arguments: `rashomon_ratio`."""
    y = np.asarray(y)
    splits = all_splits(X) if splits is None else splits
    best = best_tree_errors(X, y, depth) if best is None else best
    budget, rng = error_budget(best, theta, len(y)), np.random.default_rng(seed)
    together = max(1, MOST_ITEMS // 8 // len(y))
    found = [
        sampled_shares(splits, y, budget, [1] * depth, rng, roots=min(together, structures - start))
        for start in range(0, structures, together)
    ]
    return _judged(found, best, theta, len(y))


def sampled_shares(
    splits: Splits,
    y: Int[np.ndarray, " rows"],
    budget: int,
    branches: Sequence[int],
    rng: np.random.Generator,
    *,
    roots: int = 1,
    candidates: int = 1,
    tilt: float = 0.0,
) -> Polynomials:
    """`roots` independent estimates of the share of trees by errors, up to the budget, each unbiased in every
    coefficient.

    A tree has as many levels as `branches`. Rows are sent down level by level, then shares come back up.
    """
    classes = int(y.max()) + 1
    node = np.repeat(np.arange(roots), len(y))
    row = np.tile(np.arange(len(y)), roots)
    nodes = roots
    levels = []
    for branch in branches:
        chosen, log_weight = _choose(splits, y, node, row, (nodes, branch, candidates), tilt, rng)
        right = splits.goes_right[chosen[node], row[:, None]]
        key = ((node[:, None] * branch + np.arange(branch)) * 2 + right).ravel()
        keys, node_of = np.unique(key, return_inverse=True)
        levels.append((nodes, branch, log_weight, keys))
        node, row, nodes = node_of, np.repeat(row, branch), len(keys)
    counts = np.bincount(node * classes + y[row], minlength=nodes * classes).reshape(nodes, classes)
    found = leaves(counts, budget)
    for nodes, branch, log_weight, keys in reversed(levels):
        # A child without rows makes no error whatever its labels: the polynomial 1, which stands last.
        padded = Polynomials(
            np.append(found.values, 1.0), np.append(found.degree, 0), np.append(found.log_factor, 0.0)
        )
        place = np.full(nodes * branch * 2, len(keys))
        place[keys] = np.arange(len(keys))
        place = place.reshape(nodes, branch, 2)
        products = [multiply(padded, padded, place[:, b, 0], place[:, b, 1], budget) for b in range(branch)]
        weighted = [
            replace(product, log_factor=product.log_factor + log_weight[:, b])
            for b, product in enumerate(products)
        ]
        found = average(weighted)
    return found


def _choose(
    splits: Splits,
    y: Int[np.ndarray, " rows"],
    node: Int[np.ndarray, " items"],
    row: Int[np.ndarray, " items"],
    shape: tuple[int, int, int],
    tilt: float,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, "nodes branch"], Float[np.ndarray, "nodes branch"]]:
    """Splits for each node, and the logarithms of their weights. shape: nodes, branch, candidates."""
    nodes, branch, candidates = shape
    if candidates == 1 or tilt == 0:
        return splits.draw((nodes, branch), rng), np.zeros((nodes, branch))
    classes = int(y.max()) + 1
    drawn = splits.draw((nodes, candidates), rng)
    gain = np.empty((nodes, candidates))  # up to what is the same for all candidates of a node
    for candidate in range(candidates):  # a loop bounds the memory: items times candidates would not fit
        right = splits.goes_right[drawn[node, candidate], row]
        cell = (right * nodes + node) * classes + y[row]
        counts = np.bincount(cell, minlength=2 * nodes * classes).reshape(2, nodes, classes)
        total = counts.sum(axis=-1)
        gain[:, candidate] = (xlogy(counts, counts).sum(axis=-1) - xlogy(total, total)).sum(axis=0)
    log_g = tilt * (gain - gain.max(axis=1, keepdims=True))
    cumulative = np.cumsum(np.exp(log_g), axis=1)
    wanted = rng.random((nodes, branch)) * cumulative[:, -1:]
    place = (wanted[:, :, None] >= cumulative[:, None, :]).sum(axis=-1).clip(max=candidates - 1)
    log_mean = np.log(cumulative[:, -1:] / candidates)
    return np.take_along_axis(drawn, place, 1), log_mean - np.take_along_axis(log_g, place, 1)


def _judged(found: list[Polynomials], best: int, theta: float, rows: int) -> Ratio:
    """The mean share within the budget, anchored at the best tree that is known or was met."""
    best = min([best, *(part.least for part in found)])
    budget = error_budget(best, theta, rows)
    logs = np.concatenate([log_share(part, budget) for part in found])
    top = logs.max()
    if not np.isfinite(top):
        return Ratio(-math.inf, math.inf, budget, best, rows, logs)
    shares = np.exp(logs - top)
    mean = shares.mean()
    error = shares.std(ddof=1) / math.sqrt(len(shares)) / mean if len(shares) > 1 else math.inf
    return Ratio(float((top + np.log(mean)) / math.log(10)), float(error), budget, best, rows, logs)
