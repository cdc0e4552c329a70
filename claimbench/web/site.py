"""What every page is made from: ledger, shelf, store and index, and one stamp that says when any of them changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from claimbench.feed.settings import Settings
from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger
from claimbench.search import Index
from claimbench.shelf import Shelf
from claimbench.web import stamps
from claimbench.web.board import Board

Value = TypeVar("Value")
FRESH = 1.0  # seconds for which ledger and store are taken to be unchanged
FRESH_FILES = 5.0  # the same for paper.toml files and sources, of which there are many


class _Held(Generic[Value]):
    """A value that is read again when it is older than `seconds`; threads that come meanwhile take the old one."""

    def __init__(self, seconds: float, read: Callable[[], Value]) -> None:
        self._seconds, self._read = seconds, read
        self._lock = threading.Lock()
        self._found: tuple[float, Value] | None = None

    def get(self) -> Value:
        found = self._found
        if found is not None and time.monotonic() - found[0] < self._seconds:
            return found[1]
        if not self._lock.acquire(blocking=found is None):
            assert found is not None
            return found[1]
        try:
            if found is not None or self._found is None:
                self._found = (time.monotonic(), self._read())
            return self._found[1]
        finally:
            self._lock.release()


@dataclass
class Site:
    """Read-only. address: how readers reach the page (`https://papers.example.org`), for feeds; empty if unknown."""

    settings: Settings
    ledger: Ledger
    shelf: Shelf
    store: PageStore
    index: Index
    address: str = ""
    show_own: bool = False
    _board: tuple[str, Board] | None = None
    _boarding: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        roots = self.shelf.roots
        self._of_ledger = _Held(FRESH, lambda: stamps.ledger_stamp(self.ledger))
        self._of_store = _Held(FRESH, lambda: stamps.store_stamp(self.store))
        self._of_shelf = _Held(FRESH_FILES, lambda: stamps.shelf_stamp(roots))
        self._of_code = _Held(FRESH_FILES, lambda: stamps.code_stamp(roots))
        self._of_index = _Held(FRESH, self.index.edition)

    def stamp(self) -> str:
        """Changes with anything that a page shows, and on the hour: that is how trending ages."""
        return stamps.short(
            self._measured(), self._of_store.get(), self._of_index.get(), f"{datetime.now(UTC):%Y%m%d%H}"
        )

    def measured_stamp(self) -> str:
        return self._measured()

    def _measured(self) -> str:
        return stamps.short(self._of_ledger.get(), self._of_shelf.get(), self._of_code.get())

    def board(self) -> Board:
        """The board of this state. Threads wait for it: one before it would make pages that are kept as if of this."""
        stamp = self._measured()
        with self._boarding:
            if self._board is None or self._board[0] != stamp:
                code = self._of_code.get()
                self._board = (stamp, Board.read(self.ledger, self.shelf, code=code, private=self.show_own))
            return self._board[1]
