"""Where claimbench keeps what outlives a command: caches, data (the ledger), settings (what is trusted)."""

from __future__ import annotations

import os
from pathlib import Path


def _folder(variable: str, xdg: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / default) / "claimbench"


def cache_dir() -> Path:
    """Downloads, converted models, shared set-up, indexes. `CLAIMBENCH_CACHE` moves it; deleting it is safe."""
    return _folder("CLAIMBENCH_CACHE", "XDG_CACHE_HOME", ".cache")


def data_dir() -> Path:
    """The default ledger lies here. `CLAIMBENCH_DATA` moves it."""
    return _folder("CLAIMBENCH_DATA", "XDG_DATA_HOME", ".local/share")


def config_dir() -> Path:
    """Foreign shelves that the user trusted. `CLAIMBENCH_CONFIG` moves it."""
    return _folder("CLAIMBENCH_CONFIG", "XDG_CONFIG_HOME", ".config")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a temporary neighbour, flushed, then renamed over the target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
