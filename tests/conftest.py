"""What several test files need: a place of its own for every cache, ledger and setting, and papers made on the spot."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import CLAIMS, PAPER, MakePaper

from claimbench.currency import FILES_PREFIX, SHELF_PREFIX

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest_plugins = ["postgres"]  # its server is one for all test files


@pytest.fixture(autouse=True)
def own_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Ledger and settings of one's own; the cache too, except where a test needs downloads or built models."""
    monkeypatch.setenv("CLAIMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLAIMBENCH_CONFIG", str(tmp_path / "config"))
    if "shared_cache" not in request.fixturenames:
        monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLAIMBENCH_SHELF", raising=False)
    yield
    for name in [name for name in sys.modules if name.startswith((FILES_PREFIX, SHELF_PREFIX))]:
        del sys.modules[name]  # papers and users' files that this test made


@pytest.fixture
def shared_cache() -> None:
    """Use the user's cache of downloads and converted models: they are checked by hash wherever they come from."""


@pytest.fixture
def make_paper(tmp_path: Path) -> MakePaper:
    """`make_paper("paper-id", group="theory", toml=..., claims=...)` writes a paper on the shelf `tmp_path/shelf`."""

    def make(
        name: str = "toy",
        group: str = "theory",
        toml: str = PAPER,
        claims: str = CLAIMS,
        shelf: str = "shelf",
    ) -> Path:
        folder = tmp_path / shelf / group / name.replace("-", "_")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "paper.toml").write_text(toml.format(id=name, group=group), encoding="utf-8")
        (folder / "claims.py").write_text(claims, encoding="utf-8")
        return folder

    return make
