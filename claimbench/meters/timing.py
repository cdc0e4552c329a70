"""Seconds of several steps side by side, and whether anything else on the machine disturbed the measurement.

One call of `rounds` is one round: run in a fresh process, it times every arm in random order, several times
over, with a second copy of the method among them (A/A). Interleaving after A. Kalibera and R. Jones (Rigorous
Benchmarking in Reasonable Time, 2013) and R. Chen and J. Revels (Robust benchmarking in noisy environments,
arXiv:1608.04295).
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isnan, nan
from pathlib import Path
from statistics import median
from typing import Any

from claimbench.errors import UserError

__all__ = ["Settings", "Timed", "Usage", "disturbance", "rounds"]

Step = Callable[[], Any]

STEAL_LIMIT = 0.05  # of the CPU time that was wanted on the machine, taken by the hypervisor
WAITED_LIMIT = 0.05  # of the time that our threads could have run, spent waiting for a CPU
OTHERS_LIMIT = 0.10  # of the machine's CPU time, used by other processes


@dataclass(frozen=True)
class Settings:
    """How a round is spent. A sample is one timed batch of calls; a pass takes one sample of every arm.

    sample_seconds: the least length of a sample. budget_seconds: what a round aims to stay within once the
    fewest passes are done. passes: the most; fewest_passes: the least, however slow the steps are.
    """

    sample_seconds: float = 0.02
    budget_seconds: float = 20.0
    passes: int = 15
    fewest_passes: int = 3


@dataclass(frozen=True)
class Usage:
    """What the machine did during a round, as shares in [0, 1]; NaN where the system does not tell.

    steal: CPU time taken by the hypervisor, of all that was wanted. waited: time our threads waited for a
    CPU, of all that they could have run. others: CPU time of other processes, of all that the machine has.
    """

    steal: float
    waited: float
    others: float


@dataclass(frozen=True)
class Timed:
    """One round of timing.

    seconds: arm -> median seconds of one call. aa: the second copy of the method over the first.
    repeats: arm -> calls in a sample. passes: samples of each arm. load: 1-minute load average before the round.
    steal, waited, others: see `Usage`. disturbed: whether a limit was passed; `reason` says which.
    """

    seconds: dict[str, float]
    aa: float
    repeats: dict[str, int]
    passes: int
    load: float
    steal: float
    waited: float
    others: float
    disturbed: bool
    reason: str


def disturbance(usage: Usage) -> str:
    """Why a round is disturbed, or "" if it is not. It never looks at a time that was measured."""
    reasons = [
        f"{name} {share:.1%} (limit {limit:.0%})"
        for name, share, limit in (
            ("CPU time stolen by the hypervisor", usage.steal, STEAL_LIMIT),
            ("time spent waiting for a CPU", usage.waited, WAITED_LIMIT),
            ("CPU time used by other processes", usage.others, OTHERS_LIMIT),
        )
        if not isnan(share) and share > limit
    ]
    return "; ".join(reasons)


@dataclass(frozen=True)
class Clocks:
    """Readings in seconds since some start: the machine's busy, stolen and total CPU time; our own CPU time, and
    our threads' wait for a CPU."""

    busy: float
    stolen: float
    total: float
    own: float
    waiting: float

    @classmethod
    def read(cls) -> Clocks:
        import psutil

        machine = psutil.cpu_times()
        stolen = getattr(machine, "steal", nan)
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        # guest time is part of user time already
        total = sum(value for name, value in machine._asdict().items() if not name.startswith("guest"))
        children = os.times()
        return cls(
            busy=total - idle - (0.0 if isnan(stolen) else stolen),
            stolen=stolen,
            total=total,
            own=time.process_time() + children.children_user + children.children_system,
            waiting=_waiting(),
        )


