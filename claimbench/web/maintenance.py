"""What keeps the page's own data up to date beside the requests: the list, the search index, and verdicts that lack.

One process of a machine does it for all, whoever holds the lock. The ledger gets nothing but verdicts of sets that are
measured in full and have none under the rules as they stand; trials are never started.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import sqlalchemy as sa

from claimbench.errors import UserError
from claimbench.feed.listing import from_row
from claimbench.feed.schema import LISTING
from claimbench.feed.shelf import sync_shelf
from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger
from claimbench.paths import cache_dir
from claimbench.report import report
from claimbench.search import Document, EncoderUnreachable, Index, from_listings, from_shelf
from claimbench.search.encoders import shared
from claimbench.shelf import Shelf
from claimbench.web.board import Board
from claimbench.web.site import Site
from claimbench.web.stamps import listings_stamp

log = logging.getLogger("claimbench.web")
EVERY = 10.0  # seconds between two looks
KEEP_ENCODER = 300.0  # seconds after which the encoder is asked again, so that it goes on running


def page_index(store: PageStore, roots: Sequence[Path]) -> Index:
    """The index of this list and this shelf: in the cache; its words beside the list where that is on a server.

    Raises UserError where the server cannot hold it.
    """
    folder = index_folder(store, roots)
    with store.read() as connection:
        url = connection.engine.url
    if url.get_backend_name() != "postgresql":
        return Index(folder)
    from claimbench.search.postgres import PostgresIndex

    return PostgresIndex(url.render_as_string(hide_password=False), folder)


def index_folder(store: PageStore, roots: Sequence[Path]) -> Path:
    """Where the index of this list and this shelf lies in the cache."""
    named = "\n".join([store.url, *map(str, roots)])
    return (
        cache_dir()
        / "search"
        / f"page-{hashlib.sha256(named.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
    )


def existing_index(store: PageStore, roots: Sequence[Path]) -> Index | None:
    """The index that a served page has filled, if one has."""
    index = page_index(store, roots)
    return index if len(index) else None


def shelf_documents(board: Board) -> Iterator[Document]:
    """Papers of the shelf by their id, with their verdicts."""
    states = {
        paper: [state for state, count in board.tally([paper]).items() if count and state != "no verdict"]
        for paper in board.entries
    }
    return from_shelf(board.entries.values(), states)


def listed_documents(board: Board, store: PageStore) -> Iterator[Document]:
    """Everything else that is listed, by its key."""
    query = sa.select(LISTING).where(LISTING.c.hidden == 0).order_by(LISTING.c.id)
    with store.read() as connection:
        for row in connection.execution_options(yield_per=2000).execute(query):
            if row.shelf_id not in board.entries:
                yield from from_listings([from_row(row)])


def judge_missing(ledger: Ledger, shelf: Shelf) -> None:
    """Judge what has no verdict under the rules as they stand; a paper that cannot be judged is named in the log."""
    for paper in Shelf(shelf.roots).entries:
        try:
            report([paper], ledger=ledger, shelf=shelf)
        except UserError as error:
            log.warning("not judged: %s", error)


class Maintenance:
    """A thread that looks every few seconds whether ledger, shelf or list have changed. Stop it with `stop`."""

    def __init__(self, site: Site, *, every: float = EVERY, meaning: bool = True) -> None:
        self._site, self._every, self._meaning = site, every, meaning
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; what is under way ends with the process, and no half of it is kept."""
        self._stop.set()

    def _run(self) -> None:
        folder = self._site.index.storage.folder
        if folder is None:
            return
        if self._meaning:
            self._meaning = self._may_search_by_meaning()
        with alone(folder / ".maintenance", self._stop, self._every) as chosen:
            if chosen:
                self._look_on()

    def _may_search_by_meaning(self) -> bool:
        """Give the site's index an encoder to ask, once there is one: a first start downloads it."""
        try:
            self._site.index.encoder = shared(start=False)
        except UserError as error:
            log.warning("searching by words only: %s", error)
            return False
        return True

    def _look_on(self) -> None:
        measured, listed, waited = "", "", KEEP_ENCODER
        while True:
            try:
                stamps = self._site.measured_stamp(), listings_stamp(self._site.store)
                if stamps != (measured, listed):
                    bring_up_to_date(self._site, listings=stamps[1] != listed)
                    measured, listed = stamps[0], listings_stamp(self._site.store)
                    waited = KEEP_ENCODER
                if self._meaning and waited >= KEEP_ENCODER:
                    embed(self._site)
                    waited = 0.0
            except (UserError, sa.exc.SQLAlchemyError) as error:
                log.warning("the page's data could not be brought up to date: %s", error)
            waited += self._every
            if self._stop.wait(self._every):
                return


def bring_up_to_date(site: Site, *, listings: bool = True) -> None:
    """The shelf into the list; both into the index, by words. listings: look at all of them, not at the shelf alone."""
    sync_shelf(site.store, Shelf(site.shelf.roots), site.ledger)
    board, index = site.board(), site.index.using(None)
    if listings:
        index.build(chain(shelf_documents(board), listed_documents(board, site.store)))
    else:
        index.update(shelf_documents(board))


def embed(site: Site) -> None:
    """Meaning, where an encoder is to be had; starts it, or keeps it running."""
    try:
        encoder = shared()
        encoder.encode(["ready"])
        site.index.using(encoder).embed()
    except EncoderUnreachable as error:
        log.warning("searching by words only: %s", error)


@contextmanager
def alone(file: Path, stop: threading.Event, every: float) -> Iterator[bool]:
    """True once this process holds the lock of the file, tried every so many seconds; False if it is stopped before."""
    with file.open("w") as lock:
        while not _taken(lock.fileno()):
            if stop.wait(every):
                yield False
                return
        yield True


def _taken(descriptor: int) -> bool:
    """Take the lock of an open file, unless another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
