"""What the runner's tests share: groups of trials, and a runner whose every callback is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claimbench.runner.local import Event, LocalRunner
from claimbench.spec import Group, Result, TrialSpec

HEAD = "from claimbench.trial import NotApplicable, Trial, measure\n"


def alive(word: str, patience: float = 3.0) -> list[str]:
    """Processes that carry the word in their environment, after some time to go; this one left out."""
    until = time.monotonic() + patience
    while True:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if word.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                    found.append(f"{folder.name} {(folder / 'cmdline').read_bytes()!r}")
            except OSError:
                continue  # gone, or not ours
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pid: int, patience: float = 3.0) -> bool:
    until = time.monotonic() + patience
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_running(pid)


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def group(folder: Path, measure: str, *, count: int = 1, seed: int = 1000, **options: Any) -> Group:
    """A group of `count` trials with seeds from `seed`; options of the spec or of the group."""
    names = ("arm", "point", "size", "threads", "device", "subjects")
    spec = {"arm": "ours", "point": {}, **{name: options.pop(name) for name in names if name in options}}
    specs = [TrialSpec(paper=folder.name, measure=measure, seed=seed + i, **spec) for i in range(count)]
    settings = {"metrics": ("value",), "listed": count > 1, "time_limit": 60.0, **options}
    return Group(specs=tuple(specs), folder=folder, **settings)


@dataclass
class Kept:
    """What a runner told its caller."""

    begun: list[str] = field(default_factory=list)
    finished: dict[str, list[Result]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    ticks: list[float] = field(default_factory=list)

    def begin(self, group: Group) -> bool:
        assert group.key not in self.begun, "begun twice"
        self.begun.append(group.key)
        return True

    def finish(self, group: Group, results: list[Result]) -> None:
        assert group.key not in self.finished, "recorded twice"
        self.finished[group.key] = results

    def tick(self) -> None:
        self.ticks.append(time.monotonic())

    def kinds(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def results(self) -> list[Result]:
        return [result for results in self.finished.values() for result in results]


def run(groups: list[Group], *, jobs: int = 2, attempts: int = 3, kept: Kept | None = None) -> Kept:
    kept = kept or Kept()
    runner = LocalRunner(jobs=jobs, attempts=attempts, on_event=kept.events.append)
    runner.run(groups, begin=kept.begin, finish=kept.finish, tick=kept.tick)
    return kept


def one(the_group: Group, **options: int) -> Result:
    (result,) = run([the_group], jobs=1, **options).finished[the_group.key]
    return result
