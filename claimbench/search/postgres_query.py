"""A query asked of `postgres`'s tables.

ts_rank knows neither how rare a word is nor what a usual length is, and reads every document's whole vector. Documents
are therefore ranked by bm25 (Robertson and Walker, 1994) as SQLite's FTS5 has it, from the places that their tsvectors
hold: with f_i the number of times that phrase i stands in a document of |D| words, each worth the weight of its column,
and n_i of N documents holding it,

    Σ_i log((N - n_i + 1/2) / (n_i + 1/2)) · f_i (k + 1) / (f_i + k (1 - b + b |D| / mean |D|)),   k = 1.2, b = 0.75

Where many match, those are ranked whose sum is largest if every word stood once, in a document of mean length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any, NamedTuple

import sqlalchemy as sa

from claimbench.search import spelling
from claimbench.search.asking import COUNTED, STRONG, Asked
from claimbench.search.query import Query
from claimbench.search.words import WEIGHTS

K, B = 1.2, 0.75  # FTS5's
LEAST = 1e-6  # a phrase's rarity where more than half of the documents hold it; FTS5's too
CANDIDATES = 200  # documents that are ranked exactly, at least
ALIKE = 0.1  # pg_trgm's likeness from which on a word is looked at; edits decide
LONGEST = 100  # letters of a word that is kept
WORTH = dict(zip("ABCD", (WEIGHTS[0], *WEIGHTS[2:]), strict=True))  # title and alias share A
REACH = (  # of a transaction: pg_trgm may lie in a schema of its own
    "set_config('search_path', concat_ws(', ', current_setting('search_path'), (SELECT quote_ident(n.nspname) "
    "FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_trgm')), true)"
)
SETTINGS = (  # the planner knows neither what reading all vectors costs nor that compiling costs more than it saves
    f"SELECT set_config('pg_trgm.similarity_threshold', '{ALIKE}', true), "
    f"set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true), {REACH}"
)


class Phrase(NamedTuple):
    """Stems that stand one after the other; the last is only a beginning if `begins`."""

    stems: tuple[str, ...]
    begins: bool = False

    @property
    def text(self) -> str:
        """As a tsquery. Stems are letters and digits, and quoted: nothing from outside is syntax."""
        return " <-> ".join(f"'{stem}'" for stem in self.stems) + (":*" if self.begins else "")

    def weighted(self, places: Mapping[str, Mapping[int, float]]) -> float:
        """How often it stands in a document, each time worth its place's weight. places: of stems, to their weights."""
        if self.begins:
            (start,) = self.stems
            return sum(sum(at.values()) for stem, at in places.items() if stem.startswith(start))
        first, *rest = (places.get(stem, {}) for stem in self.stems)
        return sum(
            weight
            for place, weight in first.items()
            if all(place + step in at for step, at in enumerate(rest, start=1))
        )


