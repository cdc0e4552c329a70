"""The index of papers: kept up to date by content, asked by words, by meaning, or by both.

Words need nothing but SQLite and are indexed at once. Meaning needs an encoder: vectors of documents that have none, or
whose passage changed, are made by `embed`, in portions that each stand for themselves when the process dies.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from claimbench.errors import UserError
from claimbench.paths import cache_dir
from claimbench.search import neighbours, words
from claimbench.search.asking import Asked, Found, mended
from claimbench.search.documents import Document
from claimbench.search.encoder_client import EncoderUnreachable
from claimbench.search.fuse import reciprocal_rank
from claimbench.search.query import Query, parse
from claimbench.search.storage import Storage

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from claimbench.search.meaning import Encoder, Vectors

Mode = Literal["fused", "words", "meaning"]
MODES: tuple[Mode, ...] = ("fused", "words", "meaning")
DEPTH = 100  # of each ranking that is fused
MOST = 1000  # results of a search
THREADS = 8  # queries of one process that wait for the encoder at once
PORTION = 1024  # documents encoded in one transaction


@dataclass(frozen=True)
class Hit:
    """A paper found. `score`: reciprocal ranks when fused, a cosine for meaning and similar papers, 1/rank for words.

    `word_rank` and `meaning_rank` (from 1) say which ranking found it; `complete`: it holds every word.
    """

    key: str
    title: str
    group: str
    year: int | None
    score: float
    word_rank: int | None = None
    meaning_rank: int | None = None
    complete: bool = False


@dataclass(frozen=True)
class Results:
    """`hits` best first; `corrections`: misspelt words to what they may be; `without_meaning`: the reason."""

    hits: list[Hit]
    corrections: dict[str, list[str]] = field(default_factory=dict)
    without_meaning: str = ""


@dataclass(frozen=True)
class Changes:
    """How many documents an update added or changed, removed, and gave a vector."""

    written: int
    removed: int
    encoded: int


class Index:
    """An index in a folder (None: in memory, words only). Threads and processes may share it; one writes at a time.

    encoder: anything with `identity` and `encode`; None for words only.
    """

    def __init__(self, folder: Path | None, encoder: Encoder | None = None) -> None:
        self.storage = Storage(folder)
        self.encoder = encoder
        self._vectors: Vectors | None = None
        self._loading = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Let this thread's connections go."""
        self.storage.close()

    def using(self, encoder: Encoder | None) -> Self:
        """The same index with another encoder; None for words only."""
        other = copy.copy(self)
        other.encoder = encoder
        return other

    def edition(self) -> str:
        """Changes with whatever a search may answer."""
        return self.storage.meta("edition") or ""

    def __len__(self) -> int:
        return int(self.storage.connection().execute("SELECT count(*) FROM document").fetchone()[0])

    # --- writing ---

    def build(self, documents: Iterable[Document]) -> Changes:
        """Hold exactly these documents; what is known by digest is left. Raises UserError for a key given twice."""
        return self._write(documents, None)

    def update(self, documents: Iterable[Document], removed: Iterable[str] = ()) -> Changes:
        """Add these or put them in place of those with the same key; take the keys `removed` out; leave the rest."""
        return self._write(documents, list(removed))

    def _write(self, documents: Iterable[Document], removed: list[str] | None) -> Changes:
        wanted: dict[str, Document] = {}
        for document in documents:
            if document.key in wanted:
                raise UserError(f'two documents have the key "{document.key}"; keys are unique in an index')
            wanted[document.key] = document
        known, had = self._digests(), self._verdicts()
        gone = sorted(known.keys() - wanted.keys() if removed is None else known.keys() & set(removed))
        fresh = [d for key, d in wanted.items() if known.get(key) != d.digest()]
        given = {
            key: tuple(sorted({state.lower() for state in d.verdicts}))
            for key, d in wanted.items()
            if d.verdicts is not None
        }
        judged = {key: states for key, states in given.items() if had.get(key, ()) != states}
        if fresh or gone or judged:
            self._replace(gone, fresh, judged)
        return Changes(len(fresh), len(gone), self.embed() if self.encoder is not None else 0)

    def _drop(self, ids: Sequence[int]) -> None:
        from claimbench.search import meaning, pairwise

        if not meaning.is_whole(self.storage):
            meaning.clear(self.storage)
            return
        connection = self.storage.connection()
        connection.executemany("DELETE FROM vector WHERE document = ?", [(number,) for number in ids])
        pairwise.refresh(connection, meaning.Vectors(self.storage), ids)

    def embed(self) -> int:
        """Encode what has no current vector, then bring similar papers up to date. Returns how many were encoded.

        Raises EncoderUnreachable where there is no encoder to be had.
        """
        encoded = self.encode_stale()
        from claimbench.search import meaning, pairwise

        fresh = "SELECT document FROM vector WHERE fresh = 1"
        if self.storage.connection().execute(fresh).fetchone():
            with self.storage.writing() as connection:
                moved = [number for (number,) in connection.execute(fresh)]
                meaning.compact(self.storage)
                pairwise.refresh(connection, meaning.Vectors(self.storage), moved)
                connection.execute("UPDATE vector SET fresh = 0 WHERE fresh = 1")
            meaning.tidy(self.storage)
        return encoded

    def encode_stale(self) -> int:
        """Give every document without a current vector its vector, a portion at a time. Returns how many.

        The similar papers of these are then unknown, which the next `embed` mends, also when this one is killed.
        """
        if self.encoder is None or self.storage.folder is None:
            raise EncoderUnreachable("this index has no encoder")
        from claimbench.search import meaning

        other = self.storage.meta("encoder") not in (None, self.encoder.identity)
        if other or not meaning.is_whole(self.storage):
            with self.storage.writing():
                meaning.clear(self.storage)
        encoded = 0
        for portion in self._stale():
            passages = [Document("", title, body).passage for _, title, body, _ in portion]
            rows = meaning.vectors_of(self.encoder, passages)
            with self.storage.writing():
                meaning.store(
                    self.storage,
                    [(number, digest) for number, _, _, digest in portion],
                    rows,
                    self.encoder.identity,
                )
            encoded += len(portion)
        return encoded

    # --- asking ---

    def search(self, query: str, *, limit: int = 20, mode: Mode = "fused") -> Results:
        """The papers that answer a query, best first; at most `limit`, which is held between 1 and MOST.

        Where the encoder cannot be reached, `fused` falls back to words and says so; `meaning` raises
        EncoderUnreachable. Raises UserError for an unknown mode.
        """
        if mode not in MODES:
            raise UserError(f'mode: "{mode}" is none of {", ".join(MODES)}')
        limit = min(max(limit, 1), MOST)
        parsed = parse(query)
        depth = max(limit, DEPTH) if mode == "fused" else limit
        by_meaning, by_words = mode != "words" and bool(parsed.terms), mode != "meaning" or not parsed.terms
        with self._asking(parsed) as asked:
            corrections = asked.corrections()
            nearest = self._near(asked, corrections, depth) if by_meaning else list
            found = asked.search(depth, corrections) if by_words else Found()
        without = ""
        try:
            near = nearest()
        except EncoderUnreachable as error:
            if mode == "meaning":
                raise
            near, without = [], str(error)
        if not by_words:
            scores = dict(near)
        elif near:
            ids = [number for number, _ in near]
            scores = reciprocal_rank([found.ids[: found.complete], found.ids[: found.strong], ids])
        else:
            scores = {number: 1.0 / rank for rank, number in enumerate(found.ids, start=1)}
        ranked = list(scores.items())[:limit]
        word_rank = {number: rank for rank, number in enumerate(found.ids, start=1)}
        meaning_rank = {number: rank for rank, (number, _) in enumerate(near, start=1)}
        complete = set(found.ids[: found.complete])
        hits = self._hits(
            ranked,
            lambda number: {
                "word_rank": word_rank.get(number),
                "meaning_rank": meaning_rank.get(number),
                "complete": number in complete,
            },
        )
        return Results(hits, corrections, without)

    def similar(self, key: str, limit: int = 10) -> list[Hit]:
        """The papers nearest in meaning, at most 10, found beforehand; none for one that is unknown or not encoded."""
        number = self._id_of(key)
        return self._hits(neighbours.read(self.storage.connection(), number)[:limit]) if number else []

    def _near(
        self, asked: Asked[Any], corrections: Mapping[str, Sequence[str]], limit: int
    ) -> Callable[[], list[tuple[int, float]]]:
        """Begin to encode a query in another thread, while words are looked up.

        What is returned waits for it and finds the nearest, or raises EncoderUnreachable.
        """
        try:
            encoder, vectors = self._comparable()
        except EncoderUnreachable as error:
            return partial(_refuse, error)
        from claimbench.search import meaning

        allowed = asked.allowed() if asked.query.has_filters else None
        row = self._encoding().submit(meaning.vectors_of, encoder, [mended(asked.query, corrections)])
        return lambda: vectors.nearest(row.result()[0], limit, allowed)

    def _comparable(self) -> tuple[Encoder, Vectors]:
        """The encoder and the papers' vectors, if they are of one kind."""
        if self.encoder is None or self.storage.folder is None:
            raise EncoderUnreachable("this index has no encoder")
        vectors = self._current()
        if not len(vectors.ids):
            raise EncoderUnreachable("no paper of this index is encoded yet")
        if vectors.encoder != self.encoder.identity:
            raise EncoderUnreachable("this index was encoded by another encoder; update it")
        return self.encoder, vectors

    def _encoding(self) -> ThreadPoolExecutor:
        with self._loading:
            if self._threads is None:
                from concurrent.futures import ThreadPoolExecutor

                self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="claimbench-search")
            return self._threads

    def _current(self) -> Vectors:
        """The vectors as last written; loaded again when somebody wrote."""
        from claimbench.search.meaning import Vectors

        with self._loading:
            for _ in range(3):
                if self._vectors is None or self._vectors.edition != self.storage.meta("edition"):
                    with contextlib.suppress(FileNotFoundError):  # written anew between looking and opening
                        self._vectors = Vectors(self.storage)
            if self._vectors is None:
                raise EncoderUnreachable("the index's vectors are missing; update it")
            return self._vectors

    def _hits(self, scored: Sequence[tuple[int, float]], more: Any = lambda number: {}) -> list[Hit]:
        known = self._described([number for number, _ in scored])
        return [
            Hit(**known[number], score=score, **more(number)) for number, score in scored if number in known
        ]

    # --- where words are kept: here in the index's own file, elsewhere in `postgres` ---

    def _digests(self) -> dict[str, str]:
        return dict(self.storage.connection().execute("SELECT key, digest FROM document"))

    def _verdicts(self) -> dict[str, tuple[str, ...]]:
        return words.verdicts(self.storage.connection())

    def _replace(
        self, gone: Sequence[str], fresh: Sequence[Document], judged: Mapping[str, Sequence[str]]
    ) -> None:
        with self.storage.writing() as connection:
            ids = words.remove(connection, gone)
            words.add(connection, fresh)
            words.set_verdicts(connection, judged)
            if ids and connection.execute("SELECT 1 FROM vector LIMIT 1").fetchone():
                self._drop(ids)

    @contextlib.contextmanager
    def _asking(self, query: Query) -> Iterator[Asked[Any]]:
        with self.storage.reading() as connection:
            yield words.AskedOfFile(connection, query)

    def _id_of(self, key: str) -> int | None:
        row = self.storage.connection().execute("SELECT id FROM document WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _described(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What a hit says of a document, by id; one that has gone meanwhile is left out."""
        wanted = f"id IN ({','.join('?' * len(ids))})"
        statement = f"SELECT id, key, title, group_name, year FROM document WHERE {wanted}"
        names = ("key", "title", "group", "year")
        rows = self.storage.connection().execute(statement, list(ids))
        return {number: dict(zip(names, row, strict=True)) for number, *row in rows}

    def _stale(self) -> Iterator[list[tuple[int, str, str, str]]]:
        """Documents whose passage has no vector, in portions that are written before the next is asked for."""
        from claimbench.search import meaning

        while portion := meaning.stale(self.storage.connection(), PORTION):
            yield portion


def _refuse(error: EncoderUnreachable) -> NoReturn:
    raise error


def folder_for(roots: Sequence[Path]) -> Path:
    """Where the index of a shelf with these roots lies in the cache."""
    name = hashlib.sha256("\n".join(map(str, roots)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_dir() / "search" / name
