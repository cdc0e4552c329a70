from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from claimbench.errors import UserError
from claimbench.subjects import wheels
from claimbench.subjects.wheels import Unreachable, Wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _made(index: Path, project: str = "sample-data", content: bytes = b"text") -> Wheel:
    name = project.replace("-", "_")
    path = index / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.txt", content)
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('a data wheel was imported')")
        metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\nRequires-Python: <3\n"
        archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", tags)
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(project, "1.0", path.name, sha256, path.stat().st_size, "CC0-1.0")


def test_wheels_are_fetched_once_together_and_read(
    index: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = _made(index, "sample-data", b"one"), _made(index, "other-data", b"two")
    assert wheels.missing([first, second]) == first.bytes + second.bytes
    wheels.fetch(first, second)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["downloading sample-data 1.0, other-data 1.0 (0.0 MB)"]
    assert wheels.missing([first, second]) == 0
    for path in index.iterdir():
        path.unlink()
    assert wheels.read_members(first, lambda name: name.endswith(".txt")) == [
        ("sample_data/data.txt", b"one")
    ]
    assert wheels.read_members(second, lambda name: name.endswith(".txt")) == [
        ("other_data/data.txt", b"two")
    ]
    wheels.forget(first)
    assert wheels.missing([first, second]) == first.bytes


def test_extraction_gives_the_pinned_content_or_nothing(index: Path, own_cache: Path, tmp_path: Path) -> None:
    wheel = _made(index)
    target = tmp_path / "data.txt"
    wheels.extract(wheel, "sample_data/data.txt", hashlib.sha256(b"text").hexdigest(), target)
    assert target.read_bytes() == b"text"
    with pytest.raises(UserError, match="not the pinned file"):
        wheels.extract(
            wheel, "sample_data/data.txt", hashlib.sha256(b"other").hexdigest(), tmp_path / "other.txt"
        )
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["data.txt"]


def test_another_wheel_under_the_pinned_name_is_refused(index: Path, own_cache: Path) -> None:
    wheel = _made(index)
    (index / wheel.filename).write_bytes((index / wheel.filename).read_bytes() + b"\0")
    with pytest.raises(Unreachable, match="sample-data 1.0: pip could not download"):
        wheels.fetch(wheel)
    wheel.path.parent.mkdir(parents=True, exist_ok=True)
    wheel.path.write_bytes(b"put there by hand")
    with pytest.raises(UserError, match="not the pinned file"):
        wheels.fetch(wheel)


def test_an_index_without_the_wheel_gives_one_line(index: Path, own_cache: Path) -> None:
    wheel = _made(index)
    (index / wheel.filename).unlink()
    with pytest.raises(Unreachable) as caught:
        wheels.fetch(wheel)
    assert "sample-data 1.0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_silent_index_ends_at_the_time_limit(
    index: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _made(index)
    with pytest.raises(Unreachable, match="no download within"):
        wheels.fetch(wheel, time_limit=0.001)
    assert list((own_cache / "wheels").glob(".download-*")) == []


def test_a_python_without_pip_is_told_so(
    index: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_pip(command: list[str], **keywords: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", f"{sys.executable}: No module named pip\n")

    monkeypatch.setattr(subprocess, "run", without_pip)
    with pytest.raises(Unreachable, match="ensurepip"):
        wheels.fetch(_made(index))
