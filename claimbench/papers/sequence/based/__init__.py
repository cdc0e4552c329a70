"""Based: linear attention with a Taylor map beside tiny windows (Arora et al. 2024, arXiv 2402.18668).

    from claimbench.papers.sequence.based import BasedMixer, based

    layer = BasedMixer(features=64, key_width=16, window=32)   # [batch, length, 64] -> [batch, length, 64]
    model = based(vocabulary=50_257, features=1024, layers=27, heads=16)
    logits, state = model.prefill(prompt)                      # [batch, length] -> [batch, vocabulary]
    logits, state = model.step(tokens, state)                  # [batch] -> [batch, vocabulary]; the state never grows

Importing this folder loads no torch; a name is imported when first asked for.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
