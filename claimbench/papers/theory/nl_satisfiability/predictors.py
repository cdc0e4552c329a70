"""Shallow predictors of satisfiability: what can be told without reasoning.

All of them get the same chance: what they leave open is one of three values, chosen on a fifth of the training
formulas. The last two take text, so that a user's own classifier can stand in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from claimbench.papers.theory.nl_satisfiability.formulas import Formulas, clause_counts
from claimbench.papers.theory.nl_satisfiability.samples import Sample

Labels = Bool[np.ndarray, " formulas"]
TextClassifier = Callable[[Sequence[str], Labels, Sequence[str]], Labels]
"""Training theories, their labels, test theories -> labels of these."""

STRENGTHS = (0.01, 0.1, 1.0)
"""What each predictor may choose among: the inverse penalty of linear ones, the learning rate of boosting."""


ROUNDS = 120  # of boosting


def count_features(formulas: Formulas, n: int) -> Float[np.ndarray, "formulas features"]:
    """Clauses; for each variable its more and its less frequent sign; for each pair how often they meet.

    Variables stand in the order of how often they occur and pairs in the order of how often they meet, since names
    carry no meaning.
    """
    signed = np.stack([(formulas == v).sum(axis=(1, 2)) for v in [*range(1, n + 1), *range(-n, 0)]], axis=1)
    positive, negative = signed[:, :n], signed[:, n:][:, ::-1]
    more, less = np.maximum(positive, negative), np.minimum(positive, negative)
    # Ties are broken by the signs, so that a name decides nothing.
    order = np.argsort(-(more + less) * (formulas.shape[1] + 1) - more, axis=1, kind="stable")
    has = np.stack([(np.abs(formulas) == v).any(axis=-1) for v in range(1, n + 1)], axis=1).astype(np.float32)
    meet = np.einsum("fvc,fwc->fvw", has, has)
    first, second = np.triu_indices(n, 1)
    columns = [
        clause_counts(formulas)[:, None],
        np.take_along_axis(more, order, 1),
        np.take_along_axis(less, order, 1),
        np.sort(meet[:, first, second], axis=1)[:, ::-1],
    ]
    return np.concatenate(columns, axis=1).astype(np.float64)


def balanced_accuracy(predicted: Labels, true: Labels) -> float:
    """Mean of the accuracies on satisfiable and unsatisfiable formulas; of one of them if the other is absent."""
    return float(np.mean([(predicted[true == label] == label).mean() for label in np.unique(true)]))


def alpha_threshold(train: Sample, test: Sample, seed: int = 0) -> Labels:
    """Satisfiable below a number of clauses: the one with the best balanced accuracy on the training formulas."""
    m = train.clauses
    cuts = np.unique(m)
    satisfiable = np.array([(m[train.labels] <= cut).mean() for cut in cuts])
    unsatisfiable = np.array([(m[~train.labels] > cut).mean() for cut in cuts])
    return np.asarray(test.clauses <= cuts[int(np.argmax(satisfiable + unsatisfiable))])


def logistic_regression(train: Sample, test: Sample, seed: int = 0) -> Labels:
    """On `count_features`, standardised."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def make(strength: float) -> Any:
        model = LogisticRegression(C=strength, max_iter=300, class_weight="balanced")
        return make_pipeline(StandardScaler(), model)

    return _chosen(
        make, count_features(train.formulas, train.n), train.labels, count_features(test.formulas, test.n)
    )


def gradient_boosting(train: Sample, test: Sample, seed: int = 0) -> Labels:
    """On `count_features`: histogram gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    def make(strength: float) -> Any:
        return HistGradientBoostingClassifier(
            learning_rate=strength, max_iter=ROUNDS, class_weight="balanced", random_state=seed
        )

    n = max(train.n, test.n)
    return _chosen(make, count_features(train.formulas, n), train.labels, count_features(test.formulas, n))


def tfidf_svm(train: Sequence[str], labels: Labels, test: Sequence[str]) -> Labels:
    """A linear support vector machine on TF-IDF of words and pairs of words of the theories."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"[\w-]+")
    features = words.fit_transform(train)

    def make(strength: float) -> Any:
        return LinearSVC(C=strength, class_weight="balanced")

    return _chosen(make, features, labels, words.transform(test))


def _chosen(make: Callable[[float], Any], features: Any, labels: Labels, test: Any) -> Labels:
    """Fit with the strength that is best on the last fifth, then on all."""
    held = max(1, features.shape[0] // 5)
    scores = [
        balanced_accuracy(
            make(strength).fit(features[:-held], labels[:-held]).predict(features[-held:]), labels[-held:]
        )
        for strength in STRENGTHS
    ]
    model = make(STRENGTHS[int(np.argmax(scores))]).fit(features, labels)
    return np.asarray(model.predict(test), dtype=bool)


PREDICTORS: dict[str, Callable[[Sample, Sample, int], Labels]] = {
    "alpha-threshold": alpha_threshold,
    "logistic-regression": logistic_regression,
    "gradient-boosting": gradient_boosting,
}
"""Predictors that see formulas: training sample, test sample, seed -> labels."""
