"""Search by words on a PostgreSQL server, which the page's machines share, in the manner of `words`.

Words are a tsvector: title and alias with weight A, authors B, topics C, text D, cut by `query.tokens` and stemmed by
Snowball without stop words. Words of titles, names and topics stand in a table with a trigram index (pg_trgm), by which
typing errors and parts of words are found. How it is asked stands in `postgres_query`. Vectors for meaning stay in a
folder of each machine, and follow the server's words whenever `embed` runs there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR

from claimbench.errors import UserError
from claimbench.ledger.database import Database, Schema
from claimbench.search import words
from claimbench.search.asking import Asked
from claimbench.search.documents import Document
from claimbench.search.index import PORTION, Index
from claimbench.search.postgres_query import LONGEST, REACH, AskedOfServer, stems
from claimbench.search.query import Query, tokens

if TYPE_CHECKING:
    from claimbench.search.meaning import Encoder

GAP = 10  # places between columns, so that no phrase goes across
MOST_WORDS = (
    2_400  # of a document that are read: of LONGEST letters of four bytes, they fill a tsvector's megabyte
)
BATCH = 500  # documents written in one statement
_KEPT = (
    "key",
    *words.COLUMNS,
    "group_name",
    "year",
    "digest",
    "passage",
)  # of a document, as `words.row` has it


class _Schema:
    """The tables, in the store's own schema of the database."""

    METADATA = sa.MetaData()
    META = sa.Table(  # also the edition, and number and length of all documents, as bm25 needs them
        "meta", METADATA, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text)
    )
    DOCUMENT = sa.Table(
        "document",
        METADATA,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in (*words.COLUMNS, "group_name", "digest", "passage")
        ),
        sa.Column("year", sa.Integer, index=True),
        sa.Column("length", sa.Integer, nullable=False),  # in words
        sa.Column("names", TSVECTOR),  # `words` without the text
        sa.Column("words", TSVECTOR),
        sa.Index("document_words", "words", postgresql_using="gin", postgresql_with={"fastupdate": False}),
    )
    VERDICT = sa.Table(
        "verdict",
        METADATA,
        sa.Column(
            "document", sa.BigInteger, sa.ForeignKey("document.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("state", sa.Text, primary_key=True),
    )
    SPELLING = sa.Table(
        "spelling",
        METADATA,
        sa.Column("word", sa.Text, primary_key=True),
        sa.Column("documents", sa.Integer, nullable=False),
        sa.Index("spelling_parts", "word", postgresql_using="gin", postgresql_ops={"word": "gin_trgm_ops"}),
    )
    HELD = sa.Table(  # in how many documents a stem stands
        "held",
        METADATA,
        sa.Column("word", sa.Text, primary_key=True),
        sa.Column("documents", sa.Integer, nullable=False),
    )
    SCHEMA_VERSION = 1
    MIGRATIONS: ClassVar[dict[int, Any]] = {}


@sa.event.listens_for(_Schema.METADATA, "before_create")
def _prepare(_: sa.MetaData, connection: sa.Connection, **__: Any) -> None:
    try:
        connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public"))
    except sa.exc.DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise UserError(
            f"search index: its extension pg_trgm cannot be made ({reason}); have the server's administrator run "
            "CREATE EXTENSION pg_trgm in this database, or choose another with --store"
        ) from None
    connection.execute(sa.text(f"SELECT {REACH}"))
    dictionary = "CREATE TEXT SEARCH DICTIONARY stem (TEMPLATE = snowball, LANGUAGE = english)"
    connection.execute(sa.text(dictionary))  # english_stem drops stop words


class _Store(Database):
    schema: ClassVar[Schema] = _Schema
    name = "search index"
    namespace = "claimbench_search"
    flag = "--store"


class PostgresIndex(Index):
    """An index whose words lie in the database at `url`; `folder` (None: words only) keeps this machine's vectors.

    Raises UserError where the server cannot be had, or pg_trgm is missing there.
    """

    def __init__(self, url: str, folder: Path | None, encoder: Encoder | None = None) -> None:
        super().__init__(folder, encoder)
        self.store = _Store(url)

    def close(self) -> None:
        super().close()
        self.store.close()

    def _rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.store.read() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement), values)]

    def edition(self) -> str:
        return f"{self._rows('SELECT value FROM meta WHERE name = :name', name='edition')}{super().edition()}"

    def __len__(self) -> int:
        ((number,),) = self._rows("SELECT count(*) FROM document")
        return int(number)

    def _digests(self) -> dict[str, str]:
        return dict(self._rows("SELECT key, digest FROM document"))

    def _verdicts(self) -> dict[str, tuple[str, ...]]:
        rows = self._rows(
            "SELECT d.key, array_agg(v.state ORDER BY v.state) FROM verdict v "
            "JOIN document d ON d.id = v.document GROUP BY d.key"
        )
        return {key: tuple(states) for key, states in rows}

    def _replace(
        self, gone: Sequence[str], fresh: Sequence[Document], judged: Mapping[str, Sequence[str]]
    ) -> None:
        with self.store.write() as connection:
            replaced = [document.key for document in fresh]
            _tally(connection, [*gone, *replaced], -1)
            removed = connection.execute(
                sa.text("DELETE FROM document WHERE key = ANY(:keys) RETURNING id"), {"keys": list(gone)}
            )
            ids = list(removed.scalars())
            for start in range(0, len(fresh), BATCH):
                _add(connection, fresh[start : start + BATCH])
            _tally(connection, replaced, 1)
            _judge(connection, judged)
            _sum(connection)
        if ids and self.storage.folder is not None:
            self._let_go(ids)

    @contextmanager
    def _asking(self, query: Query) -> Iterator[Asked[Any]]:
        with self.store.read() as connection:
            yield AskedOfServer(connection, query)

    def _id_of(self, key: str) -> int | None:
        return next(
            (number for (number,) in self._rows("SELECT id FROM document WHERE key = :key", key=key)), None
        )

    def _described(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        statement = "SELECT id, key, title, group_name, year FROM document WHERE id = ANY(:ids)"
        names = ("key", "title", "group", "year")
        return {
            number: dict(zip(names, row, strict=True))
            for number, *row in self._rows(statement, ids=list(ids))
        }

    # --- this machine's vectors ---

    def _stale(self) -> Iterator[list[tuple[int, str, str, str]]]:
        """Vectors of documents that went, whoever removed them, go first."""
        wanted = dict(self._rows("SELECT id, passage FROM document ORDER BY id"))
        have = dict(self.storage.connection().execute("SELECT document, passage FROM vector"))
        self._let_go([number for number in have if number not in wanted])
        stale = [number for number, passage in wanted.items() if have.get(number) != passage]
        statement = "SELECT id, title, body, passage FROM document WHERE id = ANY(:ids) ORDER BY id"
        for start in range(0, len(stale), PORTION):
            yield [
                (number, title, body, passage)
                for number, title, body, passage in self._rows(statement, ids=stale[start : start + PORTION])
            ]

    def _let_go(self, ids: Sequence[int]) -> None:
        have = {number for (number,) in self.storage.connection().execute("SELECT document FROM vector")}
        if not have.isdisjoint(ids):
            with self.storage.writing():
                self._drop(ids)


# --- writing ---


def _add(connection: sa.Connection, documents: Sequence[Document]) -> None:
    rows = [dict(zip(_KEPT, words.row(document), strict=True)) for document in documents]
    stem_of = stems(connection, {word for row in rows for name in words.COLUMNS for word in _cut(row[name])})
    for row in rows:
        row["words"] = _vector(row, stem_of)
        row["names"] = _vector({**row, "body": ""}, stem_of)
        row["length"] = min(MOST_WORDS, sum(len(_cut(row[name])) for name in words.COLUMNS))
    columns = (*_KEPT, "length", "names", "words")
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    values = ", ".join(
        f"CAST(:{name} AS tsvector)" if name in ("names", "words") else f":{name}" for name in columns
    )
    statement = f"INSERT INTO document ({', '.join(columns)}) VALUES ({values})"
    connection.execute(sa.text(f"{statement} ON CONFLICT (key) DO UPDATE SET {changed}"), rows)


def _tally(connection: sa.Connection, keys: Sequence[str], sign: int) -> None:
    """Count the words and stems of these documents, once each document; take them back where sign is -1."""
    named = connection.execute(
        sa.text("SELECT title, alias, authors, topics FROM document WHERE key = ANY(:keys)"), {"keys": keys}
    )
    spelt = Counter(word for row in named for word in set(_cut(" ".join(row))))
    statement = (
        "SELECT u.lexeme, count(*) FROM document d, unnest(d.words) u WHERE d.key = ANY(:keys) GROUP BY 1"
    )
    held = dict(map(tuple, connection.execute(sa.text(statement), {"keys": keys})))
    for table, counts in (("spelling", spelt), ("held", held)):
        statement = (
            f"INSERT INTO {table} (word, documents) "
            "SELECT * FROM unnest(CAST(:words AS text[]), CAST(:counts AS int[])) "
            f"ON CONFLICT (word) DO UPDATE SET documents = {table}.documents + excluded.documents"
        )
        values = {"words": list(counts), "counts": [sign * number for number in counts.values()]}
        connection.execute(sa.text(statement), values)
        connection.execute(sa.text(f"DELETE FROM {table} WHERE documents <= 0"))


def _sum(connection: sa.Connection) -> None:
    statement = (
        "INSERT INTO meta SELECT 'documents', CAST(count(*) AS text) FROM document "
        "UNION ALL SELECT 'length', CAST(coalesce(sum(length), 0) AS text) FROM document "
        "UNION ALL SELECT 'edition', CAST(txid_current() AS text) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    )
    connection.execute(sa.text(statement))


def _judge(connection: sa.Connection, judged: Mapping[str, Sequence[str]]) -> None:
    states = [{"key": key, "state": state} for key, found in judged.items() for state in found]
    of = "document IN (SELECT id FROM document WHERE key = ANY(:keys))"
    connection.execute(sa.text(f"DELETE FROM verdict WHERE {of}"), {"keys": list(judged)})
    if states:
        statement = "INSERT INTO verdict SELECT id, :state FROM document WHERE key = :key"
        connection.execute(sa.text(statement), states)


def _cut(text: str) -> list[str]:
    return [word[:LONGEST] for word in tokens(text)]


def _vector(row: Mapping[str, Any], stem_of: Mapping[str, str]) -> str:
    """A tsvector's text: every stem with its places and their weight. The server keeps the first 255 places of each."""
    found = [
        (column * GAP, weight, stem_of[word])
        for column, (name, weight) in enumerate(zip(words.COLUMNS, "AABCD", strict=True))
        for word in _cut(row[name])
    ]
    places: dict[str, list[str]] = {}
    for place, (gaps, weight, stem) in enumerate(found[:MOST_WORDS], start=1):
        places.setdefault(stem, []).append(f"{place + gaps}{weight}")
    return " ".join(f"'{stem}':{','.join(where)}" for stem, where in places.items())
