"""RegMix's random mixtures: the simplex, the bounds, the moments of a Dirichlet, and that equal seeds repeat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claimbench.errors import UserError
from claimbench.papers.data.regmix.mixtures import (
    GRAIN,
    dirichlet,
    distinct,
    normalised,
    rounded,
    sample_mixtures,
    tempered,
    upper_bounds,
)

PRIOR = np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.01])


@given(sizes=st.lists(st.floats(1, 30), min_size=1, max_size=12), seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_mixtures_lie_on_the_simplex_within_the_bounds(sizes: list[float], seed: int) -> None:
    bounds = upper_bounds(np.array(sizes))
    mixtures = sample_mixtures(sizes, 4, seed=seed)
    assert mixtures.shape == (4, len(sizes))
    assert (mixtures >= 0).all()
    assert (mixtures <= bounds + 1e-12).all()
    # each share is rounded by half a grain at most, and cutting to the bound takes less than one more
    assert np.abs(mixtures.sum(axis=1) - 1).max() <= 1.5 * GRAIN * len(sizes)


def test_one_domain_has_everything() -> None:
    assert (sample_mixtures([7.0], 3, seed=0) == 1).all()


def test_shares_are_multiples_of_the_grain_and_mixtures_differ() -> None:
    mixtures = sample_mixtures(PRIOR, 200, seed=1)
    assert len(np.unique(mixtures, axis=0)) == 200
    free = sample_mixtures(PRIOR, 200, seed=1, epochs=None)
    np.testing.assert_allclose(free / GRAIN, np.round(free / GRAIN), atol=1e-6)


def test_without_bounds_the_mean_is_the_tempered_prior() -> None:
    mixtures = sample_mixtures(PRIOR, 4000, seed=2, epochs=None, surplus=2, strengths=[2.0])
    centre = tempered(PRIOR)
    # a Dirichlet of concentration s has variance q (1 - q) / (s + 1)
    error = np.sqrt(centre * (1 - centre) / 3 / 4000)
    assert (np.abs(mixtures.mean(axis=0) - centre) < 5 * error + GRAIN).all()


def test_the_largest_domains_mean_lies_between_the_prior_and_its_tempered_form() -> None:
    """The bounds reject mixtures of small domains, so that the rest is nearer to the prior than to q."""
    mean = sample_mixtures(PRIOR, 4000, seed=3, surplus=10).mean(axis=0)
    assert tempered(PRIOR)[0] < mean[0] < PRIOR[0]


def test_a_smaller_strength_gives_a_lower_entropy() -> None:
    def entropy(strength: float) -> float:
        shares = sample_mixtures(PRIOR, 300, seed=4, strengths=[strength])
        return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1).mean())

    found = [entropy(strength) for strength in (0.2, 1.0, 5.0)]
    assert found[0] < found[1] < found[2]


def test_dirichlet_has_the_moments_of_numpys() -> None:
    shapes = np.array([0.02, 0.3, 2.0])
    ours = dirichlet(np.broadcast_to(shapes, (40_000, 3)), np.random.default_rng(0))
    theirs = np.random.default_rng(1).dirichlet(shapes, 40_000)
    # two estimates of 40,000 draws of a share, whose variance is 1/4 at most, differ by 5 of their errors at most
    limit = 5 * np.sqrt(2 / 4 / 40_000)
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=limit)
    np.testing.assert_allclose((ours**2).mean(axis=0), (theirs**2).mean(axis=0), atol=limit)
    assert (dirichlet(np.array([[0.0, 1.0]]), np.random.default_rng(0)) == [[0, 1]]).all()


def test_equal_seeds_repeat_and_others_do_not() -> None:
    first, second, other = (sample_mixtures(PRIOR, 16, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_near_duplicates_go() -> None:
    mixtures = np.array([[0.5, 0.5], [0.2, 0.8], [0.5 + 4e-6, 0.5 - 4e-6]])
    assert len(distinct(mixtures)) == 2


def test_small_shares_become_zero() -> None:
    np.testing.assert_allclose(rounded(np.array([[1e-4, 0.4, 0.5999]])), [[0, 0.4, 0.6]])


@pytest.mark.parametrize("sizes", [[], [0.0, 0.0], [1.0, -1.0], [np.nan, 1.0]])
def test_an_unusable_prior_is_named(sizes: list[float]) -> None:
    with pytest.raises(UserError, match="prior"):
        normalised(sizes)


def test_bounds_that_leave_nothing_are_named() -> None:
    with pytest.raises(UserError, match="raise epochs"):
        sample_mixtures([1.0, 1.0, 1.0], 4, seed=0, epochs=0.5)
