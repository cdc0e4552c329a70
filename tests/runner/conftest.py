"""Fixtures of the runner's tests: papers written on the spot, and a word that finds whatever a test started."""

from __future__ import annotations

import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import HEAD, alive


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A word in the environment of all that a test starts. Fails the test if any of it outlives the test."""
    word = f"CLAIMBENCH_TEST_{uuid.uuid4().hex}"
    monkeypatch.setenv(word, "1")
    yield word
    assert alive(word) == []


@pytest.fixture
def paper(tmp_path: Path) -> Callable[..., Path]:
    """`paper(code, "name", helper=code)` writes a paper's folder with `claims.py` and `helper.py`."""

    def write(code: str, name: str = "sample", **files: str) -> Path:
        folder = tmp_path / "shelf" / "theory" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "claims.py").write_text(HEAD + textwrap.dedent(code), encoding="utf-8")
        for file, text in files.items():
            (folder / f"{file}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        return folder

    return write
