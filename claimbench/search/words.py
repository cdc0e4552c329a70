"""Search by words: SQLite's FTS5, bm25 with a title above topics and names above the text (Robertson and Walker, 1994).

Documents that hold every word come first; then those that hold every word when it is spelt or cut otherwise; then those
that hold some. Stop words decide nothing.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from claimbench.search import spelling
from claimbench.search.documents import Document
from claimbench.search.query import STOP_WORDS, Query, Term, tokens

COLUMNS = ("title", "alias", "authors", "topics", "body")
WEIGHTS = (6.0, 6.0, 3.0, 3.0, 1.0)  # of the columns in bm25
STRONG = (
    0.5  # share of the best score from which on a document lacking some words counts when rankings are fused
)
SCORED = (
    5_000  # documents that are scored though they lack some words: bm25 takes a microsecond or two for each
)


@dataclass
class Found:
    """Ids, best first: the first `complete` hold every word, the first `strong` score half the best or more."""

    ids: list[int] = field(default_factory=list)
    complete: int = 0
    strong: int = 0


# --- writing ---


def add(connection: sqlite3.Connection, documents: Sequence[Document]) -> None:
    """Insert documents, or replace those whose key is known; they keep their id."""
    replaced = [row for document in documents for row in _stored(connection, document.key)]
    _forget(connection, replaced)
    connection.executemany(
        "INSERT INTO document (key, title, alias, authors, topics, body, group_name, year, digest, passage) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET title = excluded.title, "
        "alias = excluded.alias, authors = excluded.authors, topics = excluded.topics, body = excluded.body, "
        "group_name = excluded.group_name, year = excluded.year, digest = excluded.digest, passage = excluded.passage",
        [_row(document) for document in documents],
    )
    inserted = [row for document in documents for row in _stored(connection, document.key)]
    connection.executemany(
        f"INSERT INTO words (rowid, {', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)", inserted
    )
    spelling.add(connection, (word for row in inserted for word in _spelt(row)))


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


def _row(document: Document) -> tuple:
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


def allowed(connection: sqlite3.Connection, query: Query) -> list[int]:
    """Ids that pass the filters."""
    where, values = condition(query)
    return [row[0] for row in connection.execute(f"SELECT d.id FROM document d WHERE {where}", values)]


def corrections(connection: sqlite3.Connection, query: Query) -> dict[str, list[str]]:
    """Words of the query that occur nowhere, and the known words that each may stand for, likeliest first."""
    found = {}
    for term in query.telling():
        (word, *more) = term.tokens
        if (
            not more
            and not _occurs(connection, term.expression())
            and not spelling.containing(connection, word, 1)
        ):
            others = spelling.corrections(connection, word)
            if others:
                found[word] = others
    return found


def mended(query: Query, corrections: Mapping[str, Sequence[str]]) -> str:
    """The query's text with each misspelt word replaced by the likeliest: the encoder knows no misspellings."""
    return re.sub(r"\w+", lambda word: corrections.get(word[0].lower(), (word[0],))[0], query.text)


def search(
    connection: sqlite3.Connection, query: Query, limit: int, corrections: Mapping[str, Sequence[str]]
) -> Found:
    """At most `limit` documents. A query of filters alone lists what passes them, latest first.

    corrections: what `corrections` says of the query.
    """
    if not query.terms:
        where, values = condition(query)
        if not query.has_filters:
            return Found()
        rows = connection.execute(
            f"SELECT d.id FROM document d WHERE {where} ORDER BY d.year DESC, d.title LIMIT ?",
            [*values, limit],
        )
        ids = [row[0] for row in rows]
        return Found(ids, len(ids), len(ids))
    terms = [_settled(connection, term) for term in query.telling()]
    found = Found()
    exact = " AND ".join(term.expression() for term in terms)
    found.ids, _ = _matching(connection, query, exact, limit)
    if len(found.ids) < limit:
        glued = _glued(connection, terms)
        widened = [_widened(connection, term, glued[i], corrections) for i, term in enumerate(terms)]
        wide = " AND ".join(widened)
        if wide != exact:
            _extend(found, _matching(connection, query, wide, limit)[0], limit)
    found.complete = found.strong = len(found.ids)
    if len(found.ids) < limit and len(terms) > 1:
        chosen = _rarer(connection, widened)
        ids, strong = _matching(connection, query, " OR ".join(chosen), limit) if chosen else ([], 0)
        _extend(found, ids[:strong], limit)
        found.strong = len(found.ids)
        _extend(found, ids, limit)
    return found


