"""Stores on a PostgreSQL server, which many machines share, by psycopg 3.

Each store has a schema of its own in the database. Readers see a snapshot (REPEATABLE READ); a writer first takes an
advisory lock of its store that ends with its transaction, also when it is killed, and as READ COMMITTED then sees what
every earlier holder wrote. A pooler in front must keep a session's settings (session pooling).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from claimbench.errors import UserError

READING: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
WRITING: dict[str, Any] = {"isolation_level": "READ COMMITTED"}  # whatever the database's default is
CONNECT_LIMIT = 10  # seconds; `connect_timeout` in the URL changes it
LONGEST = 300  # characters of a server's reason
_SECRET = ("password", "passfile")  # in names of a URL's parameters
_SETTINGS = (
    "SET lock_timeout = '30s'",  # as long as SQLite's writers wait
    "SET idle_in_transaction_session_timeout = '60s'",  # a machine that vanishes holds up the others no longer
)
_STATES = (
    "42501",
    "25006",
)  # no right to do it, a server that only reads: not operational errors by their class


def engine(url: sa.URL, namespace: str, name: str) -> sa.Engine:
    """Connections that look in `namespace` first. Transactions that write are marked by the option `claimbench_write`.

    name: the store, for complaints. Raises UserError without psycopg.
    """
    limit = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_LIMIT}
    try:
        made = sa.create_engine(
            url, pool_pre_ping=True, max_overflow=5, connect_args={"application_name": "claimbench"} | limit
        )
    except ImportError:
        raise UserError(
            f'{name}: PostgreSQL needs psycopg; pip install "claimbench[postgresql]", or give a path'
        ) from None

    @sa.event.listens_for(made, "connect", insert=True)
    def connect(connection: Any, _record: Any) -> None:
        for setting in (f"SET search_path = {namespace}, public", *_SETTINGS):
            connection.execute(setting)
        connection.commit()

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("claimbench_write"):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtextextended('{namespace}', 0))")

    return made


def make_namespace(connection: sa.Connection, namespace: str) -> None:
    """Inside the store's lock, since two that do it at once disturb each other even with IF NOT EXISTS."""
    if not sa.inspect(connection).has_schema(namespace):
        connection.execute(sa.schema.CreateSchema(namespace))


def clock(connection: sa.Connection) -> float:
    """The server's time, in seconds since 1970."""
    return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())


def shown(url: sa.URL) -> str:
    """The address without anything secret."""
    secret = [name for name in url.query if any(word in name for word in _SECRET)]
    plain = url.difference_update_query(secret)
    if plain.get_backend_name() == "postgresql":
        plain = plain.set(drivername="postgresql")
    return plain.render_as_string(hide_password=True)


def may_pass(error: exc.DBAPIError) -> bool:
    """Whether the trouble may be over in a while: a server that restarts, not a right that is missing."""
    return getattr(error.orig, "sqlstate", None) not in _STATES


def trouble(error: exc.DBAPIError) -> str | None:
    """What the user must be told of the server, in one line; None for an error of ours."""
    operational = isinstance(error, exc.OperationalError | exc.InterfaceError)
    if not operational and getattr(error.orig, "sqlstate", None) not in _STATES:
        return None
    words = " ".join(str(error.orig).split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"
