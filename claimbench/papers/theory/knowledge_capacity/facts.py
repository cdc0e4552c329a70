"""Facts whose bits are known: names and values drawn from sets of known size, or a table of one's own, as tokens.

A sheet is one sequence [start, name, values]; there is no text around it, so that one exposure costs few tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from claimbench.errors import UserError

NAME_PARTS = (400, 400, 1000)
"""First, middle and last names of bioS."""


@dataclass(frozen=True)
class Facts:
    """People and what is to be known of them.

    names: [people, parts], whole numbers below `name_sizes`, no two rows alike. values: [people, attributes], below
    `value_sizes`. shared_words: whether the parts of a name come from one vocabulary; else each has its own, as
    attributes always do unless `shared_values`.
    """

    names: Int[np.ndarray, "people parts"]
    values: Int[np.ndarray, "people attributes"]
    name_sizes: tuple[int, ...]
    value_sizes: tuple[int, ...]
    shared_words: bool = True
    shared_values: bool = True
    possible_names: float | None = None  # default: every sequence of parts

    @property
    def people(self) -> int:
        return len(self.names)

    @property
    def name_space(self) -> float:
        """How many names there could be."""
        return self.possible_names or float(math.prod(self.name_sizes))

    @property
    def value_space(self) -> float:
        """How many combinations of values one person could have."""
        return float(math.prod(self.value_sizes))

    @property
    def context(self) -> int:
        """Tokens that a model reads of one sheet: all but the last."""
        return self.names.shape[1] + self.values.shape[1]

    @cached_property
    def sequences(self) -> Int[Tensor, "people length"]:
        """Sheets as ids: start, name, values. Ids that no sheet holds are left out, so that no embedding idles."""
        parts = [
            _placed(self.names, self.name_sizes, self.shared_words),
            _placed(self.values, self.value_sizes, self.shared_values),
        ]
        sheets = np.concatenate([parts[0], parts[1] + parts[0].max() + 1], axis=1) + 1
        used, ids = np.unique(sheets, return_inverse=True)
        ids = ids.reshape(sheets.shape) + 1
        start = np.zeros((self.people, 1), dtype=ids.dtype)
        assert len(used) == ids.max()
        return torch.from_numpy(np.concatenate([start, ids], axis=1))

    @property
    def vocabulary(self) -> int:
        return int(self.sequences.max()) + 1


def _placed(table: Int[np.ndarray, "people columns"], sizes: Sequence[int], shared: bool) -> np.ndarray:
    """Columns in one range of numbers, or each in a range of its own."""
    return table if shared else table + np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)


def draw_facts(
    people: int,
    *,
    seed: int | Sequence[int],
    words: int = 128,
    parts: int = 2,
    attributes: int = 4,
    values: int = 64,
) -> Facts:
    """People with names of `parts` words out of `words`, no two alike, and `attributes` uniform values out of `values`.

    bioD with values of one token (D = T = values, L = C = 1): what the values are need not be learnt, only whose.
    Raises UserError for more people than names.
    """
    rng = np.random.default_rng(seed)
    names = _distinct(rng, people, (words,) * parts)
    drawn = rng.integers(values, size=(people, attributes))
    return Facts(names, drawn, (words,) * parts, (values,) * attributes)


def bio_attributes() -> dict[str, int]:
    """How many values each of bioS's attributes has; the city of the employer follows from it and holds nothing."""
    return {
        "gender": 2,
        "month": 12,
        "day": 28,
        "year": 200,
        "birth city": 200,
        "university": 300,
        "major": 100,
        "employer": 263,
    }


def draw_bio(people: int, *, seed: int | Sequence[int]) -> Facts:
    """bioS's people: 400 x 400 x 1000 names and 47.6 bits of attributes each, as tokens without sentences."""
    rng = np.random.default_rng(seed)
    sizes = tuple(bio_attributes().values())
    drawn = np.stack([rng.integers(size, size=people) for size in sizes], axis=1)
    return Facts(
        _distinct(rng, people, NAME_PARTS), drawn, NAME_PARTS, sizes, shared_words=False, shared_values=False
    )


def facts_from_columns(
    names: Sequence[Any], attributes: Mapping[str, Sequence[Any]], *, possible_names: float | None = None
) -> Facts:
    """A table of one's own: what a row is called, and its values by attribute; every distinct entry is one token.

    Names are split into words, or, where none has two, into letters; words are shared between places.
    possible_names: how many names there could be (default: every sequence of as many words). Values are taken as
    uniform over an attribute's distinct entries: where they are not, the bits are an upper bound.
    Raises UserError for names that repeat, columns of other lengths, no attributes, or fewer possible names than names.
    """
    texts = [str(name) for name in names]
    if not attributes:
        raise UserError("facts: no attribute columns; give at least one beside the names")
    if len(set(texts)) < len(texts):
        raise UserError(f"facts: {len(texts) - len(set(texts))} names stand there twice; names must differ")
    split = [text.split() for text in texts]
    if max(map(len, split)) < 2:
        split = [list(text) for text in texts]
    longest = max(map(len, split))
    words = {word: index + 1 for index, word in enumerate(sorted({w for name in split for w in name}))}
    table = np.array([[words[w] for w in name] + [0] * (longest - len(name)) for name in split])
    sizes = (len(words) + 1,) * longest
    if possible_names is not None and possible_names < len(texts):
        raise UserError(f"facts: possible_names = {possible_names:g}, but there are {len(texts)}")
    columns = []
    for label, column in attributes.items():
        if len(column) != len(texts):
            raise UserError(f"facts: {label} has {len(column)} rows and the names have {len(texts)}")
        columns.append(np.unique(np.array([str(value) for value in column]), return_inverse=True)[1])
    values = tuple(int(column.max()) + 1 for column in columns)
    return Facts(
        table, np.stack(columns, axis=1), sizes, values, shared_values=False, possible_names=possible_names
    )


def _distinct(rng: np.random.Generator, people: int, sizes: Sequence[int]) -> Int[np.ndarray, "people parts"]:
    """Different names, uniform over all sets of so many."""
    space = math.prod(sizes)
    if people > space:
        raise UserError(f"people: {people} people need as many names, and there are {space}")
    chosen = rng.choice(space, size=people, replace=False, shuffle=True)
    return np.stack(np.unravel_index(chosen, tuple(sizes)), axis=1)