def _waiting() -> float:
    """Seconds that this process' threads were ready to run and had no CPU (Linux:
    /proc/self/task/*/schedstat)."""
    waited = 0
    try:
        for thread in Path("/proc/self/task").iterdir():
            waited += int((thread / "schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return nan
    return waited / 1e9


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def usage_between(before: Clocks, after: Clocks) -> Usage:
    busy = after.busy - before.busy
    own = after.own - before.own
    stolen = after.stolen - before.stolen
    waiting = max(after.waiting - before.waiting, 0.0) if not isnan(after.waiting) else nan
    return Usage(
        steal=_share(stolen, busy + stolen),
        waited=_share(waiting, own + waiting),
        others=_share(max(busy - own, 0.0), after.total - before.total),
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection while samples are taken; what lives already is set aside, so that `gc.collect` is
    quick."""
    was_on, was_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()
        if was_on:
            gc.enable()


def _waiter(device: str) -> Step:
    """What makes the device finish its queue before a clock is read."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(device)


def _sample(step: Step, repeat: int, finish: Step) -> float:
    """Seconds of one call, from `repeat` calls in a row."""
    calls = range(repeat)
    finish()
    start = time.perf_counter_ns()
    for _ in calls:
        step()
    finish()
    return (time.perf_counter_ns() - start) / repeat / 1e9


def _calibrated(step: Step, finish: Step, settings: Settings) -> tuple[int, float]:
    """(calls that make a sample long enough, seconds of one call). Warms the step up on the way."""
    _sample(step, 1, finish)
    repeat = 1
    while True:
        seconds = _sample(step, repeat, finish)
        if seconds * repeat >= settings.sample_seconds:
            return max(1, ceil(settings.sample_seconds / seconds)), seconds
        wanted = ceil(1.1 * settings.sample_seconds / max(seconds, 1e-9))
        repeat = max(2 * repeat, min(wanted, 16 * repeat))


def rounds(
    steps: Mapping[str, Step],
    *,
    method: str = "",
    seed: int = 0,
    device: str = "cpu",
    settings: Settings | None = None,
) -> Timed:
    """Time every arm's step, interleaved in random order after warm-up, with a second copy of the method
    (A/A).

    steps: arm -> a function that does the arm's work once; results are dropped. method: the arm that runs
    twice (the first one if empty or absent). seed: of the order. device: a torch device string; CUDA work is
    waited for. The two copies are one function with one number of calls a sample, and every pass has an order
    of its own, drawn
    evenly: swapping them changes nothing, so log(aa) is symmetric about 0 unless the clock or the order is at
    fault.
    Raises UserError if there is no step.
    """
    if not steps:
        raise UserError("rounds: no step to time; give one function for each arm")
    settings = settings or Settings()
    method = method if method in steps else next(iter(steps))
    finish = _waiter(device)
    order = random.Random(seed)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else nan
    with _no_collection():
        repeats: dict[str, int] = {}
        expected = 0.0
        for arm in order.sample(list(steps), len(steps)):
            repeats[arm], seconds = _calibrated(steps[arm], finish, settings)
            expected += repeats[arm] * seconds * (2 if arm == method else 1)
        affordable = int(settings.budget_seconds / expected) if expected > 0 else settings.passes
        passes = max(settings.fewest_passes, min(settings.passes, affordable))
        before = Clocks.read()
        arms = [*((arm, 0) for arm in steps), (method, 1)]
        samples: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
        for _ in range(passes):
            gc.collect()
            for arm, copy in order.sample(arms, len(arms)):
                samples[arm, copy].append(_sample(steps[arm], repeats[arm], finish))
        usage = usage_between(before, Clocks.read())
    reason = disturbance(usage)
    return Timed(
        seconds={arm: median(samples[arm, 0]) for arm in steps},
        aa=median(samples[method, 1]) / median(samples[method, 0]),
        repeats={arm: repeats[arm] for arm in steps},
        passes=passes,
        load=load,
        steal=usage.steal,
        waited=usage.waited,
        others=usage.others,
        disturbed=bool(reason),
        reason=reason,
    )
