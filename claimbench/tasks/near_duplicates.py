"""Near-duplicate texts, by containment of shingles: Broder 1997, "On the resemblance and containment of documents".

A text's shingles are all its stretches of 32 bytes; a hash chooses one in sixteen of them, the same ones in every text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SHINGLE = 32  # bytes
SAMPLE = 16  # one shingle in so many is looked at
CONTAINED = 0.5  # of the smaller text's shingles: from there on two texts are near-duplicates


def shingle_sample(text: bytes) -> npt.NDArray[np.uint64]:
    """Sorted distinct hashes of a sample of a text's shingles: those whose hash is below 2^64 / `SAMPLE`.

    The choice depends on the shingle alone, so that two texts choose the same of what they share. Polynomial hashes of
    32 bytes are made of those of 16, 8, 4, 2 and 1, each with one vectorised step; then mixed (the finaliser of
    splitmix64, Steele, Lea and Flood 2014) so that their size is random.
    """
    hashes = np.frombuffer(text, dtype=np.uint8).astype(np.uint64) + np.uint64(1)
    factor, length = np.uint64(0x9E3779B97F4A7C15), 1
    while length < SHINGLE and len(hashes) > length:
        hashes = hashes[:-length] * factor + hashes[length:]
        with np.errstate(over="ignore"):
            factor = factor * factor
        length *= 2
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(multiplier)
    hashes ^= hashes >> np.uint64(31)
    return np.unique(hashes[hashes < np.uint64(2**64 // SAMPLE)])


def near_duplicates(texts: Sequence[bytes], *, contained: float = CONTAINED) -> npt.NDArray[np.intp]:
    """Group number of each text: (texts,). Texts of one group are linked by pairs of which the smaller one's shingles
    lie to the share `contained` or more in the other (estimated from the sample)."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components

    samples = [shingle_sample(text) for text in texts]
    if not samples:
        return np.empty(0, dtype=np.intp)
    sizes = np.array([len(sample) for sample in samples])
    _, columns = np.unique(np.concatenate(samples), return_inverse=True)
    rows = np.repeat(np.arange(len(texts)), sizes)
    present = csr_array(
        (np.ones(len(rows), np.int32), (rows, columns)), shape=(len(texts), int(columns.max(initial=0)) + 1)
    )
    shared = coo_array(present @ present.T)
    first, second = shared.coords
    linked = shared.data >= contained * np.minimum(sizes[first], sizes[second])
    links = csr_array(
        (np.ones(int(linked.sum()), np.int8), (first[linked], second[linked])), shape=(len(texts),) * 2
    )
    return np.asarray(connected_components(links, directed=False)[1])
