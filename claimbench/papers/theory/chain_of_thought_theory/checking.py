"""Whether written derivations are right, judged from their text alone and without the code that generates them.

Arithmetic is evaluated from Python's own syntax tree in exact fractions; solutions of equations are put into every
system; tables are computed from their definitions. So a model's output can be judged too, step by step.
"""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache


@dataclass(frozen=True)
class Checked:
    """steps: how many lines or cells there are. wrong: the first that is not right, counted from 0, or None.

    answer: whether the final answer is right, whatever the steps.
    """

    steps: int
    wrong: int | None
    answer: bool

    @property
    def right(self) -> bool:
        return self.wrong is None and self.answer


def value_mod(expression: str, prime: int) -> int:
    """The value of an expression in the field of `prime` numbers.

    Raises ValueError for anything but numbers, + - * / and brackets, and for a division by 0.
    """

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int() as number):
                return Fraction(number)
            case ast.BinOp(left=left, op=sign, right=right):
                first, second = value(left), value(right)
                match sign:
                    case ast.Add():
                        return first + second
                    case ast.Sub():
                        return first - second
                    case ast.Mult():
                        return first * second
                    case ast.Div() if second.numerator % prime:
                        return first / second
        raise ValueError(f"{expression}: no value mod {prime}")

    try:
        found = value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"{expression}: no expression") from None
    return found.numerator * pow(found.denominator, -1, prime) % prime


def check_arithmetic(text: str, prime: int = 11) -> Checked:
    """Every line must have the first one's value and one operator less than the line before; the last is the value."""
    lines = [line.split() for line in text.split("=")]
    value = value_mod(" ".join(lines[0]), prime)

    def right(place: int) -> bool:
        try:
            same = value_mod(" ".join(lines[place]), prime) == value
        except ValueError:
            return False
        fewer = _operators(lines[place]) == _operators(lines[place - 1]) - 1
        return same and fewer and _one_reduction(lines[place - 1], lines[place], prime)

    wrong = next((place for place in range(1, len(lines)) if not right(place)), None)
    return Checked(len(lines) - 1, None if wrong is None else wrong - 1, lines[-1] == [str(value)])


def _operators(line: list[str]) -> int:
    return sum(token in "+-*/" for token in line)


def _one_reduction(before: list[str], after: list[str], prime: int) -> bool:
    """Whether a line is another with one stretch of 3 or 5 tokens replaced by its value."""
    width = len(before) - len(after) + 1
    return width in (3, 5) and any(
        after[place].isdigit()
        and before[:place] == after[:place]
        and before[place + width :] == after[place + 1 :]
        and _value(before[place : place + width], prime) == int(after[place])
        for place in range(len(after))
    )


def _value(tokens: list[str], prime: int) -> int | None:
    try:
        return value_mod(" ".join(tokens), prime)
    except ValueError:
        return None


def read_system(text: str) -> list[tuple[dict[str, int], int]]:
    """Rows of a system: factors by unknown, and the right-hand side. Raises ValueError for what is none."""
    rows = []
    for row in text.split(","):
        left, _, right = row.partition("=")
        factors: dict[str, int] = {}
        for term in left.split("+"):
            match term.split():
                case [factor, name] if factor.isdigit() and name not in factors:
                    factors[name] = int(factor)
                case [name] if not name.isdigit() and name not in factors:
                    factors[name] = 1
                case _:
                    raise ValueError(f"{row}: no equation")
        rows.append((factors, int(right)))
    return rows


def check_equations(text: str, prime: int = 11) -> Checked:
    """The solution in the last system must solve the first one and all between."""
    systems = [part.strip() for part in text.split("<sep>")]
    problem = read_system(systems[0])
    try:
        last = read_system(systems[-1])
    except ValueError:
        last = []
    solved = all(len(row) == 1 and next(iter(row.values())) == 1 for row, _ in last)
    solution = {name: value for row, value in last for name in row}
    unknowns = {name for row, _ in problem for name in row}
    fits = solved and set(solution) == unknowns

    def holds(rows: list[tuple[dict[str, int], int]]) -> bool:
        return len(rows) == len(problem) and all(
            (sum(factor * solution.get(name, 0) for name, factor in row.items()) - right) % prime == 0
            for row, right in rows
        )

    answer = fits and holds(problem)
    wrong = None
    for place, system in enumerate(systems[1:-1]):
        try:
            right = holds(read_system(system))
        except ValueError:
            right = False
        if not right and wrong is None:
            wrong = place
    if wrong is None and not answer:
        wrong = len(systems) - 2
    return Checked(len(systems) - 1, wrong, answer)


def check_subsequences(text: str) -> Checked:
    """The table against patience sorting (Schensted 1961), whose piles are searched by bisection."""
    sequence, table, answer = ([int(token) for token in part.split()] for part in text.split("<sep>"))
    tops: list[int] = []
    truth = []
    for number in sequence:
        pile = bisect_left(tops, number)
        tops[pile : pile + 1] = [number]
        truth.append(pile + 1)
    return _compared(table, truth, answer == [len(tops)])


def check_edits(text: str, costs: tuple[int, int, int] = (2, 2, 3)) -> Checked:
    """The table against the definition by recursion. costs: of putting in, leaving out and replacing a letter."""
    prompt, table, answer = (part.split() for part in text.split("<sep>"))
    bar = prompt.index("|")
    first, second = prompt[:bar], prompt[bar + 1 :]

    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return costs[0] * j + costs[1] * i
        return min(
            distance(i, j - 1) + costs[0],
            distance(i - 1, j) + costs[1],
            distance(i - 1, j - 1) + costs[2] * (first[i - 1] != second[j - 1]),
        )

    truth = [
        token
        for i in range(1, len(first) + 1)
        for token in [*(str(distance(i, j)) for j in range(1, len(second) + 1)), ","]
    ]
    return _compared(table, truth, answer == [str(distance(len(first), len(second)))])


def _compared(written: list, truth: list, answer: bool) -> Checked:
    pairs = zip(written, truth, strict=False)
    wrong = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    if wrong is None and len(written) != len(truth):
        wrong = min(len(written), len(truth))
    return Checked(len(truth), wrong, answer)


CHECKS: dict[str, Callable[[str], Checked]] = {
    "arithmetic": check_arithmetic,
    "equations": check_equations,
    "subsequences": check_subsequences,
    "edits": check_edits,
}
