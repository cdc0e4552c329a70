"""Tables: named columns, numeric or categorical, with or without a target, in three splits that share no row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Shaped, UInt64

from claimbench.errors import UserError, nearest
from claimbench.subjects.splits import content_keys, split_by_key

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = ("classification", "regression")
MINIMUM = 20  # different rows: with fewer a split would hold one row
CLASSES = 20  # whole numbers with at most so many different values are classes, unless the task is named
MISSING = -1  # the code of a missing category


@dataclass(frozen=True)
class Column:
    """A column's values: float64 with NaN where missing, or codes (-1 where missing) into `categories`."""

    values: Float[np.ndarray, " rows"] | Int64[np.ndarray, " rows"]
    categories: tuple[str, ...] | None = None

    @property
    def missing(self) -> Bool[np.ndarray, " rows"]:
        return np.isnan(self.values) if self.categories is None else self.values == MISSING

    def take(self, rows: Shaped[np.ndarray, " part"]) -> Column:
        return replace(self, values=self.values[rows])

    @property
    def words(self) -> UInt64[np.ndarray, " rows"]:
        """64 bits per value, equal for equal values: a number's own, or of its category's sha256."""
        if self.categories is None:
            plain = np.where(
                np.isnan(self.values), np.nan, self.values + 0.0
            )  # one NaN, and no negative zero
            return plain.astype(np.float64).view(np.uint64)
        names = (f"category {name}".encode() for name in self.categories)
        words = [int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in names]
        return np.array([*words, 0], dtype=np.uint64)[self.values]


def numeric_column(values: Shaped[np.ndarray, " rows"]) -> Column:
    return Column(np.asarray(values, dtype=np.float64))


def categorical_column(values: Iterable[str | None]) -> Column:
    """Codes into the sorted different values; None is missing."""
    given = list(values)
    categories = tuple(sorted({value for value in given if value is not None}))
    places: dict[str | None, int] = {name: code for code, name in enumerate(categories)} | {None: MISSING}
    return Column(np.array([places[value] for value in given], dtype=np.int64), categories)


@dataclass(frozen=True)
class Target:
    """What is to be predicted: class codes with the classes' names, or float64 values to regress."""

    name: str
    values: Float[np.ndarray, " rows"] | Int64[np.ndarray, " rows"]
    classes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        return "classification" if self.classes else "regression"


def target_of(name: str, column: Column, task: Task | None = None) -> Target:
    """A column without missing values as a target.

    Text and truth values are classes, and so are whole numbers with at most `CLASSES` different values; other numbers
    are regressed. task: named instead. Raises UserError where the column cannot be that.
    """
    if column.categories is not None:
        if task == "regression":
            raise UserError(
                f'target "{name}" holds text, which cannot be regressed; leave out task=regression'
            )
        used, codes = np.unique(column.values, return_inverse=True)
        return Target(name, codes.astype(np.int64), tuple(column.categories[code] for code in used))
    if not np.isfinite(column.values).all():
        raise UserError(f'target "{name}" holds infinite values; leave those rows out')
    different, codes = np.unique(column.values, return_inverse=True)
    whole = bool(np.all(different == np.round(different)))
    if task == "classification" or (task is None and whole and len(different) <= CLASSES):
        names = tuple(str(int(value)) if whole else repr(float(value)) for value in different)
        return Target(name, codes.astype(np.int64), names)
    return Target(name, column.values)


