"""Search by meaning: unit vectors in a memory-mapped file, exact nearest by one product.

100,000 vectors of 384 float32 are 154 MB, which all processes share as page cache; the product reads them once. Rows
are only ever appended, so that a reader's map stays true; when a quarter of them is dead a new file is written.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int

from claimbench.search.storage import Storage

DEAD = 0.25  # share of rows without a document from which on the file is written again


class Encoder(Protocol):
    """Texts to unit vectors. `identity` changes whenever the vectors of the same text would."""

    identity: str

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]: ...


def vectors_of(encoder: Encoder, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
    """Rows of unit length as float32. Raises ValueError for what is not one finite row a text."""
    found = np.asarray(encoder.encode(list(texts)), dtype=np.float32)
    if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
        raise ValueError(f"the encoder must give one finite row a text, not {found.shape} for {len(texts)}")
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)


class Vectors:
    """The vectors of an index as one transaction found them: `ids[slot]` is the document of a row, 0 for a dead one."""

    def __init__(self, storage: Storage) -> None:
        with storage.reading() as connection:
            self.edition = storage.meta("edition")
            self.encoder = storage.meta("encoder") or ""
            rows = connection.execute("SELECT slot, document FROM vector").fetchall()
            self.ids: Int[np.ndarray, " slots"] = np.zeros(int(storage.meta("slots") or 0), dtype=np.int64)
            if rows:
                slots, documents = np.array(rows, dtype=np.int64).T
                self.ids[slots] = documents
            width = int(storage.meta("width") or 0)
            self.rows: Float32[np.ndarray, "slots width"] = _rows(storage, len(self.ids), width)

    def nearest(
        self,
        query: Float32[np.ndarray, " width"],
        limit: int,
        allowed: Sequence[int] | None = None,
    ) -> list[tuple[int, float]]:
        """Documents' ids and cosines, best first, exact; `allowed` restricts to some documents."""
        if not len(self.ids):
            return []
        scores = np.einsum("sw,w->s", self.rows, query)  # memory bounds it: BLAS's threads would only wait
        dead = self.ids == 0
        if allowed is not None:
            dead |= ~np.isin(self.ids, np.fromiter(allowed, dtype=np.int64))
        scores[dead] = -np.inf
        best = np.argpartition(scores, -limit)[-limit:] if limit < len(scores) else np.arange(len(scores))
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(int(self.ids[slot]), float(scores[slot])) for slot in best if scores[slot] > -np.inf]


def stale(connection: sqlite3.Connection, limit: int) -> list[tuple[int, str, str, str]]:
    """Some documents without a vector of their present passage: id, title, body, passage digest."""
    return connection.execute(
        "SELECT d.id, d.title, d.body, d.passage FROM document d LEFT JOIN vector v ON v.document = d.id "
        "WHERE v.passage IS NULL OR v.passage != d.passage ORDER BY d.id LIMIT ?",
        (limit,),
    ).fetchall()


def store(
    storage: Storage,
    documents: Sequence[tuple[int, str]],
    rows: Float32[np.ndarray, "documents width"],
    encoder: str,
) -> None:
    """Append vectors of documents (id, passage digest). Inside `storage.writing()`: the rows count once it commits."""
    connection = storage.connection()
    slots = int(storage.meta("slots") or 0)
    if storage.meta("width") not in (None, str(rows.shape[1])):
        raise ValueError(f"vectors are {storage.meta('width')} wide, these {rows.shape[1]}; clear them first")
    _write(storage, slots, rows)
    connection.executemany(
        "INSERT OR REPLACE INTO vector VALUES (?, ?, ?, 1)",
        [(number, slots + i, passage) for i, (number, passage) in enumerate(documents)],
    )
    storage.set_meta("slots", str(slots + len(rows)))
    storage.set_meta("width", str(rows.shape[1]))
    storage.set_meta("encoder", encoder)


def is_whole(storage: Storage) -> bool:
    """Whether the file holds every row that the index knows of: a cache may have been swept."""
    needed = int(storage.meta("slots") or 0) * int(storage.meta("width") or 0) * 4
    return not needed or (_path(storage).exists() and _path(storage).stat().st_size >= needed)


def clear(storage: Storage) -> None:
    """Forget every vector (another encoder's, say), in a new file."""
    connection = storage.connection()
    connection.execute("DELETE FROM vector")
    connection.execute("DELETE FROM neighbours")
    connection.execute("DELETE FROM meta WHERE name IN ('slots', 'width', 'encoder')")
    storage.set_meta("generation", str(int(storage.meta("generation") or 0) + 1))


def compact(storage: Storage) -> None:
    """Write the living rows to a new file if a quarter of the present one is dead."""
    connection = storage.connection()
    slots = int(storage.meta("slots") or 0)
    living = connection.execute("SELECT count(*) FROM vector").fetchone()[0]
    if slots - living <= DEAD * slots:
        return
    vectors = Vectors(storage)
    kept = np.flatnonzero(vectors.ids)
    rows = np.array(vectors.rows[kept])
    storage.set_meta("generation", str(int(storage.meta("generation") or 0) + 1))
    _write(storage, 0, rows)
    connection.execute("UPDATE vector SET slot = -1 - slot")
    connection.executemany(
        "UPDATE vector SET slot = ? WHERE document = ?",
        [(slot, int(number)) for slot, number in enumerate(vectors.ids[kept])],
    )
    storage.set_meta("slots", str(living))


def tidy(storage: Storage) -> None:
    """Remove files of earlier generations; a process that has one mapped keeps it until it looks again."""
    if storage.folder is not None:
        for path in storage.folder.glob("vectors-*.f32"):
            if path != _path(storage):
                path.unlink(missing_ok=True)


def _path(storage: Storage) -> Path:
    assert storage.folder is not None
    return storage.folder / f"vectors-{storage.meta('generation') or 0}.f32"


def _rows(storage: Storage, slots: int, width: int) -> Float32[np.ndarray, "slots width"]:
    if not slots:
        return np.zeros((0, width), dtype=np.float32)
    if not is_whole(storage):
        raise FileNotFoundError(_path(storage))
    return np.memmap(_path(storage), dtype=np.float32, mode="r", shape=(slots, width))


def _write(storage: Storage, first: int, rows: Float32[np.ndarray, "rows width"]) -> None:
    """Rows from slot `first` on; whatever an interrupted writer left behind them is overwritten or never read."""
    path = _path(storage)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(first * rows.shape[1] * 4)
        file.write(np.ascontiguousarray(rows).tobytes())
        file.flush()
        os.fsync(file.fileno())
