"""Server-side SVG: comparisons as intervals against their bounds, sweeps as a curve for each arm.

Plots take plain numbers and know nothing of papers or ledgers. The SVG is built as an XML tree, so that every name is
escaped; its colours are CSS variables (`stylesheet`) that read in dark and light.
"""

from __future__ import annotations

from claimbench.plots.curves import Curve, curve_plot
from claimbench.plots.drawing import stylesheet
from claimbench.plots.intervals import Interval, interval_plot

__all__ = ["Curve", "Interval", "curve_plot", "interval_plot", "stylesheet"]
