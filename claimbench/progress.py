"""Progress on the terminal: a bar for each claim, with time left; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from claimbench.session import Step

PLAIN_EVERY = 15.0  # seconds between two lines without a terminal


class Display:
    """`with Display() as display: run(..., on_step=display.step)`. Writes to standard error; quiet: failures alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars = _bars() if sys.stderr.isatty() and not quiet else None
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._failures: set[tuple[str, str]] = set()
        self._said: dict[str, float] = {}
        self._states: dict[str, str] = {}

    def __enter__(self) -> Display:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def step(self, step: Step) -> None:
        if step.kind == "planned":
            self._planned(step)
        elif step.kind == "finished":
            self._finished(step)
        else:
            words = {"building": f"setting up {step.message}", "retry": step.message or "again"}
            self._state(step.claim, words.get(step.kind, step.message))

    def _state(self, claim: str, state: str) -> None:
        if self._bars is not None and claim in self._tasks:
            self._bars.update(self._tasks[claim], state=state)
        elif state and not self._quiet and self._states.get(claim) != state:
            self._say(f"{claim}: {state}")
        self._states[claim] = state

    def _planned(self, step: Step) -> None:
        self._totals[step.claim] = self._totals.get(step.claim, 0) + step.total
        if self._bars is not None:
            if step.claim not in self._tasks:
                self._tasks[step.claim] = self._bars.add_task(step.claim, total=step.total, state="")
            self._bars.update(self._tasks[step.claim], total=self._totals[step.claim])
        elif not self._quiet:
            self._say(
                f"{step.claim}: {step.total} trials to run"
                if step.total
                else f"{step.claim}: all trials are in the ledger"
            )

    def _finished(self, step: Step) -> None:
        done = self._done[step.claim] = self._done.get(step.claim, 0) + step.total
        if self._bars is not None and step.claim in self._tasks:
            self._bars.update(self._tasks[step.claim], advance=step.total)
        if step.message and (step.claim, step.message) not in self._failures:
            self._failures.add((step.claim, step.message))
            self._say(f"{step.claim}: a trial failed: {step.message}")
        since = time.monotonic() - self._said.get(step.claim, 0.0)
        if self._bars is None and not self._quiet and since > PLAIN_EVERY:
            self._said[step.claim] = time.monotonic()
            self._say(f"{step.claim}: {done} of {self._totals.get(step.claim, 0)} trials")

    def _say(self, line: str) -> None:
        if self._bars is not None:
            self._bars.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr)


def clock(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