class AskedOfServer(Asked[Phrase]):
    """Inside one transaction of the server, whose settings it changes."""

    def __init__(self, connection: sa.Connection, query: Query) -> None:
        super().__init__(query)
        self._connection = connection
        self._stems: dict[str, str] = {}
        self._counts: dict[Phrase, int] = {}
        self._rows(SETTINGS)
        self._learn(
            word for words in (*(term.tokens for term in self._terms), *query.authors) for word in words
        )
        self._where, self._values = self._condition()
        totals = dict(
            self._rows("SELECT name, CAST(value AS bigint) FROM meta WHERE name IN ('documents', 'length')")
        )
        self._documents = totals.get("documents", 0)
        self._usual = totals.get("length", 0) / max(self._documents, 1)

    def _rows(self, statement: str, **values: Any) -> list[Any]:
        return list(self._connection.execute(sa.text(statement), values))

    def _ids(self, statement: str, **values: Any) -> list[int]:
        return [number for (number,) in self._rows(statement, **self._values, **values)]

    def _learn(self, words: Iterable[str]) -> None:
        """Stems of words, and in how many documents each stands."""
        unknown = list({word for word in words if word not in self._stems})
        if unknown:
            self._stems |= stems(self._connection, unknown)
            found = [self._stems[word] for word in unknown]
            counts = dict(
                self._rows("SELECT word, documents FROM held WHERE word = ANY(:stems)", stems=found)
            )
            self._counts |= {Phrase((stem,)): counts.get(stem, 0) for stem in found}

    def _condition(self) -> tuple[str, dict[str, Any]]:
        """The filters as SQL over `document d`, and its parameters."""
        parts: list[str] = ["true"]
        values: dict[str, Any] = {}
        if self.query.groups:
            parts.append("d.group_name = ANY(:groups)")
            values["groups"] = list(self.query.groups)
        if self.query.verdicts:
            parts.append("EXISTS (SELECT FROM verdict v WHERE v.document = d.id AND v.state = ANY(:states))")
            values["states"] = list(self.query.verdicts)
        if self.query.years:
            spans = " OR ".join(f"d.year BETWEEN {first:d} AND {last:d}" for first, last in self.query.years)
            parts.append(f"({spans})")
        for place, name in enumerate(self.query.authors):
            parts.append(f"d.words @@ CAST(:author{place} AS tsquery)")
            last = f"('{self._stems[name[-1]]}':B | '{name[-1][:LONGEST]}':*B)"
            values[f"author{place}"] = " & ".join([*(f"'{self._stems[word]}':B" for word in name[:-1]), last])
        return " AND ".join(parts), values

    def phrases(self, found: Iterable[Sequence[str]]) -> list[Phrase]:
        wanted = [tuple(words) for words in found]
        self._learn(word for words in wanted for word in words)
        return [Phrase(tuple(self._stems[word] for word in words)) for words in wanted]

    def beginning(self, word: str) -> Phrase:
        return Phrase((word[:LONGEST],), begins=True)

    def holding(self, phrases: Sequence[Phrase], most: int) -> int:
        """A sum: documents that hold two of the phrases count twice."""
        return min(sum(self._count(phrase) for phrase in phrases), self._documents, most)

    def _count(self, phrase: Phrase) -> int:
        if phrase not in self._counts:
            matching = "SELECT FROM document WHERE words @@ CAST(:asked AS tsquery) LIMIT :most"
            ((number,),) = self._rows(f"SELECT count(*) FROM ({matching}) m", asked=phrase.text, most=COUNTED)
            self._counts[phrase] = number
        return self._counts[phrase]

    def _rarity(self, phrases: Sequence[Phrase]) -> float:
        holding = self.holding(phrases, COUNTED)
        return max(log((self._documents - holding + 0.5) / (holding + 0.5)), LEAST)

    def matching(self, terms: Sequence[Sequence[Phrase]], every: bool, limit: int) -> tuple[list[int], int]:
        lengths = self._candidates(terms, every, max(CANDIDATES, 2 * limit))
        scores = self._bm25(lengths, [phrase for phrases in terms for phrase in phrases])
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
        strong = sum(score >= STRONG * ranked[0][1] for _, score in ranked)
        return [number for number, _ in ranked], strong

    def _candidates(self, terms: Sequence[Sequence[Phrase]], every: bool, most: int) -> dict[int, int]:
        """Ids of what matches, to lengths in words. The vectors of titles, names and topics are short, so read fast."""
        values: dict[str, Any] = {"most": most}
        worth = []
        for i, phrases in enumerate(terms):
            rarity = self._rarity(phrases)
            values[f"term{i}"] = f"({' | '.join(phrase.text for phrase in phrases)})"
            values[f"worth{i}"] = rarity * _saturated(1.0, K)
            values[f"named{i}"] = rarity * _saturated(max(WEIGHTS), K)
            worth.append(
                f"CASE WHEN d.names @@ CAST(:term{i} AS tsquery) THEN CAST(:named{i} AS float) "
                f"ELSE CAST(:worth{i} AS float) END"
            )
        where = "FROM document d WHERE d.words @@ CAST"
        if every:
            values["asked"] = " & ".join(values[f"term{i}"] for i in range(len(terms)))
            chosen = f"SELECT d.id, {' + '.join(worth)} AS worth {where}(:asked AS tsquery)"
        else:
            parts = (
                f"SELECT d.id, {each} AS worth {where}(:term{i} AS tsquery)" for i, each in enumerate(worth)
            )
            chosen = f"SELECT id, sum(worth) AS worth FROM ({' UNION ALL '.join(parts)}) part GROUP BY id"
        rows = self._rows(
            f"SELECT d.id, d.length FROM ({chosen}) chosen JOIN document d ON d.id = chosen.id "
            f"WHERE {self._where} ORDER BY chosen.worth DESC, d.id LIMIT :most",
            **self._values,
            **values,
        )
        return dict(map(tuple, rows))

    def _bm25(self, lengths: Mapping[int, int], phrases: Sequence[Phrase]) -> dict[int, float]:
        """The score of each document; `lengths` says how many words it has."""
        rows = self._rows(
            "SELECT d.id, u.lexeme, u.positions, u.weights FROM document d, unnest(d.words) u "
            "WHERE d.id = ANY(:ids) AND (u.lexeme = ANY(:stems) OR u.lexeme LIKE ANY(:beginnings))",
            ids=list(lengths),
            stems=[stem for phrase in phrases for stem in phrase.stems],
            beginnings=[f"{phrase.stems[0]}%" for phrase in phrases if phrase.begins],
        )
        places: dict[int, dict[str, dict[int, float]]] = {number: {} for number in lengths}
        for number, stem, at, weights in rows:
            places[number][stem] = {place: WORTH[weight] for place, weight in zip(at, weights, strict=True)}
        rarities = [(phrase, self._rarity([phrase])) for phrase in phrases]
        scores = {}
        for number, length in lengths.items():
            damping = K * (1 - B + B * length / max(self._usual, 1.0))
            scores[number] = sum(
                rarity * _saturated(phrase.weighted(places[number]), damping) for phrase, rarity in rarities
            )
        return scores

    def allowed(self) -> list[int]:
        return self._ids(f"SELECT d.id FROM document d WHERE {self._where}")

    def latest(self, limit: int) -> list[int]:
        order = 'd.year DESC NULLS LAST, d.title COLLATE "C"'
        return self._ids(
            f"SELECT d.id FROM document d WHERE {self._where} ORDER BY {order} LIMIT :most", most=limit
        )

    def known(self, word: str) -> bool:
        return bool(self._rows("SELECT FROM spelling WHERE word = :word", word=word))

    def containing(self, part: str, limit: int) -> list[str]:
        if len(part) < spelling.PART:
            return []
        order = "ORDER BY documents DESC, word LIMIT :most"
        rows = self._rows(
            f"SELECT word FROM spelling WHERE word LIKE :part AND word != :word {order}",
            part=f"%{part}%",
            word=part,
            most=limit,
        )
        return [word for (word,) in rows]

    def alike(self, word: str) -> list[str]:
        """Of those that pg_trgm finds alike, by edits."""
        if len(word) < spelling.SHORTEST:
            return []
        rows = self._rows(
            "SELECT word, documents FROM spelling "
            "WHERE word % :word AND length(word) BETWEEN :length - 2 AND :length + 2",
            word=word,
            length=len(word),
        )
        return spelling.nearest(word, map(tuple, rows))


def stems(connection: sa.Connection, found: Iterable[str]) -> dict[str, str]:
    """Each word with its stem, by the index's own dictionary."""
    statement = sa.text("SELECT t, (ts_lexize('stem', t))[1] FROM unnest(CAST(:words AS text[])) t")
    return {word: stem or word for word, stem in connection.execute(statement, {"words": list(found)})}


def _saturated(count: float, damping: float) -> float:
    """bm25's f (k + 1) / (f + k ...)."""
    return count * (K + 1) / (count + damping)
