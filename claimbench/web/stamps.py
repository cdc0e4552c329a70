"""What the page is a function of, as short texts that change whenever it does and are the same in every worker."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from claimbench import __version__
from claimbench.feed.schema import CURATED, LISTING, MEASURED, META, PULL, VOTE
from claimbench.feed.store import PageStore
from claimbench.feed.trending import IS_HIDDEN
from claimbench.ledger import TRIAL, TRIAL_SET, VERDICT, Ledger
from claimbench.ledger.database import Database
from claimbench.ledger.schema import CARRY

PACKAGE = Path(__file__).resolve().parents[1]


def ledger_stamp(ledger: Ledger) -> str:
    """The newest set, trial, verdict and carried set: nothing else in a ledger is ever changed."""
    newest = [sa.select(sa.func.max(column)).scalar_subquery() for column in _SERIALS]
    with ledger.read() as connection:
        return "-".join(str(value or 0) for value in connection.execute(sa.select(*newest)).one())


_SERIALS = (TRIAL_SET.c.serial, TRIAL.c.id, VERDICT.c.id, CARRY.c.id)


def store_stamp(store: PageStore) -> str:
    """Of a file its times and sizes, which every write changes; else the newest rows, what pulls and curators did."""
    file = database_file(store)
    if file is not None:
        return "-".join(_status(Path(f"{file}{end}")) for end in ("", "-wal"))
    counts = [
        sa.select(sa.func.count()).select_from(VOTE).scalar_subquery(),
        sa.select(sa.func.max(VOTE.c.created)).scalar_subquery(),
        sa.select(sa.func.count()).select_from(MEASURED).scalar_subquery(),
        sa.select(META.c.value).where(META.c.name == CURATED).scalar_subquery(),
    ]
    with store.read() as connection:
        return short(listings_stamp(store), str(tuple(connection.execute(sa.select(*counts)).one())))


def listings_stamp(store: PageStore) -> str:
    """Of what is searched: the newest listing, how many are hidden, and how far pulls have come."""
    newest = sa.select(sa.func.max(LISTING.c.id)).scalar_subquery()
    hidden = sa.select(sa.func.count()).select_from(LISTING).where(IS_HIDDEN).scalar_subquery()
    pulls = sa.select(PULL.c.source, PULL.c.window, PULL.c.counts).order_by(PULL.c.id)
    with store.read() as connection:
        rows = [connection.execute(sa.select(newest, hidden)).one(), *connection.execute(pulls)]
    return short(*(str(tuple(row)) for row in rows))


def database_file(database: Database) -> Path | None:
    """The file of an SQLite database."""
    url = sa.make_url(database.url)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def shelf_stamp(roots: Sequence[Path]) -> str:
    """Of every paper.toml below the roots: path, time and size."""
    found = sorted(str(path) + _status(path) for root in roots for path in root.glob("*/*/paper.toml"))
    return short(*found)


def code_stamp(roots: Sequence[Path]) -> str:
    """Of the sources that the page's words and the currency of measurements depend on."""
    files = (path for root in (PACKAGE, *roots) for path in _sources(root))
    return short(__version__, *sorted(files))


def _sources(root: Path) -> list[str]:
    return [
        f"{folder}/{name}" + _status(Path(folder, name))
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith((".py", ".html", ".css", ".js"))
    ]


def _status(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "none"
    return f"{found.st_mtime_ns:x}.{found.st_size:x}"


def short(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
