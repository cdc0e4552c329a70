"""Words in an SQLite file by FTS5: bm25 (Robertson and Walker, 1994), a title above topics and names above the text."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from claimbench.search import spelling
from claimbench.search.asking import STRONG, Asked
from claimbench.search.documents import Document
from claimbench.search.query import STOP_WORDS, Query, tokens

COLUMNS = ("title", "alias", "authors", "topics", "body")
WEIGHTS = (6.0, 6.0, 3.0, 3.0, 1.0)  # of the columns in bm25


# --- writing ---


def add(connection: sqlite3.Connection, documents: Sequence[Document]) -> None:
    """Insert documents, or replace those whose key is known; they keep their id."""
    replaced = [found for document in documents for found in _stored(connection, document.key)]
    _forget(connection, replaced)
    connection.executemany(
        "INSERT INTO document (key, title, alias, authors, topics, body, group_name, year, digest, passage) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET title = excluded.title, "
        "alias = excluded.alias, authors = excluded.authors, topics = excluded.topics, body = excluded.body, "
        "group_name = excluded.group_name, year = excluded.year, digest = excluded.digest, passage = excluded.passage",
        [row(document) for document in documents],
    )
    inserted = [found for document in documents for found in _stored(connection, document.key)]
    connection.executemany(
        f"INSERT INTO words (rowid, {', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)", inserted
    )
    spelling.add(connection, (word for found in inserted for word in _spelt(found)))


def remove(connection: sqlite3.Connection, keys: Iterable[str]) -> list[int]:
    """Take documents out. Returns their ids."""
    rows = [row for key in keys for row in _stored(connection, key)]
    _forget(connection, rows)
    ids = [row[0] for row in rows]
    for table, column in (("document", "id"), ("verdict", "document")):
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(number,) for number in ids])
    return ids


def verdicts(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Keys of documents that have verdicts, with their states in order."""
    found: dict[str, tuple[str, ...]] = {}
    for key, state in connection.execute(
        "SELECT d.key, v.state FROM verdict v JOIN document d ON d.id = v.document ORDER BY d.key, v.state"
    ):
        found[key] = (*found.get(key, ()), state)
    return found


def set_verdicts(connection: sqlite3.Connection, states: Mapping[str, Sequence[str]]) -> None:
    """Put these verdicts in place of those that the documents have."""
    for key, found in states.items():
        number = connection.execute("SELECT id FROM document WHERE key = ?", (key,)).fetchone()[0]
        connection.execute("DELETE FROM verdict WHERE document = ?", (number,))
        connection.executemany("INSERT INTO verdict VALUES (?, ?)", [(number, state) for state in found])


def _forget(connection: sqlite3.Connection, rows: Sequence[tuple]) -> None:
    """Out of the full-text tables, which must be told the very text that they indexed."""
    connection.executemany(
        f"INSERT INTO words (words, rowid, {', '.join(COLUMNS)}) VALUES ('delete', ?, ?, ?, ?, ?, ?)", rows
    )
    if rows:
        spelling.remove(connection, (word for row in rows for word in _spelt(row)))


def _stored(connection: sqlite3.Connection, key: str) -> list[tuple]:
    statement = f"SELECT id, {', '.join(COLUMNS)} FROM document WHERE key = ?"
    return connection.execute(statement, (key,)).fetchall()


def row(document: Document) -> tuple:
    """key, COLUMNS, group_name, year, digest and passage digest, as an index keeps them."""

    def clean(text: str) -> str:
        return text.encode("utf-8", "replace").decode().replace("\0", " ")

    return (
        document.key,
        clean(document.title),
        clean(" ".join([*tokens(document.key), *_acronyms(document.title)])),
        clean("; ".join(document.authors)),
        clean("; ".join([*document.topics, document.group])),
        clean(document.text),
        document.group.lower(),
        document.year,
        document.digest(),
        document.passage_digest(),
    )


