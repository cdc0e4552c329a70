"""The splits that trees may use, and the prior over them: a column uniformly, then one of its thresholds uniformly.

A class of trees is every assignment of a split to each inner node and of a class to each leaf. The prior makes all
inner nodes independent, whatever rows reach them; volumes in this folder are probabilities under it (Semenova, Rudin
and Parr, arXiv 1908.01755, leave the prior open). A column that stands twice in a table counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from claimbench.errors import UserError


@dataclass(frozen=True)
class Splits:
    """`goes_right[split, row]`, and to which column and threshold each split belongs.

    `first` and `count` say where a column's splits stand, so that one is drawn in constant time.
    """

    goes_right: Bool[np.ndarray, "splits rows"]
    column: Int[np.ndarray, " splits"]
    threshold: Float[np.ndarray, " splits"]
    first: Int[np.ndarray, " columns"]
    count: Int[np.ndarray, " columns"]

    def __len__(self) -> int:
        return len(self.goes_right)

    @property
    def weights(self) -> Float[np.ndarray, " splits"]:
        """The prior probability of each split; they sum to 1."""
        return np.repeat(1.0 / (len(self.count) * self.count), self.count)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Int[np.ndarray, "*shape"]:
        """Independent splits from the prior."""
        columns = rng.integers(len(self.count), size=shape)
        places = np.floor(rng.random(shape) * self.count[columns]).astype(np.int64)
        return self.first[columns] + places


def all_splits(X: Float[np.ndarray, "rows columns"]) -> Splits:
    """Every threshold halfway between two values that stand next to each other in a column.

    A missing value (NaN) goes left at every split. Columns with one value have no split and are left out. Raises
    UserError if no column is left.
    """
    cuts = [_midpoints(column) for column in _matrix(X).T]
    return _splits(X, cuts)


def quantile_splits(X: Float[np.ndarray, "rows columns"], thresholds: int = 4) -> Splits:
    """At most `thresholds` cuts a column, at its inner quantiles, moved to the next midpoint: a binarised table."""
    cuts = []
    for column in _matrix(X).T:
        middle = _midpoints(column)
        if len(middle) > thresholds:
            known = column[~np.isnan(column)]
            wanted = np.quantile(known, np.arange(1, thresholds + 1) / (thresholds + 1))
            middle = np.unique(middle[np.searchsorted(middle, wanted).clip(max=len(middle) - 1)])
        cuts.append(middle)
    return _splits(X, cuts)


def _matrix(X: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2:
        raise UserError(f"X has shape {list(X.shape)}; rows by columns are needed")
    return X


def _midpoints(column: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " cuts"]:
    values = np.unique(column[~np.isnan(column)])
    return (values[1:] + values[:-1]) / 2


def _splits(X: Float[np.ndarray, "rows columns"], cuts: list[Float[np.ndarray, " cuts"]]) -> Splits:
    X = _matrix(X)
    count = np.array([len(of_column) for of_column in cuts])
    used = np.flatnonzero(count)
    if not len(used):
        raise UserError("table: no column has two different values, so that nothing can be split")
    column = np.repeat(used, count[used])
    threshold = np.concatenate([cuts[place] for place in used])
    # NaN compares false: it goes left.
    return Splits(
        goes_right=X.T[column] > threshold[:, None],
        column=column,
        threshold=threshold,
        first=np.cumsum(count[used]) - count[used],
        count=count[used],
    )
