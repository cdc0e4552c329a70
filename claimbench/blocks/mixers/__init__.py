"""Token mixers: one interface, and one registry that imports a mixer when it is first asked for.

A mixer is a module over [batch, length, features] that also runs token by token:

    layer = make_mixer("attention", features=64, heads=4)
    y = layer(x)                                   # [batch, length, features]
    state = layer.init_state(batch=2)
    y_0, state = layer.step(x[:, 0], state)        # [batch, features]

Most also have `prefill(x)`: `forward` and the state after the last token, as generation from a prompt needs it.
A paper's own mixer stays in its folder until another paper compares itself with it; then it moves here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError, nearest

MIXERS = {
    "attention": "claimbench.blocks.mixers.attention:Attention",
    "base-conv": "claimbench.blocks.mixers.convolution:BaseConv",
    "based": "claimbench.papers.sequence.based.layer:BasedMixer",
    "gru": "claimbench.blocks.mixers.recurrent:GRU",
    "linear-attention": "claimbench.blocks.mixers.linear_attention:LinearAttention",
    "lstm": "claimbench.blocks.mixers.recurrent:LSTM",
    "mamba": "claimbench.blocks.mixers.mamba:Mamba",
    "sliding-window": "claimbench.blocks.mixers.window:SlidingWindow",
}


@runtime_checkable
class Mixer(Protocol):
    """What every mixer can do. `step` and `forward` compute the same function of the tokens so far."""

    def __call__(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """All positions at once."""

    def init_state(self, batch: int) -> Any:
        """What is held before the first token."""

    def step(
        self, x: Float[Tensor, "batch features"], state: Any
    ) -> tuple[Float[Tensor, "batch features"], Any]:
        """One token; the state may be updated in place, so the one passed in must not be used again."""

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """Bytes held after `length` tokens; the same for every length where the state is fixed."""


def make_mixer(name: str, features: int, **options: Any) -> Any:
    """A new mixer by its name, with the options of its class. Raises UserError for an unknown name."""
    if name not in MIXERS:
        raise UserError(f'no mixer "{name}"{nearest(name, MIXERS)}')
    module, attribute = MIXERS[name].split(":")
    return getattr(import_module(module), attribute)(features, **options)
