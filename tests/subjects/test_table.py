from __future__ import annotations

import csv
import datetime
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claimbench.errors import UserError
from claimbench.spec import SubjectRef
from claimbench.subjects import open_subject, resolve_subject, store, table
from claimbench.subjects.splits import SHARES, content_keys, split_by_key
from claimbench.subjects.tabular import Tabular, categorical_column, make_tabular, numeric_column

pyarrow = pytest.importorskip("pyarrow", reason="tables need pyarrow")


def _opened(value: Any, version: str | None = None) -> Tabular:
    """As a worker gets it: the reference passes through JSON."""
    ref = resolve_subject("table", value, version=version)
    found = open_subject(SubjectRef(**json.loads(json.dumps(vars(ref)))))
    assert isinstance(found, Tabular)
    return found


def _write(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def _prices(path: Path, count: int = 60) -> Path:
    generator = np.random.default_rng(1)
    rows = [
        [f"{size:.3f}", ["red", "green", "blue"][index % 3], index, f"{3 * size:.3f}"]
        for index, size in enumerate(generator.uniform(size=count))
    ]
    return _write(path, [["size", "colour", "number", "price"], *rows])


# --- splits ---


@given(st.lists(st.integers(0, 12), min_size=3, max_size=200), st.randoms())
def test_splits_are_complete_blind_to_order_and_share_no_value(items: list[int], order: Any) -> None:
    values = np.array(items, dtype=np.uint64)[:, None]
    parts = split_by_key(content_keys(values))
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(items)))
    chosen = {name: {items[place] for place in places} for name, places in parts.items()}
    assert sum(map(len, chosen.values())) == len(set(items))
    shuffled = order.sample(items, len(items))
    again = split_by_key(content_keys(np.array(shuffled, dtype=np.uint64)[:, None]))
    assert {name: {shuffled[place] for place in places} for name, places in again.items()} == chosen


def test_rows_that_differ_only_in_the_target_stay_together() -> None:
    generator = np.random.default_rng(0)
    size = np.repeat(generator.normal(size=100), 3)
    columns = {"size": numeric_column(size), "price": numeric_column(generator.normal(size=300))}
    made = make_tabular(columns, "price", where="prices")
    parts = [set(getattr(made, name).numeric[:, 0]) for name in SHARES]
    assert sum(map(len, parts)) == 100
    assert [len(getattr(made, name)) for name in SHARES] == [240, 30, 30]
    assert set(made.train["price"]) <= set(columns["price"].values)


def test_a_rows_split_depends_on_neither_the_order_of_columns_nor_other_categories() -> None:
    generator = np.random.default_rng(0)
    number = numeric_column(generator.normal(size=50))
    letters = [str(letter) for letter in generator.choice(list("bcd"), size=50)]
    first = Tabular({"number": number, "letter": categorical_column(letters)})
    second = Tabular({"letter": categorical_column(letters), "number": number})
    assert np.array_equal(first.keys, second.keys)
    longer = Tabular(
        {
            "number": numeric_column(np.append(number.values, 0.0)),
            "letter": categorical_column([*letters, "a"]),
        }
    )
    assert longer.categories["letter"] == ("a", "b", "c", "d")
    assert np.array_equal(longer.keys[:50], first.keys)
    zeros = Tabular({"number": numeric_column(np.array([0.0, -0.0, np.nan, -np.nan]))})
    assert len(set(zeros.keys[:2])) == len(set(zeros.keys[2:])) == 1


# --- what values become ---

