"""The same look-ups without a written derivation: how deep a direct answer must be (arXiv 2305.15408, section 4).

Here a layer is one parallel round: every cell of the table looks its neighbours up once, as the hand-made transformers
do for the one cell that is next. A cell that depends on a chain of k others is right after k rounds and not before. So
what is counted is the depth of this family of direct programs. Others exist: `doubling` squares the table of paths.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from claimbench.papers.theory.chain_of_thought_theory.expressions import inverses
from claimbench.papers.theory.chain_of_thought_theory.programmes import GAP, REPLACE

NONE = np.iinfo(np.int32).max // 4


def subsequence_rounds(sequence: Int[np.ndarray, " length"]) -> list[int]:
    """The answer after 1, 2, ... rounds in which every place looks for the best smaller number before it."""
    smaller = np.tril(sequence[None, :] < sequence[:, None], -1)
    answers: list[int] = []
    table = np.zeros(len(sequence), dtype=np.int64)
    while True:
        new = 1 + np.where(smaller, table, 0).max(axis=1)
        if (new == table).all():
            return answers
        table = new
        answers.append(int(table.max()))


def subsequence_doubling(sequence: Int[np.ndarray, " length"]) -> list[int]:
    """The answer after 0, 1, 2, ... squarings of the table of longest paths between places, length^2 numbers."""
    length = len(sequence)
    steps = np.where(np.tril(sequence[None, :] < sequence[:, None], -1), 1, -NONE)
    np.fill_diagonal(steps, 0)
    answers = [1 + int(steps.max())]
    while True:
        new = np.full_like(steps, -NONE)
        for middle in range(length):
            np.maximum(new, steps[:, middle, None] + steps[middle], out=new)
        if (new == steps).all():
            return answers
        steps = new
        answers.append(1 + int(steps.max()))


def edit_rounds(first: Int[np.ndarray, " rows"], second: Int[np.ndarray, " columns"]) -> list[int]:
    """The answer after 1, 2, ... rounds in which every cell of the table looks at its three neighbours."""
    rows, columns = len(first), len(second)
    table = np.full((rows + 1, columns + 1), NONE)
    table[0], table[:, 0] = GAP * np.arange(columns + 1), GAP * np.arange(rows + 1)
    cost = REPLACE * (first[:, None] != second)
    answers: list[int] = []
    while True:
        nearest = np.minimum(table[:-1, 1:], table[1:, :-1]) + GAP
        new = np.minimum(nearest, table[:-1, :-1] + cost)
        if (new == table[1:, 1:]).all():
            return answers
        table[1:, 1:] = new
        answers.append(int(new[-1, -1]))


def edit_doubling(first: Int[np.ndarray, " rows"], second: Int[np.ndarray, " columns"]) -> list[int | None]:
    """The answer after 0, 1, 2, ... rounds that join neighbouring strips of rows; None before all are one.

    A strip is a table of costs from each place of its upper edge to each of its lower one: columns^2 numbers a row.
    """
    columns = len(second)
    start, end = np.indices((columns + 1, columns + 1))
    strips = []
    for letter in first:
        matches = np.concatenate([[0], np.cumsum(second == letter)])
        through = matches[end] > matches[start]  # a letter between that is the row's own costs nothing
        down = GAP * (end - start) + np.where(
            end > start, np.where(through, -GAP, np.minimum(REPLACE - GAP, GAP)), GAP
        )
        strips.append(np.where(end >= start, down, NONE))
    answers: list[int | None] = []
    while len(strips) > 1:
        answers.append(None)
        pairs = [
            np.min(above[:, :, None] + below[None], axis=1)
            for above, below in zip(strips[::2], strips[1::2], strict=False)
        ]
        strips = pairs + strips[len(pairs) * 2 :]
    return [*answers, int(strips[0][0, -1])]


def arithmetic_rounds(expression: list[str], prime: int) -> list[list[str]]:
    """The expression after 1, 2, ... rounds in which every pair that may be reduced is."""
    rounds = []
    while len(expression) > 1:
        expression = reduce_pairs(expression, prime)
        rounds.append(expression)
    return rounds


def reduce_pairs(expression: list[str], prime: int, most: int | None = None) -> list[str]:
    """Every pair `number sign number` that may be reduced, replaced by its value; at most so many from the left.

    A pair may be reduced where what stands before it begins a bracket or the line, or is + or - and the pair's own sign
    binds stronger; and where a stronger sign does not follow a weak pair. Its brackets go with it.
    """
    out: list[str] = []
    place = done = 0
    while place < len(expression):
        before = expression[place - 1] if place else "("
        after = expression[place + 3] if place + 3 < len(expression) else ")"
        piece = expression[place : place + 3]
        if (
            len(piece) == 3
            and piece[0].isdigit()
            and piece[2].isdigit()
            and (most is None or done < most)
            and (
                (piece[1] in "*/" and before in "(+-")
                or (piece[1] in "+-" and before == "(" and after not in "*/")
            )
        ):
            first, second = int(piece[0]), int(piece[2])
            value = {
                "+": first + second,
                "-": first - second,
                "*": first * second,
                "/": first * int(inverses(prime)[second]),
            }[piece[1]]
            place, done = place + 3, done + 1
            if out and out[-1] == "(" and after == ")" and place < len(expression):
                out.pop()
                place += 1
            out.append(str(value % prime))
        else:
            out.append(expression[place])
            place += 1
    return out
