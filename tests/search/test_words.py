"""Search by words: order, forgiveness, and an index that follows its documents."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papers import PAPERS, by_chance

from claimbench.errors import UserError
from claimbench.search import Document, Index
from claimbench.search.postgres import PostgresIndex
from claimbench.search.spelling import deletions, edits


@pytest.fixture(params=["sqlite", "postgresql"])
def index(request: pytest.FixtureRequest) -> Index:
    there = request.param == "postgresql"
    made = PostgresIndex(request.getfixturevalue("postgres_url"), None) if there else Index(None)
    made.build(PAPERS)
    return made


def found(index: Index, query: str) -> list[str]:
    return [hit.key for hit in index.search(query, mode="words").hits]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hyperatention", "hyperattention"),  # a letter missing
        ("hyperattenntion", "hyperattention"),  # one too many
        ("hyperattemtion", "hyperattention"),  # another one
        ("hyperattetnion", "hyperattention"),  # two swapped
        ("hyper attention", "hyperattention"),  # two words
        ("perattent", "hyperattention"),  # a part
        ("hyperatt", "hyperattention"),  # still typing
        ("lattent difusion", "latent-diffusion"),
        ("rashamon", "rashomon"),
        ("ruddin", "rashomon"),
        ("LRA", "long-range-arena"),
        ("Bjorn", "latent-diffusion"),
        ("synthesising images", "latent-diffusion"),  # by its stem
    ],
)
def test_typing_errors_and_parts_find_the_title(index: Index, typed: str, meant: str) -> None:
    assert found(index, typed)[0] == meant


def test_a_correction_is_offered_only_for_what_stands_nowhere(index: Index) -> None:
    assert index.search("difusion", mode="words").corrections == {"difusion": ["diffusion"]}
    assert index.search("diffusion", mode="words").corrections == {}
    assert index.search("xylophone", mode="words").hits == []


def test_documents_that_hold_every_word_come_first(index: Index) -> None:
    hits = index.search("attention benchmark", mode="words").hits
    assert (hits[0].key, hits[0].complete) == ("long-range-arena", True)
    assert {hit.key for hit in hits if not hit.complete} == {"hyperattention", "latent-diffusion"}


def test_a_title_counts_more_than_the_text(index: Index) -> None:
    index.update([Document("text", "Nothing", "A benchmark."), Document("title", "A benchmark", "Nothing.")])
    ranked = found(index, "benchmark")
    assert ranked.index("title") < ranked.index("text")


def test_an_updated_index_answers_as_one_built_afresh(tmp_path: Path) -> None:
    first, later = by_chance(60), by_chance(60, seed=1)
    changed = [replace(first[3], title="gradient zebra"), replace(first[4], authors=("Zoe Zebra",))]
    updated = Index(tmp_path / "updated")
    updated.build(first)
    updated.update(later[:30])
    updated.update([*later[30:], *changed], removed=[first[0].key, first[1].key, "unknown"])
    fresh = Index(tmp_path / "fresh")
    fresh.build([*first[2:3], *changed, *first[5:], *later])
    assert len(updated) == len(fresh) == 118
    queries = [
        "attention",
        "zebra",
        "gradiant",
        "number7",
        "numbr12",
        "author:zoe",
        "kernel group:vision",
        "number",
    ]
    for query in queries:
        both = [index.search(query, mode="words", limit=200) for index in (updated, fresh)]
        assert sorted(hit.key for hit in both[0].hits) == sorted(hit.key for hit in both[1].hits), query
        assert both[0].corrections == both[1].corrections
    tables = ("SELECT word, documents FROM spelling ORDER BY word", "SELECT count(*) FROM deletion")
    for table in tables:
        rows = [i.storage.connection().execute(table).fetchall() for i in (updated, fresh)]
        assert rows[0] == rows[1]
    check = "INSERT INTO words (words, rank) VALUES ('integrity-check', 1)"
    updated.storage.connection().execute(check)  # raises where the index and its documents differ


def test_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    index = Index(tmp_path)
    assert index.build(PAPERS).written == len(PAPERS)
    edition = index.storage.meta("edition")
    assert (Index(tmp_path).build(PAPERS).written, index.storage.meta("edition")) == (0, edition)
    assert (index.build(PAPERS[1:]).removed, found(index, "hashing")) == (1, [])


def test_verdicts_are_replaced_and_kept_where_none_are_given(index: Index) -> None:
    index.build([replace(PAPERS[0], verdicts=None), *PAPERS[1:]])
    assert "hyperattention" in found(index, "verdict:holds")
    changes = index.build([replace(PAPERS[0], verdicts=("Undecided",)), *PAPERS[1:]])
    assert changes.written == 0
    assert found(index, "verdict:holds") == ["rashomon"]
    assert found(index, "verdict:undecided") == ["hyperattention", "latent-diffusion"]


@pytest.mark.parametrize("damage", ["version", "bytes"])
def test_a_stale_or_damaged_index_is_replaced(tmp_path: Path, damage: str) -> None:
    index = Index(tmp_path)
    index.build(PAPERS)
    index.storage.close()
    if damage == "bytes":
        for path in tmp_path.glob("index.sqlite*"):
            path.write_bytes(b"not a database, and long enough to be read as one" * 100)
    else:
        with sqlite3.connect(tmp_path / "index.sqlite") as connection:
            connection.execute("UPDATE meta SET value = '0' WHERE name = 'version'")
    again = Index(tmp_path)
    assert len(again) == 0
    again.build(PAPERS)
    assert found(again, "rashomon") == ["rashomon"]


def test_a_key_given_twice_is_the_users_mistake(index: Index) -> None:
    with pytest.raises(UserError, match='two documents have the key "rashomon"'):
        index.build([*PAPERS, PAPERS[3]])
    with pytest.raises(UserError, match='mode: "word." is none of fused'):
        index.search("x", mode="word!")  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(st.text("abcd", max_size=7), st.text("abcd", max_size=7))
def test_every_pair_one_error_apart_shares_a_form(first: str, second: str) -> None:
    assert edits(first, second) == edits(second, first)
    assert (edits(first, second) == 0) == (first == second)
    if edits(first, second) <= 1:
        assert deletions(first) & deletions(second)
