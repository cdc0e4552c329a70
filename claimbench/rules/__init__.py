"""From numbers to a verdict: `judge(claim, scale, trials)`, and the schedule of seeds that a claim's rules
need.

levels: how much error a look may spend. intervals: effects over seeds to intervals. effects: trials to
effects. judging: cells to a verdict, with the argument why the levels suffice. verdict: what goes in and
comes out. `docs/verdicts.md` says the same in plain words, with measured error rates.
"""

from claimbench.rules.judging import judge, schedule
from claimbench.rules.levels import ALPHA, look_level, sign_boundary
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
