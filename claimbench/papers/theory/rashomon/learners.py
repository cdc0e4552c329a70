"""Five learners that differ as much as learners do, each tuned over three values: how far apart do they end?

The paper's easy check (Semenova, Rudin and Parr, arXiv 1908.01755, section 6): where they end close together, the
Rashomon set is probably large, and a simple model probably accurate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from claimbench.papers.theory.rashomon.problems import Problem

FOLDS = 3
FOREST = 30  # trees of a forest, rounds of boosting


def _logistic(value: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=value, max_iter=300, random_state=seed)


def _cart(value: float, seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=int(value), random_state=seed)


def _forest(value: float, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(FOREST, min_samples_leaf=int(value), random_state=seed)


def _boosting(value: float, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(
        n_estimators=FOREST, learning_rate=value, max_features="sqrt", random_state=seed
    )


def _svm(value: float, seed: int) -> Any:
    from sklearn.svm import SVC

    return SVC(C=value, kernel="rbf", gamma="scale", random_state=seed)


LEARNERS: dict[str, tuple[Callable[[float, int], Any], tuple[float, float, float]]] = {
    "logistic-regression": (_logistic, (0.01, 1.0, 100.0)),
    "cart": (_cart, (2, 4, 8)),
    "random-forest": (_forest, (1, 3, 10)),
    "gradient-boosting": (_boosting, (0.03, 0.1, 0.3)),
    "rbf-svm": (_svm, (0.1, 1.0, 10.0)),
}
"""Name to constructor and its three values: as many for each."""


@dataclass(frozen=True)
class Agreement:
    """Accuracies by learner, in [0, 1]."""

    train: dict[str, float]
    test: dict[str, float]
    chosen: dict[str, float]
    majority: float  # share of the most frequent class among the test rows

    @property
    def spread(self) -> float:
        """Best less worst test accuracy."""
        return max(self.test.values()) - min(self.test.values())

    @property
    def gap(self) -> float:
        """Mean over learners of training less test accuracy."""
        return float(np.mean([self.train[name] - self.test[name] for name in self.test]))

    @property
    def lift(self) -> float:
        """Best test accuracy above the majority's share: learners also agree where none of them learns."""
        return max(self.test.values()) - self.majority


def agreement(train: Problem, test: Problem, seed: int = 0) -> Agreement:
    """Tune the five learners by cross-validation on the training rows, fit them, test them.

    Columns are standardised and missing values become the median. Folds are of equal class shares as far as rows
    allow.

        >>> agreement(*load_problem("wine").halves(0.7, np.random.default_rng(0))).spread
    """
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted, tested, chosen = {}, {}, {}
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    for name, (make, values) in LEARNERS.items():
        models = [
            make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), make(value, seed))
            for value in values
        ]
        scores = [cross_val_score(model, train.X, train.y, cv=folds).mean() for model in models]
        best = int(np.argmax(scores))
        model = models[best].fit(train.X, train.y)
        chosen[name] = values[best]
        fitted[name], tested[name] = float(model.score(train.X, train.y)), float(model.score(test.X, test.y))
    majority = float(np.bincount(test.y).max() / len(test.y))
    return Agreement(fitted, tested, chosen, majority)
