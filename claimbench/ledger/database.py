"""The connection: opening, migrating, transactions, and the user's troubles with the place in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import exc

from claimbench.errors import UserError
from claimbench.ledger import schema
from claimbench.ledger.schema import META
from claimbench.paths import data_dir


def default_url() -> str:
    return f"sqlite:///{data_dir() / 'ledger.sqlite'}"


class Database:
    """Open with a path, a URL, or nothing for the default ledger. Close it, or use it as a context manager."""

    def __init__(self, where: str | Path | None = None) -> None:
        text = str(where) if where else default_url()
        self.url = text if "://" in text else f"sqlite:///{Path(text).expanduser().resolve()}"
        self._sqlite = self.url.startswith("sqlite")
        if self._sqlite:
            self._prepare_folder()
        self._engine = sa.create_engine(self.url, connect_args={"timeout": 30.0} if self._sqlite else {})
        if self._sqlite:
            _configure_sqlite(self._engine)
        self._migrate()

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
                f"ledger: cannot make {folder}: {error.strerror}; choose another place with --ledger"
            ) from None

    def _migrate(self) -> None:
        with self.read() as connection:
            fresh = not sa.inspect(connection).has_table("meta")
            version = (
                None if fresh else connection.scalar(sa.select(META.c.value).where(META.c.name == "schema"))
            )
        if version is not None and int(version) == schema.SCHEMA_VERSION:
            return
        if version is not None and int(version) > schema.SCHEMA_VERSION:
            raise UserError(
                f"ledger: {self.url} has schema {version}, this claimbench knows {schema.SCHEMA_VERSION}; "
                "update claimbench"
            )
        with self.write() as connection:
            if version is None:
                schema.METADATA.create_all(
                    connection
                )  # checks each table first, so that two first runs do no harm
                found = connection.scalar(sa.select(META.c.value).where(META.c.name == "schema"))
                if found is None:
                    connection.execute(META.insert().values(name="schema", value=str(schema.SCHEMA_VERSION)))
                return
            for step in range(int(version), schema.SCHEMA_VERSION):
                schema.MIGRATIONS[step](connection)
            connection.execute(
                META.update().where(META.c.name == "schema").values(value=str(schema.SCHEMA_VERSION))
            )

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
        """The user's troubles with the place of the ledger, in one line."""
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
                    f"ledger: {self.url}: {reason}; free it, or choose another with --ledger"
                ) from error
            raise


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
