"""The embedded byte LM: `claimbench.blocks.byte_lm` trained once on the default corpus, by a fixed recipe, and cached.

Its identity is the recipe, the code (without comments), the corpus and torch's version; the weights themselves differ
in their last digits from one kind of CPU to another.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from claimbench.spec import digest
from claimbench.subjects.store import code_digest, say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

THREADS = 1  # another number would sum in another order, and threads that wait for each other crawl on a busy machine
DOMAINS = ("prose", "python")
MODEL = {"layers": 8, "width": 128, "heads": 4, "hidden": 256, "context": 128, "seed": 0}
STEPS, BATCH, LR, SEED = 600, 4, 2e-3, 0


def identity() -> str:
    """Known without building: what the model will be."""
    from claimbench.tasks.corpus import CORPUS_SHA256

    code = code_digest(
        "claimbench.blocks.byte_lm",
        "claimbench.blocks.schedules",
        "claimbench.subjects.documents",
        "claimbench.subjects.splits",
    )
    return digest(
        ["byte-lm", DOMAINS, MODEL, STEPS, BATCH, LR, SEED, THREADS, code, CORPUS_SHA256, version("torch")]
    )


def downloads() -> int:
    from claimbench.tasks.corpus import downloads as corpus_downloads

    return corpus_downloads()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A whole transformers tokenizer: ids 0 to 255 are the bytes of the UTF-8 text, 256 the boundary of documents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from claimbench.blocks.byte_lm import BOUNDARY

    boundary = "<|boundary|>"
    vocabulary = {character: byte for byte, character in enumerate(_byte_alphabet())} | {boundary: BOUNDARY}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=boundary,
        eos_token=boundary,
        pad_token=boundary,
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL["context"],
    )


def _byte_alphabet() -> list[str]:
    """The printable character by which byte-level tokenizers write each byte (GPT-2's map), in order of the byte."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def build(folder: Path) -> None:
    """Train and write a model directory that transformers opens as any other.

    In a process of its own with `THREADS` threads: whoever asks may hold one thread, or be about to fork.
    """
    from claimbench.tasks.corpus import build_corpus

    build_corpus()
    say(f"training byte-lm (once, {STEPS} steps, about a minute of an idle core)")
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, "-m", __name__, str(folder), str(os.getpid())], check=True, env=environment
    )


def _train(folder: Path, parent: int) -> None:
    import torch

    from claimbench.blocks.byte_lm import byte_lm, train_byte_lm
    from claimbench.subjects.documents import Document, Text
    from claimbench.tasks.corpus import read_corpus

    torch.set_num_threads(THREADS)
    text = Text(Document(content, domain) for domain, content in read_corpus(DOMAINS)).train
    started = time.monotonic()
    recent: list[float] = []

    def progress(step: int, of: int, loss: float) -> None:
        if os.getppid() != parent:
            raise SystemExit("byte-lm: whoever asked for it is gone")
        recent.append(loss)
        every = 10 if sys.stderr.isatty() else of // 10
        if step % every == 0 or step == of:
            mean, left = (
                sum(recent[-20:]) / len(recent[-20:]),
                (time.monotonic() - started) / step * (of - step),
            )
            line = f"byte-lm: step {step} of {of}, {mean:.2f} nats per byte, {left:.0f} s left"
            print(line, end="\r" if sys.stderr.isatty() and step < of else "\n", file=sys.stderr, flush=True)

    model = train_byte_lm(
        text.encode(),
        steps=STEPS,
        batch=BATCH,
        context=MODEL["context"],
        lr=LR,
        seed=SEED,
        model=byte_lm(**MODEL),
        progress=progress,
    )
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    _train(Path(sys.argv[1]), int(sys.argv[2]))
