"""Which distributions are installed, and which top-level modules they own.

Read from the names of metadata folders, their lists of files and `top_level.txt`: `importlib.metadata` parses every
METADATA for it, which takes a hundred times as long, and this is asked by every worker and at every start.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from functools import cache
from pathlib import Path

_METADATA = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+?)(-py[\d.]+)?\.(dist|egg)-info")
_TOP = re.compile(rb"^\"?([A-Za-z_]\w*)(?:/|\.py,|\.[\w.-]*(?:so|pyd),)", re.MULTILINE)


def _site_stamp() -> tuple[tuple[str, int], ...]:
    """The folders that hold packages, with their times: pip changes them with every installation."""
    stamps = []
    for folder in dict.fromkeys(sys.path):
        try:
            stamps.append((folder, Path(folder).stat().st_mtime_ns))
        except OSError:
            continue
    return tuple(stamps)


def installed() -> dict[str, str]:
    """Distribution -> version; the first on the path counts, as it does for importing."""
    return {name: version for name, (version, _) in _metadata(_site_stamp()).items()}


def owners() -> dict[str, list[str]]:
    """Top-level module -> the distributions that install it (several for a namespace)."""
    return _owners(_site_stamp())


@cache
def _metadata(stamp: tuple[tuple[str, int], ...]) -> dict[str, tuple[str, str]]:
    """Distribution -> version and metadata folder."""
    found: dict[str, tuple[str, str]] = {}
    for folder, _ in stamp:
        if not os.path.isdir(folder):
            continue
        for entry in os.scandir(folder):
            matched = _METADATA.fullmatch(entry.name)
            if matched:
                name = re.sub(r"[-_.]+", "-", matched["name"]).lower()
                found.setdefault(name, (matched["version"], entry.path))
    return found


@cache
def _owners(stamp: tuple[tuple[str, int], ...]) -> dict[str, list[str]]:
    """Top-level module -> the distributions that install it."""
    owners: dict[str, list[str]] = {}
    for name, (_, folder) in _metadata(stamp).items():
        for top in _tops(Path(folder)):
            owners.setdefault(top, []).append(name)
    return owners


def _tops(folder: Path) -> set[str]:
    for file, pattern in (("top_level.txt", re.compile(rb"^(\w+)\s*$", re.MULTILINE)), ("RECORD", _TOP)):
        with contextlib.suppress(OSError):
            return {top.decode() for top in pattern.findall((folder / file).read_bytes())}
    return set()
