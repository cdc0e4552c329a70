"""A PostgreSQL server of this test run's own, from the system's binaries, and a fresh database for each test.

It starts when the first test asks for it, once a process (each of pytest-xdist's has its own), listens on a Unix socket
in a temporary folder and nowhere else, and ends with the run, also when that is killed. No other server is touched.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claimbench.runner.watch import die_with

USER, PASSWORD = "tester", "secret-of-the-test"
START_LIMIT = 60.0  # seconds
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "lc_messages": "C",
}


class Server:
    """A running server with its own data; `stop` and `start` it as one that is restarted."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="claimbench-pg-", dir="/tmp"))  # a socket's path is short
        self._as: dict[str, Any] = {"cwd": self._folder}
        if os.getuid() == 0:  # the server refuses to run as root
            shutil.chown(self._folder, "nobody")
            self._as |= {"user": "nobody", "extra_groups": []}
        self._folder.chmod(0o755)
        self._names = itertools.count()
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        options = [
            "--auth=scram-sha-256",
            f"--username={USER}",
            f"--pwfile={secret}",
            "--no-sync",
            "--no-locale",
        ]
        if (
            "--icu-locale"
            in subprocess.run([programs / "initdb", "--help"], capture_output=True, text=True).stdout
        ):
            options += [
                "--locale-provider=icu",
                "--icu-locale=en-US",
            ]  # an order of texts that is not SQLite's
        command = [programs / "initdb", "-D", self._folder / "data", "-E", "UTF8", *options]
        done = subprocess.run(command, capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stderr
        self.start()

    def start(self) -> None:
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [self._programs / "postgres", "-D", self._folder / "data", "-k", self._folder, *settings]
        with (self._folder / "log").open("ab") as log:
            ending = functools.partial(die_with, os.getpid(), signal.SIGQUIT)
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=ending, **self._as)
        deadline = time.monotonic() + START_LIMIT
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, as a crash: connections are cut."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@/{database}?host={self._folder}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]  # statements of tests alone
            return cursor.fetchall() if cursor.description else []

    def create(self) -> str:
        """A fresh database's name. A server that a test's signals have ended is started again."""
        if self._process.poll() is not None:
            self.start()
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def programs() -> Path | None:
    """The folder of the server's programs, the newest version's."""
    found = shutil.which("postgres")
    if found and (Path(found).parent / "initdb").exists():
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason='needs psycopg: pip install "claimbench[postgresql]"')
    found = programs()
    if found is None:
        pytest.skip("needs PostgreSQL's server programs (Debian: apt-get install postgresql)")
    server = Server(found)
    yield server
    server.close()


@pytest.fixture
def postgres_database(postgres_server: Server) -> Iterator[str]:
    """The name of a database that nobody else uses; it goes with the test."""
    name = postgres_server.create()
    yield name
    postgres_server.drop(name)


@pytest.fixture
def postgres_url(postgres_server: Server, postgres_database: str) -> str:
    return postgres_server.url(postgres_database)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may lie: a file, and a database of a server."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    url: str = request.getfixturevalue("postgres_url")
    return url
