"""How hard a satisfiability problem is, beside random ones of its size that are as hard as they come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from claimbench.errors import UserError
from claimbench.papers.theory.nl_satisfiability.formulas import clauses_of, random_formulas
from claimbench.papers.theory.nl_satisfiability.labels import BY_TABLE, half_point
from claimbench.papers.theory.nl_satisfiability.solvers import SMALL, cdcl_effort, dpll_effort, effort

THRESHOLD = 4.267  # clauses per variable, for many variables (Mezard, Parisi and Zecchina, 2002)


@dataclass(frozen=True)
class Hardness:
    """A problem beside random 3SAT at the half-way point of as many variables."""

    satisfiable: bool
    variables: int
    clauses: int
    effort: float  # branches of plain DPLL up to 20 variables, conflicts of MiniSat above
    rank: float  # share of random formulas at the half-way point that take less effort, ties by half

    @property
    def alpha(self) -> float:
        """Clauses per variable."""
        return self.clauses / self.variables


def reference_efforts(n: int, count: int = 100, seed: int = 0) -> Float[np.ndarray, " formulas"]:
    """Efforts for random 3SAT over n variables where half of the formulas are satisfiable. n: 3 or more."""
    rng = np.random.default_rng([seed, n])
    m = round(half_point(n, rng) if n <= BY_TABLE else THRESHOLD * n)
    return np.array([effort(clauses_of(formula), n) for formula in random_formulas(n, m, count, rng)])


def hardness(
    problems: list[list[list[int]]], variables: list[int] | None = None, count: int = 100, seed: int = 0
) -> list[Hardness]:
    """Each problem's label, size, effort and rank. Clauses may have any length.

    problems: clauses of literals. variables: of each problem (default: those that occur, renumbered). Raises
    UserError for an empty problem.

        >>> hardness([GroundedRules().read(theory) for theory in theories])[0].rank
    """
    found, known = [], dict[int, Float[np.ndarray, " formulas"]]()
    for place, clauses in enumerate(problems):
        names = sorted({abs(literal) for clause in clauses for literal in clause})
        if not names:
            raise UserError(f"problem {place + 1} has no literals")
        number = {name: index + 1 for index, name in enumerate(names)}
        plain = [
            [(1 if literal > 0 else -1) * number[abs(literal)] for literal in clause] for clause in clauses
        ]
        n = max(len(names), variables[place] if variables else 0)
        solved = dpll_effort(plain, n) if n <= SMALL else cdcl_effort(plain)
        took = float(solved.decisions if n <= SMALL else solved.conflicts)
        if n < 3:
            rank = 0.0  # no 3SAT is so small
        else:
            if n not in known:
                known[n] = reference_efforts(n, count, seed)
            others = known[n]
            rank = float((others < took).mean() + (others == took).mean() / 2)
        found.append(Hardness(solved.satisfiable, n, len(clauses), took, rank))
    return found
