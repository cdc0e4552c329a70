"""The ledger: append-only trials, leases, reuse, currency, migrations, and the user's troubles with its place."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from claimbench import currency
from claimbench.errors import UserError
from claimbench.ledger import Ledger, SetRow, leases, schema, spec_of
from claimbench.spec import Result, SubjectRef, TrialSpec

ENVIRONMENT = "here"


def spec(seed: int = 1000, arm: str = "method") -> TrialSpec:
    ref = SubjectRef("text", "corpus", "abc", label="corpus")
    return TrialSpec(
        "toy",
        "larger",
        arm,
        {"n": 2},
        seed,
        {"steps": 3},
        {"text": ref},
        tuned={"lr": 0.1},
        company=("a", "b"),
    )


def make_set(store: Ledger, specs: list[TrialSpec], fingerprint: str = "f") -> SetRow:
    row = store.create_set(
        paper="toy",
        claim="larger",
        scale="quick",
        environment=ENVIRONMENT,
        fingerprint=fingerprint,
        replication=0,
        own=False,
        plan={"arms": ["method"]},
        rules_digest="r",
        claim_text="{}",
    )
    store.add_members(row.uid, specs)
    return row


def measure(store: Ledger, row: SetRow, specs: list[TrialSpec], **fields: object) -> None:
    assert store.take(specs, ENVIRONMENT, "me")
    results = [replace(Result(s, "ok", {"size": 1.0}), **fields) for s in specs]  # type: ignore[arg-type]  # test data
    assert store.record(results, ENVIRONMENT, "me", [row.uid]) == len(specs)


def rows(store: Ledger, query: str) -> list[tuple]:
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_trials_round_trip_with_nan_and_infinities(place: str) -> None:
    with Ledger(place) as store:
        row = make_set(store, [spec()])
        measure(store, row, [spec()], metrics={"a": math.nan, "b": math.inf, "c": 1 / 3}, timing={"aa": 1.01})
        (trial,) = store.trials(row.uid)
        assert spec_of(trial) == spec()
        assert spec_of(trial).key == spec().key
        (seen,) = store.judged(row.uid)
        assert math.isnan(seen.metrics["a"])
        assert (seen.metrics["b"], seen.metrics["c"], seen.aa) == (math.inf, 1 / 3, 1.01)
        assert store.unfinished(row.uid) == set()


def test_a_lease_keeps_others_away_until_it_ends(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(place) as store:
        make_set(store, [spec()])
        assert store.take([spec()], ENVIRONMENT, "one")
        assert not store.take([spec()], ENVIRONMENT, "two")
        assert store.held([spec().key], ENVIRONMENT, "two")
        monkeypatch.setattr(leases, "LEASE_SECONDS", -1.0)
        store.renew("one")  # as if it had been silent for long
        monkeypatch.undo()
        assert store.take([spec()], ENVIRONMENT, "two")
        # the first owner wakes up: what it measured is dropped, since the second measures it now
        assert store.record([Result(spec(), "ok", {"size": 1.0})], ENVIRONMENT, "one") == 0
        assert store.record([Result(spec(), "ok", {"size": 2.0})], ENVIRONMENT, "two") == 1


def test_a_lost_trial_is_kept_but_fills_no_member(place: str) -> None:
    with Ledger(place) as store:
        row = make_set(store, [spec()])
        measure(store, row, [spec()], status="lost", metrics={}, failure="killed by signal 9")
        assert store.unfinished(row.uid) == {spec().key}
        assert [(t.status, t.failure) for t in store.judged(row.uid)] == [("lost", "killed by signal 9")]
        measure(store, row, [spec()])
        assert [t.status for t in store.judged(row.uid)] == ["ok"]


def test_any_words_of_a_failure_are_kept(place: str) -> None:
    with Ledger(place) as store:
        row = make_set(store, [spec()])
        measure(store, row, [spec()], status="failed", metrics={}, failure="NUL \0, half a pair \ud800, ü ✓")
        assert [t.failure for t in store.judged(row.uid)] == ["NUL \ufffd, half a pair ?, ü ✓"]


def test_sets_share_trials_while_the_code_is_unchanged(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "own_module.py"
    source.write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = {"own_module": currency.source_digest(source)}
    with Ledger(place) as store:
        first = make_set(store, [spec()])
        measure(store, first, [spec()], modules=modules)
        second = make_set(store, [spec(), spec(seed=1001)], "g")
        assert store.reuse(second.uid, ENVIRONMENT) == 1
        assert store.unfinished(second.uid) == {spec(seed=1001).key}
        source.write_text('"""Words."""\n\nVALUE = 1  # more words\n')
        assert store.stale(first.uid) == []
        source.write_text("VALUE = 22\n")
        assert store.stale(first.uid) == ["module own_module"]
        third = make_set(store, [spec()], "h")
        assert store.reuse(third.uid, ENVIRONMENT) == 0


def test_a_carried_set_is_current_again(place: str) -> None:
    with Ledger(place) as store:
        row = make_set(store, [spec()])
        measure(store, row, [spec()], packages={"torch": "0.0.1"})
        assert store.stale(row.uid)[0].startswith("package torch 0.0.1 -> ")
        store.carry(row.uid, store.code_of(Result(spec(), "ok")), 1)
        assert store.stale(row.uid) == []


def _fill_many(path: str, owner: str, count: int) -> None:
    with Ledger(path) as store:
        (row,) = store.sets()
        for seed in range(count):
            one = spec(seed)
            if store.take([one], ENVIRONMENT, owner):
                if one.key in store.unfinished(row.uid):
                    store.record([Result(one, "ok", {"size": 1.0})], ENVIRONMENT, owner, [row.uid])
                else:
                    store.release(owner)


def test_several_processes_record_each_trial_once(place: str) -> None:
    with Ledger(place) as store:
        row = make_set(store, [spec(seed) for seed in range(40)])
        context = multiprocessing.get_context("spawn")
        writers = [context.Process(target=_fill_many, args=(place, f"owner-{i}", 40)) for i in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
            assert writer.exitcode == 0
        assert store.unfinished(row.uid) == set()
        assert rows(store, "select count(*), count(distinct key) from trial") == [(40, 40)]


def test_a_ledger_from_the_future_is_refused(place: str) -> None:
    with Ledger(place) as store, store.write() as connection:
        connection.execute(sa.text("update meta set value = '99' where name = 'schema'"))
    with pytest.raises(UserError, match=r"schema 99, this claimbench knows \d+; update claimbench"):
        Ledger(place)


def test_an_older_ledger_is_migrated_in_place(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(place) as store:
        row = make_set(store, [spec()])
        measure(store, row, [spec()])
    next_version = schema.SCHEMA_VERSION + 1

    def add_column(connection: sa.Connection) -> None:
        connection.execute(sa.text("alter table trial add column note text not null default ''"))

    monkeypatch.setattr(schema, "SCHEMA_VERSION", next_version)
    monkeypatch.setitem(schema.MIGRATIONS, next_version - 1, add_column)
    with Ledger(place) as store:
        assert len(store.trials(row.uid)) == 1
        assert rows(store, "select value from meta where name = 'schema'") == [(str(next_version),)]
        assert rows(store, "select note from trial") == [("",)]


def test_what_is_no_ledger_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(UserError, match="not a database; free it, or choose another with --ledger"):
        Ledger(tmp_path / "text.sqlite")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="ledger: cannot make .*; choose another place with --ledger"):
        Ledger(tmp_path / "file" / "l.sqlite")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full-like limits of Linux")
def test_a_full_disk_is_said_in_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    """A real write error: the file may not grow further (RLIMIT_FSIZE in a process of its own)."""
    path = tmp_path / "l.sqlite"
    with Ledger(path) as store:
        row = make_set(store, [spec()])
        measure(store, row, [spec()])
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, path.stat().st_size))
        try:
            store = Ledger(path)
            for index in range(200):
                make_set(store, [spec(seed) for seed in range(200)], f"g{index}")
        except UserError as error:
            os._exit(0 if "--ledger" in str(error) else 3)
        os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with Ledger(path) as store:
        assert len(store.trials(row.uid)) == 1


def test_leases_are_renewed(place: str) -> None:
    with Ledger(place) as store:
        make_set(store, [spec()])
        store.take([spec()], ENVIRONMENT, "one")
        with store.write() as connection:
            connection.execute(sa.text("update lease set expires = :soon"), {"soon": time.time() + 1})
        store.renew("one")
        ((expires,),) = rows(store, "select expires from lease")
        assert expires > time.time() + leases.LEASE_SECONDS / 2
