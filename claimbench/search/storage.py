"""The index's SQLite file: tables, their version, one connection a thread, one writer at a time."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from claimbench.errors import UserError

VERSION = "1"

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE document (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, title TEXT NOT NULL, alias TEXT NOT NULL,
    authors TEXT NOT NULL, topics TEXT NOT NULL, body TEXT NOT NULL, group_name TEXT NOT NULL, year INTEGER,
    digest TEXT NOT NULL, passage TEXT NOT NULL
);
CREATE INDEX document_year ON document (year);
CREATE TABLE verdict (document INTEGER NOT NULL, state TEXT NOT NULL, PRIMARY KEY (document, state)) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(
    title, alias, authors, topics, body, content='document', content_rowid='id',
    tokenize='porter unicode61 remove_diacritics 2'
);
CREATE TABLE spelling (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE, documents INTEGER NOT NULL);
CREATE VIRTUAL TABLE trigram USING fts5(
    word, content='spelling', content_rowid='id', tokenize='trigram', detail='none'
);
CREATE TABLE deletion (form TEXT NOT NULL, word INTEGER NOT NULL, PRIMARY KEY (form, word)) WITHOUT ROWID;
CREATE TABLE vector (
    document INTEGER PRIMARY KEY, slot INTEGER NOT NULL UNIQUE, passage TEXT NOT NULL,
    fresh INTEGER NOT NULL -- 1: neighbours do not know it yet
);
CREATE INDEX vector_fresh ON vector (document) WHERE fresh = 1;
CREATE TABLE neighbours (document INTEGER PRIMARY KEY, others BLOB NOT NULL);
"""


class Storage:
    """The file `index.sqlite` in a folder, or a private one in memory where `folder` is None.

    A file of another version, or one that is damaged, is replaced: an index can always be made again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._local = threading.local()
        self._writing = threading.RLock()
        self._memory: sqlite3.Connection | None = None
        if folder is None:
            self._memory = _connect(":memory:")
            self._memory.executescript(_SCHEMA)
            self._memory.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot make the search index: {error.strerror}") from None
        self._open()

    @property
    def path(self) -> Path:
        assert self.folder is not None
        return self.folder / "index.sqlite"

    def _open(self) -> None:
        if self.path.exists() and self._is_current():
            return
        with self._exclusive():
            if self.path.exists() and self._is_current():
                return
            self.close()
            for path in (*self.path.parent.glob("index.sqlite*"), *self.path.parent.glob("vectors-*.f32")):
                path.unlink(missing_ok=True)
            connection = self.connection()
            connection.executescript(
                f"BEGIN; {_SCHEMA} INSERT INTO meta VALUES ('version', '{VERSION}'); COMMIT;"
            )

    def _is_current(self) -> bool:
        try:
            return self.meta("version") == VERSION
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise UserError(f"{self.path}: cannot open the search index: {error}") from None
        except sqlite3.DatabaseError:
            pass  # damaged
        return False

    def connection(self) -> sqlite3.Connection:
        """This thread's connection; SQLite's are not shared."""
        if self._memory is not None:
            return self._memory
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = _connect(str(self.path))
            found.execute("PRAGMA journal_mode=WAL")
            found.execute("PRAGMA synchronous=NORMAL")
        return found

    def close(self) -> None:
        """Close this thread's connection."""
        found = getattr(self._local, "connection", None)
        if found is not None:
            found.close()
            self._local.connection = None

    def meta(self, name: str) -> str | None:
        row = self.connection().execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_meta(self, name: str, value: str) -> None:
        self.connection().execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several reads of one state."""
        connection = self.connection()
        if (
            connection.in_transaction or self._memory is not None
        ):  # in memory there is but one state, and one writer
            yield connection
            return
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, one writer among threads and processes; its edition tells readers that something changed."""
        with self._exclusive():
            connection = self.connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                self.set_meta("edition", str(int(self.meta("edition") or 0) + 1))
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._writing:
            if self.folder is None:
                yield
                return
            from claimbench.subjects.store import locked

            with locked(self.folder / ".lock"):
                yield


def _connect(where: str) -> sqlite3.Connection:
    return sqlite3.connect(where, timeout=30.0, isolation_level=None, check_same_thread=where != ":memory:")
