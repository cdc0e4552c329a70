"""Hard natural-language satisfiability problems (Richardson and Sabharwal, 2021, arXiv 2112.09054).

    from claimbench.papers.theory.nl_satisfiability import GroundedRules, hard_sample, hardness

    hard = hard_sample(8, 100, np.random.default_rng(0))        # balanced labels for each number of clauses
    theories, labels = hard.theories(), hard.labels             # "If no apple and banana then cherry. If ..."
    hardness([GroundedRules().read(theory) for theory in theories])

The same from the command line: python -m claimbench.papers.theory.nl_satisfiability generate, and hardness FILE.
Further: SentenceRules, RelativeClauses (other English), query_label (true, false, unknown), half_point, PREDICTORS.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
