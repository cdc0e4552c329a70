"""Search by meaning and similar papers, against brute force in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from papers import PAPERS, WordHashes, by_chance

from claimbench.search import Document, EncoderUnreachable, Index
from claimbench.search.fuse import reciprocal_rank
from claimbench.search.meaning import vectors_of

TOLERANCE = 1e-6  # a float32 sum of 64 products of numbers below 1


def cosines(texts: list[str], documents: list[Document]) -> np.ndarray:
    encoder = WordHashes()
    left, right = (vectors_of(encoder, t).astype(np.float64) for t in (texts, [d.passage for d in documents]))
    return left @ right.T


def check_neighbours(index: Index, documents: list[Document]) -> None:
    """Every document's ten cosines are the ten largest of all pairs (keys may differ where cosines tie)."""
    exact = cosines([d.passage for d in documents], documents)
    np.fill_diagonal(exact, -np.inf)
    place = {document.key: i for i, document in enumerate(documents)}
    for i, document in enumerate(documents):
        similar = index.similar(document.key)
        scores = [hit.score for hit in similar]
        assert scores == pytest.approx(sorted(exact[i], reverse=True)[:10], abs=TOLERANCE)
        assert scores == pytest.approx([exact[i, place[hit.key]] for hit in similar], abs=TOLERANCE)


def test_nearest_is_exact_with_and_without_filters(tmp_path: Path) -> None:
    documents = by_chance(300)
    index = Index(tmp_path, WordHashes())
    assert index.build(documents).encoded == 300
    exact = cosines(["kernel memory noise"], documents)[0]
    hits = index.search("kernel memory noise", mode="meaning", limit=25).hits
    assert [hit.score for hit in hits] == pytest.approx(sorted(exact, reverse=True)[:25], abs=TOLERANCE)
    filtered = index.search("kernel memory noise group:vision year:<2010", mode="meaning", limit=25).hits
    wanted = [
        e for e, d in zip(exact, documents, strict=True) if d.group == "vision" and (d.year or 0) < 2010
    ]
    assert [hit.score for hit in filtered] == pytest.approx(sorted(wanted, reverse=True)[:25], abs=TOLERANCE)


def test_fused_search_is_the_fusion_of_its_rankings(tmp_path: Path) -> None:
    index = Index(tmp_path, WordHashes())
    index.build(by_chance(80))
    words = index.search("kernel memory", mode="words", limit=100).hits
    near = index.search("kernel memory", mode="meaning", limit=100).hits
    complete = [hit.key for hit in words if hit.complete]
    assert 3 < len(complete) < 80
    hits = index.search("kernel memory", limit=80).hits
    ranked = {hit.key: hit.score for hit in hits}
    strong = [hit.key for hit in words][: max(len(complete), sum(h.word_rank is not None for h in words))]
    for cut in range(len(complete), len(strong) + 1):  # the words' ranking is cut where scores get weak
        fused = reciprocal_rank([complete, strong[:cut], [hit.key for hit in near]])
        if all(ranked[key] == pytest.approx(score) for key, score in fused.items() if key in ranked):
            break
    else:
        pytest.fail("no cut of the words' ranking gives the fused scores")
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_updates_leave_what_a_rebuild_would_make(tmp_path: Path) -> None:
    first, later = by_chance(120), by_chance(40, seed=1)
    index = Index(tmp_path, WordHashes())
    index.build(first)
    check_neighbours(index, first)
    changed = [replace(first[5], title="zebra recall"), replace(first[6], authors=("Somebody Else",))]
    changes = index.update([*later[:10], *changed], removed=[first[0].key, first[1].key])
    assert (changes.written, changes.removed, changes.encoded) == (12, 2, 11)  # a name is not encoded
    current = [*first[2:5], *changed, *first[7:], *later[:10]]
    check_neighbours(index, current)
    index.update(later[10:], removed=[d.key for d in first[7:60]])  # so many that the file is written again
    current = [*first[2:5], *changed, *first[60:], *later]
    check_neighbours(index, current)
    assert len(list(tmp_path.glob("vectors-*.f32"))) == 1
    assert index.storage.meta("generation") == "1"


def test_an_index_of_few_papers_has_fewer_neighbours(tmp_path: Path) -> None:
    index = Index(tmp_path, WordHashes())
    index.build(PAPERS[:1])
    assert index.similar(PAPERS[0].key) == []
    index.build(PAPERS)
    assert {len(index.similar(paper.key)) for paper in PAPERS} == {3}
    assert index.similar("unknown") == []


def test_another_encoder_encodes_everything_again(tmp_path: Path) -> None:
    index = Index(tmp_path, WordHashes("a"))
    index.build(PAPERS)
    other = Index(tmp_path, WordHashes("b"))
    with pytest.raises(EncoderUnreachable, match="another encoder"):
        other.search("attention", mode="meaning")
    assert "another encoder" in other.search("attention").without_meaning
    assert other.build(PAPERS).encoded == len(PAPERS)
    assert other.search("attention").without_meaning == ""


def test_readers_see_what_another_index_wrote(tmp_path: Path) -> None:
    writer, reader = Index(tmp_path, WordHashes()), Index(tmp_path, WordHashes())
    writer.build(PAPERS)
    assert len(reader.search("attention", mode="meaning").hits) == len(PAPERS)
    writer.update([Document("new", "attention attention", "attention")])
    assert reader.search("attention", mode="meaning").hits[0].key == "new"
    writer.update([], removed=["new"])
    assert "new" not in [hit.key for hit in reader.search("attention", mode="meaning").hits]


def test_words_go_on_where_there_is_no_encoder(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.build(PAPERS)
    results = index.search("attention")
    assert results.without_meaning
    assert [h.key for h in results.hits] == [h.key for h in index.search("attention", mode="words").hits]
    with pytest.raises(EncoderUnreachable):
        index.search("attention", mode="meaning")


def test_vectors_that_were_swept_away_are_made_again(tmp_path: Path) -> None:
    index = Index(tmp_path, WordHashes())
    index.build(PAPERS)
    for path in tmp_path.glob("vectors-*"):
        path.unlink()
    results = Index(tmp_path, WordHashes()).search("attention")
    assert "vectors are missing" in results.without_meaning
    assert results.hits[0].key == "hyperattention"
    assert index.build(PAPERS[1:]).encoded == len(PAPERS) - 1
    assert len(Index(tmp_path, WordHashes()).search("attention", mode="meaning").hits) == len(PAPERS) - 1
    assert {len(index.similar(paper.key)) for paper in PAPERS[1:]} == {2}


def test_a_misspelt_word_reaches_the_encoder_mended(tmp_path: Path) -> None:
    index = Index(tmp_path, WordHashes())
    index.build(PAPERS)
    assert [h.score for h in index.search("difusion", mode="meaning").hits] == [
        h.score for h in index.search("diffusion", mode="meaning").hits
    ]


def test_vectors_that_are_none_are_refused() -> None:
    class Broken:
        identity = "broken"

        def encode(self, texts: list[str]) -> np.ndarray:
            return np.full((len(texts), 3), np.nan)

    with pytest.raises(ValueError, match="one finite row a text"):
        vectors_of(Broken(), ["x"])
