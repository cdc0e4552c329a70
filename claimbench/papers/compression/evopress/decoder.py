"""The decoder layers of a Hugging Face causal language model, found by structure rather than by model class.

EvoPress (arXiv 2410.14649) acts on the attention and MLP part of every decoder layer. This file finds them in
Llama-, Mistral-, Qwen-, GPT-2-, GPT-NeoX- and Phi-style models, and runs a model layer by layer, so that
candidates which agree in their first layers can share that work (`fitness.py`). What it does is checked on
the model at hand: a layer whose two parts are silenced must pass its input on unchanged, and the run by
layers must reproduce the model's logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from claimbench.errors import UserError

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "feedforward", "ffn", "block_sparse_moe")
ATTENTION_OUTPUT = ("o_proj", "c_proj", "out_proj", "dense", "wo", "proj")
MLP_OUTPUT = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "fc_out", "w2", "wo", "proj")


def _child(module: nn.Module, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(getattr(module, name, None), nn.Module)), None)


@dataclass(frozen=True)
class Decoder:
    """Where a model keeps its decoder layers, and what their attention and MLP are called."""

    model: PreTrainedModel
    owner: nn.Module  # the module that holds the list of layers
    name: str  # the list's name in its owner
    prefix: str  # the list's full name, as in the state dict
    attention: str
    mlp: str

    @property
    def layers(self) -> nn.ModuleList:
        return cast(nn.ModuleList, getattr(self.owner, self.name))

    def __len__(self) -> int:
        return len(self.layers)

    def part(self, layer: int, kind: str) -> nn.Module:
        """The attention (`kind = "attention"`) or MLP module of a layer."""
        return cast(
            nn.Module, getattr(self.layers[layer], self.attention if kind == "attention" else self.mlp)
        )

    def output_projection(self, layer: int, kind: str) -> nn.Module:
        """The last linear of a part: with weight and bias zero, the part adds nothing. Raises UserError if
        not found.
        """
        part = self.part(layer, kind)
        name = _child(part, ATTENTION_OUTPUT if kind == "attention" else MLP_OUTPUT)
        if name is None:
            raise UserError(
                f"{type(self.model).__name__}: the {kind} part ({type(part).__name__}) has no output projection "
                "of a known name, so the pruned model cannot be an ordinary checkpoint; save the profile alone"
            )
        return cast(nn.Module, getattr(part, name))

    def linears(self, layer: int) -> dict[str, nn.Module]:
        """The layer's linear maps by name within the layer (nn.Linear, and GPT-2's Conv1D with its transposed
        weight).
        """
        return {
            name: module
            for name, module in self.layers[layer].named_modules()
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        }


def find_decoder(model: PreTrainedModel) -> Decoder:
    """The decoder layers of `model`. Raises UserError if it has no list of layers with an attention and an
    MLP part.
    """
    if not isinstance(model, PreTrainedModel):
        raise UserError(f"model: a transformers causal language model is needed, not {type(model).__name__}")
    wanted = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for prefix, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) != wanted:
            continue
        found = {(_child(layer, ATTENTION), _child(layer, MLP)) for layer in module}
        attention, mlp = next(iter(found))
        if len(found) == 1 and attention is not None and mlp is not None:
            owner, _, name = prefix.rpartition(".")
            return Decoder(model, model.get_submodule(owner), name, prefix, attention, mlp)
    raise UserError(
        f"{type(model).__name__}: no list of {wanted} decoder layers that each hold an attention "
        f"({', '.join(ATTENTION)}) and an MLP ({', '.join(MLP)}) module was found; EvoPress understands "
        "Llama-, GPT-2-, GPT-NeoX- and Phi-style models"
    )


class _Stop(Exception):
    """Ends a forward pass once the first layer's input is known."""


class _Injected(nn.Module):
    """Stands in for all decoder layers: returns what it was given instead of computing. Attributes are the
    first layer's.
    """

    def __init__(self, hidden: Tensor, like: nn.Module) -> None:
        super().__init__()
        self._hidden = hidden
        object.__setattr__(self, "_like", like)

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self._hidden

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_like"), name)


class LayeredRun:
    """A model as three steps: `embed` tokens, run `layer` by layer, turn the last hidden state into `logits`.

    Layers get the arguments (positions, masks) that the model itself would give them, recorded once per
    sequence length from a batch of one; so this holds for full sequences without padding and without a cache.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._arguments: dict[int, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}

    @contextmanager
    def _hooked(self, hook: Any, layers: Iterator[nn.Module] | list[nn.Module]) -> Iterator[None]:
        handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, ids: Int[Tensor, "1 tokens"]) -> None:
        recorded: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            recorded.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))

        with self._hooked(keep, list(self.decoder.layers)):
            self.decoder.model(input_ids=ids, use_cache=False)
        self._arguments[ids.shape[1]] = recorded

    def embed(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """The input of the first layer."""
        if ids.shape[1] not in self._arguments:
            self._record(ids[:1])
        seen: list[Tensor] = []

        def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(args[0] if args else kwargs["hidden_states"])
            raise _Stop

        with self._hooked(stop, [self.decoder.layers[0]]), suppress(_Stop):
            self.decoder.model(input_ids=ids, use_cache=False)
        return seen[0]

    def layer(
        self, index: int, hidden: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        args, kwargs = self._arguments[hidden.shape[1]][index]
        out = self.decoder.layers[index](hidden, *args, **kwargs)
        return cast(Tensor, out[0] if isinstance(out, tuple) else out)

    def logits(
        self, hidden: Float[Tensor, "batch tokens width"], ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """What the model makes of the last layer's output: final norm, head, and whatever scaling the model
        adds.

        The model's own forward pass is run with a stand-in for its layers, so nothing of it is written twice.
        """
        decoder = self.decoder
        layers = decoder.layers
        setattr(decoder.owner, decoder.name, nn.ModuleList([_Injected(hidden, layers[0])]))
        try:
            return cast(Tensor, decoder.model(input_ids=ids, use_cache=False).logits)
        finally:
            setattr(decoder.owner, decoder.name, layers)

    @torch.no_grad()
    def agrees(self) -> bool:
        """Whether the run by layers gives the model's own logits, on 2 sequences of 8 random tokens."""
        model = self.decoder.model
        generator = torch.Generator().manual_seed(0)
        size = int(model.config.get_text_config().vocab_size)
        ids = torch.randint(0, size, (2, 8), generator=generator).to(model.device)
        want = model(input_ids=ids, use_cache=False).logits
        try:
            hidden = self.embed(ids)
            for index in range(len(self.decoder)):
                hidden = self.layer(index, hidden)
            got = self.logits(hidden, ids)
        except (RuntimeError, TypeError, IndexError, ValueError):
            return False
        # the same kernels on the same shapes: only the order of float sums may differ
        return got.shape == want.shape and bool((got - want).abs().max() <= 1e-3 * want.abs().max())


