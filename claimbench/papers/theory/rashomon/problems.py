"""Classification problems by name: scikit-learn's bundled tables, what is derived from them, and made-up ones.

A name is a base and changes, joined by "+": `digits-3-8`, `breast-cancer+noise0.2`, `wine+is1`, `diabetes+binned`,
`xor`. Problems with the same `parent` share rows and are no independent evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError, nearest
from claimbench.subjects.tabular import Tabular

BUNDLED = ("wine", "iris", "breast-cancer", "diabetes", "digits")
MADE_UP = ("xor", "parity", "checkerboard", "gaussians", "moons")
MOST_ROWS = 600
"""Rows of a problem; larger tables are sampled down, as the ratio's cost grows with rows and errors."""


@dataclass(frozen=True)
class Problem:
    """X with NaN where a value is missing, y as class codes, and where it comes from."""

    X: Float[np.ndarray, "rows columns"]
    y: Int[np.ndarray, " rows"]
    names: list[str]
    classes: list[str]
    parent: str = "own"

    def take(self, rows: Int[np.ndarray, " part"]) -> Problem:
        """Some of the rows. Classes that are left without a row keep their codes."""
        return replace(self, X=self.X[rows], y=self.y[rows])

    @property
    def majority(self) -> float:
        """Share of the most frequent class."""
        return float(np.bincount(self.y).max() / len(self.y))

    def halves(self, share: float, rng: np.random.Generator) -> tuple[Problem, Problem]:
        """Two disjoint parts, the first with this share of each class (at least one row of each)."""
        order = rng.permutation(len(self.y))
        order = order[np.argsort(self.y[order], kind="stable")]
        size = np.bincount(self.y, minlength=len(self.classes))
        place = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
        first = place < np.maximum(1, np.round(share * np.repeat(size, size)))
        return self.take(np.sort(order[first])), self.take(np.sort(order[~first]))


def problem_of(table: Tabular) -> Problem:
    """A table with classes as a problem: a category becomes one column of 0 and 1 for each of its values.

    Raises UserError if the table has no classes or no columns that differ.
    """
    if table.target is None or table.target.task != "classification":
        raise UserError("table: its target is no class; choose another with #target=NAME&task=classification")
    columns, names = [table.numeric], list(table.numeric_names)
    for place, (name, categories) in enumerate(table.categories.items()):
        codes = table.codes[:, place, None]
        columns.append(np.where(codes < 0, np.nan, codes == np.arange(len(categories))))
        names.extend(f"{name}={category}" for category in categories)
    X = np.concatenate(columns, axis=1)
    return Problem(X, np.asarray(table.target.values), names, list(table.target.classes))


def load_problem(name: str, seed: int = 0) -> Problem:
    """A problem by name. seed: of label noise, of made-up rows and of which rows stay. Raises UserError for an
    unknown name.
    """
    base, *changes = name.split("+")
    rng = np.random.default_rng([seed, 11])
    found = _base(base, rng)
    for change in changes:
        found = _changed(found, change, name, rng)
    if len(found.y) > MOST_ROWS:
        found = found.take(np.sort(rng.permutation(len(found.y))[:MOST_ROWS]))
    return found


def _base(name: str, rng: np.random.Generator) -> Problem:
    if name in MADE_UP:
        return _made_up(name, rng)
    family, *digits = name.split("-") if name.startswith("digits-") else (name,)
    if family not in BUNDLED or (digits and (len(digits) != 2 or not all(d.isdigit() for d in digits))):
        known = (*BUNDLED, *MADE_UP, "digits-3-8")
        raise UserError(f'no problem "{name}"{nearest(name, known)}')
    X, y, names = _bundled(family)
    if family == "diabetes":
        y = (y > np.median(y)).astype(np.int64)
    if digits:
        low, high = (int(digit) for digit in digits)
        rows = np.isin(y, (low, high))
        X, y = X[rows], (y[rows] == high).astype(np.int64)
    return Problem(X, y, names, [str(code) for code in range(int(y.max()) + 1)], parent=family)


@cache
def _bundled(name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name.replace('-', '_')}")()
    return found.data, found.target, [str(column) for column in found.feature_names]


def _made_up(name: str, rng: np.random.Generator) -> Problem:
    """500 rows with two columns that matter (parity: three) and two that do not."""
    X = rng.uniform(-1, 1, (500, 5))
    match name:
        case "xor":
            y = X[:, 0] * X[:, 1] > 0
        case "parity":
            y = X[:, 0] * X[:, 1] * X[:, 2] > 0
        case "checkerboard":
            y = (np.floor(2 * X[:, :2]).sum(axis=1) % 2) > 0
        case "gaussians":
            y = rng.random(500) < 0.5
            X = rng.standard_normal((500, 5)) + y[:, None] * np.array([1.5, 1.5, 0, 0, 0])
        case _:
            y = rng.random(500) < 0.5
            angle = np.pi * rng.random(500)
            X[:, 0] = np.where(y, 1 - np.cos(angle), np.cos(angle)) + 0.2 * rng.standard_normal(500)
            X[:, 1] = np.where(y, 0.5 - np.sin(angle), np.sin(angle)) + 0.2 * rng.standard_normal(500)
    return Problem(X, y.astype(np.int64), [f"x{i}" for i in range(5)], ["0", "1"], parent=name)


def _changed(of: Problem, change: str, name: str, rng: np.random.Generator) -> Problem:
    """`noiseP`: a share P of labels is drawn anew from the other classes; `isK`: class K against the rest; `binned`:
    each column as the number of its quartile.
    """
    try:
        if change.startswith("noise"):
            wrong = rng.random(len(of.y)) < float(change.removeprefix("noise"))
            shift = rng.integers(1, len(of.classes), len(of.y))
            return replace(of, y=np.where(wrong, (of.y + shift) % len(of.classes), of.y))
        if change.startswith("is"):
            return replace(
                of, y=(of.y == int(change.removeprefix("is"))).astype(np.int64), classes=["rest", change]
            )
    except ValueError:
        raise UserError(f'"{name}": "{change}" needs a number, such as noise0.2 or is1') from None
    if change == "binned":
        cuts = np.quantile(of.X, [0.25, 0.5, 0.75], axis=0)
        return replace(of, X=(of.X[None] > cuts[:, None]).sum(axis=0).astype(np.float64))
    raise UserError(f'"{name}": no change "{change}"; there are noiseP, isK and binned')
