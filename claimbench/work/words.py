"""What `plan` and `work` print: plans with their missing trials, how far a worker is, what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from claimbench.progress import PLAIN_EVERY, Display, clock
from claimbench.session import Outcome, Step
from claimbench.work.planning import Written
from claimbench.work.working import Worked

SHOWN = 20  # trials of a set that are printed; --json has all


def print_written(written: Sequence[Written], skipped: Sequence[Outcome]) -> None:
    for outcome in skipped:
        print(f"{outcome.name}: skipped: {outcome.skipped}")
    for item in written:
        what = "tuning trials, which come first" if item.tuning else "trials"
        print(
            f"{item.plan.name} at {item.plan.scale}: {len(item.missing)} of {item.planned} {what} are missing "
            f"(set {item.set.uid})"
        )
        for spec in item.missing[:SHOWN]:
            point = "".join(f" {name}={value}" for name, value in {**spec.point, **spec.tuned}.items())
            print(f"  {spec.arm}{point} seed {spec.seed}")
        if len(item.missing) > SHOWN:
            print(f"  and {len(item.missing) - SHOWN} more: --json")
    if any(item.missing for item in written):
        print("run them with: claimbench work")


def print_worked(worked: Worked) -> None:
    from claimbench.report import print_outcomes

    complete = [outcome for outcome in worked.outcomes if not outcome.missing and not outcome.skipped]
    for outcome in worked.outcomes:
        if outcome.skipped:
            print(f"{outcome.name}: {outcome.skipped}")
        elif outcome.missing:
            print(f"{outcome.name}: {outcome.ran} trials run here, {outcome.missing} are missing still")
    if complete:
        print_outcomes(complete)
    if not worked.outcomes and not worked.refused:
        print("nothing is missing: every plan in the ledger is complete")


class Progress(Display):
    """A worker's progress. Without a terminal, as in a scheduler's log, lines say how much time is left."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._plain = not quiet and not sys.stderr.isatty()
        self._began = self._told = time.monotonic()
        self._planned_trials = self._finished_trials = 0

    def step(self, step: Step) -> None:
        if step.kind == "planned" and not step.total:
            return  # what is missing is others' part
        if step.kind == "retry" and not step.claim:
            print(f"{step.message}; waiting for it", file=sys.stderr)
            return
        super().step(step)
        if step.kind == "planned":
            self._planned_trials += step.total
        elif step.kind == "finished":
            self._finished_trials += step.total
            self._say_time_left()

    def _say_time_left(self) -> None:
        now = time.monotonic()
        left = self._planned_trials - self._finished_trials
        if self._plain and left > 0 and now - self._told >= PLAIN_EVERY:
            self._told = now
            seconds = (now - self._began) / self._finished_trials * left
            print(
                f"{self._finished_trials} of {self._planned_trials} trials, about {clock(seconds)} left",
                file=sys.stderr,
            )
