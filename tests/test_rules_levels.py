"""The levels of looks: against brute force, simulation and closed forms."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from claimbench.rules.levels import ALPHA, look_level, sign_boundary, sign_level, t_crossing, t_quantile

SCHEDULES = [(5, 8, 12), (6, 9, 12)]


def test_one_look_spends_everything():
    assert look_level(ALPHA, (2,)) == ALPHA
    assert t_crossing(0.01, (7,)) == pytest.approx(0.01)


def test_three_looks_of_the_design():
    """DESIGN: 1.06 % at 5, 8 and 12 seeds; the solved level agrees with it in its last printed digit."""
    assert look_level(ALPHA, (5, 8, 12)) == pytest.approx(0.0106, abs=1e-4)


@pytest.mark.parametrize("looks", SCHEDULES)
@pytest.mark.parametrize("share", [ALPHA, ALPHA / 4])
def test_levels_spend_their_share_in_simulation(looks, share):
    rng = np.random.default_rng(7)
    level = look_level(share, looks)
    sets, crossed = 200_000, 0
    seeds = rng.standard_normal((sets, looks[-1]))
    rejected = np.zeros(sets, dtype=bool)
    for n in looks:
        t = stats.ttest_1samp(seeds[:, :n], 0, axis=1).statistic
        rejected |= t > stats.t.isf(level, n - 1)
    crossed = rejected.mean()
    assert abs(crossed - share) < 4 * math.sqrt(share / sets)  # four standard errors: 1 in 16,000


@pytest.mark.parametrize("looks", SCHEDULES)
def test_smaller_shares_get_relatively_smaller_levels(looks):
    """Between Bonferroni over the looks and no correction, and never more than the share allows."""
    levels = [look_level(ALPHA / j, looks) * j / ALPHA for j in (1, 2, 4, 12, 100)]
    assert levels == sorted(levels, reverse=True)
    assert all(1 / 3 < relative < 1 for relative in levels)
    for j in (1, 12):
        assert t_crossing(look_level(ALPHA / j, looks), looks) == pytest.approx(ALPHA / j, rel=1e-6)


def test_quantile_is_students():
    for n, level in itertools.product((2, 5, 12), (0.3, 0.0106, 1e-6)):
        assert t_quantile(level, n - 1) == pytest.approx(stats.t.isf(level, n - 1), rel=1e-9)


def crossing(boundaries, looks):
    """The share of all sequences of fair tosses that reach a boundary: every sequence is looked at."""
    tosses = np.array(list(itertools.product((0, 1), repeat=looks[-1])))
    reached = np.zeros(len(tosses), dtype=bool)
    for boundary, n in zip(boundaries, looks, strict=True):
        if boundary is not None:
            reached |= tosses[:, :n].sum(axis=1) >= boundary
    return reached.mean()


@pytest.mark.parametrize("looks", [(6, 9, 12), (5, 8, 12), (2,), (4, 7)])
@pytest.mark.parametrize("share", [0.3, ALPHA, ALPHA / 2, ALPHA / 3, ALPHA / 6, ALPHA / 60])
def test_sign_boundaries_by_enumeration(looks, share):
    """They spend at most the share, and none can be one lower with the earlier ones as they are."""
    found = sign_boundary(share, looks)
    assert crossing(found, looks) <= share
    for index, n in enumerate(looks):
        boundary = n + 1 if found[index] is None else found[index]
        lower = [*found[:index], boundary - 1, *[None] * (len(looks) - index - 1)]
        assert crossing(lower, looks) > share


def test_sign_boundary_by_hand():
    """6 of 6: 1/64. 8 of 9 would add 6/512; 9 of 9 adds nothing. 11 of 12 adds the 6 sequences that miss early."""
    assert sign_boundary(ALPHA, (6, 9, 12)) == (6, 9, 11)
    assert crossing((6, 9, 11), (6, 9, 12)) == 1 / 64 + 6 / 4096
    assert sign_boundary(ALPHA / 100, (6, 9, 12)) == (None, None, 12)
    assert sign_boundary(ALPHA / 1000, (6, 9, 12)) == (None, None, None)
    assert sign_level(6, 6) == 1 / 64


@given(st.integers(1, 40), st.floats(1e-4, 0.5))
@settings(max_examples=50, deadline=None)
def test_one_look_is_the_binomial_quantile(n, share):
    (found,) = sign_boundary(share, (n,))
    counts = [
        c
        for c in range(n + 1)
        if Fraction(sum(math.comb(n, i) for i in range(c, n + 1)), 2**n) <= Fraction(share)
    ]
    assert found == (min(counts) if counts else None)


@pytest.mark.parametrize("call", [look_level, sign_boundary])
def test_impossible_shares_are_refused(call):
    for share in (0.0, 0.7):
        with pytest.raises(ValueError, match="between 0 and one half"):
            call(share, (6, 9, 12))


def test_impossible_looks_are_refused():
    for looks in ((), (1,), (5, 6), (8, 5)):
        with pytest.raises(ValueError, match="looks"):
            look_level(ALPHA, looks)
