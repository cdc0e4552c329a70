"""A user's table as texts, classes and explanations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from claimbench.errors import UserError
from claimbench.papers.theory.explanation_roles.natural import ROWS
from claimbench.subjects.tabular import Tabular

TEXT, EXPLANATION = "text", "explanation"
BETWEEN = "\n"  # stands between the texts of several columns


@dataclass(frozen=True)
class Told:
    """A row is a text, a class and an explanation ("": none)."""

    texts: list[str]
    labels: list[str]
    explanations: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def told_of(
    table: Tabular, *, text: str = TEXT, explanation: str = EXPLANATION, rows: int = ROWS, seed: int = 0
) -> Told:
    """At most `rows` rows of a table, drawn by the seed. text: a column, or several by commas, which are read
    one after the other.

    Raises UserError without a target of classes, for unknown columns, and for columns of numbers.
    """
    if table.target is None or not table.target.classes:
        name = "" if table.target is None else f' "{table.target.name}" holds numbers;'
        raise UserError(f"table:{name} choose the label with #target=NAME&task=classification")
    if rows < 1:
        raise UserError(f"rows = {rows}: at least 1")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:rows])
    parts = [column_texts(table, name.strip(), chosen) for name in text.split(",")]
    classes = table.target.classes
    return Told(
        [BETWEEN.join(row) for row in zip(*parts, strict=True)],
        [classes[code] for code in table.target.values[chosen].astype(int)],
        column_texts(table, explanation, chosen),
    )


def column_texts(table: Tabular, name: str, rows: np.ndarray) -> list[str]:
    """A column's texts, "" where one is missing."""
    codes = table[name][rows]
    if name not in table.categories:
        raise UserError(f'column "{name}" holds no text; name the columns with text= and explanation=')
    categories = table.categories[name]
    return [categories[int(code)] if code >= 0 else "" for code in codes]
