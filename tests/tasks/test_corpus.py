from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from claimbench.subjects.documents import Document, Text
from claimbench.subjects.wheels import Unreachable
from claimbench.tasks import corpus, corpus_sources
from claimbench.tasks.near_duplicates import CONTAINED


def test_cleaning_keeps_characters_whole_and_cuts_at_lines() -> None:
    assert corpus.clean("a\r\nb\rc\0\n") == "a\nb\nc"
    long = "é" * 99 + "\n"
    cut = corpus.clean(long * 1000)
    assert corpus.LONGEST - len(long.encode()) <= len(cut.encode()) <= corpus.LONGEST
    assert set(cut.split("\n")) == {"é" * 99}


def test_docstrings_are_taken_without_code_or_margins() -> None:
    source = b'"""Module."""\nclass A:\n    """First.\n\n    Indented\n        more.\n    """\n    x = 1\n'
    assert list(corpus_sources.docstrings(source)) == ["Module.\n\nFirst.\n\nIndented\n    more."]


def test_service_descriptions_lose_their_html() -> None:
    model = {
        "documentation": "<p>Starts a job &amp; waits.</p><ul><li><p>One</p></li></ul>",
        "shapes": [{"documentation": "A <code>name</code>"}],
    }
    content = gzip.compress(json.dumps(model).encode())
    assert list(corpus_sources.service_documentation(content)) == ["Starts a job & waits.\nOne\n\nA name"]


def test_translations_are_taken_without_the_originals() -> None:
    content = """msgid ""
msgstr ""
"Language: fr\\n"

msgid "One"
msgstr "Un"

msgid "Not yet"
msgstr ""

#, fuzzy
msgid ""
"A \\"long\\" "
"text"
msgid_plural "texts"
msgstr[0] ""
"Un texte "
"\\"long\\""
msgstr[1] "Des\\ntextes"
"""
    assert list(corpus_sources.translated(content.encode())) == ['Un\nUn texte "long"\nDes\ntextes']


def test_sections_drop_the_header_of_package_metadata() -> None:
    changes = "".join(f"- change {index}\n" for index in range(4000))
    parts = list(corpus_sources.sections(f"Metadata-Version: 2.1\nName: x\n\n{changes}".encode()))
    assert "".join(parts) == changes
    assert len(parts) > 2


def test_every_source_names_a_pinned_wheel_and_a_domain_and_downloads_stay_small() -> None:
    assert {source.wheel for source in corpus_sources.SOURCES} == set(corpus_sources.WHEELS)
    assert {source.domain for source in corpus_sources.SOURCES} == set(corpus.DOMAINS)
    assert len(corpus.DOMAINS) >= 6
    assert sum(wheel.bytes for wheel in corpus_sources.WHEELS.values()) < 80e6
    assert all(wheel.filename.endswith("-none-any.whl") for wheel in corpus_sources.WHEELS.values())


@pytest.fixture
def built(shared_cache: None) -> Path:
    try:
        return corpus.build_corpus()
    except Unreachable as reason:
        pytest.skip(str(reason))


@pytest.mark.network
def test_the_corpus_has_the_pinned_content_and_the_promised_size(built: Path) -> None:
    assert corpus.corpus_sha256(built) == corpus.CORPUS_SHA256
    assert corpus.downloads() == 0
    sizes = {domain: (built / f"{domain}.txt").stat().st_size for domain in corpus.DOMAINS}
    assert sum(sizes.values()) > 20e6
    assert all(size > 500_000 for size in sizes.values())
    documents = corpus.read_corpus()
    assert len({text for _, text in documents}) == len(documents)
    assert all(corpus.SHORTEST <= len(text.encode()) <= corpus.LONGEST for _, text in documents)


@pytest.mark.network
def test_train_and_test_share_no_near_duplicates_by_another_measure(built: Path) -> None:
    """Containment of long lines, which the corpus was not made by: no document has most of another's."""
    from sklearn.feature_extraction.text import CountVectorizer

    def long_lines(text: str) -> list[str]:
        return [line for line in map(str.strip, text.split("\n")) if len(line) >= 40]

    text = Text(Document(content, domain) for domain, content in corpus.read_corpus())
    parts = [
        [d.text for d in text.splits[name] if len(set(long_lines(d.text))) >= 20]
        for name in ("train", "test")
    ]
    count = CountVectorizer(analyzer=long_lines, binary=True)
    train, test = count.fit_transform(parts[0]), count.transform(parts[1])
    sizes = [np.array([len(set(long_lines(text))) for text in part]) for part in parts]
    contained = (test @ train.T).toarray() / np.minimum.outer(sizes[1], sizes[0])
    assert contained.shape[0] > 100
    assert contained.max() < CONTAINED
