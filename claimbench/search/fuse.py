"""Several rankings into one by reciprocal rank (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)

K = 60  # the paper's constant: it damps the weight of the very first ranks


def reciprocal_rank(rankings: Iterable[Sequence[Item]], *, k: float = K) -> dict[Item, float]:
    """RRF(d) = Σ_r 1 / (k + r(d)), r(d) = 1, 2, ... the rank of d in ranking r; one that lacks d adds nothing.

    Best first; ties keep the order in which items were first seen. Scores of different retrievers are never compared.
    """
    scores: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
    return dict(sorted(scores.items(), key=lambda scored: -scored[1]))
