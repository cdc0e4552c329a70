"""Tables as subjects: scikit-learn's bundled sets by name, a CSV or Parquet file here or at an address, a data frame, a
dict of columns, or arrays (X, y).

`#target=NAME` after a name, path or address chooses the target (default: the last column; nothing after the sign: no
target), `&task=classification` or `&task=regression` how it is predicted (default: see `tabular.target_of`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from claimbench.errors import UserError, nearest
from claimbench.paths import cache_dir, write_atomically
from claimbench.spec import SubjectRef, digest
from claimbench.subjects.remote import fetch_url, file_name, is_url, shown_url
from claimbench.subjects.store import say, sha256_of, shown
from claimbench.subjects.table_files import is_frame, read_file, read_frame
from claimbench.subjects.tabular import (
    TASKS,
    Column,
    Tabular,
    Task,
    categorical_column,
    make_tabular,
    numeric_column,
)

BUNDLED = {  # name -> scikit-learn's loader
    "iris": "load_iris",
    "wine": "load_wine",
    "breast-cancer": "load_breast_cancer",
    "digits": "load_digits",
    "diabetes": "load_diabetes",
}


@dataclass(frozen=True)
class Wanted:
    """What stands after the "#": the target's name ("" for no target) and the task."""

    target: str | None = None  # None: the last column
    task: Task | None = None

    def of(self, columns: Mapping[str, Column]) -> Wanted:
        """The same with the target named."""
        return Wanted(list(columns)[-1], self.task) if self.target is None else self

    def __str__(self) -> str:
        return f"#target={self.target}" + (f"&task={self.task}" if self.task else "")


def parse(value: str) -> tuple[str, Wanted]:
    """A name, path or address, and what stands after its "#". Raises UserError for an unknown task."""
    place, _, choices = value.rpartition("#")
    if not choices.startswith(("target=", "task=")):
        return value, Wanted()
    if choices.startswith("task="):
        target, task = None, choices.removeprefix("task=")
    else:
        target, _, task = choices.removeprefix("target=").partition("&task=")
    if task and task not in TASKS:
        raise UserError(f'{value}: no task "{task}"{nearest(task, TASKS)}')
    return place, Wanted(target, task if task else None)


class TableKind:
    """Tables by name, path or address, or an object with a version: a frame or a dict of columns (alone, or with the
    target's name or None: `(frame, "price")`), or arrays `(X, y)` with y None for no target.
    """

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if not isinstance(value, str | Path):
            return _object(value, version)
        place, wanted = parse(str(value))
        if place in BUNDLED:
            return _bundled(str(value), place, wanted)
        if is_url(place):
            return _known(fetch_url(place), wanted, value=shown_url(place), label=file_name(place))
        path = Path(place).expanduser()
        if "/" not in place and not path.exists() and path.suffix.lower() not in (".csv", ".parquet"):
            raise UserError(f'no table "{shown(path)}": no such file{nearest(place, BUNDLED)}')
        return _known(path.resolve(), wanted, value=shown(path), label=shown(Path(path.name)))

    def downloads(self, ref: SubjectRef) -> int:
        return 0

    def prepare(self, ref: SubjectRef) -> None:
        """Nothing is left to do: addresses are fetched when they are resolved, since only content identifies."""

    def open(self, ref: SubjectRef, device: str) -> Tabular:
        place, wanted = parse(ref.value)
        if not ref.path:
            return _tabular(_sklearn(place), wanted, place)
        path = Path(ref.path)
        if path.parent == _objects():
            columns, wanted = _stored(path)
        try:
            if _identity(path, wanted) != ref.identity:
                raise UserError(f"{shown(path)}: changed since this run was planned; start it again")
        except OSError as error:
            raise UserError(f"{shown(path)}: cannot be read: {error.strerror}") from None
        if path.parent != _objects():
            columns = read_file(path, place)
        return _tabular(columns, wanted, place)


def _tabular(columns: Mapping[str, Column], wanted: Wanted, where: str) -> Tabular:
    if not columns:
        raise UserError(f"{where}: holds no columns")
    lengths = {name: len(column.values) for name, column in columns.items()}
    longest = max(lengths, key=lengths.__getitem__)
    for name, length in lengths.items():
        if length != lengths[longest]:
            raise UserError(
                f'{where}: column "{name}" holds {length} values where "{longest}" holds {lengths[longest]}'
            )
    named = wanted.of(columns)
    return make_tabular(columns, named.target or None, named.task, where=where)


# --- scikit-learn's ---


def _bundled(value: str, name: str, wanted: Wanted) -> SubjectRef:
    columns = _sklearn(name)
    table = _tabular(columns, wanted, name)
    named = wanted.of(columns)
    target = [] if table.target is None else table.target.values.tolist()
    identity = digest(["table", name, table.keys.tolist(), target, named.target, named.task])
    return SubjectRef(kind="table", value=value, identity=identity, label=value)


def _sklearn(name: str) -> dict[str, Column]:
    """A bundled set's columns; the target is the last and is called "target"."""
    from sklearn import datasets

    found = getattr(datasets, BUNDLED[name])()
    columns = {
        str(column): numeric_column(found.data[:, place]) for place, column in enumerate(found.feature_names)
    }
    names = getattr(found, "target_names", None)
    columns["target"] = (
        numeric_column(found.target)
        if names is None
        else Column(found.target.astype(np.int64), tuple(str(label) for label in names))
    )
    return columns


# --- files ---


