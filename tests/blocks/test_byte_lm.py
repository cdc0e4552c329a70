from __future__ import annotations

import numpy as np
import pytest
import torch

from claimbench.blocks.byte_lm import BOUNDARY, VOCABULARY, byte_lm, nats_per_byte, train_byte_lm, windows

pytest.importorskip("transformers")


def _words(seed: int, count: int) -> bytes:
    """Words from a small vocabulary in random order: who has read a word's first bytes knows the others."""
    words = [
        "analysis",
        "banana",
        "cabin",
        "narrow",
        "sandbank",
        "abacus",
        "winnow",
        "rabbit",
        "robin",
        "scissors",
    ]
    generator = np.random.default_rng(seed)
    return " ".join(words[index] for index in generator.integers(len(words), size=count)).encode()


def test_shape_and_causality() -> None:
    model = byte_lm(layers=2, width=32, heads=2, hidden=48, context=32).eval()
    ids = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 12:] = BOUNDARY
    with torch.no_grad():
        logits, other = model(input_ids=ids).logits, model(input_ids=changed).logits
    assert logits.shape == (3, 20, VOCABULARY)
    torch.testing.assert_close(logits[:, :12], other[:, :12], rtol=0, atol=1e-5)
    assert not torch.allclose(logits[:, 12:], other[:, 12:], atol=1e-3)


def test_the_default_has_the_stated_size() -> None:
    """Embedding V d, tied; a block: 4 d^2 (attention), 3 d h (gated MLP), 2 d (norms); d for the last norm."""
    model = byte_lm()
    d, h = 128, 256
    expected = VOCABULARY * d + 8 * (4 * d * d + 3 * d * h + 2 * d) + d
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_an_untrained_model_is_near_uniform_and_follows_its_seed() -> None:
    first, same, other = byte_lm(seed=1), byte_lm(seed=1), byte_lm(seed=2)
    ids = torch.randint(0, 256, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = [nats_per_byte(model.eval(), ids).mean() for model in (first, same, other)]
    assert losses[0] == losses[1] != losses[2]
    assert abs(losses[0].item() - np.log(VOCABULARY)) < 0.5


def test_the_seed_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    byte_lm(layers=1, width=16, heads=2, hidden=16, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_loss_is_that_of_transformers() -> None:
    model = byte_lm(layers=2, width=32, heads=2, hidden=48, context=32).eval()
    ids = torch.randint(0, 256, (4, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(nats_per_byte(model, ids).mean(), model(input_ids=ids, labels=ids).loss)


def test_windows_are_slices() -> None:
    text = torch.arange(50, dtype=torch.uint8)
    starts = torch.tensor([0, 7, 40])
    expected = torch.stack([text[start : start + 10] for start in starts.tolist()]).long()
    assert torch.equal(windows(text, starts, 10), expected)


def test_training_beats_the_best_bigram_on_held_out_text_and_repeats_itself() -> None:
    train, test = _words(0, 6000), _words(1, 3000)
    seen: list[tuple[int, int]] = []

    def trained(steps: int) -> torch.nn.Module:
        return train_byte_lm(
            train,
            steps=steps,
            batch=16,
            context=32,
            lr=1e-2,
            seed=3,
            model=byte_lm(layers=2, width=32, heads=2, hidden=64, context=32, seed=3),
            progress=lambda step, of, loss: seen.append((step, of)),
        )

    model = trained(150)
    assert seen == [(step + 1, 150) for step in range(150)]
    short, again = trained(4).state_dict(), trained(4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in short.items())
    stream = np.frombuffer(test, np.uint8)
    pairs = np.zeros((256, 256))
    np.add.at(
        pairs, (stream[:-1], stream[1:]), 1
    )  # counted on the test text itself: no bigram model does better
    share = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    bigram = -np.log(share[stream[:-1], stream[1:]]).mean()
    sequences = torch.from_numpy(stream[: len(stream) // 32 * 32].reshape(-1, 32).astype(np.int64))
    with torch.no_grad():
        loss = nats_per_byte(model, sequences).mean().item()
    assert loss < 0.8 * bigram
    assert not model.training


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ValueError, match="not longer than a window"):
        train_byte_lm(b"short", steps=1, batch=1, context=32, lr=1e-3, seed=0)
