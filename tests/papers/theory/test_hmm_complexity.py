"""Filters, heads and limits of hmm-complexity against brute force, hmmlearn, scikit-learn and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from claimbench.errors import UserError
from claimbench.papers.theory.hmm_complexity import (
    HiddenMarkov,
    Task,
    best_overparametrised,
    filter_features,
    forward_filter,
    gaussian_risk,
    head_risks,
    isotropic_risk,
    minimum_norm,
    misspecified_risk,
    next_token_law,
    optimal_penalty,
    random_model,
    sample_prefixes,
    spectral_risk,
    standardise,
    tuned_head,
)
from claimbench.papers.theory.hmm_complexity.heads import CHOICES, FILTERS, fit_heads
from claimbench.papers.theory.hmm_complexity.problem import noise_root


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


# ---- hidden Markov models ----


def path_probability(model: HiddenMarkov, tokens: list[int], path: tuple[int, ...]) -> float:
    chance = float(model.start[path[0]] * model.emission[path[0], tokens[0]])
    for step in range(1, len(tokens)):
        chance *= float(
            model.transition[path[step - 1], path[step]] * model.emission[path[step], tokens[step]]
        )
    return chance


def test_the_filter_is_the_posterior_over_all_paths() -> None:
    model = random_model(3, vocabulary=4, transition=1.0, emission=1.0, seed=1)
    tokens = sample_prefixes(model, 6, 5, generator())
    belief, likelihood = forward_filter(model, tokens)
    for index in range(6):
        own = tokens[index].tolist()
        by_last = np.zeros(3)
        for path in itertools.product(range(3), repeat=5):
            by_last[path[-1]] += path_probability(model, own, path)
        np.testing.assert_allclose(belief[index], by_last / by_last.sum(), atol=1e-13)
        assert float(likelihood[index]) == pytest.approx(math.log(by_last.sum()))


def test_filter_and_likelihood_are_hmmlearns() -> None:
    hmm = pytest.importorskip("hmmlearn.hmm", reason="a reference implementation, needed for this test alone")
    model = random_model(7, seed=2)
    reference = hmm.CategoricalHMM(n_components=7, n_features=14)
    reference.startprob_, reference.transmat_ = model.start.numpy(), model.transition.numpy()
    reference.emissionprob_ = model.emission.numpy()
    tokens = sample_prefixes(model, 5, 12, generator(3))
    belief, likelihood = forward_filter(model, tokens)
    for index in range(5):
        column = tokens[index][:, None].numpy()
        np.testing.assert_allclose(belief[index], reference.predict_proba(column)[-1], atol=1e-9)
        assert float(likelihood[index]) == pytest.approx(reference.score(column))


def test_next_token_laws_multiply_to_the_likelihood() -> None:
    model = random_model(5, seed=4)
    tokens = sample_prefixes(model, 9, 8, generator(1))
    _, likelihood = forward_filter(model, tokens)
    logs = (model.start @ model.emission)[tokens[:, 0]].log()
    for step in range(1, 8):
        law = next_token_law(model, forward_filter(model, tokens[:, :step])[0])
        torch.testing.assert_close(law.sum(1), torch.ones(9, dtype=torch.float64))
        logs = logs + law.gather(1, tokens[:, step : step + 1])[:, 0].log()
    torch.testing.assert_close(logs, likelihood)


def test_samples_follow_the_models_law() -> None:
    model = random_model(3, vocabulary=3, transition=1.0, emission=1.0, seed=5)
    tokens = sample_prefixes(model, 40_000, 2, generator(2))
    joint = (model.start[:, None] * model.emission).T @ model.transition @ model.emission
    counted = torch.zeros(3, 3, dtype=torch.float64)
    counted.index_put_((tokens[:, 0], tokens[:, 1]), torch.ones(40_000, dtype=torch.float64), accumulate=True)
    # Nine cells, each a share with a standard error of 0.0025 at most.
    torch.testing.assert_close(counted / 40_000, joint, rtol=0, atol=0.01)


def test_filters_of_forty_states_have_rank_39() -> None:
    model = random_model(40, seed=0)
    raw = filter_features(model, 4000, 12, generator())
    torch.testing.assert_close(raw.sum(1), torch.ones(4000, dtype=torch.float64))
    standard = standardise(raw, whiten=True)
    assert len(standard.spectrum) == 39
    white = standard(raw)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(39, dtype=torch.float64), rtol=0, atol=1e-9)
    scaled = standardise(raw, whiten=False)
    assert float(torch.cov(scaled(raw).T).trace()) == pytest.approx(39)
    torch.testing.assert_close(torch.cov(scaled(raw).T).diag(), scaled.spectrum)
    assert len(standardise(raw, whiten=True, most=10).spectrum) == 10


def test_laws_that_are_none_and_impossible_sequences_are_named() -> None:
    half = torch.full((2, 2), 0.5, dtype=torch.float64)
    with pytest.raises(UserError, match="emission: rows are laws"):
        HiddenMarkov(half[0], half, 1.5 * half)
    with pytest.raises(UserError, match="do not fit"):
        HiddenMarkov(half[0], half[:1], half)
    sure = HiddenMarkov(half[0], half, torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    with pytest.raises(UserError, match="probability 0 at position 1"):
        forward_filter(sure, torch.tensor([[0, 1]]))


# ---- heads ----


def test_least_squares_recovers_and_interpolates() -> None:
    design, truth = normal(4, 30, 20), normal(4, 20, 2, seed=1)
    assert float((minimum_norm(design, design @ truth) - truth).abs().max()) < 1e-10
    wide, answers = normal(4, 15, 40, seed=2), normal(4, 15, 2, seed=3)
    head = minimum_norm(wide, answers)
    assert float((wide @ head - answers).abs().max()) < 1e-8
    # in the row space, and the limit of ridge
    outside = head - wide.mT @ torch.linalg.solve(wide @ wide.mT, wide @ head)
    assert float(outside.abs().max()) < 1e-10
    gram = wide @ wide.mT + 1e-9 * torch.eye(
        15, dtype=torch.float64
    )  # ridge in its dual form, which stays conditioned
    torch.testing.assert_close(wide.mT @ torch.linalg.solve(gram, answers), head, rtol=0, atol=1e-9)


def test_turning_the_features_changes_no_answer() -> None:
    design, answers, test = normal(1, 15, 40), normal(1, 15, 2, seed=1), normal(7, 40, seed=2)
    turn = torch.linalg.qr(normal(40, 40, seed=3))[0]
    for name in ("least-squares", "ridge", "early-stopping", "components"):
        torch.testing.assert_close(
            test @ turn @ fit_heads(name, design @ turn, answers), test @ fit_heads(name, design, answers)
        )


def test_tuned_ridge_is_scikit_learns_cross_validation() -> None:
    design, truth = normal(3, 25, 12), normal(3, 12, 2, seed=1)
    answers = design @ truth + 2.0 * normal(3, 25, 2, seed=2)
    heads, chosen = tuned_head(design, answers, "ridge")
    for draw in range(3):
        X, Y = design[draw].numpy(), answers[draw].numpy()
        order = np.argsort(np.arange(25) % 5, kind="stable")  # KFold takes consecutive rows
        losses = []
        for place in range(CHOICES):
            power, loss = 10 ** (6 * place / (CHOICES - 1) - 4), 0.0
            for kept, left in KFold(5).split(order):
                rows, others = order[kept], order[left]
                penalty = power * (np.linalg.svd(X[rows], compute_uv=False) ** 2).mean()
                model = Ridge(penalty, fit_intercept=False).fit(X[rows], Y[rows])
                loss += ((model.predict(X[others]) - Y[others]) ** 2).sum()
            losses.append(loss)
        best = int(np.argmin(losses)) / (CHOICES - 1)
        assert float(chosen[draw]) == pytest.approx(best)
        penalty = 10 ** (6 * best - 4) * (np.linalg.svd(X, compute_uv=False) ** 2).mean()
        wanted = Ridge(penalty, fit_intercept=False).fit(X, Y).coef_.T
        np.testing.assert_allclose(heads[draw], wanted, atol=1e-9)


def test_early_stopping_is_gradient_descent_and_components_are_principal_ones() -> None:
    design, answers = normal(1, 20, 6), normal(1, 20, 2, seed=1)
    left, values, right = torch.linalg.svd(design[0], full_matrices=False)
    head = torch.zeros(6, 2, dtype=torch.float64)
    steps = 100
    for _ in range(steps):
        head = head - design[0].T @ (design[0] @ head - answers[0]) / values[0] ** 2
    shrink = FILTERS["early-stopping"](values[None], 2 / 6)[0]
    torch.testing.assert_close(right.T @ torch.diag(shrink / values) @ left.T @ answers[0], head)
    kept = FILTERS["components"](values[None], math.log(3) / math.log(6))[0]
    assert kept.tolist() == [1, 1, 1, 0, 0, 0]
    assert FILTERS["components"](values[None], 1.0).sum() == 6
    with pytest.raises(UserError, match="ridge"):
        tuned_head(design, answers, "rigde")


# ---- limits ----


@pytest.mark.parametrize(("samples", "features"), [(50, 10), (50, 35), (40, 90)])
def test_gaussian_designs_have_the_exact_mean(samples: int, features: int) -> None:
    draws, task = 1500, Task(outputs=2, signal=2.0, noise=0.6)
    train = normal(draws, samples, features)
    identity = torch.eye(features, dtype=torch.float64) * math.sqrt(features)  # whose covariance is exactly I
    risks = head_risks("least-squares", train, identity, task, generator(1))
    error = float(risks.std()) / math.sqrt(draws)
    assert abs(float(risks.mean()) - gaussian_risk(features, samples, 2.0, 0.6)) < 3 * error
    assert error < 0.03 * float(risks.mean())


def test_limits_agree_with_each_other_and_with_the_exact_mean_at_size() -> None:
    for ratio in (0.2, 0.7, 1.5, 3.0):
        limit = isotropic_risk(ratio, 1.5, 0.4)
        assert spectral_risk(np.ones(round(1000 * ratio)), 1000, 1.5, 0.4) == pytest.approx(limit, rel=1e-6)
        assert gaussian_risk(round(1e6 * ratio), 10**6, 1.5, 0.4) == pytest.approx(limit, rel=1e-4)
    assert math.isinf(isotropic_risk(1.0, 1, 1))
    assert math.isinf(gaussian_risk(10, 10, 1, 1))
    assert math.isinf(spectral_risk(np.ones(10), 10, 1, 1))
    # risk scales jointly in signal and noise
    spectrum = np.linspace(0.1, 3, 60)
    assert spectral_risk(spectrum, 30, 4.0, 2.0) == pytest.approx(2 * spectral_risk(spectrum, 30, 2.0, 1.0))
    # fewer features than examples: the spectrum drops out
    assert spectral_risk(spectrum, 100, 1.0, 0.5) == pytest.approx(isotropic_risk(0.6, 1.0, 0.5))


@pytest.mark.parametrize("penalty", [0.0, 5.0])
def test_the_spectral_limit_is_what_correlated_features_have(penalty: float) -> None:
    samples, features, draws = 120, 240, 60
    spectrum = np.concatenate([np.full(60, 3.0), np.full(180, 1 / 3)])
    root = torch.tensor(np.sqrt(spectrum))
    task = Task(outputs=2, signal=1.0, noise=0.3)
    train = normal(draws, samples, features) * root
    truth = task.truth(draws, features, generator(5), "cpu")
    answers = train @ truth + task.errors(draws, samples, generator(6), "cpu")
    if penalty:
        gram = train.mT @ train + penalty * torch.eye(features, dtype=torch.float64)
        head = torch.linalg.solve(gram, train.mT @ answers)
    else:
        head = minimum_norm(train, answers)
    risks = (((head - truth) * root[:, None]) ** 2).sum((1, 2))
    # The standard error is some 1 %; the limit is off by the order of 1 / samples.
    assert float(risks.mean()) == pytest.approx(spectral_risk(spectrum, samples, 1.0, 0.3, penalty), rel=0.05)


def test_the_best_penalty_and_the_best_size_are_minima() -> None:
    signal, noise, features, samples = 1.0, 0.4, 150, 100
    found = minimize_scalar(
        lambda log: spectral_risk(np.ones(features), samples, signal, noise, math.exp(log)),
        bounds=(0, 8),
        method="bounded",
    )
    assert math.exp(found.x) == pytest.approx(optimal_penalty(features, signal, noise), rel=1e-3)
    ratio, risk = best_overparametrised(1.0, 0.25)
    assert (ratio, risk) == (pytest.approx(2.0), pytest.approx(0.75))
    grid = np.linspace(1.01, 20, 4000)
    values = [isotropic_risk(g, 1.0, 0.25) for g in grid]
    assert grid[np.argmin(values)] == pytest.approx(2.0, abs=0.01)
    assert min(values) == pytest.approx(risk, abs=1e-4)
    assert best_overparametrised(1.0, 2.0) == (math.inf, 1.0)


def test_unresolved_signal_is_missed_and_is_noise() -> None:
    samples, dimensions, draws = 60, 30, 400
    task = Task(outputs=2, signal=1.0, noise=0.25, dimensions=dimensions)
    train = normal(draws, samples, 40)
    identity = torch.eye(40, dtype=torch.float64) * math.sqrt(40)
    for used in (5, 15, 40):
        risks = head_risks("least-squares", train, identity, task, generator(1), resolved=used)
        exact = gaussian_risk(used, samples, 0.0, 0.25 + max(0, 1 - used / dimensions))
        exact += max(0, 1 - used / dimensions)
        assert abs(float(risks.mean()) - exact) < 4 * float(risks.std()) / math.sqrt(draws)
    assert misspecified_risk(15, 30, 10_000, 1.0, 0.25) == pytest.approx(0.5, rel=0.01)
    assert misspecified_risk(40, 30, 60, 1.0, 0.25) == pytest.approx(0.25 * 2)
    with pytest.raises(UserError, match="60 features of 60"):
        misspecified_risk(60, 30, 60, 1, 1)


def test_only_the_trace_of_the_noise_matters() -> None:
    for shape in ("isotropic", "rank-one"):
        root = noise_root(3, 0.7, shape)
        assert np.trace(root @ root.T) == pytest.approx(0.7)
        assert np.linalg.matrix_rank(root) == (3 if shape == "isotropic" else 1)
    train, identity = normal(2000, 30, 12), torch.eye(12, dtype=torch.float64) * math.sqrt(12)
    means = [
        head_risks("least-squares", train, identity, Task(shape=shape), generator(1)).mean()
        for shape in ("isotropic", "rank-one")
    ]
    exact = gaussian_risk(12, 30, 1.0, 0.25)
    # Rank-one risks scatter by sqrt(2/12) and more of their mean each.
    np.testing.assert_allclose(means, exact, rtol=5 * 0.5 / math.sqrt(2000))
    with pytest.raises(UserError, match="rank-one"):
        noise_root(3, 1.0, "diagonal")


def test_truths_have_the_norm_asked_for_and_lie_where_they_should() -> None:
    truth = Task(outputs=2, signal=3.0, dimensions=4).truth(5, 9, generator(), "cpu")
    torch.testing.assert_close((truth**2).sum((1, 2)), torch.full((5,), 3.0, dtype=torch.float64))
    assert bool((truth[:, 4:] == 0).all())
    null = head_risks(
        "null", normal(5, 8, 9), torch.eye(9, dtype=torch.float64) * 3, Task(signal=3.0), generator()
    )
    torch.testing.assert_close(null, torch.full((5,), 3.0, dtype=torch.float64))
