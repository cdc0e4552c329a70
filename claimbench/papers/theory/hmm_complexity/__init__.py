"""Model complexity through hidden Markov models: heads on frozen features (Luo, Wang, Huang 2024, arXiv 2410.00699).

    from claimbench.papers.theory.hmm_complexity import risk_curve

    for row in risk_curve(features, samples=150): print(row.features, row.risk, row.predicted)

Your own frozen features, a head on p of their dimensions, and what theory says beside it;
`python -m claimbench.papers.theory.hmm_complexity FEATURES.npy` prints the same table.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
