from __future__ import annotations

import os
import random
import string
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimbench.errors import UserError
from claimbench.subjects import downloads, open_subject, resolve_subject, store
from claimbench.subjects import text as texts
from claimbench.subjects.documents import SHARES, Document, Text, passages


def _words(seed: int, size: int) -> str:
    generator = random.Random(seed)
    lines = ["".join(generator.choices(string.ascii_lowercase + " ", k=70)) for _ in range(size // 71 + 1)]
    return "\n".join(lines)


@given(st.lists(st.text(alphabet="ab\n é", min_size=1, max_size=30), min_size=1, max_size=40), st.randoms())
def test_splits_are_disjoint_complete_and_blind_to_order(texts: list[str], order: random.Random) -> None:
    text = Text(Document(content) for content in texts)
    parts = [{document.text for document in text.splits[name]} for name in SHARES]
    assert set.union(*parts) == {content for content in texts if content.strip()}
    assert sum(map(len, parts)) == len(text.documents)
    shuffled = order.sample(texts, len(texts))
    assert Text(Document(content) for content in shuffled).splits == text.splits
    if len(text.documents) >= 3:
        assert text.splits["validation"]
        assert text.splits["test"]


def test_shares_are_met_to_within_a_document() -> None:
    text = Text(Document(_words(seed, 500 + 40 * seed)) for seed in range(200))
    total = sum(len(document.text) for document in text.documents)
    longest = max(len(document.text) for document in text.documents)
    for name, share in SHARES.items():
        size = sum(len(document.text) for document in text.splits[name])
        assert abs(size - share * total) <= longest
    assert text.test == "\n\n".join(document.text for document in text.splits["test"])


@given(st.text(alphabet="abc\n", max_size=400), st.integers(1, 60))
def test_passages_join_to_the_text_and_end_with_lines(text: str, length: int) -> None:
    parts = passages(text, length)
    assert "".join(parts) == text
    assert all(part.endswith("\n") for part in parts[:-1])


def test_a_file_is_cut_into_documents_and_known_by_its_content(own_cache: Path, tmp_path: Path) -> None:
    path, copy = tmp_path / "novel.txt", tmp_path / "other name.txt"
    path.write_text(_words(1, 100_000))
    copy.write_bytes(path.read_bytes())
    ref = resolve_subject("text", str(path))
    assert ref.private
    assert ref.identity == resolve_subject("text", copy).identity
    assert downloads([ref]) == 0
    text = open_subject(ref)
    assert len(text.documents) >= 8
    assert set(text.train.split("\n")) & set(text.test.split("\n")) <= {""}
    path.write_text(_words(2, 100_000))
    assert resolve_subject("text", str(path)).identity != ref.identity
    with pytest.raises(UserError, match="changed since"):
        open_subject(ref)


def test_a_folder_gives_one_document_a_file(own_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "inner").mkdir(parents=True)
    for index in range(20):
        (folder / ("inner" if index % 2 else ".") / f"{index}.md").write_text(_words(index, 4_000))
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0" * 100)
    (folder / ".hidden").write_bytes(b"\xff\xfe")
    text = open_subject(resolve_subject("text", folder))
    assert len(text.documents) == 20


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"short", "at least 64,000 are needed"),
        (b"caf\xe9 " * 20_000, "not UTF-8 at byte 3"),
        (None, "no such file"),
    ],
)
def test_unfit_texts_are_named_with_the_fix(
    own_cache: Path, tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "notes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        resolve_subject("text", str(path))
    assert "notes.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_endless_line_is_too_few_documents(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("x" * 100_000)
    with pytest.raises(UserError, match="fewer than 8 different documents"):
        resolve_subject("text", path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x" * 100_000)
    path.chmod(0)
    with pytest.raises(UserError, match="secret.txt: cannot be read"):
        resolve_subject("text", path)


def test_a_path_that_is_not_utf8_can_be_used_and_shown(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    try:
        path.write_text(_words(3, 90_000))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    ref = resolve_subject("text", path)
    (ref.label + ref.value).encode()
    assert len(open_subject(ref).train) > 60_000


def test_objects_need_a_version_and_are_known_by_content(own_cache: Path) -> None:
    texts = [_words(seed, 9_000) for seed in range(10)]
    with pytest.raises(UserError, match="needs version"):
        resolve_subject("text", texts)
    ref = resolve_subject("text", texts, version="mine-1")
    assert {document.text for document in open_subject(ref).documents} == set(texts)
    assert resolve_subject("text", texts, version="mine-2").identity == ref.identity
    with pytest.raises(UserError, match="not int"):
        resolve_subject("text", 3, version="mine-1")
    with pytest.raises(UserError, match="at least 64,000 bytes"):
        resolve_subject("text", ["a", "b"], version="small")


def test_names_and_domains_are_checked(own_cache: Path) -> None:
    ref = resolve_subject("text", "default-corpus")
    assert not ref.private
    assert ref.path == ""
    assert resolve_subject("text", "default-corpus:python,json").identity == (
        resolve_subject("text", "default-corpus:json,python").identity
    )
    assert resolve_subject("text", "default-corpus:python").identity != ref.identity
    with pytest.raises(UserError, match='did you mean "python"'):
        resolve_subject("text", "default-corpus:pyton")
    with pytest.raises(UserError, match='did you mean "default-corpus"'):
        resolve_subject("text", "default-corpsu")
    with pytest.raises(UserError, match='did you mean "text"'):
        resolve_subject("texts", "default-corpus")
    assert downloads([ref, resolve_subject("text", "default-corpus:json")]) > 10e6


def _domains(folder: Path, sizes: dict[str, int]) -> Path:
    for domain, count in sizes.items():
        (folder / domain / "deeper").mkdir(parents=True, exist_ok=True)
        for index in range(count):
            home = folder / domain / ("deeper" if index % 2 and domain != "." else ".")
            (home / f"{index}.md").write_text(_words(1000 * len(domain) + index, 2_000))
    return folder


def test_a_folders_sub_folders_are_its_domains(own_cache: Path, tmp_path: Path) -> None:
    folder = _domains(tmp_path / "texts", {"law": 40, "code": 40, ".": 20})
    text = open_subject(resolve_subject("text", folder))
    assert text.domains == ("", "code", "law")
    for domain, count in (("", 20), ("code", 40), ("law", 40)):
        assert sum(document.domain == domain for document in text.documents) == count
    (tmp_path / "few").mkdir()
    few = _domains(tmp_path / "few", {"law": 1, "code": 1})
    for name in ("law", "code"):
        (few / name / "0.md").write_text(_words(len(name), 60_000))
    assert open_subject(resolve_subject("text", few)).domains == ("code", "law")


def test_identity_knows_domains_and_no_other_names(own_cache: Path, tmp_path: Path) -> None:
    folder = _domains(tmp_path / "texts", {"law": 20, "code": 20})
    identity = resolve_subject("text", folder).identity
    (folder / "law" / "0.md").rename(folder / "law" / "deeper" / "renamed.md")
    folder = folder.rename(tmp_path / "elsewhere")
    assert resolve_subject("text", folder).identity == identity
    (folder / "law" / "2.md").rename(folder / "code" / "from law.md")
    assert resolve_subject("text", folder).identity != identity
    (folder / "code" / "from law.md").rename(folder / "law" / "2.md")
    (folder / "law").rename(folder / "laws")
    assert resolve_subject("text", folder).identity != identity


def test_equal_documents_count_once_under_the_first_domain() -> None:
    documents = [Document("same", "b"), Document("same", "a"), Document("other", "b"), Document("third", "c")]
    for order in (documents, documents[::-1]):
        assert {d.text: d.domain for d in Text(order).documents} == {"same": "a", "other": "b", "third": "c"}


def test_one_domains_documents_keep_their_splits() -> None:
    text = Text(Document(_words(index, 300), "ab"[index % 2]) for index in range(200))
    part = text.of("a")
    assert part.domains == ("a",)
    assert len(part.documents) == 100
    for name in SHARES:
        assert part.splits[name] == tuple(d for d in text.splits[name] if d.domain == "a")
        assert getattr(part, name) == "\n\n".join(d.text for d in part.splits[name])
    with pytest.raises(UserError, match='no domain "c" in this text'):
        text.of("c")
    small = Text([*text.documents, Document("one alone", "z")])
    with pytest.raises(UserError, match="none of its 1 documents falls into"):
        small.of("z")


def test_the_second_identity_of_gigabytes_reads_nothing(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    os.utime(path, (time.time() - 100, time.time() - 100))
    first = texts._identity(path)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert texts._identity(path) == first
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.05


def test_many_files_are_remembered_with_one_write(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(300):
        path = folder / f"{index}.md"
        path.write_text(f"{index}")
        os.utime(path, (time.time() - 100, time.time() - 100))
    remembered = []
    remember = store._remember
    monkeypatch.setattr(store, "_remember", lambda fresh: (remembered.append(len(fresh)), remember(fresh)))
    first = texts._identity(folder)
    assert texts._identity(folder) == first
    assert remembered == [300]
