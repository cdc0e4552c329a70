"""A page with what it is made of, for tests."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from claimbench.feed.listing import Listing
from claimbench.feed.settings import Settings
from claimbench.feed.shelf import sync_shelf
from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger
from claimbench.search import Index
from claimbench.shelf import BUILT_IN, Shelf
from claimbench.web.app import Application, create_app
from claimbench.web.maintenance import bring_up_to_date, page_index

MEASURED = ("exact-permutations", "s4")  # papers whose published results the tests read
RESULTS = sorted(
    path
    for name in MEASURED
    for path in glob.glob(str(BUILT_IN.parents[1] / "results" / "*" / f"{name}.*.jsonl"))
)


@dataclass
class Served:
    """A page with what it is made of."""

    app: Application
    client: TestClient
    ledger: Ledger
    shelf: Shelf
    store: PageStore

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, follow_redirects=False, **options)


def serve(
    folder: Path, shelf: Shelf, ledger: Ledger, listings: list[Listing], *, place: str = "", **options: Any
) -> Served:
    """place: of the list, with the index that belongs to it; else both lie in `folder`."""
    store = PageStore(place or folder / "page.sqlite")
    sync_shelf(store, shelf, ledger)
    if listings:
        store.put(listings)
    index = page_index(store, shelf.roots) if place else Index(folder / "index")
    app = create_app(Settings(), ledger=ledger, shelf=shelf, store=store, index=index, **options)
    bring_up_to_date(app.site)
    client = TestClient(app, raise_server_exceptions=False)
    return Served(app, client, ledger, shelf, store)


LISTED = [
    Listing(
        key=f"arxiv:2401.0000{n}",
        title=title,
        published=f"2024-01-0{n}",
        link=f"https://arxiv.org/abs/2401.0000{n}",
        described="arxiv",
        arxiv=f"2401.0000{n}",
        abstract=abstract,
        authors=("Ada One", "Ben Two", "Cy Three", "Di Four"),
        categories=("cs.LG",),
        topics=("pruning",),
        group_name="compression",
        updated=f"2024-01-0{n}",
        added=f"2024-01-0{n}T00:00:00+00:00",
    )
    for n, (title, abstract) in enumerate(
        [
            ("Gradient clipping as regularisation", "We clip gradients and find that it regularises."),
            ("Pruning by second differences", "Second differences say which weights may go."),
        ],
        1,
    )
]
