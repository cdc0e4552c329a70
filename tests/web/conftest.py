"""A page over the repository's published results, and one over papers and listings made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import LISTED, RESULTS, Served, serve

from claimbench.feed.listing import Listing
from claimbench.ledger import Ledger
from claimbench.publish import import_results
from claimbench.shelf import BUILT_IN, Shelf


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The built-in shelf with the repository's published results, and two papers that are only listed."""
    folder = tmp_path_factory.mktemp("published")
    with Ledger(folder / "ledger.sqlite") as ledger:
        import_results(RESULTS, ledger=ledger)
        yield serve(folder, Shelf([BUILT_IN]), ledger, LISTED)


@pytest.fixture
def make_page(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """`make_page(listings=[...], show_own=True)`: the shelf `tmp_path/shelf` and the ledger `tmp_path/l.sqlite`."""
    ledger = Ledger(tmp_path / "l.sqlite")

    def make(listings: list[Listing] | None = None, **options: Any) -> Served:
        folder = tmp_path / "page"
        folder.mkdir(exist_ok=True)
        return serve(folder, Shelf([tmp_path / "shelf"]), ledger, listings or [], **options)

    yield make
    ledger.close()
