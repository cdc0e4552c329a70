"""A cache of one's own, and small model directories in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "cache"
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(home))
    return home


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds a causal LM of two small blocks and a byte tokenizer. Copy it before changing it."""
    pytest.importorskip("transformers")
    from claimbench.blocks.byte_lm import byte_lm
    from claimbench.subjects.byte_model import byte_tokenizer

    folder = tmp_path_factory.mktemp("model")
    byte_lm(layers=2, width=32, heads=2, hidden=48, context=64).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
