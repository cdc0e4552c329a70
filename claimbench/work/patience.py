"""A ledger that is asked again while it cannot be reached, so that a worker outlives a server that restarts.

Every method of a ledger is repeated whole: each is one transaction, or several of which any may be repeated. What was
recorded before a connection broke is not recorded twice, since its lease is gone.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, cast

from claimbench.ledger import Ledger, Unreachable

PATIENCE = 300.0  # seconds
EVERY = 2.0
_AS_THEY_ARE = ("read", "write", "close")  # a block under `with` cannot be repeated


def patient(ledger: Ledger, say: Callable[[str], None], seconds: float = PATIENCE) -> Ledger:
    """The ledger, whose methods wait for up to so many seconds while its place cannot be used. say: told why, once."""
    return cast(Ledger, _Patient(ledger, say, seconds))


class _Patient:
    def __init__(self, ledger: Ledger, say: Callable[[str], None], seconds: float) -> None:
        self._ledger, self._say, self._seconds = ledger, say, seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ledger, name)
        if not callable(found) or name in _AS_THEY_ARE:
            return found

        @functools.wraps(found)
        def again(*arguments: Any, **named: Any) -> Any:
            until = None
            while True:
                try:
                    return found(*arguments, **named)
                except Unreachable as error:
                    if until is None:
                        until = time.monotonic() + self._seconds
                        self._say(str(error))
                    if time.monotonic() >= until:
                        raise
                    time.sleep(min(EVERY, self._seconds))

        return again
