"""Provable pretraining: each model's likelihood, features and risk against libraries, closed forms and Monte Carlo."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.stats import multivariate_normal, ortho_group

from claimbench.errors import UserError
from claimbench.papers.theory.unsupervised_pretraining.bound import (
    expected_least_squares_risk,
    expected_overlap,
    theorem_bound,
)
from claimbench.papers.theory.unsupervised_pretraining.contrastive import (
    fit_contrastive,
    pair_loss,
    sample_pairs,
)
from claimbench.papers.theory.unsupervised_pretraining.factor import (
    FactorTask,
    Moments,
    choose_factors,
    fit_loadings,
    fit_two_stage,
    log_likelihood,
    posterior_map,
    random_task,
)
from claimbench.papers.theory.unsupervised_pretraining.linear import (
    FOLDS,
    PENALTIES,
    composed,
    lasso,
    least_squares,
    least_squares_of,
    partial_least_squares,
    ridge,
    ridge_of,
)
from claimbench.papers.theory.unsupervised_pretraining.mixture import (
    em_path,
    fit_means,
    label_components,
    likelihood,
    predict_labels,
    random_mixture,
    responsibilities,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def task(rng: np.random.Generator) -> FactorTask:
    return random_task(12, 3, 2.0, 0.5, rng)


# ---- factor model ----


def test_loadings_are_those_of_scikit_learn_where_the_noise_is_one(
    task: FactorTask, rng: np.random.Generator
) -> None:
    from sklearn.decomposition import PCA, FactorAnalysis

    X, _ = task.sample(20_000, rng)
    found = fit_loadings(X.T @ X / len(X), 3)
    # Both estimate the noise of x, and factor analysis one for each column: variances off by sqrt(2 / 20,000).
    reference = FactorAnalysis(3, svd_method="lapack", max_iter=200).fit(X)
    np.testing.assert_allclose(found @ found.T, reference.components_.T @ reference.components_, atol=0.08)
    principal = PCA(3).fit(X)
    assert principal.noise_variance_ == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found @ found.T + np.eye(12), principal.get_covariance(), atol=0.02)


def test_no_loadings_are_likelier(task: FactorTask, rng: np.random.Generator) -> None:
    gram = task.sample_moments(500, rng).gram
    found = fit_loadings(gram, 3)
    best = log_likelihood(found, gram)
    assert best >= log_likelihood(task.loadings, gram)
    for scale in (1e-3, 0.1):
        for _ in range(50):
            assert best >= log_likelihood(found + scale * rng.standard_normal((12, 3)), gram)


def test_the_likelihood_is_that_of_a_normal_law(task: FactorTask, rng: np.random.Generator) -> None:
    X, _ = task.sample(50, rng)
    expected = multivariate_normal(np.zeros(12), task.covariance).logpdf(X).mean()
    assert log_likelihood(task.loadings, X.T @ X / 50) == pytest.approx(expected, rel=1e-10)


def test_weak_directions_get_no_loading() -> None:
    assert np.abs(fit_loadings(np.diag([0.5, 0.9, 4.0]), 2)[:, 1]).max() == 0
    with pytest.raises(UserError, match="r = 4"):
        fit_loadings(np.eye(3), 4)


def test_the_posterior_mean_by_woodbury(task: FactorTask) -> None:
    B = task.loadings
    np.testing.assert_allclose(posterior_map(B).T, B.T @ np.linalg.inv(B @ B.T + np.eye(12)), atol=1e-10)


def test_rotated_factors_predict_the_same(task: FactorTask, rng: np.random.Generator) -> None:
    X, y = task.sample(40, rng)
    labelled = Moments.of(X, y)
    turn = ortho_group.rvs(3, random_state=1)
    np.testing.assert_allclose(
        fit_two_stage(posterior_map(task.loadings), labelled),
        fit_two_stage(posterior_map(task.loadings @ turn), labelled),
        atol=1e-10,
    )


def test_the_best_predictor_and_its_residual(task: FactorTask, rng: np.random.Generator) -> None:
    hidden = random_task(12, 3, 2.0, 0.5, rng, hidden=True)
    np.testing.assert_allclose(hidden.loadings.T @ hidden.hidden, 0, atol=1e-12)
    for model in (task, hidden):
        X, y = model.sample(300_000, rng)
        assert np.var(y - X @ model.best) == pytest.approx(model.residual_variance, rel=0.02)
        np.testing.assert_allclose(least_squares_of(Moments.of(X, y)), model.best, atol=0.02)
        other = model.best + 0.3 * rng.standard_normal(12)
        measured = np.mean((y - X @ other) ** 2) - np.mean((y - X @ model.best) ** 2)
        assert model.excess_risk(other) == pytest.approx(measured, rel=0.05)
        assert model.excess_risk(model.best) == 0


def test_expected_risks_are_exact_for_normal_inputs(task: FactorTask, rng: np.random.Generator) -> None:
    n = 60
    risks = {"oracle": [], "ols": []}
    for _ in range(600):
        X, y = task.sample(n, rng)
        risks["oracle"].append(
            task.excess_risk(fit_two_stage(posterior_map(task.loadings), Moments.of(X, y)))
        )
        risks["ols"].append(task.excess_risk(least_squares(X, y)))
    for name, columns in (("oracle", 3), ("ols", 12)):
        expected = expected_least_squares_risk(task.residual_variance, columns, n)
        spread = np.std(risks[name]) / math.sqrt(600)
        assert abs(np.mean(risks[name]) - expected) < 4 * spread, name


def test_moments_of_large_sets_have_wisharts_law(task: FactorTask, rng: np.random.Generator) -> None:
    n = 400
    drawn = [task.sample_moments(n, rng) for _ in range(400)]
    joint = np.array([[m.gram[0, 0], m.gram[0, 1], m.cross[0], m.square] for m in drawn])
    sampled = [Moments.of(*task.sample(n, rng)) for _ in range(400)]
    other = np.array([[m.gram[0, 0], m.gram[0, 1], m.cross[0], m.square] for m in sampled])
    error = np.sqrt((joint.var(0) + other.var(0)) / 400)
    assert (np.abs(joint.mean(0) - other.mean(0)) < 4 * error).all()
    np.testing.assert_allclose(joint.std(0), other.std(0), rtol=0.15)
    assert drawn[0].n == n


def test_both_arms_end_at_the_same_predictor(task: FactorTask, rng: np.random.Generator) -> None:
    labelled = task.sample_moments(10**8, rng)
    frozen = posterior_map(fit_loadings(task.sample_moments(10**8, rng).gram, 3))
    for predictor in (fit_two_stage(frozen, labelled), least_squares_of(labelled), ridge_of(labelled)):
        assert task.excess_risk(predictor) < 1e-6


def test_as_many_factors_as_columns_are_no_advantage(rng: np.random.Generator) -> None:
    task = random_task(6, 6, 2.0, 0.5, rng)
    X, y = task.sample(50, rng)
    frozen = posterior_map(fit_loadings(task.sample_moments(5000, rng).gram, 6))
    np.testing.assert_allclose(fit_two_stage(frozen, Moments.of(X, y)), least_squares(X, y), atol=1e-8)


def test_the_number_of_factors_is_found_where_they_are_strong(rng: np.random.Generator) -> None:
    for r in (1, 3, 5):
        task = random_task(20, r, 1.5, 0.5, rng)
        assert choose_factors(task.sample_moments(5000, rng).gram, 5000) == r


def test_the_overlap_of_eigenvectors_has_its_limit(rng: np.random.Generator) -> None:
    d, m = 400, 1600
    for strength in (0.4, 1.0, 2.0):
        task = random_task(d, 1, strength, 0.5, rng)
        X, _ = task.sample(m, rng)
        top = np.linalg.eigh(X.T @ X / m)[1][:, -1]
        overlap = float((top @ task.loadings[:, 0]) ** 2) / strength**2
        assert overlap == pytest.approx(expected_overlap(strength, d, m), abs=0.1)
    assert expected_overlap(0.4, d, m) == 0


def test_the_bound_has_the_stated_form() -> None:
    least = theorem_bound(50, 3, 10**12, 10**12, loss=1.0)
    assert least < 1e-4
    one = theorem_bound(50, 3, 10**12, 100, loss=1.0)
    assert one == pytest.approx(2 * math.sqrt(0.03) + math.sqrt(math.log(20) / 100), abs=1e-4)
    assert theorem_bound(50, 3, 100, 10**12, loss=1.0, kappa=2.0) == pytest.approx(
        2 * math.sqrt((150 * math.log(100) + math.log(20)) / 100), abs=1e-4
    )


# ---- supervised baselines ----


def test_ridge_is_scikit_learns_with_the_penalty_of_its_search(
    task: FactorTask, rng: np.random.Generator
) -> None:
    from sklearn.model_selection import PredefinedSplit

    for n in (12, 40):  # at the pole of least squares, and above it
        X, y = task.sample(n, rng)
        grid = PENALTIES * float((X**2).mean())
        fold = PredefinedSplit(np.arange(n) % FOLDS)
        errors = [
            sum(
                float(((_ridge(penalty * len(a)).fit(X[a], y[a]).predict(X[b]) - y[b]) ** 2).sum())
                for a, b in fold.split()
            )
            for penalty in grid
        ]
        chosen = _ridge(grid[int(np.argmin(errors))] * n).fit(X, y)
        np.testing.assert_allclose(ridge(X, y), chosen.coef_, atol=1e-7)


def _ridge(penalty: float) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=penalty, fit_intercept=False)


def test_ridge_from_moments_has_the_least_generalised_error(
    task: FactorTask, rng: np.random.Generator
) -> None:
    X, y = task.sample(60, rng)
    labelled = Moments.of(X, y)
    scores, fitted = [], []
    for penalty in PENALTIES * float(np.trace(labelled.gram)) / 12 * 60:
        hat = X @ np.linalg.solve(X.T @ X + penalty * np.eye(12), X.T)
        scores.append(float(((y - hat @ y) ** 2).mean() / (1 - np.trace(hat) / 60) ** 2))
        fitted.append(np.linalg.solve(X.T @ X + penalty * np.eye(12), X.T @ y))
    np.testing.assert_allclose(ridge_of(labelled), fitted[int(np.argmin(scores))], atol=1e-9)


def test_partial_least_squares_is_scikit_learns(task: FactorTask, rng: np.random.Generator) -> None:
    from sklearn.cross_decomposition import PLSRegression

    X, y = task.sample(60, rng)
    X, y = X - X.mean(0), y - y.mean()
    for components in (1, 3, 12):
        reference = PLSRegression(components, scale=False).fit(X, y).coef_.ravel()
        np.testing.assert_allclose(partial_least_squares(X, y, components), reference, atol=1e-6)
    np.testing.assert_allclose(partial_least_squares(X, y, 12), least_squares(X, y), atol=1e-6)


def test_tuned_baselines_beat_least_squares_at_its_pole(task: FactorTask, rng: np.random.Generator) -> None:
    risks = {"ols": 0.0, "ridge": 0.0, "lasso": 0.0, "composed": 0.0}
    for _ in range(5):
        X, y = task.sample(14, rng)
        for name, found in (
            ("ols", least_squares(X, y)),
            ("ridge", ridge(X, y)),
            ("lasso", lasso(X, y)),
            ("composed", composed(X, y, 3, rng)),
        ):
            risks[name] += task.excess_risk(found) / 5
    assert max(risks["ridge"], risks["lasso"], risks["composed"]) < risks["ols"] / 2
    zero = task.excess_risk(np.zeros(12))
    assert max(risks["ridge"], risks["composed"]) < zero


def test_the_composed_class_reaches_least_squares_with_many_labels(
    task: FactorTask, rng: np.random.Generator
) -> None:
    X, y = task.sample(4000, rng)
    assert task.excess_risk(composed(X, y, 3, rng)) < 4 * task.residual_variance * 12 / 4000


# ---- mixture ----


def test_em_climbs_and_finds_the_means(rng: np.random.Generator) -> None:
    task = random_mixture(4, 10, 6.0, 0.1, rng)
    X, _ = task.sample(2000, rng)
    means, path = em_path(X, X[:4])
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(path))
    assert likelihood(X, means) >= path[0]
    found = fit_means(X, 4, rng)
    gaps = np.linalg.norm(found[:, None] - task.means, axis=2).min(0)
    assert gaps.max() < 5 * math.sqrt(10 * 4 / 2000)
    assert likelihood(X, found) >= likelihood(X, task.means)
    distances = np.linalg.norm(task.means[:, None] - task.means, axis=2)
    np.testing.assert_allclose(distances[~np.eye(4, dtype=bool)], 6.0)
    with pytest.raises(UserError, match="3 points"):
        fit_means(X[:3], 4, rng)
    with pytest.raises(UserError, match="at most 10"):
        random_mixture(11, 10, 6.0, 0.1, rng)


def test_em_is_scikit_learns_where_the_rest_is_known(rng: np.random.Generator) -> None:
    from sklearn.mixture import GaussianMixture

    task = random_mixture(3, 5, 8.0, 0.1, rng)
    X, _ = task.sample(20_000, rng)
    reference = GaussianMixture(3, covariance_type="spherical", means_init=task.means, tol=1e-6).fit(X)
    found, _ = em_path(X, task.means)
    # The library also estimates weights and variances, which are within a percent of what is known here.
    np.testing.assert_allclose(found, reference.means_, atol=0.02)
    np.testing.assert_allclose(responsibilities(X, found).sum(1), 1)
    density = [multivariate_normal(mean, np.eye(5)).pdf(X[:7]) / 3 for mean in found]
    np.testing.assert_allclose(
        responsibilities(X[:7], found), (np.array(density) / np.sum(density, axis=0)).T, atol=1e-12
    )
    assert likelihood(X[:7], found) == pytest.approx(np.log(np.sum(density, axis=0)).mean())


def test_relabelled_components_predict_the_same(rng: np.random.Generator) -> None:
    task = random_mixture(4, 8, 5.0, 0.1, rng)
    X, y = task.sample(30, rng)
    tests, _ = task.sample(200, rng)
    order = rng.permutation(4)
    for means in (task.means, task.means[order]):
        bits = label_components(responsibilities(X, means), y)
        found = predict_labels(responsibilities(tests, means), bits)
        if means is task.means:
            expected = found
    np.testing.assert_array_equal(found, expected)


def test_labels_are_those_with_the_fewest_errors(rng: np.random.Generator) -> None:
    shares = np.eye(3)[rng.integers(2, size=200)]  # hard responsibilities; the third component is empty
    y = rng.integers(2, size=200)
    found = label_components(shares, y)
    for component in range(2):
        own = y[shares[:, component] == 1]
        errors = [(own != bit).sum() for bit in (0, 1)]
        assert errors[int(found[component])] == min(errors)
    assert found[2] == (2 * y.sum() >= 200)


def test_excess_error_is_what_labels_show(rng: np.random.Generator) -> None:
    task = random_mixture(4, 6, 3.0, 0.1, rng)
    X, y = task.sample(100_000, rng)
    best = task.chance(X) > 0.5
    other = X[:, 0] > 0
    measured = (other != y).mean() - (best != y).mean()
    assert task.excess_error(other, X) == pytest.approx(measured, abs=0.01)
    assert task.excess_error(best, X) == 0
    np.testing.assert_allclose(y.mean(), task.chance(X).mean(), atol=0.01)


# ---- contrastive ----


def test_the_pairs_loss_and_its_slope(rng: np.random.Generator) -> None:
    loadings = rng.standard_normal((5, 2))
    pairs = sample_pairs(loadings, 50, rng)
    point = 0.5 * rng.standard_normal((5, 2))
    loss, slope = pair_loss(point, *pairs)
    numeric = approx_fprime(point.ravel(), lambda flat: pair_loss(flat.reshape(5, 2), *pairs)[0], 1e-7)
    np.testing.assert_allclose(slope.ravel(), numeric, atol=1e-5)
    left, right, together = pairs
    chance = 1 / (1 + np.exp(-np.einsum("mi,ir,jr,mj->m", left, point, point, right)))
    assert loss == pytest.approx(-np.log(np.where(together == 1, chance, 1 - chance)).mean())
    turn = ortho_group.rvs(2, random_state=1)
    assert pair_loss(point @ turn, *pairs)[0] == pytest.approx(loss)


def test_contrastive_fit_finds_the_features_and_no_better_optimum(rng: np.random.Generator) -> None:
    loadings = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    pairs = sample_pairs(loadings, 40_000, rng)
    found = fit_contrastive(*pairs, 2)
    np.testing.assert_allclose(found @ found.T, loadings @ loadings.T, atol=0.08)
    best = pair_loss(found, *pairs)[0]
    assert best <= pair_loss(loadings, *pairs)[0]
    for _ in range(2):  # other starts
        start = rng.standard_normal(12)
        again = minimize(lambda flat: pair_loss(flat.reshape(6, 2), *pairs)[0], start, method="L-BFGS-B")
        assert best <= again.fun + 1e-6
    with pytest.raises(UserError, match="r = 7"):
        fit_contrastive(*pairs, 7)
