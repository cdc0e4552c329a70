"""Columns out of CSV and Parquet files and out of data frames, by way of Arrow.

Parquet is told by its first bytes; everything else is read as CSV with a line of names, separated by commas, semicolons
or tabs, in UTF-8. Empty fields and the usual words (NA, NaN, null, ...) are missing values, unless they are quoted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from claimbench.errors import UserError
from claimbench.subjects.tabular import MISSING, Column, numeric_column

if TYPE_CHECKING:
    import pyarrow

SEPARATORS = ",;\t"
_ONE_BLOCK = 1 << 28  # bytes: types are found from the first block, so that smaller files are read as one
_INDEX = re.compile(r"__index_level_\d+__")


def arrow(where: str) -> Any:
    """The pyarrow package. Raises UserError saying what to install."""
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise UserError(f'{where}: needs the package pyarrow; pip install "claimbench[tables]"') from None
    return pyarrow


def read_file(path: Path, where: str) -> dict[str, Column]:
    """The columns of a CSV or Parquet file. Raises UserError, which begins with `where`."""
    arrow(where)
    try:
        if not path.exists():
            raise UserError(f"{where}: no such file")
        if path.is_dir():
            raise UserError(f"{where}: a folder; give a CSV or Parquet file")
        with path.open("rb") as file:
            head = file.read(8192)
        table = _parquet(path, where) if head[:4] == b"PAR1" else _csv(path, head, where)
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror or error}") from None
    return columns_of(table, where)


def read_frame(frame: Any, where: str) -> dict[str, Column]:
    """The columns of a data frame (pandas, polars, pyarrow, or whatever speaks Arrow's or the interchange protocol).

    A frame's index is no column.
    """
    pyarrow = arrow(where)
    if isinstance(frame, pyarrow.Table):
        table = frame
    elif hasattr(frame, "__arrow_c_stream__"):
        table = pyarrow.table(frame)
    else:
        from pyarrow.interchange import from_dataframe

        table = from_dataframe(frame)
    return columns_of(table.drop([name for name in table.column_names if _INDEX.fullmatch(name)]), where)


def is_frame(value: Any) -> bool:
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__dataframe__")


def _parquet(path: Path, where: str) -> pyarrow.Table:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path, partitioning=None, use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{where}: not a whole Parquet file ({_first_line(error)}); save it again") from None


def _csv(path: Path, head: bytes, where: str) -> pyarrow.Table:
    import pyarrow
    from pyarrow import csv

    if b"\0" in head:
        raise UserError(f"{where}: neither CSV nor Parquet: it holds NUL bytes")
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(f"{where}: a web page, not a table; give the address of the file itself")
    size = path.stat().st_size
    ragged: list[Any] = []

    def remember(row: Any) -> str:
        ragged.append(row)
        return "error"

    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(
                use_threads=False, block_size=min(max(size, 1 << 16) + 1, _ONE_BLOCK)
            ),
            parse_options=csv.ParseOptions(
                delimiter=_separator(head), newlines_in_values=True, invalid_row_handler=remember
            ),
            convert_options=csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False),
        )
    except (pyarrow.ArrowException, OSError) as error:
        if ragged:
            raise UserError(f"{where}: {_ragged(path, ragged[0])}") from None
        raise UserError(f"{where}: not a CSV file ({_first_line(error)})") from None
    names = _names(table, where)
    if names and names[0] == "" and len(names) > 1:  # the row index, as pandas writes it
        table, names = table.remove_column(0), names[1:]
    for place, name in enumerate(names, start=1):
        if not name.strip():
            raise UserError(f"{where}: column {place} has no name in the first line")
        if _is_number(name):
            raise UserError(
                f'{where}: the first line holds "{name}" where a column\'s name belongs; add one of names'
            )
    return table


def _names(table: pyarrow.Table, where: str) -> list[str]:
    try:
        return list(table.column_names)
    except UnicodeDecodeError:
        raise UserError(f"{where}: its line of names is not UTF-8; save it as UTF-8") from None


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return name.strip().lower() not in ("nan", "inf", "infinity")


def _separator(head: bytes) -> str:
    names = head.lstrip(b"\xef\xbb\xbf\r\n").split(b"\n")[0].decode("utf-8", "replace")
    unquoted = re.sub(r'"[^"]*"', "", names)
    return max(SEPARATORS, key=unquoted.count)


def _ragged(path: Path, row: Any) -> str:
    """Where the first row of another length stands. A record's number is no line's: blank lines do not count."""
    text = row.text.split("\n")[0].rstrip("\r")
    with path.open(encoding="utf-8", errors="replace") as lines:
        number = next((n for n, line in enumerate(lines, start=1) if line.rstrip("\r\n") == text), row.number)
    return f"line {number} holds {row.actual_columns} values where {row.expected_columns} belong"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


# --- from Arrow to columns ---


def columns_of(table: pyarrow.Table, where: str) -> dict[str, Column]:
    """Numbers, dates and times (in seconds, dates since 1970) to float64; text and truth values to categories."""
    return dict(_columns(table, where))


def _columns(table: pyarrow.Table, where: str) -> Iterator[tuple[str, Column]]:
    names = table.column_names
    ((often, times),) = Counter(names).most_common(1) or [("", 0)]
    if times > 1:
        raise UserError(f'{where}: {times} columns are called "{often}"; rename all but one')
    for name, values in zip(names, table.columns, strict=True):
        yield name, _column(values, f'{where}: column "{name}"')


def _column(values: pyarrow.ChunkedArray, where: str) -> Column:
    import pyarrow
    from pyarrow import compute, types

    kind = values.type
    if types.is_boolean(kind):
        return _categories(compute.if_else(values, "True", "False"))
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return numeric_column(compute.cast(values, pyarrow.float64(), safe=False).to_numpy())
    if types.is_date(kind) or types.is_timestamp(kind):
        moments = compute.cast(compute.cast(values, pyarrow.timestamp("us"), safe=False), pyarrow.int64())
        return _seconds(moments, 1e6)
    if types.is_time(kind) or types.is_duration(kind):
        target = pyarrow.duration("us") if types.is_duration(kind) else pyarrow.time64("us")
        return _seconds(compute.cast(compute.cast(values, target, safe=False), pyarrow.int64()), 1e6)
    if types.is_dictionary(kind):
        return _column(compute.cast(values, kind.value_type), where)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _categories(values)
    if types.is_binary(kind) or types.is_large_binary(kind):
        raise UserError(f"{where} is not UTF-8; save the file as UTF-8")
    raise UserError(f"{where} holds {kind}; a table's columns are numbers, dates, truth values or text")


def _seconds(values: pyarrow.ChunkedArray, unit: float) -> Column:
    import pyarrow
    from pyarrow import compute

    return numeric_column(compute.cast(values, pyarrow.float64(), safe=False).to_numpy() / unit)


def _categories(values: pyarrow.ChunkedArray) -> Column:
    """As `categorical_column`, without a Python object for every row."""
    import pyarrow
    from pyarrow import compute

    encoded = compute.cast(values, pyarrow.large_string()).combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    categories = sorted(found)
    ranks = {name: rank for rank, name in enumerate(categories)}
    codes = np.array([*(ranks[name] for name in found), MISSING], dtype=np.int64)
    places = compute.fill_null(encoded.indices, len(found)).to_numpy(zero_copy_only=False)
    return Column(codes[places], tuple(categories))
