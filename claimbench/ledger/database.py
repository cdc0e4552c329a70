"""The connection: opening, migrating, transactions, and the user's troubles with the place in one line.

A store is a subclass that names its tables, its file and the flag that moves it; the ledger is the default. It lies in
an SQLite file or on a PostgreSQL server. On both, a reading transaction sees one state of the store, and there is one
writing transaction at a time, which sees all that was written before it: whatever is looked up and then written inside
`write` is looked up and written by nobody else in between.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol, Self

import sqlalchemy as sa
from sqlalchemy import exc

from claimbench.errors import UserError
from claimbench.ledger import postgresql, schema, sqlite
from claimbench.paths import data_dir

ANEW = 2.0  # seconds until a server that was there, and is not, is asked once more


class Unreachable(UserError):
    """The store's place cannot be used at the moment: a server that is down, a full disk. It may pass."""


class Schema(Protocol):
    """What a store's schema module holds. `META` is a table of names and values; "schema" is its version."""

    METADATA: sa.MetaData
    META: sa.Table
    SCHEMA_VERSION: int
    MIGRATIONS: dict[int, schema.Migration]


class Database:
    """Open with a path, a URL, or nothing for the default place. Close it, or use it as a context manager.

    A process that is forked off may use it: it gets connections of its own.
    """

    schema: ClassVar[Schema] = schema
    name: ClassVar[str] = "ledger"  # opens every complaint about the place
    file: ClassVar[str] = "ledger.sqlite"  # in `data_dir()`
    namespace: ClassVar[str] = "claimbench_ledger"  # a server's database may hold several stores, one in each
    flag: ClassVar[str] = "--ledger"

    def __init__(self, where: str | Path | None = None) -> None:
        url = self._parsed(where)
        self.url = postgresql.shown(url)  # without a password; for complaints, and to tell stores apart
        self._server = url.get_backend_name() == "postgresql"
        self._reached = False
        if self._server:
            self._engine = postgresql.engine(url, self.namespace, self.name)
        else:
            self._prepare_folder(url)
            self._engine = sqlite.engine(url)
        self._reading = self._engine.execution_options(**(postgresql.READING if self._server else {}))
        self._writing = self._engine.execution_options(
            claimbench_write=True, **(postgresql.WRITING if self._server else {})
        )
        _ENGINES.add(self._engine)
        self._migrate()
        self._reached = True

    @classmethod
    def default_url(cls) -> str:
        return f"sqlite:///{data_dir() / cls.file}"

    @classmethod
    def shown(cls, where: str | Path | None) -> str:
        """The address as it may be printed, without a password. Raises UserError for one of no store."""
        return postgresql.shown(cls._parsed(where))

    @classmethod
    def _parsed(cls, where: str | Path | None) -> sa.URL:
        text = str(where) if where else cls.default_url()
        if "://" not in text:
            return sa.URL.create("sqlite", database=str(Path(text).expanduser().resolve()))
        try:
            url = sa.make_url(text)
        except (exc.ArgumentError, ValueError):  # its words may hold the password
            url = sa.make_url("unknown://")
        backend = url.drivername.partition("+")[0]
        if backend in ("postgresql", "postgres"):
            return url.set(drivername="postgresql+psycopg")
        if backend != "sqlite":
            raise UserError(
                f"{cls.name}: its address must be a path, or postgresql://USER@HOST/DATABASE; "
                f"give one with {cls.flag}"
            )
        return url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    def _prepare_folder(self, url: sa.URL) -> None:
        folder = Path(url.database or "").parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.name}: cannot make {folder}: {error.strerror}; choose another place with {self.flag}"
            ) from None

    def _migrate(self) -> None:
        wanted = self.schema.SCHEMA_VERSION
        with self.read() as connection:
            version = self._version(connection)
        if version == wanted:
            return
        if version is not None and version > wanted:
            raise UserError(
                f"{self.name}: {self.url} has schema {version}, this claimbench knows {wanted}; "
                "update claimbench"
            )
        meta = self.schema.META
        with self.write() as connection:
            version = self._version(connection)  # another process may have been faster
            if version is None:
                if self._server:
                    postgresql.make_namespace(connection, self.namespace)
                self.schema.METADATA.create_all(connection)
                connection.execute(meta.insert().values(name="schema", value=str(wanted)))
                return
            for step in range(version, wanted):
                self.schema.MIGRATIONS[step](connection)
            connection.execute(meta.update().where(meta.c.name == "schema").values(value=str(wanted)))

    def _version(self, connection: sa.Connection) -> int | None:
        """The schema's version; None of a store that has no tables yet."""
        meta = self.schema.META
        if not sa.inspect(connection).has_table("meta", schema=self.namespace if self._server else None):
            return None
        found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
        return int(found) if found is not None else None

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the one clock that all users of the store share: a server's own, else the machine's."""
        return postgresql.clock(connection) if self._server else time.time()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        with self._plainly(), self._connected(self._reading) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        with self._plainly(), self._connected(self._writing) as connection, connection.begin():
            yield connection

    def _connected(self, engine: sa.Engine) -> sa.Connection:
        """A connection that answered just now. A server that was there before may be starting again: one more try."""
        try:
            return engine.connect()
        except exc.OperationalError:
            if not (self._server and self._reached):
                raise
        time.sleep(ANEW)
        return engine.connect()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """The user's troubles with the place of the store, in one line."""
        try:
            yield
        except exc.DBAPIError as error:
            reason = (postgresql if self._server else sqlite).trouble(error)
            if reason is None:
                raise
            fix = "see to the server" if self._server else "free it"
            passes = not self._server or postgresql.may_pass(error)
            raise (Unreachable if passes else UserError)(
                f"{self.name}: {self.url}: {reason}; {fix}, or choose another with {self.flag}"
            ) from error


def default_url() -> str:
    """Where the ledger lies unless a command names another place."""
    return Database.default_url()


_ENGINES: weakref.WeakSet[sa.Engine] = weakref.WeakSet()


def _forget_connections() -> None:
    """In a forked child: its parent goes on using them, so they are left open and never touched here."""
    for engine in list(_ENGINES):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)
