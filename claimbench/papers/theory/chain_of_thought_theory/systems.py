"""Linear equations over a prime field, solved by Gauss-Jordan elimination with every system written out: the task
Equation(m, p) of arXiv 2305.15408.

A system of m unknowns is m rows `3 a + 0 b = 7`, joined by commas; systems are joined by separators. In a column that
is done, zeros and the factor 1 are left out. So a derivation's length depends on m alone.
"""

from __future__ import annotations

from string import ascii_lowercase

import numpy as np
from jaxtyping import Bool, Int

from claimbench.errors import UserError
from claimbench.papers.theory.chain_of_thought_theory.derivations import END, PAD, Derivations
from claimbench.papers.theory.chain_of_thought_theory.expressions import check_prime, inverses

EQUALS, SEPARATOR, PLUS, COMMA, VARIABLES = 1, 3, 4, 5, 6


def equation_words(unknowns: int, prime: int = 11) -> tuple[str, ...]:
    """The vocabulary: 6 signs, at least the 5 unknowns of the paper, and the numbers below the prime (22 words)."""
    names = [ascii_lowercase[k % 26] + (str(k // 26) if k >= 26 else "") for k in range(max(5, unknowns))]
    return (PAD, "=", END, "<sep>", "+", ",", *names, *map(str, range(check_prime(prime))))


def eliminate(
    systems: Int[np.ndarray, "count unknowns columns"], prime: int
) -> tuple[Int[np.ndarray, "count steps unknowns columns"], Bool[np.ndarray, " count"]]:
    """Gauss-Jordan elimination mod the prime: the system after 0, 1, ... unknowns steps, and which have one solution.

    Step j swaps row j with the first row from j on whose pivot is not 0, divides it by the pivot and clears the column
    in all other rows. systems: [count, m, m + 1], the last column being the right-hand side.
    """
    current = systems % prime
    count, unknowns, _ = current.shape
    rows, known = np.arange(count), np.ones(count, dtype=bool)
    history = [current]
    for j in range(unknowns):
        current = current.copy()
        pivots = current[:, j:, j] != 0
        known &= pivots.any(axis=1)
        chosen = j + pivots.argmax(axis=1)
        swapped = current[rows, chosen].copy()
        current[rows, chosen] = current[:, j]
        pivot = swapped * inverses(prime)[swapped[:, j]][:, None] % prime
        current[:, j] = pivot
        factors = current[:, :, j].copy()
        factors[:, j] = 0
        current = (current - factors[:, :, None] * pivot[:, None, :]) % prime
        history.append(current)
    return np.stack(history, axis=1), known


def equations(unknowns: int, count: int, generator: np.random.Generator, *, prime: int = 11) -> Derivations:
    """Uniform random systems with exactly one solution, their elimination and their solution.

    Raises UserError for no unknowns or a number that is no prime.
    """
    if unknowns < 1:
        raise UserError(f"unknowns {unknowns}: give at least 1")
    words = equation_words(unknowns, prime)
    parts: list[np.ndarray] = []
    found = 0
    while found < count:
        # The chance of a regular matrix is the product of 1 - p^-k, at least 0.28 (p = 2).
        tries = int(1.2 * (count - found) / np.prod(1 - float(prime) ** -np.arange(1, unknowns + 1))) + 16
        drawn = generator.integers(prime, size=(tries, unknowns, unknowns + 1))
        history, known = eliminate(drawn, prime)
        parts.append(history[known][: count - found])
        found += len(parts[-1])
    return write_systems(np.concatenate(parts), words)


def write_systems(
    history: Int[np.ndarray, "count steps unknowns columns"], words: tuple[str, ...]
) -> Derivations:
    """Tokens of elimination histories. Where a number stands depends on the step and the unknowns alone."""
    count, steps, unknowns, _ = history.shape
    zero = words.index("0")
    template: list[int] = []
    numbers: list[tuple[int, int, int, int]] = []  # place in the text, then step, row and column
    starts: list[int] = []
    for step in range(steps):
        starts.append(len(template))
        for row in range(unknowns):
            for column in range(unknowns):
                if column < step and column != row:
                    continue
                if column >= step:
                    numbers.append((len(template), step, row, column))
                    template.append(zero)
                template += [VARIABLES + column, PLUS]
            template[-1] = EQUALS
            numbers.append((len(template), step, row, unknowns))
            template += [zero, COMMA]
        template[-1] = SEPARATOR
    template[-1] = words.index(END)
    ids = np.tile(np.array(template, dtype=np.int16), (count, 1))
    place, step, row, column = np.array(numbers).T
    ids[:, place] += history[:, step, row, column].astype(np.int16)
    full = np.full(count, len(template) - 1)
    return Derivations(ids, np.full(count, starts[1]), np.full(count, starts[-1]), full, words)
