"""Sequence models from mixers: whole and token by token, readouts, matched sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from claimbench.blocks.mixers import make_mixer
from claimbench.blocks.mixers.recurrent import LSTM
from claimbench.blocks.sequence_model import Block, SequenceModel, count_parameters, match_parameters


@pytest.mark.parametrize(("name", "options"), [("lstm", {"hidden": 6}), ("attention", {"heads": 2})])
def test_models_give_the_same_whole_or_token_by_token(name: str, options: dict[str, Any]) -> None:
    blocks = [Block(8, make_mixer(name, 8, **options), hidden=12) for _ in range(2)]
    model = SequenceModel(
        8, blocks, inputs=5, outputs=3, tokens=True, positions=name == "attention", readout="all"
    )
    tokens = torch.randint(0, 5, (2, 20))
    state, out = model.init_state(2), []
    for t in range(20):
        y, state = model.step(tokens[:, t], state, t)
        out.append(y)
    assert torch.allclose(model(tokens), torch.stack(out, dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("readout", ["last", "mean", "all"])
def test_readouts_have_the_shapes_that_they_promise(readout: Any) -> None:
    model = SequenceModel(4, [Block(4, LSTM(4, 3))], inputs=2, outputs=5, readout=readout)
    out = model(torch.randn(3, 7, 2))
    assert out.shape == ((3, 7, 5) if readout == "all" else (3, 5))


def test_matched_width_is_the_nearest() -> None:
    def build(width: int) -> nn.Module:
        return nn.Linear(width, 10)

    for target in (1, 25, 26, 104, 106, 1000):
        chosen = match_parameters(build, target)
        errors = {w: abs(count_parameters(build(w)) - target) for w in range(1, 120)}
        assert errors[chosen] == min(errors.values())
