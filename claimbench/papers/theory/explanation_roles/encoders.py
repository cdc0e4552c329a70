"""Retrieval of the synthetic task's explanations by a sentence encoder that reads integers as text,
pretrained or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int

from claimbench.papers.theory.explanation_roles.learning import Find
from claimbench.papers.theory.explanation_roles.retrieval import nearest, unit
from claimbench.papers.theory.explanation_roles.synthetic import Points, Problem
from claimbench.subjects.sentence_encoder import SentenceEncoder


def written(integers: Int[np.ndarray, "rows length"]) -> list[str]:
    """Rows of integers as the original writes them: numbers with spaces between."""
    return [" ".join(map(str, row)) for row in integers.tolist()]


def encode_different(encoder: SentenceEncoder, texts: Sequence[str]) -> Float32[np.ndarray, "texts width"]:
    """Rows of length 1; each different text is encoded once."""
    different, places = np.unique(np.asarray(texts), return_inverse=True)
    return unit(encoder.encode(different.tolist()))[places]


def find_by_encoder(encoder: SentenceEncoder) -> Find:
    """By the cosine of a sequence's row to an explanation's, both written as text; the encoder stays as it
    is.
    """

    def find(
        problem: Problem, points: Points, own: Int[np.ndarray, " points"] | None, count: int
    ) -> np.ndarray:
        queries = encode_different(encoder, written(points.sequences))
        pool = encode_different(encoder, written(problem.train.explanations))
        return nearest(queries, pool, count, own=own)

    return find


def untrained(encoder: SentenceEncoder, seed: int) -> SentenceEncoder:
    """The same network and tokenizer with the random weights that it has before any training."""
    torch.manual_seed(seed)
    model: Any = type(encoder.model)(encoder.model.config)
    return replace(encoder, model=model.to(encoder.model.device).eval())
