"""An index on a PostgreSQL server: it follows its documents, machines share it, and each keeps its own vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from papers import PAPERS, WordHashes, by_chance
from postgres import Server

from claimbench.errors import UserError
from claimbench.search import Document, Index
from claimbench.search.postgres import PostgresIndex
from claimbench.search.postgres_query import CANDIDATES


def keys(index: Index, query: str, mode: str = "words") -> list[str]:
    return [hit.key for hit in index.search(query, mode=mode, limit=200).hits]  # type: ignore[arg-type]  # modes


def spelling(index: PostgresIndex) -> list[tuple]:
    with index.store.read() as connection:
        rows = connection.execute(sa.text('SELECT word, documents FROM spelling ORDER BY word COLLATE "C"'))
        return [tuple(row) for row in rows]


def test_an_updated_index_answers_as_one_built_afresh(postgres_server: Server) -> None:
    first, later = by_chance(60), by_chance(60, seed=1)
    changed = [replace(first[3], title="gradient zebra"), replace(first[4], authors=("Zoe Zebra",))]
    updated, fresh = (PostgresIndex(postgres_server.url(postgres_server.create()), None) for _ in range(2))
    updated.build(first)
    updated.update(later[:30])
    assert updated.update([*later[30:], *changed], removed=[first[0].key, "unknown"]).removed == 1
    updated.update([], removed=[first[1].key])
    fresh.build([*first[2:3], *changed, *first[5:], *later])
    assert len(updated) == len(fresh) == 118
    here = Index(None)
    here.build([*first[2:3], *changed, *first[5:], *later])
    same = ["attention", "zebra", "gradiant", "number7", "author:zoe", "kernel group:vision"]
    for query in [*same, "numbr12"]:
        assert sorted(keys(updated, query)) == sorted(keys(fresh, query)), query
        corrections = [index.search(query, mode="words").corrections for index in (updated, fresh, here)]
        assert corrections[0] == corrections[1]
        first_ones = [{word: others[0] for word, others in found.items()} for found in corrections]
        assert first_ones[0] == first_ones[2]  # those at two errors are not all found by both
    for query in same:
        assert sorted(keys(updated, query)) == sorted(keys(here, query)), query
    assert spelling(updated) == spelling(fresh)
    for index in (updated, fresh):
        index.close()


def by_zipf(number: int) -> list[Document]:
    """Documents of words that occur by Zipf's law and have no endings."""
    draw = np.random.default_rng(0)
    share = 1.0 / np.arange(2, 402)
    words = [f"{n}x{n}" for n in range(len(share))]

    def text(length: int) -> str:
        return " ".join(draw.choice(words, length, p=share / share.sum()))

    return [
        Document(f"paper{i}", text(4), text(int(draw.integers(5, 60))), (text(2),), text(1))
        for i in range(number)
    ]


def test_documents_are_ranked_as_sqlite_ranks_them(postgres_url: str) -> None:
    """FTS5's bm25 is the reference, up to as many documents as are all ranked."""
    documents = by_zipf(CANDIDATES)
    here, there = Index(None), PostgresIndex(postgres_url, None)
    for index in (here, there):
        index.build(documents)
    for query in ("7x7", "30x30 5x5", "90x90 2x2 11x11", "8x8 20x2", '"0x0 1x1"', "3x3 author:0x0"):
        assert len(keys(here, query)) > 5
        assert keys(there, query) == keys(here, query), query
    there.close()