@dataclass(frozen=True)
class Tabular:
    """Rows and named columns. `columns` leaves out the target; `rows_dropped` had none.

    `train`, `validation` and `test` are tables with the same columns and categories. Rows go to them by the order of
    the hash of their columns (the target apart, so that rows which differ in it alone stay together).
    """

    columns: Mapping[str, Column]
    target: Target | None = None
    rows_dropped: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def numeric_names(self) -> tuple[str, ...]:
        return tuple(name for name, column in self.columns.items() if column.categories is None)

    @property
    def categorical_names(self) -> tuple[str, ...]:
        return tuple(name for name, column in self.columns.items() if column.categories is not None)

    @cached_property
    def numeric(self) -> Float[np.ndarray, "rows numeric"]:
        """The numeric columns, float64; NaN where a value is missing."""
        return self._stacked(self.numeric_names, np.float64)

    @cached_property
    def codes(self) -> Int64[np.ndarray, "rows categorical"]:
        """The categorical columns as codes into `categories`; -1 where a value is missing."""
        return self._stacked(self.categorical_names, np.int64)

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        return {
            name: column.categories for name, column in self.columns.items() if column.categories is not None
        }

    @cached_property
    def missing(self) -> dict[str, int]:
        """How many values each column lacks; columns that lack none are left out."""
        counts = {name: int(column.missing.sum()) for name, column in self.columns.items()}
        return {name: count for name, count in counts.items() if count}

    def __getitem__(self, name: str) -> Float[np.ndarray, " rows"] | Int64[np.ndarray, " rows"]:
        """A column's values, or the target's, by name. Raises UserError for an unknown one."""
        if self.target is not None and name == self.target.name:
            return self.target.values
        if name not in self.columns:
            known = [*self.columns, *([self.target.name] if self.target else [])]
            raise UserError(f'no column "{name}" in this table{nearest(name, known)}')
        return self.columns[name].values

    def matrix(self, prefix: str) -> Float[np.ndarray, "rows prefixed"]:
        """The numeric columns whose names begin with `prefix`, in the table's order.

        Raises UserError if there are none, or if one of them holds text.
        """
        names = [name for name in self.columns if name.startswith(prefix)]
        if not names:
            raise UserError(f'no column of this table begins with "{prefix}"{nearest(prefix, self.columns)}')
        for name in names:
            if self.columns[name].categories is not None:
                raise UserError(f'column "{name}" holds text where numbers are needed')
        return self._stacked(names, np.float64)

    def take(self, rows: Shaped[np.ndarray, " part"]) -> Tabular:
        """Some of the rows, by place or by truth value."""
        target = None if self.target is None else replace(self.target, values=self.target.values[rows])
        return Tabular({name: column.take(rows) for name, column in self.columns.items()}, target)

    @cached_property
    def split(self) -> dict[str, Int[np.ndarray, " part"]]:
        """Places of the rows of train, validation and test."""
        return split_by_key(self.keys)

    @cached_property
    def keys(self) -> UInt64[np.ndarray, " rows"]:
        """A hash of each row's columns, whatever their order."""
        names = sorted(self.columns)
        return content_keys(np.column_stack([self.columns[name].words for name in names]))

    @cached_property
    def train(self) -> Tabular:
        return self.take(self.split["train"])

    @cached_property
    def validation(self) -> Tabular:
        return self.take(self.split["validation"])

    @cached_property
    def test(self) -> Tabular:
        return self.take(self.split["test"])

    def _stacked(self, names: Iterable[str], dtype: type) -> np.ndarray:
        columns = [self.columns[name].values for name in names]
        return np.column_stack(columns) if columns else np.empty((len(self), 0), dtype=dtype)


def make_tabular(
    columns: Mapping[str, Column], target: str | None, task: Task | None = None, *, where: str
) -> Tabular:
    """Columns with one of them as the target. Rows without a target are dropped and counted.

    Missing values elsewhere stay (NaN, code -1). Raises UserError, which begins with `where`, for a table that is too
    small and for an unknown target.
    """
    rest = {name: column for name, column in columns.items() if name != target}
    if target is not None and target not in columns:
        raise UserError(f'{where}: no column "{target}" to be the target{nearest(target, columns)}')
    if not rest:
        raise UserError(f"{where}: only the column {target!r}; a table needs a column beside its target")
    table = Tabular(rest)
    if target is not None:
        kept = ~columns[target].missing
        try:
            chosen = target_of(target, columns[target].take(kept), task)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        table = replace(table.take(kept), target=chosen, rows_dropped=int((~kept).sum()))
    elif task is not None:
        raise UserError(f"{where}: task={task} needs a target")
    different = len(np.unique(table.keys)) if len(table) else 0
    if different < MINIMUM:
        dropped = f" ({table.rows_dropped} rows without a target left out)" if table.rows_dropped else ""
        raise UserError(f"{where}: {different} different rows{dropped}; at least {MINIMUM} are needed")
    if table.target is not None and len(np.unique(table.target.values)) < 2:
        raise UserError(f'{where}: target "{target}" has the same value in every row; choose another column')
    return table
