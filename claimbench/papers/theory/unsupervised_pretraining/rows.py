"""A table, or texts in one of its columns, as raw inputs and targets for the instrument."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from claimbench.errors import UserError

MOST_WORDS = 2000


def raw_columns(table: Any) -> Float[np.ndarray, "rows columns"]:
    """Numbers as they are (missing ones at their column's mean) and categories one-hot."""
    values = np.where(np.isfinite(table.numeric), table.numeric, np.nan)
    there = np.isfinite(values)
    means = np.where(there, values, 0).sum(0) / np.maximum(there.sum(0), 1)
    categories = [
        (table.codes[:, [place]] == np.arange(len(table.categories[name]))).astype(np.float64)
        for place, name in enumerate(table.categorical_names)
    ]
    return np.column_stack([np.where(there, values, means), *categories])


def targets(table: Any) -> tuple[Shaped[np.ndarray, " rows"], str]:
    """Values or class codes, and the task. Raises UserError for a table without a target."""
    if table.target is None:
        raise UserError("table: has no target; choose one with #target=NAME")
    return table.target.values, table.target.task


def texts_of(table: Any, column: str) -> list[str]:
    """A column's texts, "" where missing. Raises UserError for an unknown column or one of numbers."""
    codes = table[column]
    names = table.categories.get(column)
    if names is None:
        raise UserError(f'column "{column}" holds numbers where texts are needed')
    return [names[code] if code >= 0 else "" for code in codes]


def words(texts: list[str]) -> Float[np.ndarray, "rows words"]:
    """TF-IDF of the 2000 commonest words: what learners without pretraining see of a text."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(max_features=MOST_WORDS, sublinear_tf=True).fit_transform(texts).toarray()


def checked_features(features: Any, rows: int) -> Float[np.ndarray, "rows features"]:
    """Float64 features, one row each. Raises UserError for another shape or values that are not finite."""
    found = np.asarray(features, dtype=np.float64)
    if found.ndim != 2 or len(found) != rows:
        raise UserError(f"encoder: returns shape {list(found.shape)}; [{rows}, features] is needed")
    if not np.isfinite(found).all():
        raise UserError("encoder: returns values that are not finite")
    return found
