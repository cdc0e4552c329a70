"""A thousand trials under two hundred SIGKILLs of workers and trials at random times."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from running import Kept, group, run

from claimbench.runner import watch

TRIALS, KILLS, ATTEMPTS = 1000, 200, 3

CODE = """
import os, time

@measure("work")
def work(trial):
    with open(trial.size["log"], "a", buffering=1) as log:
        log.write(f"{trial.seed} begins {os.getpid()}\\n")
        time.sleep(0.001 * (trial.seed % 20))
        log.write(f"{trial.seed} ends {os.getpid()}\\n")
    return {"value": trial.seed**2}
"""


class Killer(threading.Thread):
    """Kills a worker or a trial, whichever chance picks, about once for every five finished trials."""

    def __init__(self, kept: Kept) -> None:
        super().__init__(daemon=True)
        self.kept, self.random = kept, random.Random(1)
        self.killed: Counter[str] = Counter()
        self.stop = threading.Event()

    def run(self) -> None:
        while self.killed.total() < KILLS and not self.stop.is_set():
            time.sleep(self.random.uniform(0.0, 0.02))
            if self.killed.total() * TRIALS > 1.1 * KILLS * (len(self.kept.finished) + 10):
                continue
            parents = watch._parents()
            workers = {pid for pid, parent in parents.items() if parent == os.getpid()}
            trials = {pid for pid, parent in parents.items() if parent in workers}
            kind, victims = self.random.choice([("worker", sorted(workers)), ("trial", sorted(trials))])
            if victims:
                try:
                    os.kill(self.random.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.killed[kind] += 1


def test_storm(paper: Callable[..., Path], tmp_path: Path, mark: str) -> None:
    folder, log = paper(CODE), tmp_path / "log"
    groups = [group(folder, "work", seed=i, size={"log": str(log)}) for i in range(TRIALS)]
    kept = Kept()  # asserts that nothing is begun or recorded twice
    killer = Killer(kept)
    killer.start()
    started = time.monotonic()
    try:
        run(groups, jobs=3, attempts=ATTEMPTS, kept=kept)
    finally:
        killer.stop.set()
        killer.join()
    print(f"{time.monotonic() - started:.1f} s, {dict(killer.killed)}, {len(kept.kinds('retry'))} run again")

    assert killer.killed.total() == KILLS
    assert min(killer.killed.values()) > KILLS / 4
    assert set(kept.finished) == {g.key for g in groups}
    retried = Counter(event.group.key for event in kept.kinds("retry"))
    assert len(kept.kinds("retry")) > KILLS / 10
    for result in kept.results():
        if result.status == "ok":
            assert result.metrics["value"] == result.spec.seed**2
        else:
            assert (result.status, result.failure) == ("lost", f"killed by signal 9 ({ATTEMPTS} attempts)")
            assert retried[result.spec.key] == ATTEMPTS - 1
    assert max(retried.values()) < ATTEMPTS
    assert_never_twice_at_once(log, retried, {g.specs[0].seed: g.key for g in groups})


def assert_never_twice_at_once(log: Path, retried: Counter[str], keys: dict[int, str]) -> None:
    """An attempt that ends is the one that began last, and there were no more of them than were told of."""
    attempts: dict[int, list[tuple[str, str]]] = {}
    for line in log.read_text().splitlines():
        seed, what, pid = line.split()
        attempts.setdefault(int(seed), []).append((what, pid))
    for seed, lines in attempts.items():
        assert [what for what, _ in lines].count("begins") <= retried[keys[seed]] + 1
        assert lines[0][0] == "begins"
        for before, (what, pid) in itertools.pairwise(lines):
            assert what == "begins" or before == ("begins", pid)
