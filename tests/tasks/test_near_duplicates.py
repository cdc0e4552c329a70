from __future__ import annotations

import random
import string

import numpy as np

from claimbench.tasks import near_duplicates


def _line(generator: random.Random) -> str:
    return "".join(generator.choices(string.ascii_lowercase + "     ", k=60))


def _document(seed: int, lines: int = 60) -> list[str]:
    generator = random.Random(seed)
    return [_line(generator) for _ in range(lines)]


def test_shingle_hashes_are_those_of_the_definition() -> None:
    """The polynomial hash of every 32 bytes with whole numbers, splitmix64's finaliser, and the smallest sixteenth."""
    text = "\n".join(_document(1, 12)).encode()
    mask, factor, expected = 2**64 - 1, 0x9E3779B97F4A7C15, set()
    for start in range(len(text) - 31):
        value = 0
        for byte in text[start : start + 32]:
            value = (value * factor + byte + 1) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        value ^= value >> 31
        if value < 2**64 // 16:
            expected.add(value)
    assert near_duplicates.shingle_sample(text).tolist() == sorted(expected)
    share = len(expected) / (len(text) - 31)
    assert abs(share - 1 / 16) < 4 * np.sqrt(1 / 16 / (len(text) - 31))


def test_copies_edits_and_excerpts_are_near_duplicates_and_others_are_not() -> None:
    lines = _document(1)
    edited = [line if index % 10 else line.upper() for index, line in enumerate(lines)]
    texts = [lines, edited, lines[:30], _document(2), _document(3), lines[:6] + _document(4, 54)]
    groups = near_duplicates.near_duplicates(["\n".join(text).encode() for text in texts])
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 4


def test_near_duplicates_agree_with_sets_of_all_shingles() -> None:
    """Where exact containment is clearly above or below the bound, the sample decides the same."""
    generator = random.Random(0)
    base = _document(10, 100)
    texts = []
    for share in (0.1, 0.3, 0.7, 0.9):
        kept = [line if generator.random() < share else _line(generator) for line in base]
        texts.append("\n".join(kept).encode())
    original = "\n".join(base).encode()
    for text in texts:
        first, second = ({t[i : i + 32] for i in range(len(t) - 31)} for t in (original, text))
        contained = len(first & second) / min(len(first), len(second))
        error = 4 * np.sqrt(contained * (1 - contained) / (min(len(first), len(second)) / 16))
        groups = near_duplicates.near_duplicates([original, text])
        if abs(contained - near_duplicates.CONTAINED) > error:
            assert (groups[0] == groups[1]) == (contained > near_duplicates.CONTAINED)


def test_nothing_and_short_texts_have_no_duplicates_by_accident() -> None:
    assert near_duplicates.near_duplicates([]).shape == (0,)
    assert len(near_duplicates.shingle_sample(b"")) == 0
