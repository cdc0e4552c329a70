"""What hypotheses are asked to predict: made-up functions of d inputs, drawn shapes, tables and images.

The inputs of the made-up functions are uniform on [-1, 1]^d; each target is the sine of pi times a projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError

INTRINSIC = 3
"""Coordinates of which the redundant inputs are copies."""
WIDTH = 0.3
"""Of the kernel for the made-up functions, times sqrt(d): distances on the cube grow with sqrt(d) as well."""


@dataclass(frozen=True)
class Problem:
    """A training set and a test set; classes are one-hot targets."""

    X: Float[np.ndarray, "rows columns"]
    Y: Float[np.ndarray, "rows outputs"]
    X_test: Float[np.ndarray, "tests columns"]
    Y_test: Float[np.ndarray, "tests outputs"]

    def first(self, rows: int) -> Problem:
        """The same test set, with the first rows of the training set alone."""
        return Problem(self.X[:rows], self.Y[:rows], self.X_test, self.Y_test)


def sine_problem(
    dimension: int,
    rows: int,
    tests: int,
    rng: np.random.Generator,
    *,
    outputs: int = 3,
    redundant: bool = False,
) -> Problem:
    """Sines of random projections: y_o = sin(pi u_o.x) with u_o uniform on the sphere.

    redundant: the inputs are `dimension` copies, in turn, of at most three coordinates, and the targets functions of
    these three: what the kernel sees has then three dimensions whatever `dimension` is.
    """
    intrinsic = min(dimension, INTRINSIC) if redundant else dimension
    inputs = rng.uniform(-1, 1, (rows + tests, intrinsic))
    directions = rng.standard_normal((intrinsic, outputs))
    targets = np.sin(np.pi * inputs @ (directions / np.linalg.norm(directions, axis=0)))
    inputs = inputs[:, np.arange(dimension) % intrinsic]
    return Problem(inputs[:rows], targets[:rows], inputs[rows:], targets[rows:])


def draw_shapes(
    count: int, side: int, rng: np.random.Generator, shift: float = 0.3
) -> tuple[Float[np.ndarray, "count side side"], Int[np.ndarray, " count"]]:
    """Images in 0..1 of a disc, a ring, a square, a cross or a triangle (classes 0 to 4) at a random place, size, angle
    and brightness, with noise.

    shift: the largest displacement of the middle, as a share of half the side.
    """
    labels = rng.integers(5, size=count)
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    middle = rng.uniform(-shift, shift, (2, count, 1, 1))
    radius = rng.uniform(0.35, 0.55, (count, 1, 1))
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    x, y = axis[None, None, :] - middle[0], axis[None, :, None] - middle[1]
    u = (x * np.cos(angle) + y * np.sin(angle)) / radius
    v = (y * np.cos(angle) - x * np.sin(angle)) / radius
    distance = np.hypot(u, v)
    corners = [2 * np.pi * corner / 3 for corner in range(3)]
    insides = np.stack(  # below 0 inside, in units of the radius
        [
            distance - 1,
            np.abs(distance - 0.8) - 0.2,
            np.maximum(np.abs(u), np.abs(v)) - 0.8,
            np.minimum(
                np.maximum(np.abs(u) - 1, np.abs(v) - 0.3), np.maximum(np.abs(v) - 1, np.abs(u) - 0.3)
            ),
            np.max([u * np.cos(corner) + v * np.sin(corner) for corner in corners], axis=0) - 0.55,
        ]
    )[labels, np.arange(count)]
    edge = 2 / side  # a pixel wide
    ink = np.clip(0.5 - insides * radius / edge, 0, 1) * rng.uniform(0.6, 1, (count, 1, 1))
    return np.clip(ink + 0.1 * rng.standard_normal(ink.shape), 0, 1), labels


def split_problem(
    X: Float[np.ndarray, "rows columns"],
    Y: Float[np.ndarray, "rows outputs"],
    rows: int,
    tests: int,
    rng: np.random.Generator,
) -> Problem:
    """Random rows to train and others to test; of a smaller set three in five and two in five.

    Raises UserError for fewer than 10 rows.
    """
    if len(X) < 10:
        raise UserError(f"{len(X)} rows; at least 10 are needed for a training and a test set")
    if rows + tests > len(X):
        rows, tests = len(X) * 3 // 5, len(X) - len(X) * 3 // 5
    order = rng.permutation(len(X))[: rows + tests]
    chosen, held = order[:rows], order[rows:]
    return Problem(X[chosen], Y[chosen], X[held], Y[held])


def one_hot(labels: Int[np.ndarray, " rows"], classes: int) -> Float[np.ndarray, "rows classes"]:
    return np.eye(classes)[labels]


def table_arrays(table: Any) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "rows outputs"]]:
    """A `Tabular`'s columns and target as numbers: columns and regressed targets standardised, missing numbers at their
    mean, categories and classes one-hot (a missing category is all zeros).

    Raises UserError for a table without a target.
    """
    if table.target is None:
        raise UserError("table: has no target; choose one with #target=NAME")
    values = np.where(np.isfinite(table.numeric), table.numeric, np.nan)
    there = np.isfinite(values)
    counts = np.maximum(there.sum(0), 1)
    values = np.where(there, values - np.where(there, values, 0).sum(0) / counts, 0.0)
    spread = np.sqrt((values**2).sum(0) / counts)
    values = values[:, spread > 0] / spread[spread > 0]
    names = table.categorical_names
    categories = [
        (table.codes[:, [place]] == np.arange(len(table.categories[name]))).astype(np.float64)
        for place, name in enumerate(names)
    ]
    X = np.column_stack([values, *categories])
    if table.target.task == "classification":
        return X, one_hot(table.target.values, len(table.target.classes))
    target = table.target.values
    return X, ((target - target.mean()) / target.std())[:, None]


def image_arrays(images: Any) -> tuple[Float[np.ndarray, "rows pixels"], Float[np.ndarray, "rows classes"]]:
    """An `Images`' pixels as rows, and its classes one-hot."""
    return (
        images.pixels.reshape(len(images), -1).astype(np.float64),
        one_hot(images.labels, len(images.classes)),
    )
