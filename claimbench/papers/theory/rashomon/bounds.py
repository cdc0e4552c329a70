"""What the training loss of a simple class says about the best true risk of a larger one (arXiv 1908.01755, first
theorem).

F1 inside F2, F1 finite, losses in [0, b]. If some f1 in F1 has a true risk within gamma of the best of F2, then with
probability at least 1 - eps over n independent rows

    L(f2*) - b sqrt((log |F1| + log(2 / eps)) / (2 n))  <=  L^(f1^)  <=  L(f2*) + gamma + b sqrt(log(1 / eps) / (2
    n)),

f1^ the model of F1 with the least training loss. The left side pays for |F1| and not for |F2|.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from claimbench.errors import UserError
from claimbench.papers.theory.rashomon.splits import Splits


def simple_class_interval(
    best_risk: float, gamma: float, models: int, n: int, eps: float = 0.1, b: float = 1.0
) -> tuple[float, float]:
    """The two ends for L^(f1^). best_risk: L(f2*). models: |F1|. Raises UserError for values that make no sense.

    >>> simple_class_interval(0.04, 0.02, models=480, n=1000)
    """
    if not 0 < eps < 1 or n < 1 or models < 1 or gamma < 0:
        raise UserError(
            f"eps = {eps}, n = {n}, models = {models}, gamma = {gamma}: 0 < eps < 1, the others positive"
        )
    low = b * math.sqrt((math.log(models) + math.log(2 / eps)) / (2 * n))
    high = b * math.sqrt(math.log(1 / eps) / (2 * n))
    return best_risk - low, best_risk + gamma + high


def stump_mistakes(splits: Splits, y: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, "stumps rows"]:
    """Which rows each stump gets wrong: every split with every pair of classes."""
    classes = int(y.max()) + 1
    low, high = (
        label.ravel() for label in np.meshgrid(np.arange(classes), np.arange(classes), indexing="ij")
    )
    said = np.where(splits.goes_right[:, None], high[:, None], low[:, None])
    return (said != y).reshape(-1, len(y))


def least_training_losses(
    mistakes: Bool[np.ndarray, "models rows"], n: int, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """L^(f1^) for `draws` samples of n rows, drawn with repetition from a population of rows."""
    rows = mistakes.shape[1]
    times = rng.multinomial(n, np.full(rows, 1 / rows), size=draws).astype(np.float64)
    return (times @ mistakes.T.astype(np.float64)).min(axis=1) / n
