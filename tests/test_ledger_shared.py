"""One store and many processes: no trial twice at once, none lost with a killed worker, no creation that races."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import sqlalchemy as sa
from test_ledger import ENVIRONMENT, make_set, rows, spec

from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger, leases, schema
from claimbench.spec import Result

TRIALS = 24
LEASE = 1.5  # seconds, so that a killed worker's trials are free again soon


SPAWN = multiprocessing.get_context("spawn")


def started(target: Callable[..., None], *arguments: object) -> BaseProcess:
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    return process


def together(target: Callable[..., None], place: str, count: int) -> None:
    """Run `target(place, ready)` in so many processes; all go on from `ready.wait()` at once, and must succeed."""
    ready = SPAWN.Barrier(count)
    several = [started(target, place, ready) for _ in range(count)]
    for process in several:
        process.join(60)
        assert process.exitcode == 0


def work(place: str, owner: str, log: str, die_at: int) -> None:
    """Measure whatever is free until nothing is missing, noting when; killed in the middle of trial number `die_at`."""
    leases.LEASE_SECONDS = LEASE
    draw = random.Random(owner)
    begun = 0
    with Ledger(place) as store, Path(log).open("a", buffering=1) as notes:
        (row,) = store.sets()
        while missing := sorted(store.unfinished(row.uid)):
            seed = draw.choice([s for s in range(TRIALS) if spec(s).key in missing])
            if not store.take([spec(seed)], ENVIRONMENT, owner):
                time.sleep(0.01)
                continue
            if spec(seed).key not in store.unfinished(row.uid):
                store.release(owner)
                continue
            begun += 1
            since = time.monotonic()
            if begun == die_at:
                notes.write(f"{seed} {since} killed\n")
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(draw.uniform(0.02, 0.1))
            until = time.monotonic()
            if store.record([Result(spec(seed), "ok", {"size": 1.0})], ENVIRONMENT, owner, [row.uid]):
                notes.write(f"{seed} {since} {until}\n")


def test_killed_workers_lose_no_trial_and_none_runs_twice_at_once(place: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Ledger(place) as store:
        row = make_set(store, [spec(seed) for seed in range(TRIALS)])
        workers = [started(work, place, f"worker-{i}", str(log), i) for i in (2, 1, 0, -1)]
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
        assert store.unfinished(row.uid) == set()
        assert rows(store, "select count(*), count(distinct key) from trial") == [(TRIALS, TRIALS)]
    lines = [line.split() for line in log.read_text().splitlines()]
    measured = {seed: float(since) for seed, since, until in lines if until != "killed"}
    killed = {seed: float(since) for seed, since, until in lines if until == "killed"}
    assert len(measured) == len(lines) - len(killed) == TRIALS
    assert len(killed) == 2
    for seed, since in killed.items():
        assert measured[seed] > since + 0.9 * LEASE  # taken over when the lease had ended, not before


def open_both(place: str, ready: Barrier) -> None:
    ready.wait()
    for _ in range(5):
        Ledger(place).close()
        PageStore(place.replace("store.sqlite", "page.sqlite")).close()


def test_first_creations_at_once_do_no_harm(place: str) -> None:
    together(open_both, place, 4)
    with Ledger(place) as store:
        assert rows(store, "select value from meta") == [(str(schema.SCHEMA_VERSION),)]


def migrate(place: str, ready: Barrier) -> None:
    version = schema.SCHEMA_VERSION

    def slowly(connection: sa.Connection) -> None:
        connection.execute(sa.text("alter table trial add column note text not null default ''"))
        time.sleep(0.3)

    schema.SCHEMA_VERSION = version + 1
    schema.MIGRATIONS[version] = slowly
    ready.wait()
    Ledger(place).close()


def test_a_migration_that_several_begin_is_done_once(place: str) -> None:
    Ledger(place).close()
    together(migrate, place, 3)  # a column cannot be added twice


def test_a_forked_child_has_connections_of_its_own(place: str) -> None:
    with Ledger(place) as store:
        make_set(store, [spec()])
        with store.read() as connection:  # in use while the process is forked
            before = connection.execute(sa.text("select count(*) from trial_set")).scalar_one()
            child = os.fork()
            if child == 0:
                try:
                    for fingerprint in ("a", "b"):
                        make_set(store, [spec()], fingerprint)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            again = connection.execute(sa.text("select count(*) from trial_set")).scalar_one()
        assert (before, again, len(store.sets())) == (1, 1, 3)  # a reader sees one state
