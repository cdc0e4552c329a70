from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from claimbench.errors import UserError
from claimbench.subjects import store


def _aged(path: Path, content: bytes, seconds: float = 100.0) -> Path:
    path.write_bytes(content)
    stat = path.stat()
    os.utime(path, (stat.st_atime, stat.st_mtime - seconds))
    return path


def test_a_hash_is_remembered_until_size_or_time_change(own_cache: Path, tmp_path: Path) -> None:
    path = _aged(tmp_path / "weights", b"first")
    assert store.sha256_of(path) == hashlib.sha256(b"first").hexdigest()
    entries = json.loads((own_cache / "hashes.json").read_bytes())
    entries[str(path)][2] = "remembered"
    (own_cache / "hashes.json").write_text(json.dumps(entries))
    assert store.sha256_of(path) == "remembered"
    _aged(path, b"other", seconds=50.0)
    assert store.sha256_of(path) == hashlib.sha256(b"other").hexdigest()


def test_a_file_written_a_moment_ago_is_not_remembered(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    store.sha256_of(path)
    assert not (own_cache / "hashes.json").exists()


def test_a_damaged_or_unwritable_memory_only_costs_time(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _aged(tmp_path / "weights", b"content")
    own_cache.mkdir()
    (own_cache / "hashes.json").write_text("{ broken")
    assert store.sha256_of(path) == hashlib.sha256(b"content").hexdigest()
    (tmp_path / "a file").touch()
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path / "a file" / "cache"))
    assert store.sha256_of(path) == hashlib.sha256(b"content").hexdigest()


def test_a_cache_that_cannot_be_written_is_the_users_to_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(UserError, match="CLAIMBENCH_CACHE"):
        store.built(tmp_path / "a file" / "thing", lambda folder: None)


def test_a_build_is_seen_whole_or_not_at_all(own_cache: Path) -> None:
    home = own_cache / "thing"

    def half(folder: Path) -> None:
        (folder / "first").write_text("1")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        store.built(home, half)
    assert not home.exists()
    assert list(own_cache.glob("thing.partial-*")) == []


def test_what_a_killed_builder_left_is_removed_and_changed_files_are_built_again(own_cache: Path) -> None:
    home = own_cache / "thing"
    left = own_cache / "thing.partial-1"
    left.mkdir(parents=True)
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "file").write_text("content")

    store.built(home, build)
    assert not left.exists()
    store.built(home, build)
    assert len(built) == 1
    (home / "file").write_text("changed")
    assert not store.is_built(home)
    store.built(home, build)
    assert (home / "file").read_text() == "content"
    assert len(built) == 2


def _append(folder: Path) -> None:
    with (folder.parent / "log").open("a") as log:
        log.write("built\n")
    (folder / "file").write_text("content")


def _built(home: str) -> None:
    store.built(Path(home), _append)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_processes_that_ask_at_once_build_once(own_cache: Path) -> None:
    processes = [
        multiprocessing.get_context("fork").Process(target=_built, args=(str(own_cache / "thing"),))
        for _ in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert (own_cache / "log").read_text() == "built\n"


def test_code_digest_sees_code_and_not_words_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "digested.py"
    digests = []
    for source in (
        '"""One."""\ndef f(x):\n    """Says."""\n    return x + 1\n',
        "# a comment\ndef f(x):\n    return (x +\n        1)\n",
        "def f(x):\n    return x + 2\n",
    ):
        path.write_text(source)
        digests.append(store.code_digest("digested"))
    assert digests[0] == digests[1] != digests[2]
