"""Trials under faults, counted: workers and runners killed at random, a disk that is full, a database that restarts.

Several `claimbench work` share one plan. A trial, the worker it runs in, or a whole `claimbench work` is killed
(SIGKILL) at random moments; in between the ledger's disk fills up (a small tmpfs of its own, or a limit on the size of
files where mounting is not permitted) or its PostgreSQL server crashes and starts again. What was killed is started
again, as a scheduler would. At the end every trial that was asked for must be there, once, and with the right number.

    python benchmarks/faults.py                      # 2,000 trials, 200 faults, SQLite
    python benchmarks/faults.py --postgresql         # a PostgreSQL server of its own, from the system's programs
    python benchmarks/faults.py --trials 200 --faults 20
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa

from claimbench.ledger import TRIAL, Ledger, Unreachable
from claimbench.ledger.schema import LEASE

if TYPE_CHECKING:
    from postgres import Server

RUNNERS = 3
LEASE_SECONDS = 8.0
OUTAGE = 1.0  # seconds that a disk stays full
LIMITED = 4.0  # seconds that a runner lives whose files may not grow
DISK = 48  # MiB of the ledger's own disk
WEIGHTS = {"trial": 8, "worker": 8, "runner": 3, "outage": 1}  # how often each is chosen
PATIENCE = 900.0  # seconds until the storm is given up
PAPER = """
id = "storm"
title = "A paper for faults"
group = "theory"
year = 2024
authors = ["A. Author"]
summary = "It says that one thing is larger than another."

[[claim]]
id = "larger"
statement = "The method is larger than the baseline."
method = "method"
baselines = ["baseline"]
metrics.size = {{ kind = "mean", better = "higher", resolution = 0.001 }}
sweep = {{ n = [{points}] }}
varies = ["noise"]
rules = [{{ effect = "difference", metric = "size", against = "baseline", at_least = 0.5 }}]
caveat = "Made for a benchmark."
[claim.scales.quick]
"""
CLAIMS = """
import fcntl, os, time

from claimbench.trial import measure


