"""A page over the repository's published results, and one over papers and listings made on the spot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import KEPT, Browser
from served import LISTED, RESULTS, Served, serve

from claimbench.feed.listing import Listing
from claimbench.ledger import Ledger
from claimbench.publish import import_results
from claimbench.shelf import BUILT_IN, Shelf

sys.path += [str(Path(__file__).parents[1] / name) for name in ("feed", "community")]
from feeds import Handler, Server, servers  # what the tests of those folders are made with
from readers import authority, mailing

__all__ = ["authority", "mailing"]  # fixtures of theirs


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The built-in shelf with published results of two papers, and two papers that are only listed."""
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


@pytest.fixture
def source() -> Iterator[Callable[[Handler], Server]]:
    """`source(handler)`: a server of this machine to pull from."""
    with servers() as start:
        yield start


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLAIMBENCH_SCREENSHOTS, else a folder that is forgotten."""
    folder = Path(KEPT) if KEPT else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
