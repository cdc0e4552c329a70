"""Progress on the terminal: a bar for each claim, with time left; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from claimbench.session import Step

PLAIN_EVERY = 15.0  # seconds between two lines without a terminal


class Display:
    """`with Display() as display: run(..., on_step=display.step)`. Writes to standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True, quiet=quiet)
        self._live = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._failures: set[tuple[str, str]] = set()
        self._said: dict[str, float] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, step: Step) -> None:
        if step.kind == "planned":
            self._planned(step)
        elif step.kind == "finished":
            self._finished(step)
        elif step.claim in self._tasks:
            words = {
                "building": f"setting up {step.message}",
                "retry": step.message or "again",
                "judged": step.message,
            }
            state = words.get(step.kind, "")
            self._progress.update(self._tasks[step.claim], state=state)
            if not self._live and step.kind in ("building", "retry", "judged"):
                self._say(f"{step.claim}: {state}")

    def _planned(self, step: Step) -> None:
        self._totals[step.claim] = self._totals.get(step.claim, 0) + step.total
        if step.claim not in self._tasks:
            self._tasks[step.claim] = self._progress.add_task(step.claim, total=step.total, state="")
        self._progress.update(self._tasks[step.claim], total=self._totals[step.claim])
        if not self._live:
            self._say(
                f"{step.claim}: {step.total} trials to run"
                if step.total
                else f"{step.claim}: all trials are in the ledger"
            )

    def _finished(self, step: Step) -> None:
        self._done[step.claim] = self._done.get(step.claim, 0) + step.total
        if step.claim in self._tasks:
            self._progress.update(self._tasks[step.claim], advance=step.total, state="")
        if step.message and (step.claim, step.message) not in self._failures:
            self._failures.add((step.claim, step.message))
            self._say(f"{step.claim}: a trial failed: {step.message}")
        if not self._live and time.monotonic() - self._said.get(step.claim, 0.0) > PLAIN_EVERY:
            self._said[step.claim] = time.monotonic()
            self._say(f"{step.claim}: {self._done[step.claim]} of {self._totals.get(step.claim, 0)} trials")

    def _say(self, line: str) -> None:
        if self._quiet:
            print(line, file=sys.stderr) if "failed" in line else None
        else:
            self._console.print(line, highlight=False, markup=False)
