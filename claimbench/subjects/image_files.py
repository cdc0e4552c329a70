"""Pixels and labels out of a folder of pictures, an .npz or .safetensors file, or arrays."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from claimbench.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 50_000_000  # of one picture: a few bytes may claim to be gigabytes
MAX_BYTES = 4 << 30  # of all pixels as float32
MAX_CHANNELS = 4


@dataclass(frozen=True)
class Raw:
    """Pixels in [0, 1] [count, channels, height, width], and labels into `classes`."""

    pixels: Float32[np.ndarray, "count channels height width"]
    labels: Int64[np.ndarray, " count"]
    classes: tuple[str, ...]


# --- a folder of class folders ---


def picture_files(folder: Path, where: str) -> list[tuple[str, Path]]:
    """Class and path of every PNG and JPEG in a folder's sub-folders (at any depth), in order of name."""
    found: list[tuple[str, Path]] = []
    loose = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.suffix.lower() in SUFFIXES and path.is_file() and not any(p.startswith(".") for p in parts):
            loose += len(parts) == 1
            if len(parts) > 1:
                found.append((parts[0], path))
    if loose:
        raise UserError(
            f"{where}: {loose} pictures lie in no class; put those of each class into a folder of its own"
        )
    if not found:
        raise UserError(f"{where}: holds no PNG or JPEG files in sub-folders named for their classes")
    return found


def read_folder(folder: Path, size: int | None, where: str) -> Raw:
    """Pictures of one size: as they are if they agree, else scaled and cropped at the centre.

    size: height and width wanted; default: the smallest height and the smallest width that occur, so that nothing is
    enlarged. Grey if all pictures are, else red, green and blue; transparency is laid over black.
    """
    files = picture_files(folder, where)
    headers = [_header(path) for _, path in files]
    heights, widths = zip(*((height, width) for height, width, _ in headers), strict=True)
    target = (size, size) if size else (min(heights), min(widths))
    channels = 1 if all(grey for _, _, grey in headers) else 3
    _check_bytes(len(files) * channels * target[0] * target[1], where)
    pixels = np.empty((len(files), channels, *target), dtype=np.float32)
    for place, (_, path) in enumerate(files):
        pixels[place] = _picture(path, channels, target)
    classes = sorted({name for name, _ in files})
    places = {name: place for place, name in enumerate(classes)}
    return Raw(pixels, np.array([places[name] for name, _ in files], dtype=np.int64), tuple(classes))


def _pillow(where: str) -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise UserError(f'{where}: needs the package Pillow; pip install "claimbench[images]"') from None
    return Image


def _header(path: Path) -> tuple[int, int, bool]:
    """Height and width as shown, and whether it is grey, read without unpacking it."""
    with _opened(path) as picture:
        width, height = picture.size
        turned = path.suffix.lower() != ".png" and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        grey = picture.mode in ("1", "L") or picture.mode.startswith("I")
        return (width, height, grey) if turned else (height, width, grey)


def _opened(path: Path) -> Any:
    image = _pillow(str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image.DecompressionBombWarning)
            picture = image.open(path, formats=("PNG", "JPEG"))
    except image.DecompressionBombError:
        raise UserError(f"{path}: too many pixels; at most {MAX_PIXELS:,} are read") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: not a PNG or JPEG picture ({_reason(error)})") from None
    if picture.size[0] * picture.size[1] > MAX_PIXELS:
        raise UserError(
            f"{path}: {picture.size[0]} x {picture.size[1]} pixels; at most {MAX_PIXELS:,} are read"
        )
    return picture


def _picture(
    path: Path, channels: int, target: tuple[int, int]
) -> Float32[np.ndarray, "channels height width"]:
    from PIL import Image, ImageOps

    try:
        with _opened(path) as opened:
            deep = opened.mode.startswith("I")
            picture = ImageOps.exif_transpose(opened)
            if deep:  # 16 bits
                values = np.asarray(picture, dtype=np.float32) / 65535
                picture = Image.fromarray(values)
            elif channels == 1:
                picture = picture.convert("L")
            else:
                if "A" in picture.getbands() or "transparency" in picture.info:
                    over = picture.convert("RGBA")
                    picture = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
                picture = picture.convert("RGB")
            if (picture.height, picture.width) != target:
                picture = ImageOps.fit(picture, (target[1], target[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture, dtype=np.float32) / (1 if deep else 255)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)})") from None
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.broadcast_to(planes, (channels, *target))


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _check_bytes(values: int, where: str) -> None:
    if values * 4 > MAX_BYTES:
        raise UserError(
            f"{where}: the pixels take {values * 4 / 2**30:.1f} GiB, more than {MAX_BYTES / 2**30:.0f}; "
            "give smaller pictures (#size=64 scales those of a folder) or fewer"
        )