def _extend(found: Found, more: Sequence[int], limit: int) -> None:
    found.ids = list(dict.fromkeys([*found.ids, *more]))[:limit]


def _matching(
    connection: sqlite3.Connection, query: Query, expression: str, limit: int
) -> tuple[list[int], int]:
    """Ids by bm25, and how many of them reach STRONG of the best one's score."""
    weights = f"bm25({', '.join(map(str, WEIGHTS))})"
    where, values = condition(query)
    if not query.has_filters:
        statement = "SELECT rowid, rank FROM words WHERE words MATCH ? AND rank MATCH ? ORDER BY rank LIMIT ?"
        rows = connection.execute(statement, (expression, weights, limit)).fetchall()
    else:
        statement = (
            "SELECT d.id, rank FROM words JOIN document d ON d.id = words.rowid "
            f"WHERE words MATCH ? AND rank MATCH ? AND {where} ORDER BY rank LIMIT ?"
        )
        rows = connection.execute(statement, [expression, weights, *values, limit]).fetchall()
    strong = sum(rank <= STRONG * rows[0][1] for _, rank in rows)  # FTS5's ranks are below zero
    return [number for number, _ in rows], strong


def _occurs(connection: sqlite3.Connection, expression: str) -> bool:
    return bool(
        connection.execute("SELECT 1 FROM words WHERE words MATCH ? LIMIT 1", (expression,)).fetchone()
    )


def _settled(connection: sqlite3.Connection, term: Term) -> Term:
    """A last word that stands somewhere as it is counts as typed to its end: FTS5 copies all that a prefix matches.

    Longer words that begin with it are then found by their trigrams.
    """
    typed = term.open_ended and len(term.tokens[0]) >= 3
    return replace(term, open_ended=False) if typed and _occurs(connection, f'"{term.tokens[0]}"') else term


def _glued(connection: sqlite3.Connection, terms: Sequence[Term]) -> list[list[str]]:
    """For each term the known words that it makes with a neighbour: hyper attention, HyperAttention."""
    glued: list[list[str]] = [[] for _ in terms]
    for i, (first, second) in enumerate(pairwise(terms)):
        word = first.tokens[0] + second.tokens[0]
        if not (first.phrase or second.phrase) and spelling.known(connection, [word]):
            glued[i].append(word)
            glued[i + 1].append(word)
    return glued


def _widened(
    connection: sqlite3.Connection, term: Term, glued: Sequence[str], corrections: Mapping[str, Sequence[str]]
) -> str:
    """The term or what may be meant by it: words that hold it, that it makes with a neighbour, or spelt nearly so."""
    if term.phrase:
        return term.expression()
    (word,) = term.tokens
    others = [*glued, *spelling.containing(connection, word), *corrections.get(word, ())]
    alternatives = [term.expression(), *(f'"{other}"' for other in others)]
    return f"({' OR '.join(alternatives)})" if others else term.expression()


def _rarer(connection: sqlite3.Connection, expressions: Sequence[str]) -> list[str]:
    """The rarest of the terms that occur: one, and as many as choose no more than SCORED documents together."""
    statement = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
    counted = sorted(
        (connection.execute(statement, (expression, 10 * SCORED)).fetchone()[0], expression)
        for expression in expressions
    )
    occurring = [(count, expression) for count, expression in counted if count]
    sums = accumulate(count for count, _ in occurring)
    return [
        expression
        for i, ((_, expression), chosen) in enumerate(zip(occurring, sums, strict=True))
        if i == 0 or chosen <= SCORED
    ]
