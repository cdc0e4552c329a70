"""Learners that know the task's number and count integers, and read no explanation: what an engineer would
try first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from claimbench.papers.theory.explanation_roles.synthetic import HEAD, Points, Problem

MANY = 255  # categories that scikit-learn's boosted trees can tell apart
APART = 100.0  # added to the squared distance of points that differ in task, or in what s[1] asks: more than counts can


def count_features(points: Points, problem: Problem) -> Float[np.ndarray, "points features"]:
    """How often each integer occurs, s[1], and the task's place (-1 where it is hidden)."""
    counts = (points.sequences[:, HEAD:, None] == np.arange(1, problem.task.integers + 1)).sum(axis=1)
    place = np.full(len(points), -1) if problem.task.hidden_index else points.place
    return np.column_stack([counts, points.sequences[:, 1], place]).astype(np.float64)


def index_trees(
    train: Float[np.ndarray, "points features"],
    labels: Int[np.ndarray, " points"],
    test: Float[np.ndarray, "tests features"],
    *,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> Int[np.ndarray, " tests"]:
    """Gradient-boosted trees on `count_features`; tasks are categories where there are few enough, else a
    number.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    few = train[:, -1].max() < MANY
    model: Any = HistGradientBoostingClassifier(
        learning_rate=learning_rate,
        categorical_features=[train.shape[1] - 1] if few and train[:, -1].min() >= 0 else None,
        random_state=seed,
    )
    return model.fit(train, labels).predict(test)


def nearest_neighbours(
    train: Float[np.ndarray, "points features"],
    labels: Int[np.ndarray, " points"],
    test: Float[np.ndarray, "tests features"],
    *,
    neighbours: int = 1,
) -> Int[np.ndarray, " tests"]:
    """By counts, among the points of the same task that ask for the same pair as long as there are such."""
    from sklearn.neighbors import KNeighborsClassifier

    def scaled(features: np.ndarray) -> np.ndarray:
        places = int(max(train[:, -1].max(), test[:, -1].max())) + 1
        task = features[:, [-1]] == np.arange(places)
        asked = features[:, [-2]] == np.arange(1, HEAD + 1)
        return np.column_stack([features[:, :-2], np.sqrt(APART / 2) * np.column_stack([task, asked])])

    model: Any = KNeighborsClassifier(neighbours, algorithm="brute")
    return model.fit(scaled(train), labels).predict(scaled(test))
