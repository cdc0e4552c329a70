"""Words of titles, names and topics, found again from a typing error or from a part.

A word and its misspelling share a form with one letter left out of each (W. Garbe's symmetric deletes: every single
insertion, deletion, substitution or transposition, and many double ones); a part of a word is found by its trigrams.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable

SHORTEST = 4  # letters of a word that is corrected
FAR = 6  # letters from which on two errors are forgiven, below it one
MOST = 3  # corrections of a word
PART = 3  # letters of a part of a word: its trigrams find it


def deletions(word: str) -> set[str]:
    """The word and the word with each one letter left out."""
    return {word} | {word[:i] + word[i + 1 :] for i in range(len(word))}


def add(connection: sqlite3.Connection, words: Iterable[str]) -> None:
    """Count the words of documents that were added."""
    counts = Counter(words)
    seen = known(connection, counts)
    connection.executemany(
        "UPDATE spelling SET documents = documents + ? WHERE word = ?",
        [(number, word) for word, number in counts.items() if word in seen],
    )
    fresh = [word for word in counts if word not in seen]
    connection.executemany(
        "INSERT INTO spelling (word, documents) VALUES (?, ?)", [(word, counts[word]) for word in fresh]
    )
    ids = known(connection, fresh)
    connection.executemany(
        "INSERT INTO trigram (rowid, word) VALUES (?, ?)", [(ids[word], word) for word in fresh]
    )
    connection.executemany(
        "INSERT INTO deletion VALUES (?, ?)",
        sorted((form, ids[word]) for word in fresh if len(word) >= SHORTEST for form in deletions(word)),
    )


def remove(connection: sqlite3.Connection, words: Iterable[str]) -> None:
    """Take back the words of documents that went; a word that no document has any more is forgotten."""
    counts = Counter(words)
    connection.executemany(
        "UPDATE spelling SET documents = documents - ? WHERE word = ?",
        [(number, word) for word, number in counts.items()],
    )
    for number, word in connection.execute("SELECT id, word FROM spelling WHERE documents <= 0").fetchall():
        connection.execute(
            "INSERT INTO trigram (trigram, rowid, word) VALUES ('delete', ?, ?)", (number, word)
        )
        connection.executemany(
            "DELETE FROM deletion WHERE form = ? AND word = ?", [(form, number) for form in deletions(word)]
        )
    connection.execute("DELETE FROM spelling WHERE documents <= 0")


def known(connection: sqlite3.Connection, words: Iterable[str]) -> dict[str, int]:
    """Those of the words that are known, with their ids."""
    found = {}
    for word in words:
        row = connection.execute("SELECT id FROM spelling WHERE word = ?", (word,)).fetchone()
        if row:
            found[word] = row[0]
    return found


def corrections(connection: sqlite3.Connection, word: str) -> list[str]:
    """Known words that this one may stand for, likeliest first; at most MOST."""
    if len(word) < SHORTEST:
        return []
    forms = sorted(deletions(word))
    rows = connection.execute(
        "SELECT DISTINCT s.word, s.documents FROM deletion d JOIN spelling s ON s.id = d.word "
        f"WHERE d.form IN ({','.join('?' * len(forms))}) AND s.word != ?",
        [*forms, word],
    ).fetchall()
    return nearest(word, rows)


def nearest(word: str, candidates: Iterable[tuple[str, int]]) -> list[str]:
    """Of words with their number of documents at most MOST that this one may stand for, likeliest first."""
    scored = sorted((edits(word, known), -documents, known) for known, documents in candidates)
    return [known for distance, _, known in scored if distance <= (2 if len(word) >= FAR else 1)][:MOST]


def edits(first: str, second: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours between two words (Damerau, 1964)."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, left in enumerate(first):
        earlier, before, row = before, row, [i + 1]
        for j, right in enumerate(second):
            best = min(before[j + 1] + 1, row[j] + 1, before[j] + (left != right))
            if i and j and left == second[j - 1] and first[i - 1] == right:
                best = min(best, earlier[j - 1] + 1)
            row.append(best)
    return row[-1]


def containing(connection: sqlite3.Connection, part: str, limit: int) -> list[str]:
    """Known words that hold this part, of PART letters and more."""
    if len(part) < PART:
        return []
    rows = connection.execute(
        "SELECT s.word FROM trigram t JOIN spelling s ON s.id = t.rowid WHERE t.word LIKE ? LIMIT ?",
        (f"%{part}%", limit),
    )
    return [word for (word,) in rows if word != part]
