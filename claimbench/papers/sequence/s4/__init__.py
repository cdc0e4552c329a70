"""S4: efficiently modeling long sequences with structured state spaces (Gu, Goel, Ré 2021, arXiv 2111.00396).

    from claimbench.papers.sequence.s4 import S4

    layer = S4(features=64, length=1024)          # [batch, length, 64] -> [batch, length, 64]
    state = layer.init_state(batch=1)             # the same parameters as a recurrence of O(N) a token
    y, state = layer.step(x, state)               # [batch, 64] -> [batch, 64]

Importing this folder loads no torch; a name is imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "S4": "layer",
    "DPLR": "layer",
    "SequenceKernel": "layer",
    "dplr_kernel": "kernel",
    "truncate": "kernel",
    "untruncate": "kernel",
    "recurrence": "kernel",
    "hippo_legs": "hippo",
    "nplr": "hippo",
    "INITIALISATIONS": "hippo",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from claimbench.papers.sequence.s4.hippo import INITIALISATIONS as INITIALISATIONS
    from claimbench.papers.sequence.s4.hippo import hippo_legs as hippo_legs
    from claimbench.papers.sequence.s4.hippo import nplr as nplr
    from claimbench.papers.sequence.s4.kernel import dplr_kernel as dplr_kernel
    from claimbench.papers.sequence.s4.kernel import recurrence as recurrence
    from claimbench.papers.sequence.s4.kernel import truncate as truncate
    from claimbench.papers.sequence.s4.kernel import untruncate as untruncate
    from claimbench.papers.sequence.s4.layer import DPLR as DPLR
    from claimbench.papers.sequence.s4.layer import S4 as S4
    from claimbench.papers.sequence.s4.layer import SequenceKernel as SequenceKernel


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
