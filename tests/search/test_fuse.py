"""Reciprocal rank fusion against the formula written out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimbench.search.fuse import K, reciprocal_rank

RANKINGS = st.lists(st.lists(st.integers(0, 12), unique=True, max_size=10), max_size=4)


@given(RANKINGS)
def test_scores_are_the_sum_over_rankings(rankings: list[list[int]]) -> None:
    fused = reciprocal_rank(rankings)
    for item in {item for ranking in rankings for item in ranking}:
        terms = [1 / (K + ranking.index(item) + 1) for ranking in rankings if item in ranking]
        assert fused[item] == pytest.approx(sum(terms), rel=1e-12)
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


def test_one_ranking_keeps_its_order_and_agreement_wins() -> None:
    assert list(reciprocal_rank([[3, 1, 2]])) == [3, 1, 2]
    assert next(iter(reciprocal_rank([[1, 2, 3], [4, 2, 5]]))) == 2
    assert reciprocal_rank([]) == {}
