"""Dynamic programmes with their tables written out: longest increasing subsequence and edit distance, the tasks LIS(n)
and ED(n) of arXiv 2305.15408.
"""

from __future__ import annotations

from string import ascii_lowercase

import numpy as np
from jaxtyping import Bool, Int

from claimbench.errors import UserError
from claimbench.papers.theory.chain_of_thought_theory.derivations import END, PAD, Derivations

SEPARATOR = 1
NUMBERS = 3  # the id of 0 in texts of LIS
BAR, COMMA, LETTERS, DISTANCES = 3, 4, 5, 31  # in texts of ED
GAP, REPLACE = 2, 3  # costs of leaving out a letter and of replacing one


def subsequence_words(number_range: int = 250) -> tuple[str, ...]:
    """The vocabulary of LIS: separator, end, numbers (253 words for the paper's 250)."""
    return (PAD, "<sep>", END, *map(str, range(number_range)))


def longest_increasing(sequences: Int[np.ndarray, "count length"]) -> Int[np.ndarray, "count length"]:
    """The table: the length of the longest strictly increasing subsequence that ends at each place."""
    table = np.ones_like(sequences)
    for place in range(1, sequences.shape[1]):
        smaller = sequences[:, :place] < sequences[:, place, None]
        table[:, place] = 1 + np.where(smaller, table[:, :place], 0).max(axis=1)
    return table


