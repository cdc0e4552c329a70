"""RegMix's regressions and search: known functions, symmetries, and that nothing but training runs is seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from claimbench.errors import UserError
from claimbench.papers.data.regmix import choose_mixture, regmix
from claimbench.papers.data.regmix.regressors import (
    REGRESSORS,
    BoostedTrees,
    ExponentialLaw,
    GaussianProcess,
    Linear,
    LogFeatures,
    LogRidge,
    OneDomain,
    folds,
    regressor,
)
from claimbench.papers.data.regmix.search import search_mixture

CENTRE = np.array([0.35, 0.3, 0.2, 0.1, 0.05])
PRIOR = np.full(5, 0.2)


def mixtures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(5), count)


def bowl(shares: np.ndarray) -> np.ndarray:
    """a + sum_k b_k (w_k - c_k)^2: its least value on the simplex is at c."""
    return 2.0 + ((shares - CENTRE) ** 2 * [1.0, 2.0, 3.0, 2.0, 1.0]).sum(axis=1)


def fast_trees() -> BoostedTrees:
    return BoostedTrees(trees=60, learning_rate=0.2)


def test_trees_and_search_recover_a_known_optimum() -> None:
    train = mixtures(512, 0)
    found = search_mixture(fast_trees().fit(train, bowl(train)).predict, PRIOR, seed=1, draws=20_000)
    assert np.abs(found - CENTRE).sum() / 5 < 0.05
    assert found.sum() == pytest.approx(1)


def test_the_true_loss_is_searched_to_its_optimum() -> None:
    found = search_mixture(bowl, PRIOR, seed=2)
    assert np.abs(found - CENTRE).max() < 0.05


def test_trees_order_a_curved_loss_better_than_a_line() -> None:
    train, test = mixtures(256, 3), mixtures(128, 4)
    trees = spearmanr(fast_trees().fit(train, bowl(train)).predict(test), bowl(test)).statistic
    line = spearmanr(Linear().fit(train, bowl(train)).predict(test), bowl(test)).statistic
    assert trees > 0.9 > line


def test_trees_are_chosen_inside_the_training_set() -> None:
    """Noise wants few trees, a clean signal many; and no test mixture is there to be seen."""
    train = mixtures(100, 5)
    noise = np.random.default_rng(6).normal(size=100)
    assert fast_trees().fit(train, noise).chosen < 15
    assert fast_trees().fit(train, train[:, 0]).chosen > 30


def test_few_runs_can_be_split() -> None:
    """With LightGBM's own 20 runs a leaf, 30 runs give one leaf and a constant."""
    train = mixtures(30, 7)
    assert np.ptp(fast_trees().fit(train, train[:, 0]).predict(train)) > 0.1


def test_equal_seeds_give_equal_trees() -> None:
    train, test = mixtures(100, 8), mixtures(20, 9)
    first, second = (fast_trees().fit(train, bowl(train)).predict(test) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["linear", "log-ridge", "one-domain", "lightgbm"])
def test_the_order_of_domains_does_not_matter(name: str) -> None:
    train, test, order = mixtures(60, 10), mixtures(60, 11), np.array([3, 1, 4, 0, 2])

    def make() -> object:
        return fast_trees() if name == "lightgbm" else regressor(name)

    straight = make().fit(train, bowl(train)).predict(test)
    turned = make().fit(train[:, order], bowl(train)).predict(test[:, order])
    # splits of equal gain are taken in the columns' order, so that trees agree up to those
    limit = 0.1 * straight.std() if name == "lightgbm" else 1e-8
    assert np.sqrt(np.mean((straight - turned) ** 2)) < limit


def test_linear_finds_a_line() -> None:
    train, test, slopes = mixtures(40, 12), mixtures(10, 13), np.array([1.0, -2.0, 0.5, 3.0, 0.0])
    np.testing.assert_allclose(Linear().fit(train, train @ slopes).predict(test), test @ slopes, atol=1e-10)


def test_log_ridge_finds_its_own_functions() -> None:
    train, test = mixtures(200, 14), mixtures(50, 15)

    def loss(shares: np.ndarray) -> np.ndarray:
        return shares[:, 0] - 0.3 * np.log(shares[:, 1] + 1e-2)

    model = LogRidge().fit(train, loss(train))
    assert model.offset == 1e-2
    np.testing.assert_allclose(model.predict(test), loss(test), atol=1e-4)


