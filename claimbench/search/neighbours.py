"""Similar papers, found beforehand (`pairwise`) and kept as bytes, so that reading them needs no numpy."""

from __future__ import annotations

import sqlite3
import struct

COUNT = 10  # of each document
ITEM = struct.Struct("<qf")  # a document's id and its cosine


def read(connection: sqlite3.Connection, document: int) -> list[tuple[int, float]]:
    """Ids and cosines of a document's nearest, best first; none where it has no vector."""
    row = connection.execute("SELECT others FROM neighbours WHERE document = ?", (document,)).fetchone()
    return [(number, cosine) for number, cosine in ITEM.iter_unpack(row[0])] if row else []
