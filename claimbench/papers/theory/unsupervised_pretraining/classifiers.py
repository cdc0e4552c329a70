"""Learners of classes and numbers from few labels, tuned by cross-validation on these labels alone.

Each has four settings at most. scikit-learn does the work.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from claimbench.errors import UserError, nearest

FOLDS = 3
MOST_UNLABELLED = 1000
"""Rows that self-training and spreading look at: spreading grows with the square of them."""


def _models(task: str, seed: int) -> dict[str, tuple[Any, dict[str, list[Any]]]]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.svm import SVC, SVR

    classes = task == "classification"
    network = {"hidden_layer_sizes": (64,), "solver": "lbfgs", "max_iter": 300, "random_state": seed}
    return {
        "linear": (
            (LogisticRegression(max_iter=1000), {"C": [0.01, 0.1, 1.0, 10.0]})
            if classes
            else (Ridge(), {"alpha": [0.1, 1.0, 10.0, 100.0]})
        ),
        "k-nearest": (
            KNeighborsClassifier() if classes else KNeighborsRegressor(),
            {"n_neighbors": [1, 3, 5, 9]},
        ),
        "rbf-svm": (SVC() if classes else SVR(), {"C": [0.3, 1.0, 10.0, 100.0]}),
        "mlp": (
            MLPClassifier(**network) if classes else MLPRegressor(**network),
            {"alpha": [1e-3, 0.1, 1.0, 10.0]},
        ),
        "forest": (
            (RandomForestClassifier if classes else RandomForestRegressor)(100, random_state=seed),
            {"min_samples_leaf": [1, 2, 4]},
        ),
    }


LEARNERS = ("linear", "k-nearest", "rbf-svm", "mlp", "forest")


def fit_predict(
    learner: str,
    X: Float[np.ndarray, "n columns"],
    y: Shaped[np.ndarray, " n"],
    X_test: Float[np.ndarray, "tests columns"],
    *,
    task: str = "classification",
    seed: int = 0,
) -> Shaped[np.ndarray, " tests"]:
    """Tune by three-fold cross-validation, fit, predict. Where a class has fewer than two rows the first setting is
    taken; where there is one class alone it is predicted.

    learner: `linear` (logistic or ridge regression), `k-nearest`, `rbf-svm`, `mlp` or `forest`.
    """
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold

    models = _models(task, seed)
    if learner not in models:
        raise UserError(f'learner "{learner}"{nearest(learner, models)}')
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) == 1:
        return np.full(len(X_test), y[0])
    smallest = int(counts.min()) if task == "classification" else len(y)
    model, grid = models[learner]
    folds = min(FOLDS, smallest)
    if learner == "k-nearest":
        most = len(y) if folds < 2 else len(y) - -(-len(y) // folds)
        grid = {"n_neighbors": [k for k in grid["n_neighbors"] if k <= most] or [1]}
    with warnings.catch_warnings():
        # A setting that does not converge is one that validation need not choose.
        warnings.simplefilter("ignore")
        if folds < 2:
            chosen = model.set_params(**{name: values[0] for name, values in grid.items()})
        else:
            split = StratifiedKFold if task == "classification" else KFold
            chosen = GridSearchCV(model, grid, cv=split(folds, shuffle=True, random_state=seed))
        return chosen.fit(X, y).predict(X_test)


def semi_supervised(
    learner: str,
    X: Float[np.ndarray, "n columns"],
    y: Int[np.ndarray, " n"],
    unlabelled: Float[np.ndarray, "m columns"],
    X_test: Float[np.ndarray, "tests columns"],
    *,
    seed: int = 0,
) -> Int[np.ndarray, " tests"]:
    """Learners that use unlabelled inputs without a model of them: `self-training` (logistic regression, labels
    taken over from a confidence of 0.75) and `label-spreading` (over the graph of seven nearest neighbours).

    They see the first 1000 unlabelled rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

    if len(np.unique(y)) == 1:
        return np.full(len(X_test), y[0])
    more = unlabelled[:MOST_UNLABELLED]
    inputs = np.concatenate([X, more])
    labels = np.concatenate([y, np.full(len(more), -1)])
    models: Mapping[str, Any] = {
        "self-training": SelfTrainingClassifier(LogisticRegression(max_iter=1000), threshold=0.75),
        "label-spreading": LabelSpreading(kernel="knn", n_neighbors=7, alpha=0.2, max_iter=100),
    }
    if learner not in models:
        raise UserError(f'learner "{learner}"{nearest(learner, models)}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return models[learner].fit(inputs, labels).predict(X_test)
