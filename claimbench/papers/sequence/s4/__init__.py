"""S4: efficiently modeling long sequences with structured state spaces (Gu, Goel, Ré 2021, arXiv 2111.00396).

    from claimbench.papers.sequence.s4 import S4

    layer = S4(features=64, length=1024)          # [batch, length, 64] -> [batch, length, 64]
    state = layer.init_state(batch=1)             # the same parameters as a recurrence of O(N) a token
    y, state = layer.step(x, state)               # [batch, 64] -> [batch, 64]

Importing this folder loads no torch; a name is imported when first asked for.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
