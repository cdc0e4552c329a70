"""All trees of depth 2 on a binarised table, counted exactly: errors of every one, the Rashomon set, random
sub-classes.

A tree is a root split, a split for each side and a class for each of four leaves: `splits^3 * classes^4` trees, all
equally likely. The two sides are independent given the root, so that the number of trees by errors is a convolution
and nothing is enumerated one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError
from claimbench.papers.theory.rashomon.splits import Splits, quantile_splits
from claimbench.papers.theory.rashomon.volume import error_budget


@dataclass(frozen=True)
class DepthTwo:
    """The class on one sample. `side[s][root, split, first label, second label]` are errors on the root's side s."""

    splits: Splits
    classes: int
    rows: int
    side: tuple[Int[np.ndarray, "root split a b"], Int[np.ndarray, "root split a b"]]

    @classmethod
    def of(cls, splits: Splits, y: Int[np.ndarray, " rows"]) -> DepthTwo:
        """The class over these splits. y: class codes 0, 1, ..."""
        y = np.asarray(y)
        classes = int(y.max()) + 1
        right = splits.goes_right.astype(np.float32)  # counts below 2^24 are exact
        labels = np.eye(classes, dtype=np.float32)[y]
        sides = []
        for reached in (1 - right, right):
            inner = [
                np.stack([(reached * labels[:, c]) @ part.T for c in range(classes)], axis=-1)
                for part in (1 - right, right)
            ]
            wrong = [counts.sum(axis=-1, keepdims=True) - counts for counts in inner]
            sides.append((wrong[0][..., :, None] + wrong[1][..., None, :]).round().astype(np.int64))
        return cls(splits, classes, len(y), (sides[0], sides[1]))

    def __len__(self) -> int:
        return len(self.splits) ** 3 * self.classes**4

    @cached_property
    def best(self) -> int:
        """Errors of the best tree."""
        least = [errors.min(axis=(1, 2, 3)) for errors in self.side]
        return int((least[0] + least[1]).min())

    @cached_property
    def counts(self) -> list[int]:
        """How many trees make 0, 1, ..., rows errors: exact whole numbers, which sum to the size of the class."""
        total = [0] * (self.rows + 1)
        for left, right in zip(*(errors.reshape(len(errors), -1) for errors in self.side), strict=True):
            a, b = (np.bincount(part, minlength=self.rows + 1) for part in (left, right))
            # Each root has (splits * classes^2)^2 trees: below 2^53, where float products would stay exact too.
            for errors, number in enumerate(np.convolve(a, b)[: self.rows + 1].tolist()):
                total[errors] += number
        return total

    def members(self, theta: float) -> int:
        """How many trees are in the Rashomon set of slack theta."""
        return sum(self.counts[: error_budget(self.best, theta, self.rows) + 1])

    def ratio(self, theta: float) -> float:
        """The Rashomon ratio: 1 where theta covers the whole range of losses."""
        return self.members(theta) / len(self)

    def errors(self, tree: Int[np.ndarray, "trees 5"]) -> Int[np.ndarray, " trees"]:
        """Errors of trees given as (root, left split, right split, labels of the left pair, labels of the right)."""
        left, right = (errors.reshape(*errors.shape[:2], -1) for errors in self.side)
        return left[tree[:, 0], tree[:, 1], tree[:, 3]] + right[tree[:, 0], tree[:, 2], tree[:, 4]]

    def decode(self, index: Int[np.ndarray, " trees"]) -> Int[np.ndarray, "trees 5"]:
        """Trees by their place in the class, 0 to its size less 1."""
        pairs, width = self.classes**2, len(self.splits)
        return np.stack(np.unravel_index(index, (width, width, width, pairs, pairs)), axis=-1)

    def first_hits(self, draws: int, theta: float, rng: np.random.Generator) -> Int[np.ndarray, " draws"]:
        """The size at which each of `draws` growing random sub-classes first holds a tree of the Rashomon set.

        Trees are drawn one by one; a tree that was drawn before adds nothing, so that the size counts different
        trees. A random sub-class of s trees without repetition holds a member exactly if this size is at most s.
        """
        budget = error_budget(self.best, theta, self.rows)
        left, right = (errors.reshape(len(errors), -1).astype(np.int32) for errors in self.side)
        roots, wide = left.shape
        batch = int(min(200_000, 1 + len(self) // self.members(theta)))
        sizes = []
        for _ in range(draws):
            missed: list[Int[np.ndarray, " trees"]] = []
            while True:
                root = rng.integers(roots, size=batch, dtype=np.int32)
                a, b = rng.integers(wide, size=(2, batch), dtype=np.int32)
                good = np.flatnonzero(left[root, a] + right[root, b] <= budget)
                place = (root.astype(np.int64) * wide + a) * wide + b
                missed.append(place[: good[0]] if len(good) else place)
                if len(good):
                    break
            sizes.append(len(np.unique(np.concatenate(missed))) + 1)
        return np.array(sizes)

    def chance(self, size: int, theta: float) -> float:
        """The probability that a random sub-class of `size` different trees holds a member: hypergeometric."""
        from scipy.stats import hypergeom

        if not 1 <= size <= len(self):
            raise UserError(f"size = {size}; a sub-class holds between 1 and {len(self)} trees")
        return float(hypergeom.sf(0, len(self), self.members(theta), size))

    def least_with_one_split(self) -> int:
        """Errors of the best stump: one split and a class for each side, splits * classes^2 of them."""
        same = np.arange(self.classes)
        left, right = (errors[:, 0][:, same, same] for errors in self.side)
        return int((left.min(axis=1) + right.min(axis=1)).min())

    def least_with_two_splits(self) -> int:
        """Errors of the best tree with the same split on both sides: a table of two, splits^2 * classes^4 of them."""
        left, right = (errors.min(axis=(2, 3)) for errors in self.side)
        return int((left + right).min())

    def rashomon_set(
        self, theta: float, most: int = 1000
    ) -> tuple[Int[np.ndarray, "trees 5"], Int[np.ndarray, " trees"]]:
        """The set's trees and their errors, best first, the first `most` of them. The same function may stand there
        often, as trees with other splits or with splits that change nothing.
        """
        budget = error_budget(self.best, theta, self.rows)
        left, right = (errors.reshape(len(errors), -1) for errors in self.side)
        pairs = self.classes**2
        found, sizes = [], []
        for root in np.argsort(left.min(axis=1) + right.min(axis=1), kind="stable"):
            a = np.flatnonzero(left[root] <= budget - right[root].min())
            b = np.flatnonzero(right[root] <= budget - left[root].min())
            if not len(a) or not len(b):
                break
            a = a[np.argsort(left[root, a], kind="stable")[:most]]
            b = b[np.argsort(right[root, b], kind="stable")[:most]]
            total = left[root, a][:, None] + right[root, b]
            x, z = np.nonzero(total <= budget)
            keep = np.argsort(total[x, z], kind="stable")[:most]
            x, z = a[x[keep]], b[z[keep]]
            found.append(
                np.stack([np.full(len(x), root), x // pairs, z // pairs, x % pairs, z % pairs], axis=-1)
            )
            sizes.append(left[root, x] + right[root, z])
        trees, errors = np.concatenate(found), np.concatenate(sizes)
        order = np.argsort(errors, kind="stable")[:most]
        return trees[order], errors[order]


def sub_class_size(ratio: float, failure: float) -> int:
    """The smallest s with ratio >= 1 - failure^(1 / s): a random class of s models then misses the set with at most
    this probability. Raises UserError if the ratio is not above 0.
    """
    if not 0 < ratio <= 1 or not 0 < failure < 1:
        raise UserError(f"ratio = {ratio}, failure = {failure}; 0 < ratio <= 1 and 0 < failure < 1")
    return 1 if ratio == 1 else max(1, math.ceil(math.log(failure) / math.log1p(-ratio)))


def describe(tree: Int[np.ndarray, " 5"], splits: Splits, names: list[str], labels: list[str]) -> str:
    """A tree in words: `a > 1 ? (b > 2 ? x : y) : (c > 0 ? x : x)`, with what holds above the threshold first."""

    def question(split: int) -> str:
        return f"{names[int(splits.column[split])]} > {splits.threshold[split]:.4g}"

    def side(split: int, pair: int) -> str:
        low, high = divmod(pair, len(labels))
        return labels[low] if low == high else f"({question(split)} ? {labels[high]} : {labels[low]})"

    root, left, right, low, high = (int(part) for part in tree)
    return f"{question(root)} ? {side(right, high)} : {side(left, low)}"


def depth_two_class(
    X: Float[np.ndarray, "rows columns"], y: Int[np.ndarray, " rows"], thresholds: int = 4
) -> DepthTwo:
    """All trees of depth 2 on a table binarised at `thresholds` quantiles a column.

    >>> trees = depth_two_class(X, y)
    >>> trees.ratio(0.05), trees.rashomon_set(0.05, most=10)
    """
    splits = quantile_splits(X, thresholds)
    if (cells := len(splits) ** 2 * (int(np.max(y)) + 1) ** 2) > 40_000_000:
        raise UserError(f"{len(splits)} splits make tables of {cells:,} errors; ask for fewer thresholds")
    return DepthTwo.of(splits, y)
