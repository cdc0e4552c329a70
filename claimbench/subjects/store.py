"""Folders and hashes in the cache: built once under a lock, checked by sha256, cheap for gigabytes on the second use.

A file's sha256 is remembered with its path, size and modification time, as git does for its index.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from claimbench.errors import UserError
from claimbench.paths import cache_dir, write_atomically

MANIFEST = "claimbench.json"
_RACY = 2.0  # seconds: a file this young could change again within its time stamp's resolution
_REMEMBERED = 20_000  # entries; beyond that, those of vanished files are dropped


def say(line: str) -> None:
    """One line for the person who waits: on stderr, so that `--json` stays clean."""
    print(line, file=sys.stderr, flush=True)


def shown(path: Path) -> str:
    """A path as it may be printed, whatever bytes its name holds."""
    return str(path).encode("utf-8", "replace").decode()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it goes with its holder, however that one dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written ({error.strerror}); set CLAIMBENCH_CACHE to a folder that can"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path) -> str:
    """A file's sha256, from memory if its size and modification time are those of the last time."""
    return sha256_of_each([path])[0]


def sha256_of_each(paths: Iterable[Path]) -> list[str]:
    """The sha256 of every file, as `sha256_of`; the memory is read and written once, however many they are."""
    remembered, fresh, found = _remembered(), dict[str, list](), list[str]()
    for path in paths:
        stat = path.stat()
        name, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        known = remembered.get(name)
        if known is None or known[:2] != stamp:
            with path.open("rb") as file:
                known = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
            if time.time() - stat.st_mtime > _RACY:
                fresh[name] = known
        found.append(str(known[2]))
    if fresh:
        with contextlib.suppress(OSError, UserError):  # a cache that cannot be written only costs time
            _remember(fresh)
    return found


def _hashes() -> Path:
    return cache_dir() / "hashes.json"


def _remembered() -> dict[str, list]:
    try:
        entries = json.loads(_hashes().read_bytes())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _remember(fresh: dict[str, list]) -> None:
    with locked(_hashes().with_suffix(".lock")):
        entries = _remembered() | fresh
        if len(entries) > _REMEMBERED:
            entries = {path: value for path, value in entries.items() if Path(path).exists()}
        write_atomically(_hashes(), json.dumps(entries).encode())


def is_built(folder: Path) -> bool:
    """Whether a finished build lies there whose files are those that were built (by hash, remembered)."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        return all(sha256_of(folder / name) == wanted for name, wanted in files.items())
    except (OSError, ValueError, KeyError):
        return False


def built(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, filled by `build(partial folder)` unless it is there and intact. One process builds, others wait.

    A build is seen whole or not at all; what a killed builder left is removed by the next one.
    """
    if is_built(folder):
        return folder
    with locked(folder.with_name(f"{folder.name}.lock")):
        if is_built(folder):
            return folder
        for left in folder.parent.glob(f"{folder.name}.partial-*"):
            shutil.rmtree(left)
        if folder.exists():
            say(f"{folder.name}: files in the cache were changed; building them again")
            shutil.rmtree(folder)
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        partial.mkdir()
        try:
            build(partial)
            files = {
                str(path.relative_to(partial)): sha256_of(path)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            }
            write_atomically(partial / MANIFEST, json.dumps({"files": files}).encode())
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def code_digest(*modules: str) -> str:
    """sha256 of modules' syntax trees without docstrings, read without importing them: comments and layout are free."""
    summary = hashlib.sha256()
    for module in modules:
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(module)
        tree = ast.parse(Path(spec.origin).read_bytes())
        for node in ast.walk(tree):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
        summary.update(f"{module}\n{ast.dump(tree)}\n".encode())
    return summary.hexdigest()