# --- files of arrays, and arrays ---


def read_arrays(path: Path, where: str) -> Raw:
    """`images`, `labels` and, where there are any, `classes` (in an .npz an array of names, in a .safetensors' metadata
    a list of them as JSON).
    """
    try:
        found = _npz(path, where) if path.suffix.lower() == ".npz" else _safetensors(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{where}: cannot be read ({_reason(error)})") from None
    for name in ("images", "labels"):
        if name not in found:
            raise UserError(f'{where}: holds no "{name}" (it holds: {", ".join(sorted(found)) or "nothing"})')
    return from_arrays(found["images"], found["labels"], found.get("classes"), where)


def _npz(path: Path, where: str) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        _check_bytes(sum(info.file_size for info in archive.infolist()) // 4, where)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name in ("images", "labels", "classes")}


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys() if name in ("images", "labels")}  # noqa: SIM118
            if "classes" in (file.metadata() or {}):
                found["classes"] = json.loads(file.metadata()["classes"])
    except (SafetensorError, TypeError) as error:
        raise ValueError(_reason(error)) from None
    return found


def from_arrays(images: Any, labels: Any, classes: Any, where: str) -> Raw:
    """Arrays as pixels and labels. Raises UserError for other shapes and ranges.

    images: [count, height, width], [count, channels, height, width] or [count, height, width, channels] with at most 4
    channels (channels first where both fit); whole numbers of 8 bits, or numbers in [0, 1]. labels: [count], numbers or
    names. classes: the names of labels 0, 1, ...; default: the labels themselves, in order.
    """
    pixels = _pixels(np.asarray(images), where)
    given = np.asarray(labels)
    if given.shape != pixels.shape[:1]:
        raise UserError(
            f"{where}: labels have shape {list(given.shape)} where there are {len(pixels)} images"
        )
    named = given.dtype.kind == "U" or (given.dtype.kind == "O" and all(isinstance(x, str) for x in given))
    if not named and given.dtype.kind not in "biu":
        raise UserError(f"{where}: labels are whole numbers or names, not {given.dtype}")
    if classes is None:
        different, codes = np.unique(
            given.astype(str) if given.dtype.kind == "O" else given, return_inverse=True
        )
        return Raw(pixels, codes.astype(np.int64), tuple(str(label) for label in different))
    names = _names(classes)
    if given.dtype.kind not in "iu" or given.min(initial=0) < 0 or given.max(initial=0) >= len(names):
        raise UserError(f"{where}: with classes, labels are whole numbers from 0 to {len(names) - 1}")
    return Raw(pixels, given.astype(np.int64), names)


def _names(classes: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in classes)


def _pixels(images: np.ndarray, where: str) -> Float32[np.ndarray, "count channels height width"]:
    shape = list(images.shape)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] > MAX_CHANNELS >= images.shape[3]:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] > MAX_CHANNELS or 0 in images.shape:
        raise UserError(
            f"{where}: images have shape {shape}; wanted [count, height, width] or "
            f"[count, channels, height, width] with at most {MAX_CHANNELS} channels"
        )
    _check_bytes(images.size, where)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images, dtype=np.float32) / np.float32(255)
    if images.dtype.kind not in "fb":
        raise UserError(
            f"{where}: images are {images.dtype}; give 8-bit numbers (uint8) or numbers from 0 to 1"
        )
    pixels = np.ascontiguousarray(images, dtype=np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN is refused too
        raise UserError(
            f"{where}: images hold values from {low:.4g} to {high:.4g}; scale them to lie from 0 to 1"
        )
    return pixels


def arrays_of(value: Any) -> tuple[Any, Any, Any] | None:
    """(images, labels, classes or None) of a tuple or dict that holds them."""
    if isinstance(value, Mapping) and {"images", "labels"} <= set(value) <= {"images", "labels", "classes"}:
        return value["images"], value["labels"], value.get("classes")
    if isinstance(value, tuple) and len(value) in (2, 3):
        return value[0], value[1], value[2] if len(value) == 3 else None
    return None
