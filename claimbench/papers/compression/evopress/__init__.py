"""EvoPress: evolutionary search for non-uniform compression profiles (Sieberling et al. 2024, arXiv
2410.14649).

    from claimbench.papers.compression.evopress import prune_depth, save_pruned

    result = prune_depth(model, calibration_tokens, remove=0.25)  # any Llama-, GPT-2-, ... style model
    save_pruned(model, result.profile, "pruned")  # from_pretrained("pruned") loads it

search: the algorithm, for any problem. depth: dropping sub-layers. database: sparsity and bit widths per
linear.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claimbench.papers.compression.evopress.database import (
        WeightDatabase,
        bits_database,
        search_levels,
        sparsity_database,
    )
    from claimbench.papers.compression.evopress.depth import (
        DepthProfile,
        drop,
        export_pruned,
        load_profile,
        prune_depth,
        save_profile,
        save_pruned,
    )
    from claimbench.papers.compression.evopress.search import Outcome, Space, Stage, evolve, level_switch

_PLACES = {
    "WeightDatabase": "database",
    "bits_database": "database",
    "search_levels": "database",
    "sparsity_database": "database",
    "DepthProfile": "depth",
    "drop": "depth",
    "export_pruned": "depth",
    "load_profile": "depth",
    "prune_depth": "depth",
    "save_profile": "depth",
    "save_pruned": "depth",
    "Outcome": "search",
    "Space": "search",
    "Stage": "search",
    "evolve": "search",
    "level_switch": "search",
}

__all__ = [
    "DepthProfile",
    "Outcome",
    "Space",
    "Stage",
    "WeightDatabase",
    "bits_database",
    "drop",
    "evolve",
    "export_pruned",
    "level_switch",
    "load_profile",
    "prune_depth",
    "save_profile",
    "save_pruned",
    "search_levels",
    "sparsity_database",
]


def __getattr__(name: str) -> Any:
    """Imported when first used, so that the search alone needs neither torch nor transformers."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
