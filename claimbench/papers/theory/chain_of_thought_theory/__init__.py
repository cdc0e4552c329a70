"""Chain of thought in theory: written derivations, the transformers that write them, and what they cost (Feng, Zhang,
Gu, Ye, He, Wang 2023, arXiv 2305.15408).

    from claimbench.papers.theory.chain_of_thought_theory import arithmetic

    problems = arithmetic(4, 1000, np.random.default_rng(0))     # or equations, subsequences, edit_distances
    problems.text(0), problems.direct().text(0)                  # "7 * 2 + 1 = 3 + 1 = 4", "7 * 2 + 1 = 4"

    own = own_derivations(Recurrence(draw, cells, value, answer), 1000, np.random.default_rng(0))

The same from the command line: python -m claimbench.papers.theory.chain_of_thought_theory arithmetic --operators 4.
Further: CHECKS (whether a text's every step is right), HandMade with subsequence_program, edit_program and
arithmetic_program (transformers with weights set by hand), longest (tokens in closed form), train and answered (a
causal model of yours on such texts), corrupted and shortened (texts with mistakes).
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
