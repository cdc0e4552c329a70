"""Problems with their written derivations, as token ids: what a chain-of-thought model and a direct one are taught
(Feng, Zhang, Gu, Ye, He, Wang 2023, arXiv 2305.15408, section 5).

A row is prompt, derivation, answer and end. The same instances give all three kinds of text: with the derivation,
without it (`direct`), and with as many empty tokens in its place (`filler`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from claimbench.errors import UserError

PAD, END = "<pad>", "<eos>"


@dataclass(frozen=True)
class Derivations:
    """Problems [count] as padded ids, all of one vocabulary.

    ids: [count, time], each row its content, the end token, then padding (id 0). prompt: tokens up to and with the
    first separator. answer: where the answer begins. length: of the content, without the end token. words: the text
    of each id; `words[0]` is the padding.
    """

    ids: Int[np.ndarray, "count time"]
    prompt: Int[np.ndarray, " count"]
    answer: Int[np.ndarray, " count"]
    length: Int[np.ndarray, " count"]
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def end(self) -> int:
        """The end token's id."""
        return self.words.index(END)

    def take(self, rows: Any) -> Derivations:
        """Some rows, by indices, a slice or a mask; no longer than the longest of them."""
        length = self.length[rows]
        time = int(length.max(initial=0)) + 1
        return replace(
            self,
            ids=self.ids[rows][:, :time],
            prompt=self.prompt[rows],
            answer=self.answer[rows],
            length=length,
        )

    def direct(self) -> Derivations:
        """The same problems without their derivations: prompt and answer."""
        return self._between(np.zeros_like(self.prompt), 0)

    def filler(self, word: str = "...") -> Derivations:
        """The same problems with every token of the derivation replaced by one empty word, as in Pfau et al. 2024.

        The empty words belong to the prompt: a model is given them, and has as many tokens to compute in as with a
        derivation. The word is added to the vocabulary if it is new.
        """
        words = self.words if word in self.words else (*self.words, word)
        put = self._between(self.answer - self.prompt, words.index(word))
        return replace(put, words=words, prompt=put.answer)

    def _between(self, gap: Int[np.ndarray, " count"], word: int) -> Derivations:
        tail = self.length - self.answer
        length = self.prompt + gap + tail
        place = np.arange(int(length.max(initial=0)) + 1)
        start = (self.prompt + gap)[:, None]
        source = np.where(place < self.prompt[:, None], place, place - start + self.answer[:, None])
        source = np.clip(source, 0, self.ids.shape[1] - 1)
        ids = np.take_along_axis(self.ids, source, axis=1)
        ids = np.where((place >= self.prompt[:, None]) & (place < start), word, ids)
        ids = np.where(place == length[:, None], self.end, np.where(place > length[:, None], 0, ids))
        return replace(self, ids=ids, answer=self.prompt + gap, length=length)

    def supervised(self) -> Bool[np.ndarray, "count time_less_one"]:
        """Which of `ids[:, 1:]` count in the loss: all after the prompt, with the end token and without padding."""
        place = np.arange(1, self.ids.shape[1])
        return np.asarray((place >= self.prompt[:, None]) & (place <= self.length[:, None]))

    def prompts(self) -> list[bytes]:
        """A key for each row's problem: equal for equal prompts."""
        place = np.arange(int(self.prompt.max(initial=0)))
        kept = np.where(place < self.prompt[:, None], self.ids[:, : len(place)], 0).astype(np.int32)
        return [row.tobytes() for row in kept]

    def unique(self) -> Derivations:
        """The first row of each problem, in order."""
        keys = self.prompts()
        first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
        return self.take(np.sort(np.fromiter(first.values(), dtype=np.int64, count=len(first))))

    def without(self, other: Derivations) -> Derivations:
        """The rows whose problem is none of the other's."""
        known = set(other.prompts())
        return self.take(np.array([key not in known for key in self.prompts()], dtype=bool))

    def text(self, row: int) -> str:
        """A row's content with a blank between tokens, without the end."""
        return " ".join(self.words[token] for token in self.ids[row, : self.length[row]])

    def records(self) -> Iterator[dict[str, str]]:
        """A row's parts as text: prompt, derivation and answer."""
        words = np.array(self.words, dtype=object)
        ends = zip(self.ids, self.prompt.tolist(), self.answer.tolist(), self.length.tolist(), strict=True)
        for ids, prompt, answer, length in ends:
            row = words[ids[:length]].tolist()
            yield {
                "prompt": " ".join(row[:prompt]),
                "derivation": " ".join(row[prompt:answer]),
                "answer": " ".join(row[answer:]),
            }


def joined(parts: list[Derivations]) -> Derivations:
    """Several as one, in order. Raises UserError if their vocabularies differ."""
    if any(part.words != parts[0].words for part in parts):
        raise UserError("derivations of different vocabularies cannot be joined; give them the same sizes")
    time = max(part.ids.shape[1] for part in parts)
    return Derivations(
        np.concatenate([np.pad(part.ids, ((0, 0), (0, time - part.ids.shape[1]))) for part in parts]),
        np.concatenate([part.prompt for part in parts]),
        np.concatenate([part.answer for part in parts]),
        np.concatenate([part.length for part in parts]),
        parts[0].words,
    )


def corrupted(given: Derivations, rate: float, generator: np.random.Generator, first: int) -> Derivations:
    """Every number of the derivations, answer not included, is with probability `rate` replaced by a random other one.

    first: the id of the number 0; numbers reach to the end of the vocabulary. As in the paper's study of data quality
    (section 5.3), where intermediate results are corrupted. Raises UserError unless 0 <= rate <= 1.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"rate {rate} is a share of the numbers: give one between 0 and 1")
    numbers = len(given.words) - first
    place = np.arange(given.ids.shape[1])
    inside = (place >= given.prompt[:, None]) & (place < given.answer[:, None]) & (given.ids >= first)
    hit = inside & (generator.random(given.ids.shape) < rate)
    moved = first + (given.ids - first + generator.integers(1, numbers, given.ids.shape)) % numbers
    return replace(given, ids=np.where(hit, moved, given.ids))


def shortened(given: Derivations, rate: float, generator: np.random.Generator) -> Derivations:
    """Every step of the derivations is with probability `rate` left out.

    A step is what ends with the prompt's separator: a line of arithmetic, a system; for tables it is the whole table.
    Raises UserError unless 0 <= rate <= 1.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"rate {rate} is a share of the steps: give one between 0 and 1")
    rows, place = np.arange(len(given)), np.arange(given.ids.shape[1])
    separator = given.ids[rows, given.prompt - 1][:, None]
    inside = (place >= given.prompt[:, None]) & (place < given.answer[:, None])
    ends = (given.ids == separator) & inside
    step = np.cumsum(ends, axis=1) - ends  # the step that each token belongs to
    dropped = (generator.random((len(given), int(step.max(initial=0)) + 1)) < rate)[
        rows[:, None], step
    ] & inside
    order = np.argsort(dropped, axis=1, kind="stable")
    lost = dropped.sum(axis=1)
    kept = np.take_along_axis(given.ids, order, axis=1)
    ids = np.where(place < given.ids.shape[1] - lost[:, None], kept, 0)
    return replace(given, ids=ids, answer=given.answer - lost, length=given.length - lost)
