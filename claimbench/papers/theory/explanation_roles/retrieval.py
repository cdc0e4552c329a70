"""Retrieval of explanations, and how several retrieved sets of them make one prediction (arXiv 2102.02201,
section 3).

    p(y | x) = sum over k of p(E_k | x) p(y | x, E_k),    p(E_k | x) = softmax over k of the mean similarity of x to E_k

The C x K most similar explanations, in order, are cut into K sets of C.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from claimbench.errors import UserError
from claimbench.papers.theory.explanation_roles.synthetic import HEAD, Problem

AT_ONCE = 2048  # queries whose similarities are held in memory together


def unit(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows width"]:
    """Rows of length 1, float32; a row of zeros stays one."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


def nearest(
    queries: Float[np.ndarray, "queries width"],
    pool: Float[np.ndarray, "pool width"],
    count: int,
    *,
    own: Int[np.ndarray, " queries"] | None = None,
) -> Int[np.ndarray, "queries count"]:
    """The `count` rows of the pool with the largest inner products, exactly, the most similar first.

    own: the row of the pool that each query may not get (its own explanation), or -1. Equal similarities go
    by the pool's order. Raises UserError if the pool is too small.
    """
    if count > len(pool) - (own is not None):
        raise UserError(
            f"{count} explanations are to be retrieved, and there are {len(pool) - (own is not None)}"
        )
    found = np.empty((len(queries), count), dtype=np.int64)
    for start in range(0, len(queries), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        similarity = queries[rows] @ pool.T
        if own is not None:
            forbid(similarity, own[rows])
        found[rows] = most_similar(similarity, count)
    return found


def forbid(similarity: Float[np.ndarray, "queries pool"], own: Int[np.ndarray, " queries"]) -> None:
    """Write -inf where a query would meet its own explanation; in place."""
    has = np.flatnonzero(own >= 0)
    similarity[has, own[has]] = -np.inf


def most_similar(
    similarity: Float[np.ndarray, "queries pool"], count: int
) -> Int[np.ndarray, "queries count"]:
    """Places of the `count` largest of each row, the largest first, equal ones by place."""
    order = np.argsort(-similarity, axis=1, kind="stable")
    return order[:, :count]


def oracle(
    places: Int[np.ndarray, " queries"],
    pool: Int[np.ndarray, " pool"],
    count: int,
    rng: np.random.Generator,
    *,
    own: Int[np.ndarray, " queries"] | None = None,
) -> Int[np.ndarray, "queries count"]:
    """`count` rows of the pool that belong to the query's task, in random order; once all were given, they
    come again.

    places, pool: tasks. own: as in `nearest`. Raises UserError where a task has no other row.
    """
    found = np.empty((len(places), count), dtype=np.int64)
    for start in range(0, len(places), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        same = (places[rows, None] == pool[None, :]).astype(np.float32)
        if own is not None:
            has = np.flatnonzero(own[rows] >= 0)
            same[has, own[rows][has]] = 0
        there = same.sum(axis=1).astype(np.int64)
        if there.min() < 1:
            raise UserError("a task has no other explanation to retrieve; give at least 2 points a task")
        order = np.argsort(rng.random(same.shape, dtype=np.float32) / 2 - same, axis=1)
        found[rows] = np.take_along_axis(order, np.arange(count)[None, :] % there[:, None], axis=1)
    return found


def into_sets(found: Int[np.ndarray, "queries found"], sets: int) -> Int[np.ndarray, "queries sets each"]:
    """Retrieved rows, in order, as K sets of C."""
    return found.reshape(len(found), sets, -1)


def bags_of_queries(
    sequences: Int[np.ndarray, "points length"], problem: Problem
) -> Float32[np.ndarray, "points tokens"]:
    """How often each token stands in a sequence, as rows of length 1: integers, then s[1], then tasks'
    numbers.
    """
    integers, numbers = problem.task.integers, problem.numbers
    values = sequences[:, HEAD:, None] == np.arange(1, integers + 1)
    asked = sequences[:, 1, None] == np.arange(1, HEAD + 1)
    number = (sequences[:, 0, None] == numbers) & (not problem.task.hidden_index)
    return unit(np.column_stack([values.sum(axis=1), asked, number]))


def bags_of_explanations(
    explanations: Int[np.ndarray, "points 5"], problem: Problem
) -> Float32[np.ndarray, "points tokens"]:
    """The same of explanations, in the same columns. Integers that no sequence can hold match nothing."""
    integers, numbers = problem.task.integers, problem.numbers
    values = explanations[:, 1:, None] == np.arange(1, integers + 1)
    outside = explanations[:, 1:] > integers
    number = explanations[:, 0, None] == numbers
    rows = np.column_stack([values.sum(axis=1), np.zeros((len(explanations), HEAD)), number])
    length = np.sqrt((rows**2).sum(axis=1) + outside.sum(axis=1))
    return (rows / length[:, None]).astype(np.float32)


class Retriever(nn.Module):
    """Similarity of a query to explanations: the cosine of their features after one linear map, which is the
    identity at first.

    width: of the features. precision: what cosines are multiplied by before the softmax (the paper: 1).
    """

    def __init__(self, width: int, precision: float = 1.0) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.eye(width))
        self.precision = precision

    def embed(self, features: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Features as rows of length 1, whose inner products are similarities."""
        rows = (
            features.flatten(0, -2) @ self.map
        )  # as one product: a stack of models would copy the map for every query
        return nn.functional.normalize(rows.reshape(features.shape), dim=-1)

    def forward(
        self, queries: Float[Tensor, "*batch width"], retrieved: Float[Tensor, "*batch sets each width"]
    ) -> Float[Tensor, "*batch sets"]:
        """log p(E_k | x) of every set."""
        similarity = (self.embed(retrieved) * self.embed(queries)[..., None, None, :]).sum(-1)
        return set_log_probabilities(self.precision * similarity)


def set_log_probabilities(similarity: Float[Tensor, "*batch sets each"]) -> Float[Tensor, "*batch sets"]:
    """log p(E_k | x): the softmax over sets of the mean similarity of their members."""
    return similarity.mean(-1).log_softmax(-1)


def marginal(
    logits: Float[Tensor, "*batch sets classes"], sets: Float[Tensor, "*batch sets"]
) -> Float[Tensor, "*batch classes"]:
    """log p(y | x) from a reader's logits with each set and log p(E_k | x); with one set, the log-softmax of
    its logits.
    """
    return (logits.log_softmax(-1) + sets[..., None]).logsumexp(-2)
