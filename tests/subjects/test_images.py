from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claimbench.errors import UserError
from claimbench.spec import SubjectRef
from claimbench.subjects import image_files, open_subject, resolve_subject
from claimbench.subjects.images import Images
from claimbench.subjects.splits import SHARES

Picture = pytest.importorskip("PIL.Image", reason="folders of pictures need Pillow")


def _opened(value: Any, version: str | None = None) -> Images:
    """As a worker gets it: the reference passes through JSON."""
    ref = resolve_subject("images", value, version=version)
    found = open_subject(SubjectRef(**json.loads(json.dumps(vars(ref)))))
    assert isinstance(found, Images)
    return found


def _arrays(count: int = 30, channels: int = 3, size: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, channels, size, size), dtype=np.uint8)


def _folder(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    """Images to class folders "a" and "b" in turn."""
    for index, image in enumerate(images):
        home = folder / "ab"[index % 2]
        home.mkdir(parents=True, exist_ok=True)
        picture = Picture.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        picture.save(home / f"{index:03}{suffix}", **({"quality": 95} if suffix != ".png" else {}))
    return folder


def test_digits_are_scikit_learns(own_cache: Path) -> None:
    from sklearn.datasets import load_digits

    images, original = _opened("digits"), load_digits()
    assert images.pixels.dtype == np.float32
    assert images.pixels.shape == (1797, 1, 8, 8)
    assert np.array_equal(images.pixels[:, 0] * 16, original.images)
    assert np.array_equal(images.labels, original.target)
    assert images.classes == tuple("0123456789")
    assert resolve_subject("images", "digits").path == ""


def test_splits_hold_everything_once_and_equal_pixels_together(own_cache: Path) -> None:
    pixels = np.repeat(_arrays(100), 2, axis=0)
    images = _opened((pixels, np.arange(200) % 3), "twice")
    assert sorted(np.concatenate(list(images.split.values()))) == list(range(200))
    parts = [{image.tobytes() for image in getattr(images, name).pixels} for name in SHARES]
    assert sum(map(len, parts)) == 100
    assert [len(getattr(images, name)) for name in SHARES] == [160, 20, 20]
    order = np.random.default_rng(1).permutation(200)
    again = _opened((pixels[order], (np.arange(200) % 3)[order]), "shuffled")
    assert {image.tobytes() for image in again.test.pixels} == parts[2]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_gives_the_pixels_that_were_saved(own_cache: Path, tmp_path: Path, channels: int) -> None:
    original = _arrays(channels=channels)
    images = _opened(_folder(tmp_path / "pictures", original))
    assert images.classes == ("a", "b")
    order = [*range(0, 30, 2), *range(1, 30, 2)]
    assert np.array_equal(images.pixels, original[order].astype(np.float32) / np.float32(255))
    assert images.labels.tolist() == [0] * 15 + [1] * 15


def test_a_folder_is_known_by_content_and_classes_whatever_files_are_called(
    own_cache: Path, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "pictures", _arrays())
    ref = resolve_subject("images", str(folder))
    assert ref.private
    (folder / "a" / "000.png").rename(folder / "a" / "renamed.png")
    (folder / "notes.txt").write_text("not a picture")
    assert resolve_subject("images", folder).identity == ref.identity
    assert len(open_subject(ref)) == 30
    (folder / "a" / "renamed.png").rename(folder / "b" / "renamed.png")
    assert resolve_subject("images", folder).identity != ref.identity
    with pytest.raises(UserError, match="changed since"):
        open_subject(ref)


def test_pictures_of_several_sizes_are_cropped_to_the_smallest_or_to_the_size_asked_for(
    own_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    generator = np.random.default_rng(0)
    for index in range(24):
        shade = int(generator.integers(0, 200))
        height, width = 12 + index % 3, 16 + index % 2
        image = np.full((height, width, 3), shade, dtype=np.uint8)
        image[:, : width // 2, 0] = index + 1
        home = folder / "ab"[index % 2]
        home.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(image).save(home / f"{index}.png")
    images = _opened(folder)
    assert images.pixels.shape == (24, 3, 12, 16)
    assert np.array_equal(images.pixels[:, 1].min(axis=(1, 2)), images.pixels[:, 1].max(axis=(1, 2)))
    small = _opened(f"{folder}#size=6")
    assert small.pixels.shape == (24, 3, 6, 6)
    assert small.pixels[:, 2] == pytest.approx(images.pixels[:, 2, :6, :6])
    assert (
        resolve_subject("images", f"{folder}#size=6").identity != resolve_subject("images", folder).identity
    )
    with pytest.raises(UserError, match="no whole number of pixels"):
        resolve_subject("images", f"{folder}#size=large")


def test_jpegs_are_turned_upright_and_transparency_lies_over_black(own_cache: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", _arrays(size=8))
    wide = np.zeros((8, 8, 3), dtype=np.uint8)
    wide[:4] = 255
    exif = Picture.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    Picture.fromarray(wide).save(folder / "a" / "zz.jpg", exif=exif, quality=100)
    clear = np.full((8, 8, 4), 255, dtype=np.uint8)
    clear[:4, :, 3] = 0
    Picture.fromarray(clear).save(folder / "b" / "zz.png")
    images = _opened(folder)
    turned, transparent = images.pixels[15], images.pixels[-1]
    assert turned[:, :, 5:].mean() > 0.95
    assert turned[:, :, :3].mean() < 0.05
    assert transparent[:, :4].max() == 0.0
    assert transparent[:, 4:].min() == 1.0


def test_sixteen_bit_grey_keeps_its_range(own_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    original = np.random.default_rng(0).integers(0, 65536, size=(24, 4, 4), dtype=np.uint16)
    for index, image in enumerate(original):
        home = folder / "ab"[index // 12]
        home.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(image).save(home / f"{index:02}.png")
    images = _opened(folder)
    assert images.pixels[:, 0] == pytest.approx(original / 65535, abs=1e-6)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_of_arrays(own_cache: Path, tmp_path: Path, suffix: str) -> None:
    from safetensors.numpy import save_file

    original, labels = _arrays(), np.arange(30) % 3
    path = tmp_path / f"set{suffix}"
    if suffix == ".npz":
        np.savez(path, images=original.transpose(0, 2, 3, 1), labels=labels, classes=["x", "y", "z"])
    else:
        save_file({"images": original, "labels": labels}, path, metadata={"classes": '["x", "y", "z"]'})
    images = _opened(path)
    assert np.array_equal(images.pixels, original / np.float32(255))
    assert images.classes == ("x", "y", "z")
    assert np.array_equal(images.labels, labels)


def test_objects_are_kept_without_loss(own_cache: Path) -> None:
    eight, fine = _arrays(), np.random.default_rng(0).random((30, 6, 6)).astype(np.float32)
    names = np.array(["cat", "dog"])[np.arange(30) % 2]
    with pytest.raises(UserError, match="need version"):
        resolve_subject("images", (eight, names))
    images = _opened((eight, names), "mine")
    assert np.array_equal(images.pixels, eight / np.float32(255))
    assert images.classes == ("cat", "dog")
    assert np.array_equal(_opened({"images": fine, "labels": names}, "mine").pixels[:, 0], fine)
    stored = Path(resolve_subject("images", (eight, names), version="mine").path)
    assert stored.stat().st_size < eight.size + 30 * 8 + 500


def _claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x89PNG\r\n\x1a\n broken", "not a PNG or JPEG picture"),
        (b"GIF89a\1\0\1\0\0\0\0;", "not a PNG or JPEG picture"),
        (_claims(60_000, 60_000), "too many pixels; at most 50,000,000"),
        (_claims(9_000, 9_000), "9000 x 9000 pixels; at most 50,000,000"),
        (_claims(5, 5), "cannot be read"),
    ],
)
def test_a_bad_picture_is_named(own_cache: Path, tmp_path: Path, content: bytes, complaint: str) -> None:
    folder = _folder(tmp_path / "pictures", _arrays())
    (folder / "a" / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        resolve_subject("images", folder)
    assert "bad.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unfit_folders_are_named_with_the_fix(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complains(value: Any, complaint: str) -> None:
        with pytest.raises(UserError, match=complaint) as caught:
            resolve_subject("images", value)
        assert "\n" not in str(caught.value)

    folder = _folder(tmp_path / "pictures", _arrays())
    os.link(folder / "a" / "000.png", folder / "loose.png")
    complains(folder, "1 pictures lie in no class")
    (tmp_path / "empty").mkdir()
    complains(tmp_path / "empty", "no PNG or JPEG files")
    complains(_folder(tmp_path / "few", _arrays(6)), "6 different images; at least 20")
    complains(tmp_path / "nowhere", "no such file or folder")
    complains("digit", 'did you mean "digits"')
    monkeypatch.setattr(image_files, "MAX_BYTES", 5_000)
    complains(_folder(tmp_path / "large", _arrays()), "give smaller pictures")


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        (np.zeros((30, 4)), np.zeros(30, int), r"shape \[30, 4\]"),
        (np.zeros((30, 4, 4)), np.zeros(29, int), r"labels have shape \[29\]"),
        (np.full((30, 4, 4), 255.0), np.zeros(30, int), "from 255 to 255; scale them"),
        (np.full((30, 4, 4), np.nan), np.zeros(30, int), "from nan to nan"),
        (np.zeros((30, 4, 4), int), np.zeros(30, int), "give 8-bit numbers"),
        (np.zeros((30, 4, 4)), np.zeros(30), "labels are whole numbers or names"),
        (np.zeros((30, 4, 4)), np.zeros(30, int), "one class"),
        (np.zeros((30, 4, 4)), np.arange(30), "1 different images"),
    ],
)
def test_unfit_arrays_are_named(own_cache: Path, images: Any, labels: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        resolve_subject("images", (images, labels), version="mine")
    with pytest.raises(UserError, match="not list"):
        resolve_subject("images", [1, 2], version="mine")


def test_unfit_files_of_arrays_are_named_and_nothing_is_unpickled(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, pictures=_arrays())
    with pytest.raises(UserError, match='set.npz: holds no "images"'):
        resolve_subject("images", path)
    np.savez(path, images=np.array([object()] * 30, dtype=object), labels=np.arange(30))
    with pytest.raises(UserError, match="set.npz: cannot be read"):
        resolve_subject("images", path)
    for name in ("set.npz", "set.safetensors"):
        (tmp_path / name).write_bytes(b"neither")
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            resolve_subject("images", tmp_path / name)