def _acronyms(title: str) -> list[str]:
    """The initials by which a title may be known: of the whole and of what stands before its colon (LRA)."""
    parts = [
        [word for word in tokens(part) if word not in STOP_WORDS] for part in (title, title.partition(":")[0])
    ]
    return list(dict.fromkeys("".join(w[0] for w in words) for words in parts if 3 <= len(words) <= 6))


def _spelt(row: tuple) -> set[str]:
    """Words of title, alias, names and topics that can be found from a misspelling."""
    return set(tokens(" ".join(row[1:5])))


# --- searching ---


def condition(query: Query) -> tuple[str, list[object]]:
    """The filters as SQL over `document d`, and its parameters."""
    parts: list[str] = []
    values: list[object] = []
    for column, wanted in (("d.group_name", query.groups), ("state", query.verdicts)):
        if wanted:
            inside = f"{column} IN ({','.join('?' * len(wanted))})"
            parts.append(
                inside
                if column != "state"
                else f"EXISTS (SELECT 1 FROM verdict WHERE document = d.id AND {inside})"
            )
            values += wanted
    if query.years:
        parts.append("(" + " OR ".join("d.year BETWEEN ? AND ?" for _ in query.years) + ")")
        values += [year for span in query.years for year in span]
    for name in query.authors:
        parts.append("d.id IN (SELECT rowid FROM words WHERE words MATCH ?)")
        values.append("authors : (" + " AND ".join([*(f'"{t}"' for t in name[:-1]), f'"{name[-1]}" *']) + ")")
    return " AND ".join(parts) or "1", values


class AskedOfFile(Asked[str]):
    """Phrases in FTS5's language, every token quoted: nothing from outside is syntax."""

    def __init__(self, connection: sqlite3.Connection, query: Query) -> None:
        super().__init__(query)
        self._connection = connection
        self._where, self._values = condition(query)

    def phrases(self, found: Iterable[Sequence[str]]) -> list[str]:
        return [f'"{" ".join(tokens)}"' for tokens in found]

    def beginning(self, word: str) -> str:
        return f'"{word}" *'

    def holding(self, phrases: Sequence[str], most: int) -> int:
        statement = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        return int(self._connection.execute(statement, (" OR ".join(phrases), most)).fetchone()[0])

    def matching(self, terms: Sequence[Sequence[str]], every: bool, limit: int) -> tuple[list[int], int]:
        asked = (" AND " if every else " OR ").join(f"({' OR '.join(phrases)})" for phrases in terms)
        weights = f"bm25({', '.join(map(str, WEIGHTS))})"
        statement = "SELECT words.rowid, rank FROM words WHERE words MATCH ? AND rank MATCH ?"
        if self.query.has_filters:
            statement = statement.replace("FROM words", "FROM words JOIN document d ON d.id = words.rowid")
            statement += f" AND {self._where}"
        values = [asked, weights, *self._values, limit]
        rows = self._connection.execute(f"{statement} ORDER BY rank LIMIT ?", values).fetchall()
        strong = sum(rank <= STRONG * rows[0][1] for _, rank in rows)  # FTS5's ranks are below zero
        return [number for number, _ in rows], strong

    def allowed(self) -> list[int]:
        return self._ids(f"SELECT d.id FROM document d WHERE {self._where}")

    def latest(self, limit: int) -> list[int]:
        listed = f"SELECT d.id FROM document d WHERE {self._where} ORDER BY d.year DESC, d.title LIMIT ?"
        return self._ids(listed, limit)

    def _ids(self, statement: str, *more: int) -> list[int]:
        return [number for (number,) in self._connection.execute(statement, [*self._values, *more])]

    def known(self, word: str) -> bool:
        return bool(spelling.known(self._connection, [word]))

    def containing(self, part: str, limit: int) -> list[str]:
        return spelling.containing(self._connection, part, limit)

    def alike(self, word: str) -> list[str]:
        return spelling.corrections(self._connection, word)
