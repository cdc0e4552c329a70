"""Counts of labelings by errors, as polynomials: the coefficient of z^e is the share of labelings with e errors.

A leaf that holds n rows, n_c of class c, contributes `sum_c z^(n - n_c) / C` when its label is uniform over C
classes. A tree's leaves are labelled independently, so that their polynomials multiply. Polynomials of many nodes lie
end to end in one array, each as long as its node has rows (plus one), cut off at a budget of errors; each carries the
logarithm of a factor, so that shares far below the smallest float keep their digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Polynomials:
    """`values` holds the coefficients, node after node; node i has `degree[i] + 1`, times `exp(log_factor[i])`."""

    values: Float[np.ndarray, " coefficients"]
    degree: Int[np.ndarray, " nodes"]
    log_factor: Float[np.ndarray, " nodes"]

    @property
    def first(self) -> Int[np.ndarray, " nodes"]:
        return np.cumsum(self.degree + 1) - (self.degree + 1)

    @property
    def least(self) -> int:
        """The fewest errors that have a share anywhere; larger than any budget if none has."""
        place = np.arange(len(self.values)) - np.repeat(self.first, self.degree + 1)
        return int(place[self.values > 0].min(initial=np.iinfo(np.int64).max))

    def dense(self, nodes: Int[np.ndarray, " some"], width: int) -> Float[np.ndarray, "some width"]:
        """Coefficients of some nodes up to z^(width - 1), without the factor."""
        place = np.arange(width)
        inside = place <= self.degree[nodes, None]
        where = np.where(inside, self.first[nodes, None] + place, 0)
        return np.where(inside, self.values[where], 0.0)


def packed(
    dense: Float[np.ndarray, "nodes width"],
    degree: Int[np.ndarray, " nodes"],
    log_factor: Float[np.ndarray, " nodes"],
) -> Polynomials:
    """Rows of coefficients as polynomials of these degrees, rescaled so that each one's largest coefficient is 1."""
    inside = np.arange(dense.shape[1]) <= degree[:, None]
    largest = np.where(inside, dense, 0.0).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0)
    return Polynomials((dense / scale[:, None])[inside], degree, log_factor + np.log(scale))


def leaves(counts: Int[np.ndarray, "nodes classes"], budget: int) -> Polynomials:
    """Each node as a leaf with a uniform label. counts: rows of each class in it."""
    rows, classes = counts.sum(axis=1), counts.shape[1]
    degree = np.minimum(rows, budget)
    first = np.cumsum(degree + 1) - (degree + 1)
    values = np.zeros(int((degree + 1).sum()))
    errors = rows[:, None] - counts
    node, _ = np.nonzero(errors <= degree[:, None])
    np.add.at(values, first[node] + errors[errors <= degree[:, None]], 1.0 / classes)
    return Polynomials(values, degree, np.zeros(len(counts)))


def multiply(
    left: Polynomials,
    right: Polynomials,
    left_node: Int[np.ndarray, " pairs"],
    right_node: Int[np.ndarray, " pairs"],
    budget: int,
) -> Polynomials:
    """The products of pairs of nodes, cut off above z^budget."""
    small_degree = np.minimum(left.degree[left_node], right.degree[right_node])
    large_degree = np.maximum(left.degree[left_node], right.degree[right_node])
    degree = np.minimum(left.degree[left_node] + right.degree[right_node], budget)
    first = np.cumsum(degree + 1) - (degree + 1)
    values = np.zeros(int((degree + 1).sum()))
    log_factor = left.log_factor[left_node] + right.log_factor[right_node]
    # Pairs of like lengths go together, so that little of the padding is multiplied.
    bucket = 64 * np.ceil(np.log2(small_degree + 1)) + np.ceil(np.log2(large_degree + 1))
    for kind in np.unique(bucket):
        chosen = np.flatnonzero(bucket == kind)
        swap = left.degree[left_node[chosen]] > right.degree[right_node[chosen]]
        narrow, wide = int(small_degree[chosen].max()) + 1, int(large_degree[chosen].max()) + 1
        width = int(degree[chosen].max()) + 1
        a_small = left.dense(left_node[chosen], narrow)
        b_small = right.dense(right_node[chosen], narrow)
        a_large = left.dense(left_node[chosen], wide)
        b_large = right.dense(right_node[chosen], wide)
        small = np.where(swap[:, None], b_small, a_small)
        large = np.where(swap[:, None], a_large, b_large)
        product = np.zeros((len(chosen), narrow + wide))
        for shift in range(narrow):
            product[:, shift : shift + wide] += small[:, shift, None] * large
        part = packed(product[:, :width], degree[chosen], np.zeros(len(chosen)))
        inside = np.arange(width) <= degree[chosen, None]
        values[(first[chosen, None] + np.arange(width))[inside]] = part.values
        log_factor[chosen] += part.log_factor
    return Polynomials(values, degree, log_factor)


def average(terms: list[Polynomials]) -> Polynomials:
    """The mean of as many polynomials for each node as there are terms, which agree in their degrees."""
    top = np.max([term.log_factor for term in terms], axis=0)
    length = terms[0].degree + 1
    total = sum(term.values * np.repeat(np.exp(term.log_factor - top), length) for term in terms) / len(terms)
    return Polynomials(np.asarray(total), terms[0].degree, top)


def log_share(of: Polynomials, budget: int) -> Float[np.ndarray, " nodes"]:
    """Logarithm of each node's share with at most `budget` errors; -infinity where there is none."""
    place = np.arange(len(of.values)) - np.repeat(of.first, of.degree + 1)
    total = np.add.reduceat(np.where(place <= budget, of.values, 0.0), of.first)
    with np.errstate(divide="ignore"):
        return np.log(total) + of.log_factor


def log_labelings(
    counts: Int[np.ndarray, "leaves classes"], budget: int | None = None
) -> Float[np.ndarray, " errors"]:
    """Logarithms of how many labelings of these leaves make 0, 1, ..., budget errors; -infinity where none does.

    counts: rows of each class in each leaf. budget: all rows unless given, and then the exponentials sum to classes **
    leaves. Numbers more than 1e300 times smaller than the largest one up to the budget are lost.

        >>> np.exp(log_labelings(np.array([[2, 0], [1, 3]]))).round(9)
        array([0., 1., 0., 2., 0., 1., 0.])
    """
    counts = np.asarray(counts)
    budget = int(counts.sum()) if budget is None else budget
    nodes = leaves(counts, budget)
    total = Polynomials(np.ones(1), np.zeros(1, dtype=np.int64), np.zeros(1))
    zero = np.zeros(1, dtype=np.int64)
    for leaf in range(len(counts)):
        total = multiply(total, nodes, zero, np.array([leaf]), budget)
    with np.errstate(divide="ignore"):
        return np.log(total.values) + total.log_factor[0] + len(counts) * np.log(counts.shape[1])
