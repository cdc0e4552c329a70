"""Search of a shelf, and of listings: documents from papers, the command line, similar papers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from papers import WordHashes
from toy import PAPER, MakePaper
from typer.testing import CliRunner, Result

from claimbench.cli import app
from claimbench.search import Index, folder_for, from_listings, from_shelf
from claimbench.search.shelf import search_shelf
from claimbench.shelf import Shelf


def search(tmp_path: Path, *words: str) -> Result:
    """The command in this process; test_cli starts it in one of its own."""
    found = CliRunner().invoke(app, ["search", "--shelf", str(tmp_path / "shelf"), *words])
    assert found.exit_code == 0, found.output
    return found


def test_the_command_finds_filters_and_forgives(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper("attention", group="theory")
    make_paper("other", group="vision", toml=PAPER.replace("2024", "2019").replace("It says", "Zebras say"))
    assert "A paper about attention" in search(tmp_path, "attention").stdout
    assert "A paper about other" not in search(tmp_path, "attention").stdout
    misspelt = search(tmp_path, "atention")
    assert "A paper about attention" in misspelt.stdout
    assert "did you mean attention" in misspelt.stderr
    found = json.loads(search(tmp_path, "zebras", "year:<2020", "group:vision", "--json").stdout)
    assert [(paper["id"], paper["found"]) for paper in found] == [("other", "words")]
    assert json.loads(search(tmp_path, "zebras", "group:theory", "--json").stdout) == []
    assert json.loads(search(tmp_path, "verdict:holds", "--json").stdout) == []
    assert "no paper holds all of" in search(tmp_path, "attention", "zebras").stderr


def test_words_load_neither_numpy_nor_torch(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    script = (
        "import sys; from claimbench.shelf import Shelf; from claimbench.search.shelf import search_shelf;"
        f"found = search_shelf(Shelf([{str(tmp_path / 'shelf')!r}]), 'larger');"
        "assert [entry.id for entry, _ in found.papers] == ['toy'];"
        "assert not {'numpy', 'torch', 'sqlalchemy'} & set(sys.modules)"
    )
    script = script.replace("Shelf([", "Shelf([__import__('pathlib').Path(").replace("])", ")])")
    subprocess.run([sys.executable, "-c", script], check=True)


def test_similar_papers_follow_once_they_are_known(make_paper: MakePaper, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        make_paper(name)
    shelf = Shelf([tmp_path / "shelf"])
    assert [way for _, way in search_shelf(shelf, "first").papers] == ["words"]
    Index(folder_for(shelf.roots), WordHashes()).build(from_shelf(shelf.entries.values()))
    found = [(entry.id, way) for entry, way in search_shelf(shelf, "first").papers]
    assert found[0] == ("first", "words")
    assert sorted(found[1:]) == [("second", "similar"), ("third", "similar")]


def test_a_cache_that_cannot_be_written_costs_only_time(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert [e.id for e, _ in search_shelf(Shelf([tmp_path / "shelf"]), "larger").papers] == ["toy"]


def test_documents_of_listings() -> None:
    rows = [
        {
            "key": "arxiv:1",
            "title": "A title",
            "abstract": "Text",
            "authors": '["A. Author"]',
            "topics": [],
            "group_name": "theory",
            "published": "2024-05-01",
            "hidden": 0,
        },
        {"key": "arxiv:2", "title": "Hidden", "hidden": 1},
    ]
    (document,) = from_listings(rows)
    assert (document.key, document.authors, document.year) == ("arxiv:1", ("A. Author",), 2024)
    assert document.verdicts is None
