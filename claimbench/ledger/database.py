"""The connection: opening, migrating, transactions, and the user's troubles with the place in one line.

A store is a subclass that names its tables, its file and the flag that moves it; the ledger is the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import sqlalchemy as sa
from sqlalchemy import exc

from claimbench.errors import UserError
from claimbench.ledger import schema
from claimbench.paths import data_dir


class Schema(Protocol):
    """What a store's schema module holds. `META` is a table of names and values; "schema" is its version."""

    METADATA: sa.MetaData
    META: sa.Table
    SCHEMA_VERSION: int
    MIGRATIONS: dict[int, schema.Migration]


class Database:
    """Open with a path, a URL, or nothing for the default place. Close it, or use it as a context manager."""

    schema: ClassVar[Schema] = schema
    name: ClassVar[str] = "ledger"  # opens every complaint about the place
    file: ClassVar[str] = "ledger.sqlite"  # in `data_dir()`
    flag: ClassVar[str] = "--ledger"

    def __init__(self, where: str | Path | None = None) -> None:
        text = str(where) if where else self.default_url()
        self.url = text if "://" in text else f"sqlite:///{Path(text).expanduser().resolve()}"
        self._shown = sa.make_url(self.url).render_as_string(hide_password=True)  # for complaints
        self._sqlite = self.url.startswith("sqlite")
        if self._sqlite:
            self._prepare_folder()
        self._engine = sa.create_engine(self.url, connect_args={"timeout": 30.0} if self._sqlite else {})
        if self._sqlite:
            _configure_sqlite(self._engine)
        self._migrate()

    @classmethod
    def default_url(cls) -> str:
        return f"sqlite:///{data_dir() / cls.file}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    def _prepare_folder(self) -> None:
        folder = Path(self.url.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.name}: cannot make {folder}: {error.strerror}; choose another place with {self.flag}"
            ) from None

    def _migrate(self) -> None:
        meta, wanted = self.schema.META, self.schema.SCHEMA_VERSION
        with self.read() as connection:
            fresh = not sa.inspect(connection).has_table("meta")
            version = (
                None if fresh else connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
            )
        if version is not None and int(version) == wanted:
            return
        if version is not None and int(version) > wanted:
            raise UserError(
                f"{self.name}: {self._shown} has schema {version}, this claimbench knows {wanted}; "
                "update claimbench"
            )
        with self.write() as connection:
            if version is None:
                self.schema.METADATA.create_all(
                    connection
                )  # checks each table first, so that two first runs do no harm
                found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
                if found is None:
                    connection.execute(meta.insert().values(name="schema", value=str(wanted)))
                return
            for step in range(int(version), wanted):
                self.schema.MIGRATIONS[step](connection)
            connection.execute(meta.update().where(meta.c.name == "schema").values(value=str(wanted)))

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        with self._plainly(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        writing = self._engine.execution_options(claimbench_write=True)
        with self._plainly(), writing.begin() as connection:
            yield connection

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """The user's troubles with the place of the store, in one line."""
        try:
            yield
        except (exc.OperationalError, exc.DatabaseError) as error:
            if isinstance(error, exc.IntegrityError | exc.ProgrammingError):
                raise
            reason = str(error.orig)
            if any(
                word in reason
                for word in ("readonly", "unable to open", "full", "disk I/O", "not a database", "locked")
            ):
                raise UserError(
                    f"{self.name}: {self._shown}: {reason}; free it, or choose another with {self.flag}"
                ) from error
            raise


def default_url() -> str:
    """Where the ledger lies unless a command names another place."""
    return Database.default_url()


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, by name
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("claimbench_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
