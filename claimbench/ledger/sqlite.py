"""Stores in an SQLite file: WAL, so that readers never wait, and BEGIN IMMEDIATE, so that one writes at a time."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

WAIT = 30.0  # seconds
_TROUBLES = ("readonly", "unable to open", "full", "disk I/O", "not a database", "locked")


def engine(url: sa.URL) -> sa.Engine:
    """Writers wait for each other. Transactions that write are marked by the option `claimbench_write`."""
    made = sa.create_engine(url, connect_args={"timeout": WAIT})

    @sa.event.listens_for(made, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, by name
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={1000 * WAIT:.0f}")
        _into_wal(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("claimbench_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return made


def _into_wal(cursor: sqlite3.Cursor) -> None:
    """Several may open a new file at once: the busy timeout does not hold for this change, which fails at once."""
    deadline = time.monotonic() + WAIT
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def trouble(error: exc.DBAPIError) -> str | None:
    """What the user must be told of the file's place; None for an error of ours."""
    if isinstance(error, exc.IntegrityError | exc.ProgrammingError):
        return None
    reason = str(error.orig)
    return reason if any(word in reason for word in _TROUBLES) else None
