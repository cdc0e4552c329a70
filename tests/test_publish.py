"""Publishing and importing: a round trip of all that is allowed, nothing that is not, damage named and skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy import PAPER, MakePaper

from claimbench import bench
from claimbench.errors import UserError
from claimbench.ledger import Ledger
from claimbench.publish import TRIAL_FIELDS, import_results, publish
from claimbench.shelf import Shelf
from claimbench.spec import SubjectRef

WITH_SUBJECT = PAPER.replace(
    "size = {{ scale", 'subjects.text = {{ kind = "text", default = "none" }}\nsize = {{ scale'
)


@pytest.fixture
def measured(make_paper: MakePaper, tmp_path: Path) -> tuple[Ledger, Shelf]:
    make_paper()
    store, shelf = Ledger(tmp_path / "l.sqlite"), Shelf.find([tmp_path / "shelf"])
    bench.run("toy", shelf=shelf, ledger=store, may_trust=lambda root: True)
    return store, shelf


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_round_trip_loses_nothing_that_the_allow_list_names(
    measured: tuple[Ledger, Shelf], tmp_path: Path
) -> None:
    store, shelf = measured
    (path,) = publish("toy", to=tmp_path / "out", ledger=store, shelf=shelf)
    other = Ledger(tmp_path / "other.sqlite")
    summary = import_results([path], ledger=other)
    assert (summary["sets"], summary["trials"], summary["damaged"]) == (1, 30, [])
    (row,), (copy,) = store.sets(), other.sets()
    assert store.verdict(row.uid) == other.verdict(copy.uid)
    wanted = [{name: t[name] for name in TRIAL_FIELDS} for t in store.trials(row.uid)]
    found = [{name: t[name] for name in TRIAL_FIELDS} for t in other.trials(copy.uid)]
    assert sorted(wanted, key=lambda t: t["key"]) == sorted(found, key=lambda t: t["key"])
    (again,) = publish("toy", to=tmp_path / "again", ledger=other, shelf=shelf)
    assert sorted(again.read_text().splitlines()) == sorted(path.read_text().splitlines())


def test_importing_twice_changes_nothing(measured: tuple[Ledger, Shelf], tmp_path: Path) -> None:
    store, shelf = measured
    files = publish("toy", to=tmp_path / "out", ledger=store, shelf=shelf)
    other = Ledger(tmp_path / "other.sqlite")
    import_results(files, ledger=other)
    summary = import_results(files, ledger=other)
    assert (summary["sets"], summary["trials"], summary["known"]) == (0, 0, 30)
    assert import_results(files, ledger=store)["trials"] == 0


def test_a_damaged_line_is_named_and_skipped(measured: tuple[Ledger, Shelf], tmp_path: Path) -> None:
    store, shelf = measured
    (path,) = publish("toy", to=tmp_path / "out", ledger=store, shelf=shelf)
    content = path.read_text().splitlines()
    trial = next(i for i, line in enumerate(content) if json.loads(line)["type"] == "trial")
    content[trial] = content[trial][:100]
    content[trial + 1] = content[trial + 1].replace('"seed"', '"sede"')
    path.write_text("\n".join(content))
    summary = import_results([path], ledger=Ledger(tmp_path / "other.sqlite"))
    assert summary["trials"] == 28
    assert [line.split(": ")[0] for line in summary["damaged"]] == [
        f"{path}:{trial + 1}",
        f"{path}:{trial + 2}",
    ]
    assert "a trial without seed" in summary["damaged"][1]


def test_what_is_no_published_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no header line"):
        import_results([tmp_path / "x.jsonl"], ledger=Ledger(tmp_path / "l.sqlite"))
    with pytest.raises(UserError, match="No such file"):
        import_results([tmp_path / "none.jsonl"], ledger=Ledger(tmp_path / "l.sqlite"))


def test_private_names_and_paths_stay_at_home(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper(toml=WITH_SUBJECT)
    store, shelf = Ledger(tmp_path / "l.sqlite"), Shelf.find([tmp_path / "shelf"])
    secret = SubjectRef(
        "text", "/home/me/secret-model", "abc", path="/home/me/secret-model", label="secret", private=True
    )
    bench.run("toy", shelf=shelf, ledger=store, subjects={"text": secret}, may_trust=lambda root: True)
    assert publish("toy", to=tmp_path / "out", ledger=store, shelf=shelf) == []  # own settings are asked for
    (path,) = publish("toy", to=tmp_path / "out", ledger=store, shelf=shelf, own=True)
    text = path.read_text()
    for word in ("secret", "/home/", str(tmp_path)):
        assert word not in text
    assert any(line.get("subjects", {}).get("text", {}).get("identity") == "abc" for line in lines(path))


def test_development_and_smoke_are_never_published(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    store, shelf = Ledger(tmp_path / "l.sqlite"), Shelf.find([tmp_path / "shelf"])
    bench.run("toy", shelf=shelf, ledger=store, development=True, may_trust=lambda root: True)
    bench.run("toy", shelf=shelf, ledger=store, scale="smoke", may_trust=lambda root: True)
    assert publish("toy", to=tmp_path / "out", ledger=store, shelf=shelf) == []


def test_the_latest_two_sets_of_a_claim_are_written(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    store, shelf = Ledger(tmp_path / "l.sqlite"), Shelf.find([tmp_path / "shelf"])
    for _ in range(3):
        bench.run("toy", shelf=shelf, ledger=store, fresh=True, may_trust=lambda root: True)
    (path,) = publish("toy", to=tmp_path / "out", ledger=store, shelf=shelf)
    assert [line["replication"] for line in lines(path) if line["type"] == "set"] == [1, 2]
