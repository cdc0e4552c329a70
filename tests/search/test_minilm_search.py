"""Search of the built-in shelf with the real encoder: papers are found by what they mean, in words that they lack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from claimbench.search import Index, from_shelf
from claimbench.search.encoders import DEFAULT, SubjectEncoder
from claimbench.shelf import BUILT_IN, Shelf
from claimbench.subjects import prepare, resolve_subject
from claimbench.subjects.wheels import Unreachable

pytestmark = pytest.mark.network
PAPERS = ("based", "s4", "evopress", "regmix", "exact-permutations", "knowledge-capacity")  # a shelf grows


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """From the user's cache: a module's fixtures come before a test's own places."""
    pytest.importorskip("transformers")
    try:
        prepare([resolve_subject("sentence-encoder", DEFAULT)])
    except Unreachable as reason:
        pytest.skip(str(reason))
    made = Index(tmp_path_factory.mktemp("index"), SubjectEncoder())
    entries = Shelf([BUILT_IN]).entries
    assert made.build(from_shelf(entries[name] for name in PAPERS)).encoded == len(PAPERS)
    yield made
    made.storage.close()


@pytest.mark.parametrize(
    ("query", "paper"),
    [
        ("shrink a neural net by searching which parts to throw away", "evopress"),
        ("predict which mixture of web sources trains the best chatbot", "regmix"),
        ("remembering names and numbers cheaply instead of full attention", "based"),
        ("shuffling zeros and ones without error", "exact-permutations"),
    ],
)
def test_a_paper_is_found_by_meaning(index: Index, query: str, paper: str) -> None:
    hits = index.search(query, mode="meaning", limit=2).hits  # the encoder puts one of these four second
    assert paper in [hit.key for hit in hits]
    assert not any(hit.complete for hit in index.search(query, mode="words").hits)


def test_fused_search_keeps_both(index: Index) -> None:
    hits = {hit.key: hit for hit in index.search("pruning a network by evolution").hits}
    assert hits["evopress"].word_rank is not None
    assert hits["evopress"].meaning_rank == 1
