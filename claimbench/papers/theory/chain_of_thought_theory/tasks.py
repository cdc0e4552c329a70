"""The four tasks by name, for the command line and the claims: one way to draw each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.chain_of_thought_theory.derivations import Derivations, joined
from claimbench.papers.theory.chain_of_thought_theory.expressions import arithmetic
from claimbench.papers.theory.chain_of_thought_theory.lengths import TASKS
from claimbench.papers.theory.chain_of_thought_theory.programmes import edit_distances, subsequences
from claimbench.papers.theory.chain_of_thought_theory.systems import equations

Draw = Callable[[int, np.random.Generator], Derivations]
"""draw(count, generator): so many random problems."""


def drawing(task: str, n: int, *, prime: int = 11, number_range: int = 250, letters: int = 8) -> Draw:
    """A function that draws problems of a task. n: operators, unknowns, numbers or letters.

    Raises UserError for a task there is none of.
    """
    match task:
        case "arithmetic":
            return lambda count, generator: arithmetic(n, count, generator, prime=prime)
        case "equations":
            return lambda count, generator: equations(n, count, generator, prime=prime)
        case "subsequences":
            return lambda count, generator: subsequences(n, count, generator, number_range=number_range)
        case "edits":
            return lambda count, generator: edit_distances(n, count, generator, letters=letters)
        case _:
            raise UserError(f'no task "{task}"{nearest(task, TASKS)}')


def different(
    draw: Draw, count: int, generator: np.random.Generator, *, most_rounds: int = 50
) -> Derivations:
    """So many problems, no two alike. Raises UserError where there are too few of this size."""
    found = draw(count, generator).unique()
    for _ in range(most_rounds):
        if len(found) >= count:
            return found.take(slice(count))
        found = joined([found, draw(count, generator)]).unique()
    raise UserError(
        f"count {count}: only {len(found)} different problems of this size were found; give a larger size"
    )
