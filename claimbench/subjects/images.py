"""Labelled images as subjects: scikit-learn's digits, a folder of class folders, a file of arrays, or arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int64, Shaped

from claimbench.errors import UserError, nearest
from claimbench.paths import cache_dir, write_atomically
from claimbench.spec import SubjectRef, digest
from claimbench.subjects.image_files import (
    Raw,
    arrays_of,
    from_arrays,
    picture_files,
    read_arrays,
    read_folder,
)
from claimbench.subjects.splits import content_keys, split_by_key
from claimbench.subjects.store import sha256_of, sha256_of_each, shown

DIGITS = "digits"
MINIMUM = 20  # different images
ARRAYS = (".npz", ".safetensors")


@dataclass(frozen=True)
class Images:
    """Pixels in [0, 1], class codes and the classes' names.

    `train`, `validation` and `test` are images with the same classes; equal pixels lie in one of them.
    """

    pixels: Float32[np.ndarray, "count channels height width"]
    labels: Int64[np.ndarray, " count"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Shaped[np.ndarray, " part"]) -> Images:
        """Some of the images, by place or by truth value."""
        return Images(self.pixels[places], self.labels[places], self.classes)

    @cached_property
    def split(self) -> dict[str, Int[np.ndarray, " part"]]:
        """Places of the images of train, validation and test."""
        return split_by_key(content_keys(self.pixels))

    @cached_property
    def train(self) -> Images:
        return self.take(self.split["train"])

    @cached_property
    def validation(self) -> Images:
        return self.take(self.split["validation"])

    @cached_property
    def test(self) -> Images:
        return self.take(self.split["test"])


class ImagesKind:
    """Images by name (`digits`, 8 x 8), by path (a folder, `folder#size=64`, an .npz or .safetensors file), or an
    object with a version: `(images, labels)`, `(images, labels, classes)` or a dict of these.
    """

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if not isinstance(value, str | Path):
            return _object(value, version)
        if value == DIGITS:
            raw = _digits()
            identity = digest(["images", DIGITS, hashlib.sha256(raw.pixels.data).hexdigest()])
            return SubjectRef(kind="images", value=DIGITS, identity=identity, label=DIGITS)
        place, size = _parse(str(value))
        path = Path(place).expanduser()
        if "/" not in place and not path.exists() and path.suffix.lower() not in ARRAYS:
            raise UserError(f'no images "{shown(path)}": no such file or folder{nearest(place, [DIGITS])}')
        return _local(path.resolve(), size, str(value))

    def downloads(self, ref: SubjectRef) -> int:
        return 0

    def prepare(self, ref: SubjectRef) -> None:
        """Nothing: digits come with scikit-learn, all else lies here."""

    def open(self, ref: SubjectRef, device: str) -> Images:
        if not ref.path:
            return _images(_digits(), DIGITS)
        path = Path(ref.path)
        size = _parse(ref.value)[1] if path.is_dir() else None
        if not path.exists() or _identity(path, size) != ref.identity:
            raise UserError(f"{shown(path)}: changed since this run was planned; start it again")
        return _images(_read(path, size), ref.label)


def _parse(value: str) -> tuple[str, int | None]:
    place, sign, size = value.rpartition("#size=")
    if not sign:
        return value, None
    if not size.isdecimal() or not 1 <= int(size) <= 4096:
        raise UserError(f"{value}: #size={size} is no whole number of pixels from 1 to 4096")
    return place, int(size)


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    found = load_digits()
    return from_arrays(found.images / 16, found.target, None, DIGITS)


def _images(raw: Raw, where: str) -> Images:
    if len(set(raw.labels.tolist())) < 2:
        raise UserError(f"{where}: images of one class; at least 2 are needed")
    images = Images(raw.pixels, raw.labels, raw.classes)
    different = len(np.unique(content_keys(images.pixels)))
    if different < MINIMUM:
        raise UserError(f"{where}: {different} different images; at least {MINIMUM} are needed")
    return images


def _read(path: Path, size: int | None) -> Raw:
    where = shown(path)
    if path.is_dir():
        return read_folder(path, size, where)
    if size is not None:
        raise UserError(f"{where}: #size= scales the pictures of a folder, not arrays")
    if path.suffix.lower() not in ARRAYS:
        raise UserError(f"{where}: give a folder of pictures, or an .npz or .safetensors file")
    return read_arrays(path, where)


def _local(path: Path, size: int | None, value: str) -> SubjectRef:
    if not path.exists():
        raise UserError(f"{shown(path)}: no such file or folder")
    identity = _identity(path, size)
    checked = cache_dir() / "subjects" / "images" / f"{identity}.checked"  # read whole before
    if not checked.exists():
        _images(_read(path, size), shown(path))
        write_atomically(checked, b"")
    return SubjectRef(
        kind="images",
        value=shown(Path(value)),
        identity=identity,
        path=str(path),
        label=shown(Path(path.name)),
        private=True,
    )


def _identity(path: Path, size: int | None) -> str:
    """The hash of the pictures' contents and classes, whatever the files are called; remembered."""
    try:
        if path.is_dir():
            files = picture_files(path, shown(path))
            contents = sha256_of_each(file for _, file in files)
            names = [shown(Path(name)) for name, _ in files]
            return digest(["images", size, sorted(zip(names, contents, strict=True))])
        return digest(["images", size, sha256_of(path)])
    except OSError as error:
        raise UserError(f"{shown(Path(error.filename or path))}: cannot be read: {error.strerror}") from None


def _object(value: Any, version: str | None) -> SubjectRef:
    arrays = arrays_of(value)
    if arrays is None:
        raise UserError(
            f"images are a name, a path, or arrays (images, labels[, classes]), not {type(value).__name__}"
        )
    if version is None:
        raise UserError('images given as an object need version = "...": a name for exactly this content')
    from safetensors.numpy import save

    raw = from_arrays(*arrays, f"images {version}")
    _images(raw, f"images {version}")
    # As 8 bits where that loses nothing: a quarter of the disk.
    small = np.round(raw.pixels * 255).astype(np.uint8)
    pixels = small if np.array_equal(small.astype(np.float32) / np.float32(255), raw.pixels) else raw.pixels
    content = save(
        {"images": np.ascontiguousarray(pixels), "labels": np.ascontiguousarray(raw.labels)},
        metadata={"classes": json.dumps(raw.classes)},
    )
    folder = cache_dir() / "subjects" / "images"
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
    if not path.exists():
        write_atomically(path, content)
    return SubjectRef(
        kind="images",
        value=version,
        identity=_identity(path, None),
        path=str(path),
        label=version,
        private=True,
    )


KIND = ImagesKind()
