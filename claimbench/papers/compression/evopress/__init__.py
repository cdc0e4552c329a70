"""EvoPress: evolutionary search for non-uniform compression profiles (Sieberling et al. 2024, arXiv
2410.14649).

    from claimbench.papers.compression.evopress import prune_depth, save_pruned

    result = prune_depth(model, calibration_tokens, remove=0.25)  # any Llama-, GPT-2-, ... style model
    save_pruned(model, result.profile, "pruned")  # from_pretrained("pruned") loads it

search: the algorithm, for any problem. depth: dropping sub-layers. database: sparsity and bit widths per
linear.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
