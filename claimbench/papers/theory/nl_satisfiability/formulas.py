"""Random 3SAT of fixed clause length (Mitchell, Selman and Levesque, 1992), as Richardson and Sabharwal sample it
(2021, arXiv 2112.09054).

Formulas are whole numbers [formulas, clauses, 3]: literal v or -v for variable v = 1, ..., n. A 0 fills up a shorter
clause, and a clause of zeros is none at all, so that formulas of different lengths stand in one array.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from claimbench.errors import UserError

Formulas = Int[np.ndarray, "formulas clauses 3"]


def random_formulas(
    n: int, m: int, count: int, rng: np.random.Generator, share_of_three: float = 1.0
) -> Formulas:
    """`count` formulas of m clauses over n variables, each clause of different variables with fair signs.

    share_of_three: the probability of a clause with 3 literals; the others have 2 (0 gives 2SAT, in between 2+p-SAT).
    Raises UserError if there are too few variables.

        >>> random_formulas(8, 40, 1, np.random.default_rng(0))
    """
    if n < 3 or m < 1 or not 0 <= share_of_three <= 1:
        raise UserError(
            f"n = {n}, m = {m}, share_of_three = {share_of_three}; n >= 3, m >= 1, a share in [0, 1]"
        )
    # Drawing one by one and drawing repeats again is uniform over ordered triples; each place skips those before it.
    first = rng.integers(n, size=(count, m))
    second = rng.integers(n - 1, size=(count, m))
    second += second >= first
    third = rng.integers(n - 2, size=(count, m))
    low, high = np.minimum(first, second), np.maximum(first, second)
    third += third >= low
    third += third >= high
    signs = rng.choice(np.array([-1, 1]), size=(count, m, 3))
    literals = signs * (np.stack([first, second, third], axis=-1) + 1)
    if share_of_three < 1:
        literals[..., 2] *= rng.random((count, m)) < share_of_three
    return literals


def clause_counts(formulas: Formulas) -> Int[np.ndarray, " formulas"]:
    """How many clauses each formula has."""
    return np.asarray((formulas != 0).any(axis=-1).sum(axis=-1))


def occurring(formulas: Formulas) -> Int[np.ndarray, " formulas"]:
    """How many variables occur in each formula."""
    variables = np.abs(formulas).reshape(len(formulas), -1)
    seen = np.zeros((len(formulas), int(variables.max(initial=0)) + 1), dtype=bool)
    seen[np.arange(len(formulas))[:, None], variables] = True
    return np.asarray(seen[:, 1:].sum(axis=1))


def alpha(formulas: Formulas, n: int | None = None) -> Float[np.ndarray, " formulas"]:
    """Clauses per variable: of the n that there are, or (n = None) of those that occur, as in the published code."""
    return np.asarray(clause_counts(formulas) / (occurring(formulas) if n is None else n))


def joined(parts: list[Formulas]) -> Formulas:
    """Formulas of different lengths as one array, filled up with clauses of zeros."""
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]), (0, 0))) for part in parts])


def clauses_of(formula: Int[np.ndarray, "clauses 3"]) -> list[list[int]]:
    """One formula as lists of literals, as solvers take it."""
    return [[literal for literal in clause if literal] for clause in formula.tolist() if any(clause)]


def formula_of(clauses: list[list[int]]) -> Formulas:
    """Lists of literals as an array of one formula. Raises UserError for clauses of no or more than 3 literals."""
    for place, clause in enumerate(clauses):
        if not 1 <= len(clause) <= 3 or 0 in clause:
            raise UserError(f"clause {place + 1} is {clause}; 1 to 3 literals that are not 0 are needed")
    return np.array([[clause + [0] * (3 - len(clause)) for clause in clauses]])


def canonical_keys(formulas: Formulas) -> list[bytes]:
    """Equal for formulas that differ in the order of clauses and of literals alone."""
    inner = np.sort(formulas, axis=-1)
    order = np.lexsort((inner[..., 2], inner[..., 1], inner[..., 0]), axis=-1)
    ordered = np.take_along_axis(inner, order[..., None], axis=1).astype(np.int16)
    zeros = (ordered == 0).all(axis=-1)
    return [part[~empty].tobytes() for part, empty in zip(ordered, zeros, strict=True)]


def distinct(formulas: Formulas) -> Bool[np.ndarray, " formulas"]:
    """True for the first of all formulas with the same key."""
    seen: set[bytes] = set()
    first = []
    for key in canonical_keys(formulas):
        first.append(key not in seen)
        seen.add(key)
    return np.array(first, dtype=bool)


def renamed(formulas: Formulas, n: int, rng: np.random.Generator) -> Formulas:
    """Variables renamed, the signs of some flipped, clauses and literals reordered: as satisfiable as before."""
    name = np.concatenate([[0], rng.permutation(n) + 1]) * np.concatenate([[1], rng.choice([-1, 1], n)])
    moved = np.sign(formulas) * name[np.abs(formulas)]
    moved = rng.permuted(moved, axis=-1)
    return moved[:, rng.permutation(moved.shape[1])]
