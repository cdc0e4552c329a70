"""What a user typed: filters, phrases, and no text at all that raises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papers import PAPERS

from claimbench.search import Index
from claimbench.search.postgres import PostgresIndex
from claimbench.search.query import LONGEST, MOST_TERMS, joined, parse

HOSTILE = [
    '"',
    '""" OR 1',
    "title : x",
    "a NEAR(b c, 2)",
    "x AND",
    "NOT",
    "-title:(",
    "a* *",
    "^a + b",
    "{title body}: x",
    "'; DROP TABLE document; --",
    "group:",
    'author:"',
    "author:*",
    "year:20",
    "year:>=",
    "year:-",
    "\0attention",
    "\ud800",
    "%_%",
    "（attention）",
    "é́",
    "🙂",
    "verdict:' OR 1=1",
]


def found(index: Index, query: str) -> list[str]:
    return [hit.key for hit in index.search(query, mode="words").hits]


def test_filters_phrases_and_words_are_told_apart() -> None:
    query = parse('recall "state space" group:Sequence year:2020-2022 verdict:holds author:"Yoshua Bengio"')
    assert [(term.tokens, term.phrase) for term in query.terms] == [
        (("recall",), False),
        (("state", "space"), True),
    ]
    assert (query.groups, query.verdicts) == (("sequence",), ("holds",))
    assert (query.years, query.authors) == (((2020, 2022),), (("yoshua", "bengio"),))
    assert query.text == "recall state space"


def test_unknown_filters_and_broken_values_are_words() -> None:
    query = parse("colour:red year:soon")
    assert [term.tokens[0] for term in query.terms] == ["colour", "red", "year", "soon"]
    assert not query.has_filters


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("2023", (2023, 2023)),
        ("=2023", (2023, 2023)),
        (">=2021", (2021, 9999)),
        (">2021", (2022, 9999)),
        ("<2020", (0, 2019)),
        ("<=2020", (0, 2020)),
        ("2019..2021", (2019, 2021)),
        ("2019-", (2019, 9999)),
        ("-2019", (0, 2019)),
    ],
)
def test_years(value: str, span: tuple[int, int]) -> None:
    assert parse(f"year:{value}").years == (span,)


def test_a_query_is_bounded() -> None:
    query = parse("a1 " * 10_000)
    assert len(query.terms) == MOST_TERMS
    assert len(query.text) <= LONGEST


def test_a_command_line_gives_a_filter_its_quotes_back() -> None:
    query = parse(joined(["state", "space", "author:Yoshua Bengio"]))
    assert query.authors == (("yoshua", "bengio"),)
    assert [term.tokens[0] for term in query.terms] == ["state", "space"]


HERE = Index(None)
HERE.build(PAPERS)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def index(request: pytest.FixtureRequest) -> Iterator[Index]:
    if request.param == "sqlite":
        yield HERE
        return
    server = request.getfixturevalue("postgres_server")
    made = PostgresIndex(server.url(server.create()), None)
    made.build(PAPERS)
    yield made
    made.close()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_queries_are_answered(index: Index, text: str) -> None:
    found(index, text)
    assert len(index) == len(PAPERS)


ANY_TEXT = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from([*HOSTILE, "AND", "OR", "NEAR", '"', "(", ")", "*", ":", "author:", "attention"]),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(ANY_TEXT)
def test_no_text_raises(parts: list[str]) -> None:
    assert set(found(HERE, " ".join(parts))) <= {paper.key for paper in PAPERS}
    assert set(found(HERE, "".join(parts))) <= {paper.key for paper in PAPERS}


@settings(max_examples=20, deadline=None)
@given(ANY_TEXT)
def test_no_text_raises_wherever_words_are_kept(index: Index, parts: list[str]) -> None:
    assert set(found(index, " ".join(parts))) <= {paper.key for paper in PAPERS}


def test_filters_restrict_and_combine(index: Index) -> None:
    every = found(index, "attention")
    assert every[0] == "hyperattention"  # in its title and its topics
    assert sorted(every) == ["hyperattention", "latent-diffusion", "long-range-arena"]
    assert found(index, "attention group:sequence year:>=2021") == ["hyperattention"]
    assert found(index, "attention verdict:holds") == ["hyperattention"]
    assert found(index, "author:ommer") == found(index, 'author:"Bjorn Ommer"') == ["latent-diffusion"]
    assert found(index, "author:ommer author:rombach") == ["latent-diffusion"]
    assert found(index, "author:ommer author:han") == []
    assert found(index, "group:theory group:vision") == ["latent-diffusion", "rashomon"]  # latest first
    assert found(index, "verdict:undecided verdict:fails year:2023") == ["hyperattention"]
    assert found(index, '"long context"') == ["hyperattention"]
    assert found(index, '"context long"') == []
