"""Arithmetic over a prime field with every step written out: the task Arithmetic(n, p) of arXiv 2305.15408.

A number is rewritten n times, each time one of the numbers that stand there, as two numbers and an operator with the
same value mod p; brackets stand only where they are needed. Read from the end, that is the derivation.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError
from claimbench.papers.theory.chain_of_thought_theory.derivations import END, PAD, Derivations

SIGNS = ("+", "-", "*", "/")
PLUS, MINUS, TIMES, OVER, OPEN, CLOSE, EQUALS, ZERO = 3, 4, 5, 6, 7, 8, 9, 10


def arithmetic_words(prime: int = 11) -> tuple[str, ...]:
    """The vocabulary: 10 signs, then the numbers below the prime (21 words for the paper's 11)."""
    return (PAD, "<cls>", END, *SIGNS, "(", ")", "=", *map(str, range(check_prime(prime))))


def check_prime(prime: int) -> int:
    """The number itself. Raises UserError unless it is a prime."""
    if prime < 2 or any(prime % k == 0 for k in range(2, int(prime**0.5) + 1)):
        raise UserError(f"prime {prime} is no prime number, and division needs one; try 7 or 11")
    return prime


@cache
def inverses(prime: int) -> Int[np.ndarray, " prime"]:
    """The multiplicative inverse of each number mod the prime; 0 for 0, which has none."""
    return np.array([0, *(pow(k, -1, prime) for k in range(1, prime))])


@cache
def rewritings(prime: int) -> tuple[Float[np.ndarray, "prime choices"], Int[np.ndarray, "choices 3"]]:
    """How a number x may be rewritten: the cumulative chance of each choice (number, operator, number) given x.

    The published procedure draws the first number and the operator uniformly and tries again where the second would
    not exist. Where every second number does (0 x b, 0 / b), it is uniform over those that give no division by 0.
    """
    first, sign, second = (part.ravel() for part in np.indices((prime, 4, prime)))
    value = apply_operators(first, sign, second, prime)
    allowed = (sign != 3) | (second != 0)
    share = np.where((first == 0) & (sign >= 2), 1 / prime, 1.0)
    chances = (value == np.arange(prime)[:, None]) & allowed
    weights = chances * share
    cumulative = np.cumsum(weights, axis=1)
    return cumulative / cumulative[:, -1:], np.stack([first, sign, second], axis=1)


def apply_operators(
    first: Int[np.ndarray, "*shape"],
    sign: Int[np.ndarray, "*shape"],
    second: Int[np.ndarray, "*shape"],
    prime: int,
) -> Int[np.ndarray, "*shape"]:
    """first (sign) second mod the prime; sign is 0 to 3 for + - * /. A division by 0 gives 0."""
    return (
        np.choose(sign, [first + second, first - second, first * second, first * inverses(prime)[second]])
        % prime
    )


def arithmetic(operators: int, count: int, generator: np.random.Generator, *, prime: int = 11) -> Derivations:
    """Expressions with so many operators, reduced step by step: `e_n = e_(n-1) = ... = number`.

    Raises UserError for fewer than one operator or a number that is no prime.
    """
    if operators < 1:
        raise UserError(f"operators {operators}: an expression to be reduced has at least one")
    words = arithmetic_words(prime)
    cumulative, choices = rewritings(prime)
    line = np.zeros((count, 4 * operators + 1), dtype=np.int16)
    line[:, 0] = ZERO + generator.integers(prime, size=count)
    length = np.ones(count, dtype=np.int64)
    history = [(line, length)]
    for _ in range(operators):
        keys = np.where(line >= ZERO, generator.random(line.shape, dtype=np.float32), -1.0)
        where = keys.argmax(axis=1)
        value = np.take_along_axis(line, where[:, None], 1)[:, 0] - ZERO
        ranks = (cumulative[value] <= generator.random(count)[:, None]).sum(axis=1)
        line, length = _rewrite(line, length, where, choices[ranks])
        history.append((line, length))
    return _assemble(history[::-1], words)


def _rewrite(
    line: Int[np.ndarray, "count time"],
    length: Int[np.ndarray, " count"],
    where: Int[np.ndarray, " count"],
    choice: Int[np.ndarray, "count 3"],
) -> tuple[Int[np.ndarray, "count time"], Int[np.ndarray, " count"]]:
    """Put `number sign number`, in brackets where the neighbours ask for them, in the place of one number."""
    rows = np.arange(len(line))
    before = np.where(where > 0, line[rows, np.maximum(where - 1, 0)], 0)
    after = line[rows, where + 1]
    weak = choice[:, 1] < 2
    strong = np.isin(before, (TIMES, OVER)) | np.isin(after, (TIMES, OVER)) | (before == MINUS)
    bracketed = (before == OVER) | (strong & weak)
    wide = np.where(bracketed, 5, 3)
    inner = np.stack([ZERO + choice[:, 0], PLUS + choice[:, 1], ZERO + choice[:, 2]], axis=1)
    piece = np.zeros((len(line), 5), dtype=line.dtype)
    piece[:, :3] = inner
    piece[bracketed] = np.pad(inner[bracketed], ((0, 0), (1, 1)), constant_values=((0, 0), (OPEN, CLOSE)))
    place = np.arange(line.shape[1])
    inside = place - where[:, None]
    moved = np.take_along_axis(line, np.maximum(place - wide[:, None] + 1, 0), 1)
    put = np.take_along_axis(piece, np.clip(inside, 0, 4), 1)
    new = np.where(inside < 0, line, np.where(inside < wide[:, None], put, moved))
    return new, length + wide - 1


def _assemble(
    lines: list[tuple[Int[np.ndarray, "count time"], Int[np.ndarray, " count"]]], words: tuple[str, ...]
) -> Derivations:
    """Lines joined by "=" and closed by the end token."""
    lengths = np.stack([length for _, length in lines], axis=1)
    starts = np.cumsum(lengths + 1, axis=1) - lengths - 1
    total = starts[:, -1] + lengths[:, -1]
    ids = np.zeros((len(total), int(total.max(initial=0)) + 1), dtype=np.int16)
    for step, (line, length) in enumerate(lines):
        row, column = np.nonzero(np.arange(line.shape[1]) < length[:, None])
        ids[row, starts[row, step] + column] = line[row, column]
    rows = np.arange(len(total))
    ids[rows[:, None], starts[:, 1:] - 1] = EQUALS
    ids[rows, total] = words.index(END)
    return Derivations(ids, starts[:, 1], starts[:, -1], total, words)
