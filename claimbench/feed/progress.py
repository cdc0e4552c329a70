"""How far a pull has come, on a terminal one line a source, elsewhere nothing until it ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from claimbench.feed.store import Pull


class Display:
    """`with Display() as display: pull(..., on_page=display.show)`. Writes to standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._bars = _bars() if sys.stderr.isatty() and not quiet else None
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, pull: Pull) -> None:
        if self._bars is None:
            return
        days = (pull.window.last - pull.window.first).days + 1
        if pull.id not in self._tasks:
            self._tasks[pull.id] = self._bars.add_task(pull.source, total=days, state="")
        done = days if pull.state == "done" else _days_done(pull)
        counts = pull.counts
        state = f"{counts['entries']} entries, {counts['added']} new"
        self._bars.update(self._tasks[pull.id], completed=done, state=state)


def _days_done(pull: Pull) -> int:
    """A cursor opens with the day that comes next, for the sources that go day by day."""
    from datetime import date

    day = pull.cursor.split(" ")[0]
    return (date.fromisoformat(day) - pull.window.first).days if day else 0


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("days"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