def test_ridge_is_scikit_learns() -> None:
    train, test = mixtures(60, 24), mixtures(10, 25)
    losses = bowl(train) + np.random.default_rng(26).normal(0, 0.2, 60)
    model = LogRidge().fit(train, losses)
    features = LogFeatures(train, model.offset)
    theirs = Ridge(alpha=60 * model.penalty).fit(features(train), losses)
    np.testing.assert_allclose(model.predict(test), theirs.predict(features(test)), atol=1e-9)


def test_the_exponential_law_finds_its_own_functions() -> None:
    train, test, slopes = mixtures(100, 16), mixtures(50, 17), np.array([-3.0, -1.0, 0.0, 1.0, 0.5])

    def loss(shares: np.ndarray) -> np.ndarray:
        return 1.5 + 0.4 * np.exp(shares @ slopes)

    np.testing.assert_allclose(ExponentialLaw().fit(train, loss(train)).predict(test), loss(test), atol=1e-5)


def test_a_gaussian_process_interpolates_a_smooth_loss() -> None:
    train, test = mixtures(80, 18), mixtures(40, 19)
    model = GaussianProcess(likelihood_runs=40).fit(train, bowl(train))
    np.testing.assert_allclose(model.predict(train), bowl(train), atol=0.02 * bowl(train).std())
    assert spearmanr(model.predict(test), bowl(test)).statistic > 0.99


def test_one_domain_finds_the_domain_that_helps() -> None:
    train = mixtures(100, 20)
    model = OneDomain().fit(train, np.exp(-5 * train[:, 3]) + 0.01 * train[:, 1])
    assert model.domain == 3
    assert spearmanr(model.predict(train), train[:, 3]).statistic == pytest.approx(-1)
    # where every domain hurts, the rule still says "more of one is better"
    bad = OneDomain().fit(train[:, :1], train[:, 0])
    assert spearmanr(bad.predict(train[:, :1]), train[:, 0]).statistic == pytest.approx(-1)


def test_every_row_is_held_out_once() -> None:
    parts = folds(23, seed=0)
    assert sorted(np.concatenate([held for _, held in parts])) == list(range(23))
    assert all(not set(train) & set(held) for train, held in parts)
    with pytest.raises(UserError, match="too few"):
        folds(9, seed=0)


def test_every_regression_is_known_by_name() -> None:
    assert set(REGRESSORS) == {
        "lightgbm",
        "linear",
        "log-ridge",
        "exponential-law",
        "gaussian-process",
        "one-domain",
    }
    with pytest.raises(UserError, match="no regression"):
        regressor("forest")


def test_choose_mixture_trains_once_and_reports_what_it_rests_on() -> None:
    calls = []

    def train(shares: np.ndarray) -> np.ndarray:
        calls.append(shares)
        return bowl(shares)

    prior = dict.fromkeys("abcde", 1.0)
    choice = choose_mixture(
        prior, train, runs=120, tests=30, regression="log-ridge", tokens_per_run=10, seed=3
    )
    assert len(calls) == 1
    assert choice.mixtures.shape == (150, 5)
    assert choice.tokens == 1500
    assert choice.correlation > 0.7
    assert sum(choice.weights.values()) == pytest.approx(1)
    assert bowl(np.array([list(choice.weights.values())]))[0] < np.quantile(choice.losses, 0.2)
    with pytest.raises(UserError, match="one finite loss"):
        choose_mixture(prior, lambda shares: np.full(len(shares), np.nan), runs=20, tests=0)


def test_regmix_gives_the_targets_twin_the_most() -> None:
    rng = np.random.default_rng(4)
    texts = {
        name: bytes(rng.integers(start, start + 9, 3000).astype(np.uint8))
        for name, start in (("digits", 48), ("upper", 65), ("lower", 97))
    }
    target = bytes(rng.integers(97, 106, 1000).astype(np.uint8))
    choice = regmix(texts, target, runs=60, tests=20, order=2, tokens=3000, regression="linear")
    assert max(choice.weights, key=choice.weights.__getitem__) == "lower"
    assert choice.weights["lower"] > 0.8
