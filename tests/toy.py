"""A paper made on the spot: what several test files measure, vary and break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PAPER = """
id = "{id}"
title = "A paper about {id}"
group = "{group}"
year = 2024
authors = ["A. Author"]
summary = "It says that one thing is larger than another."

[[claim]]
id = "larger"
statement = "The method is larger than the baseline."
published = {{ value = 1.0, where = "abstract", rule = 0, at = {{ n = 4 }} }}
method = "method"
baselines = ["baseline"]
metrics.size = {{ kind = "mean", better = "higher", resolution = 1e-6, on_failure = 0.0 }}
sweep = {{ n = [1, 2, 4] }}
varies = ["noise"]
rules = [{{ effect = "difference", metric = "size", against = "baseline", at_least = 0.5 }}]
size = {{ scale_of_noise = 0.1, steps = 1 }}
caveat = "Made for a test."
[claim.scales.smoke]
[claim.scales.quick]
seconds = 0.01
[claim.scales.full]
gpu = true
"""

CLAIMS = """
import random

from claimbench.trial import Trial, measure


@measure("larger")
def larger(trial: Trial) -> dict[str, float]:
    noise = random.Random(f"{trial.seed}-{trial.arm}-{trial.point}").gauss(0.0, trial.size["scale_of_noise"])
    return {"size": trial.point["n"] + (1.0 if trial.arm == "method" else 0.0) + noise}
"""

MakePaper = Callable[..., Path]