def test_the_first_of_many_are_found(postgres_url: str) -> None:
    """Among more than are ranked, a document that has the word in its title, whatever its place."""
    others = by_zipf(2 * CANDIDATES + 1)
    holding = [
        replace(document, key=f"l{document.key}", text=f"{document.text} lemma") for document in others
    ]
    holding[-1] = replace(holding[-1], title="A lemma")
    index = PostgresIndex(postgres_url, None)
    index.build([*others, *holding])
    found = index.search("lemma ", mode="words", limit=CANDIDATES // 2).hits
    assert found[0].key == holding[-1].key
    assert len(found) == CANDIDATES // 2
    index.close()


def test_what_is_known_is_not_written_again_and_keys_keep_their_ids(postgres_url: str) -> None:
    index = PostgresIndex(postgres_url, None)
    assert index.build(PAPERS).written == len(PAPERS)
    assert index.build(PAPERS).written == 0
    index.update([replace(PAPERS[3], title="Rashomon sets of models")])
    assert keys(index, "verdict:holds") == ["hyperattention", "rashomon"]  # verdicts stay with their paper
    assert keys(index, '"sets of models"') == ["rashomon"]
    assert keys(index, '"nearly optimal models rudin"') == []  # text and names are not one phrase
    index.close()


def test_machines_share_words_and_keep_their_own_vectors(postgres_url: str, tmp_path: Path) -> None:
    documents = by_chance(60)
    one, two = (PostgresIndex(postgres_url, tmp_path / name, WordHashes()) for name in ("one", "two"))
    assert one.build(documents).encoded == 60
    assert keys(two, "kernel") == keys(one, "kernel")
    assert two.search("kernel").without_meaning == "no paper of this index is encoded yet"
    assert two.embed() == 60
    assert keys(two, "kernel memory", "meaning") == keys(one, "kernel memory", "meaning")
    one.update([replace(documents[0], title="zebra")], removed=[documents[1].key])
    assert two.embed() == 1
    for query in ("zebra", "kernel noise group:vision"):
        assert keys(two, query, "meaning") == keys(one, query, "meaning")
        assert keys(two, query, "fused") == keys(one, query, "fused")
    assert documents[1].key not in keys(two, "kernel memory", "meaning")
    assert len(two.similar(documents[5].key)) == 10
    here = Index(tmp_path / "here", WordHashes())
    here.build([replace(documents[0], title="zebra"), *documents[2:]])
    here_scores = [hit.score for hit in here.search("kernel memory", mode="meaning").hits]
    there = [hit.score for hit in two.search("kernel memory", mode="meaning").hits]
    assert there == pytest.approx(here_scores, abs=1e-6)
    one.close()
    two.close()


def test_odd_texts_are_kept(postgres_url: str) -> None:
    odd = "It's 1e5 \0 3D \ud800 'quoted' \\ <b> a:b & c | !"
    letters = [chr(0x10330 + i) for i in range(15)]  # of four bytes
    longest = " ".join("".join(found) + letters[0] * 120 for found in product(letters, repeat=3))
    index = PostgresIndex(postgres_url, None)
    index.build(
        [
            Document("odd", odd, "x" * 5000 + " É́ " + "word " * 20_000),
            Document("long", "Words of four bytes", f"{longest} last"),
        ]
    )
    for query in ("it's", "1e5", "3d", "quoted", "word", "e"):
        assert keys(index, query)[:1] == ["odd"], query
    assert keys(index, "bytes") == ["long"]
    assert keys(index, "last") == []  # further on than is read
    index.close()


@pytest.fixture
def plain_user(postgres_server: Server, postgres_database: str) -> Iterator[str]:
    """The address of a database for a user who owns the index's schema there and may make nothing else."""
    for statement in (
        "CREATE ROLE plain LOGIN PASSWORD 'plain'",
        "CREATE SCHEMA claimbench_search AUTHORIZATION plain",
    ):
        postgres_server.execute(statement, postgres_database)
    yield postgres_server.url(postgres_database).replace("tester:secret-of-the-test", "plain:plain")
    postgres_server.execute("DROP OWNED BY plain; DROP ROLE plain", postgres_database)


def test_a_server_without_the_extension_says_what_to_do(plain_user: str) -> None:
    with pytest.raises(UserError) as refused:
        PostgresIndex(plain_user, None)
    assert "\n" not in str(refused.value)
    assert "pg_trgm cannot be made (permission denied" in str(refused.value)
    assert "CREATE EXTENSION pg_trgm" in str(refused.value)


def test_the_extension_may_lie_in_any_schema(
    plain_user: str, postgres_server: Server, postgres_database: str
) -> None:
    for statement in (
        "CREATE SCHEMA elsewhere",
        "CREATE EXTENSION pg_trgm WITH SCHEMA elsewhere",
        "GRANT USAGE ON SCHEMA elsewhere TO plain",
    ):
        postgres_server.execute(statement, postgres_database)
    index = PostgresIndex(plain_user, None)
    index.build(PAPERS)
    assert keys(index, "hyperatention") == ["hyperattention"]
    index.close()