def _known(path: Path, wanted: Wanted, *, value: str, label: str) -> SubjectRef:
    """A file that was read whole before, with this target, is not read again: its hash is remembered."""
    try:
        content = sha256_of(path) if path.is_file() else ""
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror}") from None
    checked = cache_dir() / "subjects" / "tables" / f"{digest([content, wanted.target, wanted.task])}.checked"
    try:
        named = Wanted(str(json.loads(checked.read_bytes())["target"]), wanted.task)
    except (OSError, ValueError, KeyError, TypeError):
        columns = read_file(path, value)
        table = _tabular(columns, wanted, value)
        if table.rows_dropped:
            say(f"{value}: {table.rows_dropped:,} rows without a target are left out")
        named = wanted.of(columns)
        write_atomically(checked, json.dumps({"target": named.target}).encode())
    return SubjectRef(
        kind="table",
        value=f"{value}{named}",
        identity=_identity(path, named),
        path=str(path),
        label=label,
        private=True,
    )


def _identity(path: Path, named: Wanted) -> str:
    return digest(["table", sha256_of(path), named.target, named.task])


# --- objects ---


def _objects() -> Path:
    return cache_dir() / "subjects" / "tables" / "objects"


def _object(value: Any, version: str | None) -> SubjectRef:
    if version is None:
        raise UserError('a table given as an object needs version = "...": a name for exactly this content')
    where = f"table {version}"
    columns, wanted = columns_and_target(value, where)
    table = _tabular(columns, wanted, where)
    if table.rows_dropped:
        say(f"{where}: {table.rows_dropped:,} rows without a target are left out")
    content = _packed(columns, wanted.of(columns))
    path = _objects() / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
    if not path.exists():
        write_atomically(path, content)
    named = wanted.of(columns)
    return SubjectRef(
        kind="table",
        value=version,
        identity=_identity(path, named),
        path=str(path),
        label=version,
        private=True,
    )


def columns_and_target(value: Any, where: str) -> tuple[dict[str, Column], Wanted]:
    """An object's columns, and which of them is the target. Raises UserError for what is no table."""
    wanted = Wanted()
    if isinstance(value, tuple) and len(value) == 2:
        body, target = value
        if (isinstance(body, Mapping) or is_frame(body)) and (target is None or isinstance(target, str)):
            value, wanted = body, Wanted(target or "")
        else:
            return _arrays(body, target, where)
    if isinstance(value, Mapping):
        return {
            str(name): _column(values, f'{where}: column "{name}"') for name, values in value.items()
        }, wanted
    if is_frame(value):
        return read_frame(value, where), wanted
    raise UserError(
        f"a table is a name, a path, an address, a data frame, a dict of columns or arrays (X, y), "
        f"not {type(value).__name__}"
    )


def _arrays(features: Any, target: Any, where: str) -> tuple[dict[str, Column], Wanted]:
    matrix = np.asarray(features)
    if matrix.ndim != 2:
        raise UserError(f"{where}: X has shape {list(matrix.shape)}; a table needs [rows, columns]")
    columns = {f"x{place}": _column(matrix[:, place], f"{where}: X") for place in range(matrix.shape[1])}
    if target is None:
        return columns, Wanted("")
    labels = np.asarray(target)
    if labels.shape != matrix.shape[:1]:
        raise UserError(f"{where}: y has shape {list(labels.shape)} where X has {len(matrix)} rows")
    return {**columns, "y": _column(labels, f"{where}: y")}, Wanted("y")


def _column(values: Any, where: str) -> Column:
    """Numbers to float64, None among them to NaN; text and truth values to categories; moments to seconds."""
    array = np.asarray(values)
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        array = np.asarray(values, dtype=object)  # NumPy makes text of numbers that stand beside it
    if array.ndim != 1:
        raise UserError(f"{where} has shape {list(array.shape)}; a column is a list of values")
    if array.dtype.kind in "iuf":
        return numeric_column(array)
    if array.dtype.kind in "mM":
        seconds = array.astype(f"{array.dtype.kind}8[us]").astype(np.int64) / 1e6
        return numeric_column(np.where(np.isnat(array), np.nan, seconds))
    if array.dtype.kind in "bUOST":
        given = [None if value is None or value != value else value for value in array.tolist()]
        there = [value for value in given if value is not None]
        if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in there):
            return numeric_column(np.array([np.nan if value is None else value for value in given]))
        if all(isinstance(value, str) for value in there) or all(isinstance(value, bool) for value in there):
            return categorical_column(None if value is None else str(value) for value in given)
    raise UserError(f"{where} mixes or holds values that are neither numbers, dates, truth values nor text")


def _packed(columns: Mapping[str, Column], named: Wanted) -> bytes:
    from safetensors.numpy import save

    described = {
        "columns": [[name, column.categories] for name, column in columns.items()],
        "target": named.target,
    }
    # safetensors writes an array's memory as it lies, whatever its strides.
    tensors = {
        str(place): np.ascontiguousarray(column.values) for place, column in enumerate(columns.values())
    }
    return bytes(save(tensors, metadata={"table": json.dumps(described)}))


def _stored(path: Path) -> tuple[dict[str, Column], Wanted]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads(file.metadata()["table"])
            columns = {
                name: Column(file.get_tensor(str(place)), None if categories is None else tuple(categories))
                for place, (name, categories) in enumerate(described["columns"])
            }
    except (OSError, SafetensorError) as error:
        raise UserError(f"{shown(path)}: cannot be read ({error}); start the run again") from None
    return columns, Wanted(described["target"])


KIND = TableKind()
