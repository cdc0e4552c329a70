"""The sentence encoders of search: a subject opened here, or asked of the process that all workers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from claimbench.search.encoder_client import EncoderClient
from claimbench.subjects import open_subject, resolve_subject

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

DEFAULT = "all-minilm-l6-v2"
FEW = 4  # texts
FACTORY = "claimbench.search.encoders:SubjectEncoder"


class SubjectEncoder:
    """A `sentence-encoder` subject by name, path or hub id, loaded in this process. Raises UserError as subjects do."""

    def __init__(self, value: str = DEFAULT) -> None:
        ref = resolve_subject("sentence-encoder", value)
        self.identity = ref.identity
        self._subject = open_subject(ref)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        """One row a text, float32. A few texts take one thread: on a busy machine threads wait for each other."""
        if len(texts) > FEW:
            return self._subject.encode(texts)
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._subject.encode(texts)
        finally:
            torch.set_num_threads(threads)


def shared(value: str = DEFAULT, *, start: bool = True, idle: float = 600.0) -> EncoderClient:
    """The same encoder in a process of its own, which all who ask share.

    start: start it if none runs (else only a running one is asked). idle: seconds after which it ends.
    """
    identity = resolve_subject("sentence-encoder", value).identity
    return EncoderClient(FACTORY, value, identity, start=start, idle=idle)
