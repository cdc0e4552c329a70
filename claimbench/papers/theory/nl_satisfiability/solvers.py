"""Complete solvers by python-sat, and how hard they find a formula.

`cdcl_effort` counts what a conflict-driven solver does (MiniSat 2.2, without pre-processing). On a dozen variables
that is next to nothing; `dpll_effort` is then the measure: branch on the first open variable, propagate units, no
learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from claimbench.errors import UserError

SMALL = 20
"""Up to so many variables effort is that of plain DPLL."""


@dataclass(frozen=True)
class Effort:
    """What a solver did. `decisions` for plain DPLL counts branches tried, both sides of a variable."""

    satisfiable: bool
    decisions: int
    conflicts: int
    propagations: int


def solver_of(clauses: list[list[int]], name: str) -> Any:
    """A python-sat solver of this name with the clauses. Raises UserError if it is not installed or not known."""
    try:
        from pysat.solvers import Solver
    except ImportError:
        raise UserError("python-sat is not installed; pip install claimbench[theory]") from None
    try:
        return Solver(name=name, bootstrap_with=clauses)
    except NotImplementedError:
        raise UserError(
            f'python-sat knows no solver "{name}"; try minisat22, glucose4 or cadical153'
        ) from None


def satisfiable_by_solver(clauses: list[list[int]], name: str = "cadical153") -> bool:
    """Whether the clauses have a model."""
    with solver_of(clauses, name) as solver:
        return bool(solver.solve())


def cdcl_effort(clauses: list[list[int]], name: str = "minisat22") -> Effort:
    """Solve by conflict-driven clause learning and count. name: a python-sat solver that keeps statistics.

    >>> cdcl_effort([[1, 2, 3], [-1, 2], [-2]]).satisfiable
    """
    with solver_of(clauses, name) as solver:
        found = bool(solver.solve())
        counted = solver.accum_stats() or {}
    return Effort(
        found,
        int(counted.get("decisions", 0)),
        int(counted.get("conflicts", 0)),
        int(counted.get("propagations", 0)),
    )


def dpll_effort(clauses: list[list[int]], n: int) -> Effort:
    """Davis, Putnam, Logemann and Loveland: the first open variable, true before false, unit propagation,
    backtracking.
    """
    decisions = conflicts = propagations = 0
    # The solver does not report what follows from clauses of one literal alone; behind a switch that is on it does.
    switch = n + 1
    switched = [[*clause, -switch] if len(clause) == 1 else clause for clause in clauses]
    with solver_of(switched, "minisat22") as solver:
        # Assumptions still to be tried; the deepest is on top.
        open_branches: list[list[int]] = [[switch]]
        while open_branches:
            assumed = open_branches.pop()
            decisions += len(assumed) > 1
            consistent, implied = solver.propagate(assumptions=assumed)
            propagations += max(0, len(implied) - len(assumed))
            if not consistent:
                conflicts += 1
                continue
            decided = {abs(literal) for literal in implied} | {abs(literal) for literal in assumed}
            free = next((variable for variable in range(1, n + 1) if variable not in decided), None)
            if free is None:
                return Effort(True, decisions, conflicts, propagations)
            open_branches += [[*assumed, -free], [*assumed, free]]
    return Effort(False, decisions, conflicts, propagations)


def effort(clauses: list[list[int]], n: int) -> float:
    """One number for how hard a formula is: branches of plain DPLL up to 20 variables, conflicts of MiniSat above.

    >>> effort([[1, 2, 3], [-1, 2, -3]], n=3)
    """
    if n <= SMALL:
        return float(dpll_effort(clauses, n).decisions)
    return float(cdcl_effort(clauses).conflicts)
