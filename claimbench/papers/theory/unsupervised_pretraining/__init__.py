"""Pretraining without labels: what it saves (Ge, Tang, Fan and Jin, 2023, arXiv 2303.01566).

On an encoder and a table of one's own: frozen features with a linear predictor, against tuned learners without them.

    from claimbench.papers.theory.unsupervised_pretraining import compare, fit_factors

    found = compare(my_encoder(X), X, y, budgets=[20, 100])      # or fit_factors(unlabelled)(X) as features
    print(found.advantage)

The same from the command line with the same defaults:
python -m claimbench.papers.theory.unsupervised_pretraining TABLE. Further: the paper's three models, each with its
maximum-likelihood pretraining and its exact excess risk (FactorTask and fit_loadings, MixtureTask and fit_means,
fit_contrastive), and theorem_bound.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
