"""Explanations as retrieved inputs: when models can learn from them (Hase & Bansal 2021, arXiv 2102.02201).

    from claimbench.papers.theory.explanation_roles import compare_on_texts

    found = compare_on_texts(texts, labels, explanations, encoder)   # a SentenceEncoder, or texts -> rows
    print(found["retrieved-explanations"].accuracy - found["no-explanation"].accuracy)

    python -m claimbench.papers.theory.explanation_roles TABLE.csv#target=label

The parts work alone: `draw_problem` (the synthetic task with its knobs), `Readers` (readers trained with or
without retrieval), `nearest`, `oracle`, `marginal` (exact search, and the mixture over retrieved sets),
`explain`.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
