"""Rounds of timing: on a clock of our own, where all is known, and on the machine's, where a bound on error is."""

import gc
import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import binom, chi2

from claimbench.errors import UserError
from claimbench.meters import rounds, timing
from claimbench.meters.timing import Settings, Usage, disturbance

ROUNDS = 40
FEWEST = int(binom.ppf(5e-4, ROUNDS, 0.5)) - 1
"""A sound A/A ratio is above 1 in half of the rounds: fewer than this many on one side has p < 5e-4, so that an
A/A test fails a sound meter with p < 1e-3."""


class Clock:
    """A clock that only steps move. The first call after another arm's costs more, as with a cold cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int = 0, cold: float = 0.0) -> None:
        self.now = 1_000
        self.noise = random.Random(seed)
        self.cold = cold
        self.calls: list[str] = []
        self.collecting: list[bool] = []
        fake = SimpleNamespace(perf_counter_ns=lambda: self.now, process_time=time.process_time)
        monkeypatch.setattr(timing, "time", fake)

    def step(self, arm: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            extra = self.cold if not self.calls or self.calls[-1] != arm else 0.0
            self.calls.append(arm)
            self.collecting.append(gc.isenabled())
            self.now += round(1e9 * (seconds * self.noise.lognormvariate(0.0, 0.05) + extra))

        return run


@pytest.fixture
def frozen() -> Iterator[None]:
    """Objects that live already are set aside, so that each of many rounds need not go through them."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_the_median_of_each_arm_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    timed = rounds({"fast": clock.step("fast", 1e-3), "slow": clock.step("slow", 0.5)}, method="fast", seed=3)
    assert timed.seconds["fast"] == pytest.approx(
        1e-3, rel=0.02
    )  # the mean of 20 calls, the median of 15 of those
    assert timed.seconds["slow"] == pytest.approx(0.5, rel=0.06)
    assert timed.aa == pytest.approx(1.0, rel=0.03)
    assert list(timed.seconds) == ["fast", "slow"]


def test_a_sample_is_long_enough_and_one_call_if_that_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    steps = {
        "tiny": clock.step("tiny", 1e-6),
        "middle": clock.step("middle", 8e-3),
        "long": clock.step("long", 2.0),
    }
    timed = rounds(steps, method="tiny", settings=Settings(passes=3))
    assert timed.repeats["long"] == 1
    assert timed.repeats["middle"] == 3
    assert timed.repeats["tiny"] * 1e-6 == pytest.approx(0.02, rel=0.05)


def test_the_budget_bounds_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert rounds({"a": clock.step("a", 0.1)}).passes == 15
    assert rounds({"a": clock.step("a", 1.0)}).passes == pytest.approx(10, abs=1)  # two copies, 20 seconds
    assert rounds({"a": clock.step("a", 60.0)}).passes == 3


def test_the_same_seed_has_the_same_order_and_another_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(seed: int) -> list[str]:
        clock = Clock(monkeypatch)
        rounds({arm: clock.step(arm, 0.5) for arm in "abcd"}, method="b", seed=seed)
        return clock.calls

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.usefixtures("frozen")
def test_every_order_of_the_arms_is_equally_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square over the 12 orders of a, b, c and the copy of a; the seeds are fixed, so that it cannot flicker."""
    seen: Counter[str] = Counter()
    for seed in range(30):
        clock = Clock(monkeypatch)
        timed = rounds({arm: clock.step(arm, 0.5) for arm in "abc"}, method="a", seed=seed)
        calls = clock.calls[6:]  # after two calls each to warm up and calibrate
        assert len(calls) == 4 * timed.passes
        seen.update("".join(calls[start : start + 4]) for start in range(0, len(calls), 4))
    orders = {"".join(order) for order in itertools.permutations("aabc")}
    assert set(seen) == orders
    expected = seen.total() / len(orders)
    statistic = sum((seen[order] - expected) ** 2 / expected for order in orders)
    assert statistic < chi2.ppf(0.999, len(orders) - 1)


@pytest.mark.usefixtures("frozen")
def test_a_cold_first_call_does_not_favour_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fixed order one copy would always come second and profit: here each does so equally often."""
    above = 0
    for seed in range(ROUNDS):
        clock = Clock(monkeypatch, seed=seed, cold=0.3)
        timed = rounds({arm: clock.step(arm, 0.5) for arm in "ab"}, method="a", seed=seed)
        above += timed.aa > 1
    assert FEWEST <= above <= ROUNDS - FEWEST


