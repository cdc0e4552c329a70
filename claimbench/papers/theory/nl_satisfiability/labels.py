"""Exact labels: truth tables as bit sets for few variables, a complete solver for many; and labels of queries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt64

from claimbench.errors import UserError
from claimbench.papers.theory.nl_satisfiability.formulas import Formulas, clauses_of, random_formulas
from claimbench.papers.theory.nl_satisfiability.solvers import satisfiable_by_solver

BY_TABLE = 14  # truth tables up to so many variables: 2^14 bits a formula
CHUNK = 20_000_000  # 64-bit words of truth tables at a time

Answer = Literal["true", "false", "unknown"]


@cache
def literal_tables(n: int) -> UInt64[np.ndarray, "literals words"]:
    """The assignments under which each literal is true, as bits; literal l stands in row l + n, and row n (no
    literal) is empty. With fewer than 6 variables the bits beyond 2^n stay 0.
    """
    assignments = np.arange(max(64, 2**n), dtype=np.uint64)
    inside = assignments < 2**n
    rows = []
    for literal in range(-n, n + 1):
        bit = (assignments >> np.uint64(max(abs(literal), 1) - 1)) & np.uint64(1)
        rows.append(inside & (bit == (literal > 0)) if literal else np.zeros_like(inside))
    return np.packbits(np.array(rows), axis=1, bitorder="little").view(np.uint64)


def _clause_tables(formulas: Formulas, n: int) -> UInt64[np.ndarray, "clauses formulas words"]:
    """The assignments that satisfy each clause; all of them for a clause that is none. Clauses come first, so that
    formulas are combined side by side.
    """
    if n > BY_TABLE:
        raise UserError(f"n = {n}: truth tables take up to {BY_TABLE} variables")
    if (largest := int(np.abs(formulas).max(initial=0))) > n:
        raise UserError(f"variable {largest} stands in a formula of n = {n}")
    tables = literal_tables(n)
    first, second, third = np.moveaxis(formulas + n, (2, 1), (0, 1))
    found = tables[first] | tables[second] | tables[third]
    found[(formulas == 0).all(axis=-1).T] = tables[0] | tables[2 * n]  # a variable is true or false
    return found


def _chunks(formulas: Formulas, n: int) -> Iterator[UInt64[np.ndarray, "clauses some words"]]:
    """Truth tables of some formulas at a time, so that they fit into memory."""
    step = max(1, CHUNK // (3 * max(1, formulas.shape[1]) * max(1, 2**n // 64)))
    for start in range(0, len(formulas), step):
        yield _clause_tables(formulas[start : start + step], n)


def satisfying_counts(formulas: Formulas, n: int) -> Int[np.ndarray, " formulas"]:
    """How many of the 2^n assignments satisfy each formula. n: up to 14."""
    bits = np.array([bin(byte).count("1") for byte in range(256)])
    parts = [
        bits[np.bitwise_and.reduce(tables, axis=0).view(np.uint8)].sum(axis=1)
        for tables in _chunks(formulas, n)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def satisfiable(formulas: Formulas, n: int) -> Bool[np.ndarray, " formulas"]:
    """Whether each formula has a satisfying assignment: by truth tables up to 14 variables, by CaDiCaL above."""
    if n <= BY_TABLE:
        parts = [(np.bitwise_and.reduce(tables, axis=0) != 0).any(axis=1) for tables in _chunks(formulas, n)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)
    return np.array([satisfiable_by_solver(clauses_of(formula)) for formula in formulas], dtype=bool)


def clauses_until_unsatisfiable(formulas: Formulas, n: int) -> Int[np.ndarray, " formulas"]:
    """How many first clauses of each formula make it unsatisfiable; one more than it has if they never do. n: up to
    14.

    The share of formulas with more than m is the probability that m clauses are satisfiable, for every m at once.
    """
    left = (np.bitwise_and.accumulate(tables, axis=0) != 0 for tables in _chunks(formulas, n))
    parts = [part.any(axis=-1).sum(axis=0) + 1 for part in left]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def half_point(n: int, rng: np.random.Generator, draws: int = 2000) -> float:
    """The number of clauses at which half of all random 3SAT formulas over n variables are satisfiable. n: up to 14.

    >>> half_point(8, np.random.default_rng(0)) / 8  # about 5.1
    """
    # Far beyond the point: at alpha = 12 the expected number of solutions is 2^n (7/8)^(12 n) < 0.45^n.
    return float(np.median(clauses_until_unsatisfiable(random_formulas(n, 12 * n, draws, rng), n) - 1)) + 0.5


def query_label(clauses: list[list[int]], query: int) -> Answer:
    """Whether a theory makes a literal true, false, or leaves it open (open world, classical negation).

    True if the theory and its negation have no model, false if the theory and the literal have none, else unknown.
    Raises UserError for a theory without a model, which would make it both.
    """
    if not satisfiable_by_solver(clauses):
        raise UserError("the theory has no model, so that every query would be true and false; leave it out")
    if not satisfiable_by_solver([*clauses, [-query]]):
        return "true"
    return "false" if not satisfiable_by_solver([*clauses, [query]]) else "unknown"
