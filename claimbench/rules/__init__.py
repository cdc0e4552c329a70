"""From numbers to a verdict: `judge(claim, scale, trials)`, and the schedule of seeds that a claim's rules
need.

levels: how much error a look may spend. intervals: effects over seeds to intervals. effects: trials to
effects. judging: cells to a verdict, with the argument why the levels suffice. verdict: what goes in and
comes out. `docs/verdicts.md` says the same in plain words, with measured error rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claimbench.rules.judging import judge
    from claimbench.rules.levels import ALPHA, look_level, sign_boundary
    from claimbench.rules.looks import schedule
    from claimbench.rules.verdict import Cell, Figure, Judged, RuleVerdict, Verdict

__all__ = [
    "ALPHA",
    "Cell",
    "Figure",
    "Judged",
    "RuleVerdict",
    "Verdict",
    "judge",
    "look_level",
    "schedule",
    "sign_boundary",
]

_HOMES = {
    **dict.fromkeys(("ALPHA", "look_level", "sign_boundary"), "levels"),
    **dict.fromkeys(("Cell", "Figure", "Judged", "RuleVerdict", "Verdict"), "verdict"),
    "judge": "judging",
    "schedule": "looks",
}


def __getattr__(name: str) -> Any:
    """On use: judging imports SciPy, which most commands never need."""
    if name not in _HOMES:
        raise AttributeError(f"module 'claimbench.rules' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"claimbench.rules.{_HOMES[name]}"), name)