def test_no_garbage_is_collected_during_samples_and_the_collector_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    assert gc.isenabled()
    rounds({"a": clock.step("a", 0.5)})
    assert not any(clock.collecting)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    gc.disable()
    try:
        rounds({"a": clock.step("a", 0.5)})
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_without_a_method_the_first_arm_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("", "absent"):
        clock = Clock(monkeypatch)
        rounds({"first": clock.step("first", 0.5), "other": clock.step("other", 0.5)}, method=method)
        counts = Counter(clock.calls[4:])
        assert counts["first"] == 2 * counts["other"]


def test_no_steps_is_a_mistake() -> None:
    with pytest.raises(UserError, match="no step to time"):
        rounds({})


def test_a_step_that_raises_raises_and_leaves_the_collector_on() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rounds({"a": fail})
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


# The rule for a disturbed round


@pytest.mark.parametrize(
    ("usage", "reason"),
    [
        (Usage(steal=0.05, waited=0.05, others=0.10), ""),
        (Usage(steal=math.nan, waited=math.nan, others=0.0), ""),
        (Usage(steal=0.06, waited=0.0, others=0.0), "CPU time stolen by the hypervisor 6.0% (limit 5%)"),
        (Usage(steal=0.0, waited=0.2, others=0.0), "time spent waiting for a CPU 20.0% (limit 5%)"),
        (Usage(steal=0.0, waited=0.0, others=0.5), "CPU time used by other processes 50.0% (limit 10%)"),
    ],
)
def test_a_round_is_disturbed_by_shares_of_cpu_time_alone(usage: Usage, reason: str) -> None:
    assert disturbance(usage) == reason


def test_shares_are_of_what_was_wanted_had_and_there() -> None:
    zero = timing.Clocks(busy=0.0, stolen=0.0, total=0.0, own=0.0, waiting=0.0)
    later = timing.Clocks(busy=3.0, stolen=1.0, total=10.0, own=2.0, waiting=0.5)
    assert timing.usage_between(zero, later) == Usage(steal=1 / 4, waited=0.5 / 2.5, others=1 / 10)
    assert timing.usage_between(zero, zero) == Usage(steal=0.0, waited=0.0, others=0.0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux' CPU affinity")
def test_a_competitor_on_our_cpu_disturbs_the_round() -> None:
    """Both are held to one CPU, which the scheduler shares between them: each waits for about half of the time."""
    mine = os.sched_getaffinity(0)
    cpu = {min(mine)}
    spin = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"
    rival = subprocess.Popen([sys.executable, "-c", spin, str(min(mine))], stdout=subprocess.PIPE)
    try:
        assert rival.stdout is not None
        rival.stdout.readline()
        os.sched_setaffinity(0, cpu)
        timed = rounds({"a": lambda: sum(range(20_000))})
    finally:
        os.sched_setaffinity(0, mine)
        rival.kill()
        rival.communicate()
    assert timed.disturbed
    assert timed.waited > 0.2
    assert "waiting for a CPU" in timed.reason


# On the machine's clock


@pytest.fixture(scope="module")
def forty_rounds() -> list[dict[str, Any]]:
    script = Path(__file__).with_name("round_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(ROUNDS)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def order_statistic_interval(values: list[float], beyond: int) -> tuple[float, float]:
    """The interval of the median that the sign test with `beyond` values allowed outside on each side gives."""
    ordered = sorted(values)
    return ordered[beyond], ordered[-1 - beyond]


def test_forty_rounds_of_a_a_stay_undecided(forty_rounds: list[dict[str, Any]]) -> None:
    """The two copies can be exchanged, so log(aa) is symmetric about 0 whatever else the machine does. Not fewer than
    FEWEST on either side: a sound meter fails this with p < 1e-3."""
    logs = [math.log(row["aa"]) for row in forty_rounds]
    assert len(logs) == ROUNDS
    assert len(set(logs)) > ROUNDS / 2  # measured, not made up
    low, high = order_statistic_interval(logs, FEWEST)
    assert low <= 0 <= high


def test_a_planted_difference_is_found(forty_rounds: list[dict[str, Any]]) -> None:
    """The slower arm does 1.3 times the work. The exact 97.5 % interval of the median log ratio excludes 0."""
    logs = [math.log(row["seconds"]["slower"] / row["seconds"]["method"]) for row in forty_rounds]
    beyond = int(binom.ppf(0.025, ROUNDS, 0.5)) - 1
    assert binom.cdf(beyond, ROUNDS, 0.5) <= 0.025
    low, high = order_statistic_interval(logs, beyond)
    assert low > 0
    assert low <= math.log(1.3) * 1.1
    assert high >= math.log(1.3) * 0.9