@measure("larger")
def larger(trial):
    name = f"{{trial.arm}}-{{trial.point['n']}}-{{trial.seed}}"
    with open({locks!r} + name, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with this process, however that ends
        except BlockingIOError:
            open({locks!r} + name + ".twice", "w").close()
        time.sleep({seconds})
        return {{"size": 1000.0 * trial.point["n"] + trial.seed + (trial.arm == "method") / 1.0}}
"""


def expected(arm: str, n: int, seed: int) -> float:
    return 1000.0 * n + seed + (arm == "method")


@dataclass
class Count:
    """What was asked and what came of it. The goal: duplicates, losses, wrong and at_once are 0."""

    place: str
    asked: int
    finished: int = 0
    duplicates: int = 0  # trials with more than one result
    losses: int = 0  # trials without one
    wrong: int = 0  # results that are not what the measure returns
    at_once: int = 0  # trials that ran in two processes at the same time
    given_up: int = 0  # attempts recorded as lost after three kills, and run again
    still_leased: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return self.finished == self.asked and not (
            self.duplicates or self.losses or self.wrong or self.at_once
        )


class Storm:
    """Runners at one plan, and what happens to them."""

    def __init__(
        self, folder: Path, place: str, *, disk: Path | None, server: Server | None, lease: float, seed: int
    ) -> None:
        self.folder, self.place, self.disk, self.server = folder, place, disk, server
        self.lease = lease
        self.draw = random.Random(seed)
        self.runners: list[subprocess.Popen[bytes]] = []
        self.faults: Counter[str] = Counter()
        self._limited = False
        self._doomed: list[tuple[float, subprocess.Popen[bytes]]] = []  # their disk stays full
        self._log = (folder / "log").open("ab")

    def command(self, *words: str) -> list[str]:
        shelf = str(self.folder / "shelf")
        return [sys.executable, "-m", "claimbench", *words, "--shelf", shelf, "--ledger", self.place]

    def start(self) -> None:
        words = self.command("work", "--trust", "--jobs", "1")
        environment = {**os.environ, "CLAIMBENCH_LEASE": str(self.lease)}
        limit = None
        if self._limited:
            size = Path(self.place).stat().st_size + 20_000
            limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        runner = subprocess.Popen(
            words, stdout=self._log, stderr=self._log, env=environment, preexec_fn=limit
        )
        self.runners.append(runner)
        if self._limited:
            self._limited = False
            self._doomed.append((time.monotonic() + LIMITED, runner))

    def keep_running(self) -> None:
        for end, runner in list(self._doomed):
            if time.monotonic() > end:
                runner.kill()
                runner.wait()
                self._doomed.remove((end, runner))
        self.runners = [runner for runner in self.runners if runner.poll() is None]
        while len(self.runners) < RUNNERS:
            self.start()

    def strike(self) -> None:
        kind = self.draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "outage":
            self._outage()
            return
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
            below = psutil.Process().children(recursive=True)
            parents = {process.pid: process for process in below}
            started = {runner.pid for runner in self.runners}
            running = [  # trials, with the worker and the runner above each
                {"trial": trial, "worker": worker, "runner": parents[worker.ppid()]}
                for trial in below
                if (worker := parents.get(trial.ppid())) is not None and worker.ppid() in started
            ]
            if running:
                self.draw.choice(running)[kind].kill()
                self.faults[kind] += 1

    def _outage(self) -> None:
        if self.server is not None:
            self.server.stop()
            time.sleep(self.draw.uniform(0.0, OUTAGE))
            self.server.start()
            self.faults["database restarted"] += 1
        elif self.disk is not None:
            ballast = self.disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb") as file:  # until the disk is full
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            time.sleep(self.draw.uniform(0.2, OUTAGE))
            ballast.unlink()
            self.faults["disk full"] += 1
        else:
            self._limited = True
            self.draw.choice(self.runners).kill()
            self.faults["disk full, by a limit on files"] += 1

    def end(self) -> None:
        for runner in self.runners:
            if runner.poll() is None:
                runner.kill()
            runner.wait()
        self._log.close()


def run(
    trials: int,
    faults: int,
    *,
    folder: Path,
    place: str = "",
    server: Server | None = None,
    disk: Path | None = None,
    seconds: float = 0.1,
    lease: float = LEASE_SECONDS,
    seed: int = 0,
) -> Count:
    """So many trials (a multiple of 10) under so many faults. folder: for the shelf, the locks and the ledger."""
    place = place or str((disk or folder) / "ledger.sqlite")
    paper, locks = folder / "shelf" / "theory" / "storm", folder / "locks"
    paper.mkdir(parents=True)
    locks.mkdir()
    (paper / "paper.toml").write_text(PAPER.format(points=", ".join(map(str, range(trials // 10)))))
    (paper / "claims.py").write_text(CLAIMS.format(locks=f"{locks}/", seconds=seconds))
    began = time.monotonic()
    storm = Storm(folder, place, disk=disk, server=server, lease=lease, seed=seed)
    planned = subprocess.run(storm.command("plan", "storm", "--json"), check=True, capture_output=True)
    (item,) = json.loads(planned.stdout)
    count = Count("PostgreSQL" if server else "SQLite", len(item["missing"]))
    try:
        with Ledger(place) as store:
            while (left := _missing(store, item["set"])) != 0:
                storm.keep_running()
                time.sleep(storm.draw.uniform(0.0, 0.05))
                done = count.asked if left is None else count.asked - left
                struck = storm.faults.total()
                if struck < faults and struck * count.asked <= 1.1 * faults * (done + 10):
                    storm.strike()
                if time.monotonic() - began > PATIENCE:
                    break
            for runner in storm.runners:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    runner.wait(60)
            audit(store, item, count)
    finally:
        storm.end()
    count.at_once = sum(1 for _ in locks.glob("*.twice"))
    count.seconds = time.monotonic() - began
    count.faults = dict(storm.faults)
    return count


def _missing(store: Ledger, uid: str) -> int | None:
    try:
        summary = store.summary(uid)
    except Unreachable:
        return None
    return summary.planned - summary.filled


def audit(store: Ledger, item: dict[str, Any], count: Count) -> None:
    """Count what the ledger holds, from its trials alone."""
    columns = sa.select(
        TRIAL.c.key, TRIAL.c.status, TRIAL.c.arm, TRIAL.c.point, TRIAL.c.seed, TRIAL.c.metrics
    )
    with store.read() as connection:
        rows = connection.execute(columns).all()
        held = sa.select(sa.func.count()).select_from(LEASE).where(LEASE.c.owner != "")
        count.still_leased = connection.scalar(held) or 0
    results = Counter(row.key for row in rows if row.status != "lost")
    asked = {trial["key"] for trial in item["missing"]}
    filled = {key for key, trial in store.members(item["set"]).items() if trial is not None}
    count.finished = len(asked & filled)
    count.losses = len(asked - results.keys())
    count.duplicates = sum(1 for times in results.values() if times > 1)
    count.given_up = sum(row.status == "lost" for row in rows)
    count.wrong = sum(
        row.status != "ok"
        or json.loads(row.metrics)["size"] != expected(row.arm, json.loads(row.point)["n"], row.seed)
        for row in rows
        if row.status != "lost"
    )


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of its own for the ledger; None where this user may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)], capture_output=True
    )
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgresql", action="store_true", help="on a server of its own")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    arguments: dict[str, Any] = {"trials": options.trials, "faults": options.faults, "seed": options.seed}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("CLAIMBENCH_DATA", "CLAIMBENCH_CACHE", "CLAIMBENCH_CONFIG"):
            os.environ[name] = str(folder / name)
        if options.postgresql:
            sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
            from postgres import Server, programs

            found = programs()
            if found is None:
                sys.exit("faults: no PostgreSQL server programs here (Debian: apt-get install postgresql)")
            server = Server(found)
            try:
                place = server.url(server.create())
                count = run(**arguments, folder=folder, place=place, server=server)
            finally:
                server.close()
        else:
            with small_disk(folder / "disk") as disk:
                count = run(**arguments, folder=folder, disk=disk)
    if options.json:
        print(json.dumps(asdict(count)))
    else:
        print(
            f"{count.place}: {count.asked} trials asked, {count.finished} finished, {count.duplicates} duplicates, "
            f"{count.losses} losses, {count.wrong} wrong, {count.at_once} run twice at once; "
            f"{count.given_up} attempts given up and repeated; {count.seconds:.0f} s"
        )
        print(f"faults: {', '.join(f'{number} {name}' for name, number in sorted(count.faults.items()))}")
    sys.exit(not count.sound)


if __name__ == "__main__":
    main()
