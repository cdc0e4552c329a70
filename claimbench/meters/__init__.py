"""How cost is metered: peak memory of a block, floating-point operations of a function, seconds of steps.

Nothing heavy is imported until a meter is used. What each one counts, and cannot see, is in `docs/meters.md`.
"""

from claimbench.meters.flops import Count, count, declared, formula
from claimbench.meters.memory import Memory, memory
from claimbench.meters.timing import Timed, rounds

__all__ = ["Count", "Memory", "Timed", "count", "declared", "formula", "memory", "rounds"]
