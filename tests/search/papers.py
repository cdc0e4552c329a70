"""Papers and an encoder for the tests of search: a handful by hand, many by chance, words hashed into a few places."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence

import numpy as np

from claimbench.search import Document
from claimbench.search.query import tokens

WIDTH = 64

PAPERS = [
    Document(
        "hyperattention",
        "HyperAttention: Long-context Attention in Near-Linear Time",
        "Sorts queries and keys by locality-sensitive hashing and samples the remaining columns.",
        ("Insu Han", "David Woodruff"),
        "sequence",
        2023,
        ("holds", "fails"),
        ("attention", "hashing"),
    ),
    Document(
        "latent-diffusion",
        "High-Resolution Image Synthesis with Latent Diffusion Models",
        "Denoises the small code of an autoencoder rather than pixels; attention adds conditions.",
        ("Robin Rombach", "Björn Ommer"),
        "vision",
        2021,
        ("undecided",),
        ("diffusion",),
    ),
    Document(
        "long-range-arena",
        "Long Range Arena: A Benchmark for Efficient Transformers",
        "Six classification tasks on which cheap attentions are compared.",
        ("Yi Tay",),
        "sequence",
        2020,
        (),
        ("benchmark",),
    ),
    Document(
        "rashomon",
        "On the Existence of Simpler Machine Learning Models",
        "A large set of nearly optimal models is likely to hold a simple one.",
        ("Cynthia Rudin",),
        "theory",
        2019,
        ("holds",),
        ("interpretability", "Rashomon sets"),
    ),
]

_WORDS = [
    "attention",
    "memory",
    "kernel",
    "state",
    "sample",
    "prune",
    "token",
    "layer",
    "gradient",
    "noise",
    "bound",
    "bits",
]


class WordHashes:
    """Texts to counts of hashed words, signed by the hash; as `module:function` for the encoder process too."""

    def __init__(self, argument: str = "") -> None:
        self.identity = f"hashes-{argument}"
        self.calls: list[int] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(len(texts))
        if "die" in texts:  # a process that is killed while it computes
            os._exit(1)
        rows = np.zeros((len(texts), WIDTH), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in tokens(text):
                code = zlib.crc32(word.encode())
                row[code % WIDTH] += 1 if code >> 31 else -1
        return rows


def by_chance(number: int, seed: int = 0) -> list[Document]:
    """Documents whose titles and texts are drawn from a few words and a number of their own."""
    draw = np.random.default_rng(seed)
    return [
        Document(
            f"paper-{seed}-{i}",
            " ".join([*draw.choice(_WORDS, 4), f"number{i}"]),
            " ".join(draw.choice(_WORDS, 12)),
            (f"Author {i % 7}",),
            ("sequence", "vision")[i % 2],
            2000 + i % 20,
        )
        for i in range(number)
    ]
