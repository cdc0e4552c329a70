"""Stores on a PostgreSQL server: what can go wrong with it is said in one line, without a password."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres import PASSWORD, Server, programs
from test_ledger import ENVIRONMENT, make_set, measure, rows, spec
from toy import CLAIMS, MakePaper

from claimbench.doctor import doctor
from claimbench.errors import UserError
from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger


@pytest.fixture
def own_server(postgres_server: Server) -> Iterator[Server]:
    """A server that a test may stop."""
    found = programs()
    assert found is not None
    server = Server(found)
    yield server
    server.close()


def test_a_restarted_server_is_found_again_and_a_lost_one_named(own_server: Server) -> None:
    url = own_server.url(own_server.create())
    with Ledger(url) as store:
        row = make_set(store, [spec()])
        own_server.stop()
        own_server.start()
        assert [found.uid for found in store.sets()] == [row.uid]
        measure(store, row, [spec()])
        own_server.stop()
        with pytest.raises(UserError, match="ledger: .*; see to the server, or choose another with --ledger"):
            store.sets()
        own_server.start()
        assert len(store.trials(row.uid)) == 1


def test_a_connection_cut_in_a_transaction_is_one_line_and_writes_nothing(
    postgres_server: Server, postgres_database: str, postgres_url: str
) -> None:
    cut = (
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{postgres_database}' "
        "and application_name = 'claimbench'"
    )
    with Ledger(postgres_url) as store:

        def be_cut() -> None:
            with store.write() as connection:
                connection.execute(sa.text("update meta set value = '0'"))
                postgres_server.execute(cut)
                connection.execute(sa.text("update meta set value = '1'"))

        with pytest.raises(UserError, match="see to the server") as told:
            be_cut()
        assert len(str(told.value).splitlines()) == 1
        row = make_set(store, [spec()])  # the lock went with the connection
        assert [found.uid for found in store.sets()] == [row.uid]
    Ledger(postgres_url).close()


def test_passwords_are_never_shown(postgres_server: Server, postgres_database: str) -> None:
    wrong = "wrong-but-still-secret"
    address = postgres_server.url(postgres_database, wrong)
    for url in (address, address.replace(f":{wrong}@", "@") + f"&password={wrong}"):
        assert wrong not in str(doctor(ledger=url)["ledger"])
        with pytest.raises(UserError, match="password authentication failed") as told:
            Ledger(url)
        assert wrong not in str(told.value)
    with pytest.raises(UserError, match="must be a path, or postgresql://USER@HOST/DATABASE") as told:
        Ledger(f"postgresql://user:{wrong}@host:no-port/x")
    assert wrong not in "".join(traceback.format_exception(told.value))
    with Ledger(postgres_server.url(postgres_database)) as store:
        assert PASSWORD not in store.url
        assert "***" in store.url


def test_what_is_no_place_for_a_store_is_said_in_one_line(postgres_server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='database "nowhere" does not exist; see to the server'):
        Ledger(postgres_server.url("nowhere"))
    with pytest.raises(UserError, match=f"{tmp_path}.*No such file or directory"):
        Ledger(f"postgresql://me@/x?host={tmp_path}")
    with pytest.raises(UserError, match="page store: its address must be a path.* with --store"):
        PageStore("mysql://me@host/x")


def test_a_user_without_the_right_to_write_is_told(postgres_server: Server, postgres_database: str) -> None:
    Ledger(postgres_server.url(postgres_database)).close()
    reader = "create role reader login password 'reads'; grant usage on schema claimbench_ledger to reader; "
    postgres_server.execute(
        reader + "grant select on all tables in schema claimbench_ledger to reader", postgres_database
    )
    url = postgres_server.url(postgres_database).replace(f"tester:{PASSWORD}", "reader:reads")
    try:
        with Ledger(url) as store:
            assert store.sets() == []
            with pytest.raises(UserError, match="permission denied for table trial_set; see to the server"):
                make_set(store, [spec()])
        with pytest.raises(UserError, match="page store: .*permission denied for database"):
            PageStore(url)
    finally:
        postgres_server.execute("drop owned by reader; drop role reader", postgres_database)


def test_ledger_and_page_may_share_a_database(postgres_url: str) -> None:
    with Ledger(postgres_url) as ledger, PageStore(postgres_url) as page:
        make_set(ledger, [spec()])
        assert (len(ledger.sets()), page.newest()) == (1, [])
        with ledger.write(), page.write():  # a lock each
            pass
    Ledger(postgres_url.replace("postgresql://", "postgres://")).close()
    Ledger(postgres_url.replace("postgresql://", "postgresql+psycopg://")).close()


def command(folder: Path, url: str, *words: str) -> list[str]:
    names = {"--shelf": str(folder / "shelf"), "--ledger": url}
    given = [word for name, value in names.items() for word in (name, value)]
    return [sys.executable, "-m", "claimbench", *words, *given]


def test_runs_at_once_share_a_plan_and_every_command_reads_it(
    postgres_url: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper(claims=CLAIMS.replace("    noise =", "    __import__('time').sleep(0.1)\n    noise ="))
    words = command(tmp_path, postgres_url, "run", "toy", "--trust", "--jobs", "1", "--json")
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ran = [json.loads(run.communicate(timeout=100)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert [outcome["verdict"]["state"] for (outcome,) in ran] == ["holds", "holds"]
    with Ledger(postgres_url) as store:
        assert rows(store, "select count(*), count(distinct key) from trial") == [(30, 30)]
    assert sum(outcome["ran"] for (outcome,) in ran) == 30
    results = str(tmp_path / "results")
    for words in (
        ["report", "toy"],
        ["show", "toy"],
        ["recheck", "toy"],
        ["publish", "toy", "--to", results],
    ):
        done = subprocess.run(command(tmp_path, postgres_url, *words), capture_output=True, text=True)
        assert (done.returncode, "toy" in done.stdout) == (0, True), (words, done.stderr)
        assert PASSWORD not in done.stdout + done.stderr


HOLDS = """
import sys, time
from claimbench.ledger import Ledger
with Ledger(sys.argv[1]) as store, store.write():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_holds_nobody_up(postgres_url: str) -> None:
    with Ledger(postgres_url) as store:
        command = [sys.executable, "-c", HOLDS, postgres_url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            os.kill(holder.pid, signal.SIGKILL)
        before = time.monotonic()
        make_set(store, [spec()])
        assert time.monotonic() - before < 10


def test_leases_follow_the_servers_clock(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(postgres_url) as store:
        make_set(store, [spec()])
        assert store.take([spec()], ENVIRONMENT, "one")
        ahead = time.time() + 1e6
        monkeypatch.setattr(time, "time", lambda: ahead)  # a machine whose clock is wrong
        assert not store.take([spec()], ENVIRONMENT, "two")
        assert store.held([spec().key], ENVIRONMENT, "two")