TEXTS = st.text(alphabet='ab ,;"é\n', max_size=6).filter(lambda text: text.strip() != "")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False), st.one_of(st.none(), TEXTS), st.integers(-(2**40), 2**40)),
        min_size=30,
        max_size=40,
        unique_by=lambda row: row[0],
    )
)
def test_a_csv_file_gives_back_what_was_written(rows: list[tuple[float, str | None, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        written = [
            [repr(number), "word" if text is None else text + "!", whole] for number, text, whole in rows
        ]
        for row, (_, text, _) in zip(written, rows, strict=True):
            if text is None:
                row[1] = ""
        _write(path, [["number", "text", "whole"], *written])
        columns = table.read_file(path, "rows")
    assert np.array_equal(columns["number"].values, [number for number, _, _ in rows])
    assert np.array_equal(columns["whole"].values, [whole for _, _, whole in rows])
    text = columns["text"]
    if any(given is not None for _, given, _ in rows):
        assert text.categories is not None
        names = [*text.categories, None]
        assert [names[int(code)] for code in text.values] == [t if t is None else t + "!" for _, t, _ in rows]


def test_numbers_text_truth_values_and_dates(own_cache: Path, tmp_path: Path) -> None:
    rows = [
        [index / 2, "yes" if index % 2 else "no", "true" if index % 3 else "false", f"2020-01-{index + 1:02}"]
        for index in range(25)
    ]
    found = _opened(f"{_write(tmp_path / 'a.csv', [['n', 'text', 'truth', 'day'], *rows])}#target=n")
    assert found.numeric_names == ("day",)
    assert found.categories == {"text": ("no", "yes"), "truth": ("False", "True")}
    assert found["day"][1] == datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC).timestamp()
    assert found.codes.shape == (25, 2)
    assert found.target is not None
    assert found.target.task == "regression"


def test_missing_values_stay_and_rows_without_a_target_go(
    own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        [index if index % 5 else "", "NA" if index % 4 == 0 else "a", "" if index < 6 else index]
        for index in range(40)
    ]
    found = _opened(_write(tmp_path / "gaps.csv", [["number", "text", "target"], *rows]))
    assert "gaps.csv: 6 rows without a target are left out" in capsys.readouterr().err
    assert (found.rows_dropped, len(found)) == (6, 34)
    assert found.missing == {
        "number": sum(index % 5 == 0 for index in range(6, 40)),
        "text": sum(index % 4 == 0 for index in range(6, 40)),
    }
    assert np.isnan(found.numeric).sum() == found.missing["number"]
    assert (found.codes == -1).sum() == found.missing["text"]


@pytest.mark.parametrize(
    ("values", "choice", "task", "classes"),
    [
        (["a", "b"], "", "classification", ("a", "b")),
        ([3, 1], "", "classification", ("1", "3")),
        ([3.5, 1.0], "", "regression", ()),
        ([3.5, 1.0], "&task=classification", "classification", ("1.0", "3.5")),
        ([3, 1], "&task=regression", "regression", ()),
        (range(25), "", "regression", ()),
    ],
)
def test_the_task_follows_from_the_target_unless_it_is_named(
    own_cache: Path, tmp_path: Path, values: Any, choice: str, task: str, classes: tuple[str, ...]
) -> None:
    rows = [[index, values[index % len(values)]] for index in range(50)]
    target = _opened(f"{_write(tmp_path / 'a.csv', [['x', 'y'], *rows])}#target=y{choice}").target
    assert target is not None
    assert (target.task, target.classes) == (task, classes)
    shown = [target.classes[int(code)] for code in target.values] if classes else target.values.tolist()
    assert [str(x) for x in shown] == [str(type(x)(values[i % len(values)])) for i, x in enumerate(shown)]


# --- where tables come from ---


@pytest.mark.parametrize(
    ("name", "task"),
    [(name, "classification") for name in table.BUNDLED if name != "diabetes"] + [("diabetes", "regression")],
)
def test_scikit_learns_tables_are_as_it_gives_them(own_cache: Path, name: str, task: str) -> None:
    from sklearn import datasets

    found, original = _opened(name), getattr(datasets, table.BUNDLED[name])()
    assert np.array_equal(found.numeric, original.data)
    assert found.target is not None
    assert found.target.task == task
    assert np.array_equal(found.target.values, original.target)
    ref = resolve_subject("table", name)
    assert (ref.label, ref.private, ref.path) == (name, False, "")
    assert resolve_subject("table", f"{name}#target=").identity != ref.identity


def test_targets_are_chosen_by_name(own_cache: Path, tmp_path: Path) -> None:
    path = _prices(tmp_path / "prices.csv")
    last, named, none = (_opened(f"{path}{choice}") for choice in ("", "#target=colour", "#target="))
    assert [found.target.name if found.target else None for found in (last, named, none)] == [
        "price",
        "colour",
        None,
    ]
    assert named.names == ("size", "number", "price")
    assert none.names == ("size", "colour", "number", "price")
    identity = resolve_subject("table", path).identity
    assert resolve_subject("table", f"{path}#target=price").identity == identity
    assert resolve_subject("table", f"{path}#target=size").identity != identity
    with pytest.raises(UserError, match='no column "pric" to be the target; did you mean "price"'):
        resolve_subject("table", f"{path}#target=pric")
    with pytest.raises(UserError, match='no task "regresion"; did you mean "regression"'):
        resolve_subject("table", f"{path}#target=price&task=regresion")
    with pytest.raises(UserError, match='target "colour" holds text, which cannot be regressed'):
        resolve_subject("table", f"{path}#target=colour&task=regression")


def test_a_table_of_mixtures_and_losses(own_cache: Path, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=64)
    names = ["", "train_a", "train_b", "train_c", "valid_loss"]
    rows = [[index, *(repr(float(x)) for x in w), index / 7] for index, w in enumerate(weights)]
    found = _opened(f"{_write(tmp_path / 'mixtures.csv', [names, *rows])}#target=")
    assert np.array_equal(found.matrix("train_"), weights)
    assert found.names == tuple(names[1:])
    assert found["valid_loss"][7] == 1.0
    with pytest.raises(UserError, match='no column of this table begins with "test_"'):
        found.matrix("test_")
    with pytest.raises(UserError, match='no column "valid_los" in this table; did you mean "valid_loss"'):
        found["valid_los"]


def test_csv_parquet_and_separators_agree(own_cache: Path, tmp_path: Path) -> None:
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    path = _prices(tmp_path / "prices.csv")
    first = _opened(path)
    parquet.write_table(arrow_csv.read_csv(path), tmp_path / "prices.parquet")
    (tmp_path / "semicolons.csv").write_text("\ufeff" + path.read_text().replace(",", ";"))
    (tmp_path / "tabs.tsv").write_text(path.read_text().replace(",", "\t"))
    for name in ("prices.parquet", "semicolons.csv", "tabs.tsv"):
        other = _opened(tmp_path / name)
        assert np.array_equal(other.numeric, first.numeric)
        assert np.array_equal(other.codes, first.codes)
        assert np.array_equal(other.split["test"], first.split["test"])


def test_the_same_content_elsewhere_is_the_same_table_and_a_change_is_noticed(
    own_cache: Path, tmp_path: Path
) -> None:
    path = _prices(tmp_path / "prices.csv")
    (tmp_path / "copy").write_bytes(path.read_bytes())
    ref = resolve_subject("table", str(path))
    assert resolve_subject("table", str(tmp_path / "copy")).identity == ref.identity
    assert ref.private
    _prices(path, 61)
    with pytest.raises(UserError, match="changed since"):
        open_subject(ref)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        open_subject(ref)


def test_objects_are_kept_for_the_workers(own_cache: Path) -> None:
    generator = np.random.default_rng(0)
    columns = {
        "size": generator.normal(size=30),
        "number": range(30),
        "colour": ["red", None] * 15,
        "dear": [True, False] * 15,
    }
    with pytest.raises(UserError, match="needs version"):
        resolve_subject("table", columns)
    found = _opened(columns, "mine-1")
    assert found.categories == {"colour": ("red",)}
    assert found.missing == {"colour": 15}
    assert found.target is not None
    assert found.target.classes == ("False", "True")
    assert np.array_equal(found["size"], columns["size"])
    other = _opened((columns, "size"), "mine-1")
    assert other.names == ("number", "colour", "dear")
    assert _opened((columns, None), "mine-1").target is None
    matrix, labels = generator.normal(size=(40, 2)), generator.integers(0, 3, size=40)
    arrays = _opened((matrix, labels), "mine-2")
    assert np.array_equal(arrays.numeric, matrix)
    assert np.array_equal(arrays["y"], labels)
    assert _opened((matrix, None), "mine-3").names == ("x0", "x1")


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_data_frames_are_tables_without_their_index(own_cache: Path, library: str) -> None:
    module = pytest.importorskip(library)
    content = {
        "size": [index / 3 for index in range(30)],
        "colour": ["red", "blue", None] * 10,
        "y": [*range(30)],
    }
    frame = module.table(content) if library == "pyarrow" else module.DataFrame(content)
    if library == "pandas":
        frame.index = [f"row {index}" for index in range(30)]
    found, plain = _opened(frame, "mine"), _opened(content, "mine")
    assert found.names == plain.names == ("size", "colour")
    assert np.array_equal(found.numeric, plain.numeric)
    assert np.array_equal(found.codes, plain.codes)
    assert (
        resolve_subject("table", frame, version="a").identity
        == resolve_subject("table", content, version="b").identity
    )


# --- what is refused ---


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a,b\n1,2\n\n1,2,3\n4,5\n", "line 4 holds 3 values where 2 belong"),
        (b'a,b\n1,"x\ny"\n1\n4,5\n', "line 4 holds 1 values where 2 belong"),
        (b"", "not a CSV file"),
        (b"a,b\n1,\0\n", "holds NUL bytes"),
        (b"a,b\n1,caf\xe9\n", 'column "b" is not UTF-8'),
        (b"caf\xe9,b\n1,2\n", "line of names is not UTF-8"),
        (b"a,a\n1,2\n", '2 columns are called "a"; rename all but one'),
        (b"a,,b\n1,2,3\n", "column 2 has no name"),
        (b"5.1,3.5\n4.9,3.0\n", 'holds "5.1" where a column\'s name belongs'),
        (b"a,b\n1,2\n3,4\n", "2 different rows; at least 20 are needed"),
        (b"a,b\n" + b"1,2\n" * 50, "1 different rows"),
        (
            b"a,b\n" + b"".join(b"%d,7\n" % index for index in range(50)),
            'target "b" has the same value in every row',
        ),
        (b"a\n" + b"1\n" * 50, "needs a column beside its target"),
        (b"<!DOCTYPE html><html>", "a web page, not a table"),
        (b"PAR1 and nothing else", "not a whole Parquet file"),
        (None, "no such file"),
    ],
)
def test_unfit_tables_are_named_with_the_fix(
    own_cache: Path, tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        resolve_subject("table", str(path))
    assert "data.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(own_cache: Path, tmp_path: Path) -> None:
    path = _prices(tmp_path / "data.csv")
    path.chmod(0)
    with pytest.raises(UserError, match="data.csv: cannot be read"):
        resolve_subject("table", path)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (3, "not int"),
        ({"a": [1, 2], "b": [1]}, 'column "b" holds 1 values where "a" holds 2'),
        ({"a": [1, "x"] * 20, "b": [1, 2] * 20}, "mixes or holds values"),
        ({"a": [[1, 2]] * 40}, r"has shape \[40, 2\]"),
        ({}, "holds no columns"),
        ((np.zeros((30, 2)), np.zeros(29)), r"y has shape \[29\] where X has 30 rows"),
        ((np.zeros(30), np.zeros(30)), r"X has shape \[30\]"),
        ({"a": range(30), "b": [math.inf, 1.0] * 15}, "infinite"),
    ],
)
def test_unfit_objects_are_named(own_cache: Path, value: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        resolve_subject("table", value, version="mine")
    assert "\n" not in str(caught.value)


def test_unknown_names_are_answered_with_near_ones(own_cache: Path) -> None:
    with pytest.raises(UserError, match='no table "iriss": no such file; did you mean "iris"'):
        resolve_subject("table", "iriss")


def test_without_pyarrow_one_line_says_what_to_install(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    path = _prices(tmp_path / "prices.csv")
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'pip install "claimbench\[tables\]"'):
        resolve_subject("table", path)
    assert len(_opened("iris")) == 150


def test_the_second_use_of_a_file_reads_nothing_but_its_hash_from_memory(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _prices(tmp_path / "prices.csv")
    os.utime(path, (time.time() - 100, time.time() - 100))
    ref = resolve_subject("table", path)

    def fails(*arguments: object) -> None:
        raise AssertionError("the file was read again")

    monkeypatch.setattr(table, "read_file", fails)
    monkeypatch.setattr(store.hashlib, "file_digest", fails)
    assert resolve_subject("table", path) == ref
    with pytest.raises(AssertionError, match="read again"):
        open_subject(ref)