def draw_sequences(
    length: int, count: int, generator: np.random.Generator, *, low: int, high: int
) -> Int[np.ndarray, "count length"]:
    """Numbers from low up to below high, in which one to three increasing runs are planted at random places.

    The runs have 3 to `length` numbers together; no run is longer than there are numbers.
    """
    size, rows = high - low, np.arange(count)
    total = generator.integers(3, length + 1, size=count)
    kinds = generator.integers(1, 4, size=count)
    first = np.where(
        kinds == 1, total, generator.integers(1, np.where(kinds == 2, total // 2, total // 3) + 2)
    )
    second = np.where(kinds == 2, total - first, 0)
    second = np.where(kinds == 3, generator.integers(1, (total - first) // 2 + 2), second)
    runs = np.minimum(np.stack([first, second, total - first - second], axis=1), size)
    keys = generator.random((count, 3, size))
    least = np.sort(keys, axis=2)[rows[:, None], np.arange(3), np.maximum(runs - 1, 0)]
    chosen = (keys <= least[:, :, None]) & (runs > 0)[:, :, None]
    _, ranks = np.nonzero(chosen.reshape(count, 3 * size))
    order = generator.random((count, length)).argsort(axis=1).argsort(axis=1)
    sequences = generator.integers(low, high, size=(count, length))
    sequences[order < runs.sum(axis=1, keepdims=True)] = low + ranks % size
    return sequences


def subsequences(
    length: int,
    count: int,
    generator: np.random.Generator,
    *,
    number_range: int = 250,
    low: int | None = None,
) -> Derivations:
    """Sequences, the table of their longest increasing subsequences, and its maximum: 2 length + 3 tokens.

    low: the smallest number of a sequence; default: length + 1, so that it is none of the table's, as published, or 1
    where the range leaves too little above that. Raises UserError for a length below 3 or a range that is too small.
    """
    if length < 3:
        raise UserError(f"length {length}: a sequence has at least 3 numbers")
    if low is None:
        low = length + 1 if 2 * length + 1 <= number_range else 1
    least = low + 4
    if low < 0 or number_range < least:
        raise UserError(f"number_range {number_range} is too small above low {low}; give at least {least}")
    return write_subsequences(
        draw_sequences(length, count, generator, low=low, high=number_range), number_range
    )


def write_subsequences(sequences: Int[np.ndarray, "count length"], number_range: int) -> Derivations:
    """Tokens of given sequences of numbers below `number_range`, their tables and maxima.

    Raises UserError where a number, or a length in a table, has no word.
    """
    table = longest_increasing(sequences)
    count, length = sequences.shape
    if sequences.min(initial=0) < 0 or max(sequences.max(initial=0), table.max(initial=0)) >= number_range:
        raise UserError(f"number_range {number_range}: numbers and lengths must lie from 0 to below it")
    words = subsequence_words(number_range)
    separator = np.full((count, 1), SEPARATOR)
    answer = NUMBERS + table.max(axis=1, keepdims=True)
    end = np.full((count, 1), words.index(END))
    parts = [NUMBERS + sequences, separator, NUMBERS + table, separator, answer, end]
    ids = np.concatenate(parts, axis=1).astype(np.int16)
    place = np.ones(count, dtype=np.int64)
    return Derivations(ids, place * (length + 1), place * (2 * length + 2), place * (2 * length + 3), words)


def edit_words(length: int) -> tuple[str, ...]:
    """The vocabulary of ED: signs, letters, and numbers up to the largest distance (at least the 91 published words).

    No cell of strings of up to `length` and `length` + 2 letters costs more than replacing all and two gaps.
    """
    largest = max(59, REPLACE * length + 2 * GAP)
    return (PAD, "<sep>", END, "|", ",", *ascii_lowercase, *map(str, range(largest + 1)))


def edit_tables(
    first: Int[np.ndarray, "count rows"], second: Int[np.ndarray, "count columns"], border: int = GAP
) -> Int[np.ndarray, "count rows columns"]:
    """Costs of turning each prefix of the first string into each of the second, without the border.

    Leaving out and putting in a letter costs 2, replacing one costs 3. border: the cost of a letter against the empty
    prefix. It is 2 by these costs; the published code has 1, so that its tables are no edit distances. Cells beyond a
    shorter string's end hold numbers that mean nothing.
    """
    steps = np.arange(second.shape[1] + 1)
    above = np.tile(border * steps, (len(first), 1))
    rows = []
    for row in range(first.shape[1]):
        replaced = above[:, :-1] + REPLACE * (first[:, row, None] != second)
        best = np.minimum(above[:, 1:] + GAP, replaced)
        start = np.full((len(first), 1), border * (row + 1))
        # Moving right costs GAP a step: subtract it, take the running minimum, add it again.
        level = np.minimum.accumulate(np.concatenate([start, best], axis=1) - GAP * steps, axis=1)
        above = level + GAP * steps
        rows.append(above[:, 1:])
    return np.stack(rows, axis=1)


def edit_distances(
    length: int, count: int, generator: np.random.Generator, *, letters: int = 8, border: int = GAP
) -> Derivations:
    """Two strings, the table of their edit distances row by row, and the last entry.

    The first string drawn has `length` letters, of 3 up to `letters` + 2 different ones. The second is random in 40 %
    of pairs, else made by 1 to `length` random edits; pairs are kept if they differ and the second has length - 3 up
    to length + 2 letters. The shorter one stands first. border: as in `edit_tables`. Raises UserError for fewer than 4
    letters, or more than 26 kinds.
    """
    if length < 4:
        raise UserError(f"length {length}: a string has at least 4 letters")
    if not 1 <= letters <= 24:
        raise UserError(f"letters {letters}: 1 to 24, since up to letters + 2 different ones of 26 are used")
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    found = 0
    while found < count:
        first, second, size = _draw_strings(length, int(1.3 * (count - found)) + 16, generator, letters)
        place = np.arange(length + 2)
        same = (size == length) & (first[:, :length] == second[:, :length]).all(axis=1)
        kept = np.flatnonzero(~same & (size < length + 3) & (size >= length - 3))[: count - found]
        second = np.where(place < size[kept, None], second[kept, : length + 2], 0)
        parts.append((np.pad(first[kept], ((0, 0), (0, 2))), second, size[kept]))
        found += len(kept)
    first, second, size = (np.concatenate([part[k] for part in parts]) for k in range(3))
    turned = (size < length)[:, None]
    a, b = np.where(turned, second, first), np.where(turned, first, second)
    return write_edits(a, b, np.minimum(size, length), np.maximum(size, length), length, border)


def _draw_strings(
    length: int, count: int, generator: np.random.Generator, letters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of strings as letters 1 to 26 [count, length] and [count, 2 length], and the second ones' lengths."""
    rows = np.arange(count)
    using = generator.integers(letters, size=count)[:, None] + 3
    available = generator.random((count, 26)).argsort(axis=1) + 1

    def draw(width: int) -> np.ndarray:
        return np.take_along_axis(available, generator.integers(using, size=(count, width)), axis=1)

    first, second = draw(length), draw(2 * length)
    random = generator.random(count) < 0.4
    size = np.where(random, generator.integers(length - 3, length + 3, size=count), length)
    second[:, :length] = np.where(random[:, None], second[:, :length], first)
    edits = np.where(random, 0, generator.integers(1, length + 1, size=count))
    place = np.arange(2 * length)
    for step in range(length):
        todo = step < edits
        kind, letter = generator.integers(3, size=count), draw(1)[:, 0]
        removed, put = todo & (kind == 0) & (size > 2), todo & (kind == 2)
        replaced = todo & (kind == 1)
        where = (generator.random(count) * (size + put)).astype(np.int64)
        shift = removed.astype(np.int64) - put
        source = np.clip(place + np.where(place >= where[:, None], shift[:, None], 0), 0, 2 * length - 1)
        second = np.take_along_axis(second, source, axis=1)
        written = replaced | put
        second[rows[written], where[written]] = letter[written]
        size = np.minimum(size + put - removed, 2 * length - 1)
    return first, second, size


def write_edits(
    first: Int[np.ndarray, "count rows"],
    second: Int[np.ndarray, "count columns"],
    rows: Int[np.ndarray, " count"],
    columns: Int[np.ndarray, " count"],
    length: int,
    border: int = GAP,
) -> Derivations:
    """Tokens of given pairs of strings (letters 1 to 26, then zeros), their tables and distances.

    rows, columns: how many letters they have. length: what the vocabulary is for.
    """
    words = edit_words(length)
    table = edit_tables(first, second, border)
    prompt = rows + columns + 2
    answer = prompt + rows * (columns + 1) + 1
    ids = np.zeros((len(first), int(answer.max(initial=0)) + 2), dtype=np.int16)

    def put(values: np.ndarray | int, places: np.ndarray, kept: Bool[np.ndarray, "*shape"]) -> None:
        spread = np.broadcast_to(values, kept.shape)
        row = np.broadcast_to(np.arange(len(ids)).reshape(-1, *[1] * (kept.ndim - 1)), kept.shape)
        ids[row[kept], np.broadcast_to(places, kept.shape)[kept]] = spread[kept]

    i, j = np.arange(first.shape[1]), np.arange(second.shape[1])
    in_rows, in_columns = i < rows[:, None], j < columns[:, None]
    put(LETTERS - 1 + first, i[None], in_rows)
    put(LETTERS - 1 + second, rows[:, None] + 1 + j, in_columns)
    starts = prompt[:, None] + i * (columns[:, None] + 1)
    put(DISTANCES + table, starts[:, :, None] + j, in_rows[:, :, None] & in_columns[:, None, :])
    put(COMMA, starts + columns[:, None], in_rows)
    each = np.arange(len(ids))
    ids[each, rows] = BAR
    ids[each, prompt - 1] = ids[each, answer - 1] = SEPARATOR
    ids[each, answer] = DISTANCES + table[each, rows - 1, columns - 1]
    ids[each, answer + 1] = words.index(END)
    return Derivations(ids, prompt, answer, answer + 1, words)
