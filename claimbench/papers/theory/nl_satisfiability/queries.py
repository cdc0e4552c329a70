"""Theories with a question to each: is this true, false or unknown (the paper's hard RuleTaker, arXiv 2112.09054)?

The theory is a satisfiable 3SAT formula in an open world with classical negation; the question is one literal. True
and false need a proof by cases, as hard as showing that the theory with the negated question has no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from claimbench.errors import UserError
from claimbench.papers.theory.nl_satisfiability.formulas import clauses_of, random_formulas
from claimbench.papers.theory.nl_satisfiability.fragments import SentenceRules
from claimbench.papers.theory.nl_satisfiability.labels import (
    BY_TABLE,
    Answer,
    half_point,
    query_label,
    satisfiable,
)
from claimbench.papers.theory.nl_satisfiability.solvers import dpll_effort

ANSWERS: tuple[Answer, ...] = ("true", "false", "unknown")


@dataclass(frozen=True)
class Query:
    """A theory (clauses), a literal and whether the theory makes it true, false or leaves it open."""

    clauses: list[list[int]]
    literal: int
    answer: Answer
    effort: int  # branches of plain DPLL for the theory with the negated literal

    def text(self, fragment: SentenceRules | None = None) -> tuple[str, str]:
        """The theory and the question as a sentence."""
        fragment = fragment or SentenceRules()
        return fragment.write(self.clauses), fragment.sentence(self.literal)


def hard_queries(n: int, count: int, rng: np.random.Generator) -> list[Query]:
    """`count` queries over n variables (3 to 14), each answer equally often, in random order.

    Theories are random 3SAT with as many clauses as make half of them unsatisfiable; unsatisfiable ones are left out.

        >>> hard_queries(8, 30, np.random.default_rng(0))[0].text()
    """
    if not 3 <= n <= BY_TABLE:
        raise UserError(f"n = {n}; 3 to {BY_TABLE} variables can be made hard here")
    m = round(half_point(n, rng))
    wanted = {answer: count // 3 + (place < count % 3) for place, answer in enumerate(ANSWERS)}
    found: list[Query] = []
    while any(wanted.values()):
        formulas = random_formulas(n, m, 4 * count + 20, rng)
        for formula in formulas[satisfiable(formulas, n)]:
            clauses = clauses_of(formula)
            literal = int(rng.choice([-1, 1]) * rng.integers(1, n + 1))
            answer = query_label(clauses, literal)
            if wanted[answer]:
                wanted[answer] -= 1
                effort = dpll_effort([*clauses, [-literal]], n).decisions
                found.append(Query(clauses, literal, answer, effort))
    return [found[place] for place in rng.permutation(len(found))]
