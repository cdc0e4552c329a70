"""Stores in an SQLite file: WAL, so that readers never wait, and BEGIN IMMEDIATE, so that one writes at a time."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

_TROUBLES = ("readonly", "unable to open", "full", "disk I/O", "not a database", "locked")


def engine(url: sa.URL) -> sa.Engine:
    """Writers wait 30 s for each other. Transactions that write are marked by the option `claimbench_write`."""
    made = sa.create_engine(url, connect_args={"timeout": 30.0})

    @sa.event.listens_for(made, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, by name
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("claimbench_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return made


def trouble(error: exc.DBAPIError) -> str | None:
    """What the user must be told of the file's place; None for an error of ours."""
    if isinstance(error, exc.IntegrityError | exc.ProgrammingError):
        return None
    reason = str(error.orig)
    return reason if any(word in reason for word in _TROUBLES) else None
