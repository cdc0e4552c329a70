"""Labelled sets of 3SAT formulas: drawn naively, or hard: around the point where half of them are satisfiable.

Richardson and Sabharwal, arXiv 2112.09054. A hard set is balanced *within* each number of clauses; balanced over all
of them together, the number of clauses still predicts the label (`balance="global"`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from claimbench.errors import UserError
from claimbench.papers.theory.nl_satisfiability.formulas import (
    Formulas,
    canonical_keys,
    clause_counts,
    clauses_of,
    distinct,
    joined,
    random_formulas,
)
from claimbench.papers.theory.nl_satisfiability.fragments import Fragment, GroundedRules
from claimbench.papers.theory.nl_satisfiability.labels import half_point, satisfiable

Balance = Literal["cell", "global"]
"""Both labels equally frequent for each number of clauses, or over all of them together."""

MOST_DRAWS = 200  # times as many formulas as wanted: a cell that gives no more is too one-sided
WINDOW = 0.7
"""How far a hard set reaches to both sides of the half-way point, in clauses per variable."""


@dataclass(frozen=True)
class Sample:
    """Formulas over n variables with their labels (True: satisfiable)."""

    formulas: Formulas
    labels: Bool[np.ndarray, " formulas"]
    n: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def clauses(self) -> Int[np.ndarray, " formulas"]:
        return clause_counts(self.formulas)

    @property
    def majority(self) -> float:
        """Share of the more frequent label."""
        share = float(self.labels.mean())
        return max(share, 1 - share)

    def take(self, rows: Int[np.ndarray, " part"] | slice) -> Sample:
        return Sample(self.formulas[rows], self.labels[rows], self.n)

    def split(self, first: int) -> tuple[Sample, Sample]:
        """The first so many, and the rest. No formula of a sample stands there twice, in whatever order."""
        return self.take(slice(0, first)), self.take(slice(first, None))

    def theories(self, fragment: Fragment | None = None) -> list[str]:
        """The formulas as text; in the grounded rule language unless told otherwise."""
        fragment = fragment or GroundedRules()
        return [fragment.write(clauses_of(formula)) for formula in self.formulas]


def naive_sample(
    n: int, count: int, rng: np.random.Generator, least: int | None = None, most: int | None = None
) -> Sample:
    """`count` different formulas with the number of clauses uniform in [least, most], whatever their labels.

    Default: alpha from 1 to 12.4, the range of the brief for n = 8 (8 to 99 clauses).
    """
    low, high = n if least is None else least, round(12.4 * n) if most is None else most
    if not 1 <= low <= high:
        raise UserError(f"clauses from {low} to {high}: 1 <= least <= most is needed")
    # A twentieth more than wanted, as repeats are left out; short formulas over few variables repeat more.
    found: Formulas = np.zeros((0, high, 3), dtype=np.int64)
    for _ in range(20):
        drawn = random_formulas(n, high, count - len(found) + count // 20 + 10, rng)
        drawn[np.arange(high) >= rng.integers(low, high + 1, len(drawn))[:, None]] = 0
        found = np.concatenate([found, drawn])
        found = found[distinct(found)][:count]
        if len(found) == count:
            return Sample(found, satisfiable(found, n), n)
    raise UserError(f"n = {n}: there are hardly {count} different formulas of {low} to {high} clauses")


def hard_window(n: int, rng: np.random.Generator, width: float = WINDOW) -> list[int]:
    """Numbers of clauses around the measured half-way point. n: up to 14; above, give the numbers yourself (alpha is
    about 4.27 for many variables).
    """
    middle = half_point(n, rng)
    return list(range(round(middle - width * n), round(middle + width * n) + 1))


def hard_sample(
    n: int,
    count: int,
    rng: np.random.Generator,
    clauses: Sequence[int] | None = None,
    balance: Balance = "cell",
) -> Sample:
    """`count` different formulas, half of them satisfiable, in random order.

    clauses: the numbers of clauses (default: `hard_window`), as often as possible equally. balance: "cell" makes both
    labels equally frequent for each number of clauses, "global" only over all of them. Raises UserError where a cell
    is so one-sided that 200 times as many draws do not fill it.

        >>> hard_sample(8, 100, np.random.default_rng(0)).theories()[0]
    """
    window = hard_window(n, rng) if clauses is None else list(clauses)
    if count < 2 * len(window):
        raise UserError(
            f"count = {count}; {len(window)} numbers of clauses need at least {2 * len(window)} formulas"
        )
    if balance == "global":
        drawn = [_filled(n, window, count, rng)]
    else:
        shares = np.full(len(window), count // (2 * len(window)))
        shares[: count // 2 - shares.sum()] += 1
        cells = zip(window, shares.tolist(), strict=True)
        drawn = [_filled(n, [m], 2 * half, rng) for m, half in cells]
    formulas = joined([part.formulas for part in drawn])
    labels = np.concatenate([part.labels for part in drawn])
    order = rng.permutation(len(labels))
    return Sample(formulas[order], labels[order], n)


def _filled(n: int, window: list[int], count: int, rng: np.random.Generator) -> Sample:
    """`count` different formulas of these numbers of clauses, equally often drawn, half of each label."""
    wanted, drawn = count // 2, 0
    kept: Formulas = np.zeros((0, max(window), 3), dtype=np.int64)
    labels = np.zeros(0, dtype=bool)
    while len(labels) < 2 * wanted:
        if drawn > MOST_DRAWS * max(count, 20):
            raise UserError(
                f"{min(window)} to {max(window)} clauses over {n} variables: one label is so rare that "
                f"{drawn:,} draws hold fewer than {wanted} of it; choose numbers nearer to the half-way point"
            )
        size = 2 * count + 100
        part = random_formulas(n, max(window), size, rng)
        part[np.arange(max(window)) >= rng.choice(window, size)[:, None]] = 0
        kept, labels = np.concatenate([kept, part]), np.concatenate([labels, satisfiable(part, n)])
        # Of a label that is there often enough, only the first are kept, so that repeats are looked for among few.
        rank = np.where(labels, np.cumsum(labels), np.cumsum(~labels))
        kept, labels = kept[rank <= 2 * wanted], labels[rank <= 2 * wanted]
        new = distinct(kept)
        kept, labels, drawn = kept[new], labels[new], drawn + size
        rank = np.where(labels, np.cumsum(labels), np.cumsum(~labels))
        kept, labels = kept[rank <= wanted], labels[rank <= wanted]
    return Sample(kept, labels, n)


def mixed(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """Half of each, in random order, with what stands in both kept once."""
    half = len(first) // 2
    formulas = joined([first.formulas[:half], second.formulas[: len(first) - half]])
    labels = np.concatenate([first.labels[:half], second.labels[: len(first) - half]])
    order = rng.permutation(len(labels))
    order = order[distinct(formulas[order])]
    return Sample(formulas[order], labels[order], first.n)


def without(sample: Sample, other: Sample) -> Sample:
    """The formulas of `sample` that do not stand in `other`, whatever the order of clauses and literals."""
    taken = set(canonical_keys(other.formulas))
    return sample.take(np.flatnonzero([key not in taken for key in canonical_keys(sample.formulas)]))
