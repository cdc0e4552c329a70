"""On the complexity of Bayesian generalization: channels as attributes of classes (Shi et al. 2023, arXiv 2211.11033).

    from claimbench.papers.theory.bayesian_generalization import describe_concepts

    for concept in describe_concepts(features, head, pixels, labels): print(concept.name, concept.complexity)

`python -m claimbench.papers.theory.bayesian_generalization digits` prints the same table. generalise: Tenenbaum's
Bayesian generalisation with the size principle, for any hypotheses. visual_entropy: bits of images.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