class SublayerSwitch:
    """Turns single attention and MLP sub-layers of a model off and on without touching its weights.

    A dropped part costs no computation and adds nothing to the residual stream. A dropped attention still
    tells the key-value cache how many tokens went by (with one zero per token), because models read the
    sequence length, and with it positions and masks, from the cache.

    Profiles: levels 0 (kept) and 1 (dropped), attention of all layers first, then the MLPs. Use as a context
    manager, or call `close`, to get the model's own methods back. Raises UserError if dropping both parts of
    a layer does not leave its input unchanged.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.decoder = find_decoder(model)
        self.dropped = {"attention": [False] * len(self.decoder), "mlp": [False] * len(self.decoder)}
        self._arity = self._outputs()
        for kind in self.dropped:
            for layer in range(len(self.decoder)):
                part = self.decoder.part(layer, kind)
                if "forward" in vars(part):
                    raise UserError(
                        "model: its layers are switched already; close the other SublayerSwitch first"
                    )
                part.forward = self._forward(kind, layer, part)  # undone by close()
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _outputs(self) -> dict[tuple[str, int], int]:
        """How many values each part returns: 0 for a bare tensor, else the length of its tuple."""
        arity: dict[tuple[str, int], int] = {}
        handles = []
        for kind in self.dropped:
            for layer in range(len(self.decoder)):

                def note(_: nn.Module, __: Any, out: Any, key: tuple[str, int] = (kind, layer)) -> None:
                    arity[key] = len(out) if isinstance(out, tuple) else 0

                handles.append(self.decoder.part(layer, kind).register_forward_hook(note))
        try:
            with torch.no_grad():
                ids = torch.zeros(1, 2, dtype=torch.long, device=self.decoder.model.device)
                self.decoder.model(input_ids=ids, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return arity

    def _forward(self, kind: str, layer: int, part: nn.Module) -> Any:
        original, flags, arity = part.forward, self.dropped[kind], self._arity[(kind, layer)]
        cache_index = getattr(part, "layer_idx", layer)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not flags[layer]:
                return original(*args, **kwargs)
            hidden = args[0] if args else kwargs["hidden_states"]
            cache = next((v for v in (*args, *kwargs.values()) if isinstance(v, Cache)), None)
            if kind == "attention" and cache is not None:
                blank = hidden.new_zeros(hidden.shape[0], 1, hidden.shape[1], 1)
                cache.update(blank, blank, cache_index)
            nothing = hidden.new_zeros(()).expand_as(hidden)
            return (nothing, *[None] * (arity - 1)) if arity else nothing

        return forward

    @torch.no_grad()
    def _check(self) -> None:
        run = LayeredRun(self.decoder)
        ids = torch.zeros(1, 4, dtype=torch.long, device=self.decoder.model.device)
        hidden = run.embed(ids)
        for layer in range(len(self.decoder)):
            self.set_layer(layer, (1, 1))
            out = run.layer(layer, hidden)
            self.set_layer(layer, (0, 0))
            if not torch.equal(out, hidden):
                raise UserError(
                    f"{type(self.decoder.model).__name__}: layer {layer} does not pass its input on when "
                    "attention and MLP add nothing (no plain residual stream), so sub-layers cannot be dropped"
                )

    def set_layer(self, layer: int, levels: tuple[int, ...]) -> None:
        """levels: (attention, MLP), 1 for dropped."""
        self.dropped["attention"][layer], self.dropped["mlp"][layer] = bool(levels[0]), bool(levels[1])

    def reset(self) -> None:
        """Keep everything."""
        for layer in range(len(self.decoder)):
            self.set_layer(layer, (0, 0))

    @property
    def units_of_layer(self) -> list[list[int]]:
        """Per layer, where its attention and MLP stand in a profile."""
        count = len(self.decoder)
        return [[layer, count + layer] for layer in range(count)]

    def close(self) -> None:
        """Give the parts their own forward methods back."""
        for kind in self.dropped:
            for layer in range(len(self.decoder)):
                vars(self.decoder.part(layer, kind)).pop("forward", None)

    def __enter__(self) -> SublayerSwitch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
