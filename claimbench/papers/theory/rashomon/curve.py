"""The Rashomon curve: training risk against log-ratio over trees of growing depth, and the elbow as a choice of
depth.

Semenova, Rudin and Parr, arXiv 1908.01755: along a hierarchy of classes the curve looks like a capital gamma. At
first the risk falls and the ratio hardly, then the ratio falls and the risk hardly; the class at the corner is said
to be a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from claimbench.papers.theory.rashomon.problems import Problem
from claimbench.papers.theory.rashomon.splits import all_splits
from claimbench.papers.theory.rashomon.volume import Sampling, best_tree_errors, rashomon_ratio


@dataclass(frozen=True)
class Curve:
    """One value for each depth. A ratio that no sample could tell is -infinity."""

    depths: list[int]
    risk: Float[np.ndarray, " depths"]  # training error of the best tree known
    log10_ratio: Float[np.ndarray, " depths"]

    @property
    def elbow(self) -> int:
        """The depth at the curve's corner. Depths whose ratio is unknown count as the smallest known ratio."""
        known = np.isfinite(self.log10_ratio)
        floor = self.log10_ratio[known].min() if known.any() else 0.0
        return self.depths[corner(np.where(known, self.log10_ratio, floor), self.risk)]

    @property
    def gamma(self) -> float:
        """Distance of the corner from the chord, both axes scaled to [0, 1]: 0 for a line, sqrt(1/2) at most."""
        known = np.isfinite(self.log10_ratio)
        return float(distances(self.log10_ratio[known], self.risk[known]).max(initial=0.0))


def distances(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Distance of each point from the chord between the first and the last, after both axes are scaled to [0, 1].

    Positive on the side where x and y are both nearer to their ends that come late for y and early for x: the corner
    of a gamma. Zero everywhere if an axis does not vary.
    """
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.zeros(len(x))
    u, v = (x - x[-1]) / (x[0] - x[-1] or np.ptp(x)), (y - y[-1]) / (y[0] - y[-1] or np.ptp(y))
    return (u - v) / np.sqrt(2)


def corner(x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]) -> int:
    """The place that is farthest from the chord, the first one if several are."""
    return int(np.argmax(distances(x, y)))


def rashomon_curve(
    problem: Problem,
    depths: Sequence[int] = range(1, 11),
    *,
    theta: float = 0.05,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Curve:
    """Risk and ratio at each depth; a tree of one depth is also one of the next, so that the risk never rises.

    >>> rashomon_curve(load_problem("wine")).elbow
    """
    splits = all_splits(problem.X)
    rows, best = len(problem.y), len(problem.y)
    risk, logs = [], []
    for depth in depths:
        best = min(best, best_tree_errors(problem.X, problem.y, depth))
        found = rashomon_ratio(
            problem.X,
            problem.y,
            depth=depth,
            theta=theta,
            sampling=sampling,
            seed=seed,
            splits=splits,
            best=best,
        )
        best = min(best, found.best)
        risk.append(best / rows)
        logs.append(found.log10)
    return Curve(list(depths), np.array(risk), np.array(logs))


def accuracies_by_depth(
    train: Problem, test: Problem, depths: Sequence[int], seed: int = 0
) -> Float[np.ndarray, " depths"]:
    """Test accuracy of CART grown to each depth on the training rows."""
    from sklearn.tree import DecisionTreeClassifier

    trees = (DecisionTreeClassifier(max_depth=depth, random_state=seed) for depth in depths)
    return np.array([tree.fit(train.X, train.y).score(test.X, test.y) for tree in trees])


def cross_validated_depth(
    X: Float[np.ndarray, "rows columns"], y: Int[np.ndarray, " rows"], depths: Sequence[int], seed: int = 0
) -> int:
    """The depth of the best mean accuracy of CART over five folds, the smallest one if several are."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    folds = KFold(5, shuffle=True, random_state=seed)
    trees = (DecisionTreeClassifier(max_depth=depth, random_state=seed) for depth in depths)
    return list(depths)[int(np.argmax([cross_val_score(tree, X, y, cv=folds).mean() for tree in trees]))]
