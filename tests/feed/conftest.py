"""A web server of this machine for the tests that pull."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from feeds import Handler, Server, servers


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], Server]]:
    """`serve(handler)` starts a server on a free port; it ends with the test."""
    with servers() as start:
        yield start
