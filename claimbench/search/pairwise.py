"""Each document's nearest by cosine: all pairs in blocks, and after an update only what it can have changed.

Lists of documents that are new or changed, or that held one such or a removed one, are found afresh; every other list
is merged with the new ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, Int

from claimbench.search.meaning import Vectors
from claimbench.search.neighbours import COUNT, ITEM

_DTYPE = np.dtype([("id", "<i8"), ("cosine", "<f4")])
_BLOCK = 512  # rows of the similarity matrix at a time: 512 x 100,000 float32 are 205 MB
_AFRESH = 0.3  # share of new documents above which all lists are found afresh


def refresh(connection: sqlite3.Connection, vectors: Vectors, changed: Iterable[int]) -> None:
    """Bring all lists up to date after the documents `changed` got a vector, or lost theirs.

    Exact: afterwards every list is what comparing all pairs would give. Inside one transaction.
    """
    living = np.flatnonzero(vectors.ids)
    ids = vectors.ids[living]
    moved = np.fromiter(changed, dtype=np.int64)
    _delete(connection, moved)
    stored = dict(connection.execute("SELECT document, others FROM neighbours"))
    length = min(COUNT, max(len(ids) - 1, 0))
    known = [number for number in ids.tolist() if len(stored.get(number, b"")) == length * ITEM.size]
    if not length or len(known) < (1 - _AFRESH) * len(ids):
        _save(connection, ids, *nearest(vectors.rows, living, living, ids, length))
        return
    lists = np.frombuffer(b"".join(stored[number] for number in known), dtype=_DTYPE).reshape(
        len(known), length
    )
    touched = np.isin(lists["id"], moved).any(1)
    whole = np.array(known, dtype=np.int64)[~touched]
    afresh = np.isin(ids, whole, invert=True)
    _save(connection, ids[afresh], *nearest(vectors.rows, living[afresh], living, ids, length))
    fresh = np.isin(ids, moved)
    if fresh.any():
        merged = np.isin(ids, whole)
        _merge(connection, vectors, lists[~touched], whole, living[merged], living[fresh])


def _merge(
    connection: sqlite3.Connection,
    vectors: Vectors,
    lists: np.ndarray,
    whole: Int[np.ndarray, " documents"],
    slots: Int[np.ndarray, " documents"],
    fresh: Int[np.ndarray, " fresh"],
) -> None:
    """Put the `fresh` slots' documents into the lists of `whole`, in `slots`, where they are nearer than the last."""
    new = vectors.rows[fresh]
    for start in range(0, len(slots), 8192):
        part = slice(start, start + 8192)
        cosines = vectors.rows[slots[part]] @ new.T
        better = np.flatnonzero((cosines > lists["cosine"][part, -1:]).any(1))
        if not len(better):
            continue
        candidates = np.concatenate(
            [lists["id"][part][better], np.broadcast_to(vectors.ids[fresh], (len(better), len(fresh)))], 1
        )
        scores = np.concatenate([lists["cosine"][part][better], cosines[better]], 1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : lists.shape[1]]
        _save(
            connection,
            whole[part][better],
            np.take_along_axis(candidates, best, 1),
            np.take_along_axis(scores, best, 1),
        )


def nearest(
    rows: Float32[np.ndarray, "slots width"],
    of: Int[np.ndarray, " some"],
    living: Int[np.ndarray, " documents"],
    ids: Int[np.ndarray, " documents"],
    length: int,
) -> tuple[Int[np.ndarray, "some length"], Float32[np.ndarray, "some length"]]:
    """The `length` nearest documents of each slot in `of`, without itself."""
    found = np.zeros((len(of), length), dtype=np.int64)
    cosines = np.zeros((len(of), length), dtype=np.float32)
    if not length:
        return found, cosines
    everything = rows if len(living) == len(rows) else rows[living]
    for start in range(0, len(of), _BLOCK):
        part = of[start : start + _BLOCK]
        scores = rows[part] @ everything.T
        scores[np.arange(len(part)), np.searchsorted(living, part)] = -np.inf
        best = np.argpartition(scores, -length, axis=1)[:, -length:]
        values = np.take_along_axis(scores, best, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        found[start : start + _BLOCK] = ids[np.take_along_axis(best, order, 1)]
        cosines[start : start + _BLOCK] = np.take_along_axis(values, order, 1)
    return found, cosines


def _save(
    connection: sqlite3.Connection,
    documents: Int[np.ndarray, " documents"],
    others: Int[np.ndarray, "documents length"],
    cosines: Float32[np.ndarray, "documents length"],
) -> None:
    packed = np.empty(others.shape, dtype=_DTYPE)
    packed["id"], packed["cosine"] = others, cosines
    connection.executemany(
        "INSERT OR REPLACE INTO neighbours VALUES (?, ?)",
        ((int(number), row.tobytes()) for number, row in zip(documents, packed, strict=True)),
    )


def _delete(connection: sqlite3.Connection, documents: Int[np.ndarray, " documents"]) -> None:
    connection.executemany(
        "DELETE FROM neighbours WHERE document = ?", [(int(number),) for number in documents]
    )
