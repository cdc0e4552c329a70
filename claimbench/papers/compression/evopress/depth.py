"""Depth pruning with EvoPress: which attention and MLP sub-layers of a causal language model can go.

Sieberling et al. 2024 (arXiv 2410.14649), section 4.1: of n layers, k attention and k MLP sub-layers are
removed, each found separately by the level-switch search with KL(dense || pruned) as fitness. In a few lines:

    model = AutoModelForCausalLM.from_pretrained("path/or/name")
    result = prune_depth(model, calibration_tokens, remove=0.25)
    save_pruned(model, result.profile, "pruned")         # transformers loads it again
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from claimbench.errors import UserError
from claimbench.papers.compression.evopress.baselines import random_selections
from claimbench.papers.compression.evopress.decoder import SublayerSwitch, find_decoder
from claimbench.papers.compression.evopress.fitness import Calibration, Criterion, Judge, sequences
from claimbench.papers.compression.evopress.search import Outcome, Profile, Space, Stage, evolve

PROFILE_FILE = "evopress.json"
ATTENTION_GROUP, MLP_GROUP = 0, 1


@dataclass(frozen=True)
class DepthProfile:
    """Which sub-layers are dropped, by the number of their layer in the dense model."""

    layers: int
    attention: tuple[int, ...]
    mlp: tuple[int, ...]

    @classmethod
    def of(cls, levels: Profile) -> DepthProfile:
        """From a search's levels: 1 is dropped; attention of all layers first, then the MLPs."""
        layers = len(levels) // 2
        attention, mlp = (np.flatnonzero(half).tolist() for half in (levels[:layers], levels[layers:]))
        return cls(layers, tuple(attention), tuple(mlp))

    @property
    def levels(self) -> Profile:
        levels = np.zeros(2 * self.layers, dtype=np.int64)
        levels[list(self.attention)] = 1
        levels[[self.layers + layer for layer in self.mlp]] = 1
        return levels

    @property
    def whole(self) -> tuple[int, ...]:
        """Layers of which both parts are dropped."""
        return tuple(sorted(set(self.attention) & set(self.mlp)))


@dataclass(frozen=True)
class Pruned:
    """What the search found. outcome.fitness is the winner's value on the tokens it won on: judge it on fresh
    text.
    """

    profile: DepthProfile
    outcome: Outcome


def depth_space(layers: int, protect: tuple[int, ...] = ()) -> Space:
    """Two groups of units, attention and MLP, each kept (0) or dropped (1). Layers in `protect` are never
    dropped.
    """
    upper = np.ones(2 * layers, dtype=np.int64)
    for layer in protect:
        upper[[layer, layers + layer]] = 0
    group = np.repeat([ATTENTION_GROUP, MLP_GROUP], layers)
    return Space(np.zeros(2 * layers, dtype=np.int64), upper, group)


def whole_blocks(space: Space) -> Space:
    """The space whose unit is a whole block (the option that forces blocks): one unit per layer."""
    layers = space.units // 2
    return Space(space.lower[:layers], space.upper[:layers], space.group[:layers])


def paper_generations(removed: int, layers: int) -> int:
    """floor(k (n - k) / 1.5), as the official script sets it."""
    return int(removed * (layers - removed) / 1.5)


class _Blocks:
    """A fitness over whole blocks: every block's level stands for both of its parts."""

    def __init__(self, inner: Calibration) -> None:
        self.inner = inner

    def draw(self, tokens: int, rng: np.random.Generator) -> Int[Tensor, "drawn tokens"]:
        return self.inner.draw(tokens, rng)

    def __call__(self, profiles: np.ndarray, minibatch: Tensor) -> np.ndarray:
        return self.inner(np.concatenate([profiles, profiles], axis=1), minibatch)


def prune_depth(
    model: PreTrainedModel,
    calibration: Int[Tensor, " tokens"],
    *,
    remove: float | int = 0.25,
    sequence_length: int = 512,
    generations: int | None = None,
    offspring: int = 32,
    stages: tuple[Stage, ...] = (Stage(2048, 2), Stage(32768, 1)),
    starts: int = 64,
    start_tokens: int = 2048,
    protect: tuple[int, ...] = (),
    whole: bool = False,
    criterion: Criterion = "kl",
    top_k: int = 0,
    tokens_at_once: int = 8192,
    seed: int = 0,
) -> Pruned:
    """Search the sub-layers whose removal changes the model's predictions least. The model itself is left as
    it was.

    calibration: one long vector of token ids, cut into sequences. remove: how many attention and how many MLP
    sub-layers go, as a share of the layers (float) or a number (int). generations: default k(n-k)/1.5 as in
    the paper. whole: only whole blocks. The other defaults are the paper's. top_k: see `fitness.Judge`.
    Raises UserError for a model that is not understood, too little text, or a `remove` that leaves nothing to
    choose.
    """
    layers = len(find_decoder(model))
    count = int(remove * layers) if isinstance(remove, float) else remove
    if not 0 < count < layers - len(protect) + (len(protect) > 0):
        raise UserError(
            f"remove: {remove} means {count} of {layers} layers; it must be at least 1 and leave some "
            f"({len(protect)} are protected)"
        )
    space = depth_space(layers, protect)
    ids = sequences(calibration, sequence_length)
    rng = np.random.default_rng(seed)
    was_training = model.training
    model.eval()
    try:
        with SublayerSwitch(model) as switch:
            inner = Calibration(Judge(switch, top_k=top_k, tokens_at_once=tokens_at_once), ids, criterion)
            fitness: Calibration | _Blocks = inner
            budget = {ATTENTION_GROUP: count, MLP_GROUP: count}
            if whole:
                space, fitness, budget = whole_blocks(space), _Blocks(inner), {ATTENTION_GROUP: count}
            outcome = evolve(
                space,
                fitness,
                random_selections(space, budget, starts, rng),
                generations=paper_generations(count, layers) if generations is None else generations,
                offspring=offspring,
                stages=stages,
                start_tokens=start_tokens,
                seed=rng,
            )
    finally:
        model.train(was_training)
    levels = np.concatenate([outcome.levels, outcome.levels]) if whole else outcome.levels
    return Pruned(DepthProfile.of(levels), outcome)


def drop(model: PreTrainedModel, profile: DepthProfile) -> SublayerSwitch:
    """Drop the profile's sub-layers in place: they cost nothing, and generation with a cache stays correct.

    Returns the switch; its `close()` brings the dense model back.
    """
    switch = SublayerSwitch(model)
    try:
        if profile.layers != len(switch.decoder):
            raise UserError(f"profile: made for {profile.layers} layers, the model has {len(switch.decoder)}")
    except UserError:
        switch.close()
        raise
    for layer in range(profile.layers):
        switch.set_layer(layer, (layer in profile.attention, layer in profile.mlp))
    return switch


def _rebuilt(model: PreTrainedModel, profile: DepthProfile, *, shorten: bool) -> PreTrainedModel:
    """A copy without the wholly dropped layers (if `shorten`), output projections of dropped parts set to
    zero.
    """
    decoder = find_decoder(model)
    removed = set(profile.whole) if shorten else set()
    kept = [layer for layer in range(profile.layers) if layer not in removed]
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    for name, value in vars(text).items():
        if (
            isinstance(value, list) and len(value) == profile.layers
        ):  # one entry per layer: kinds of attention and the like
            setattr(text, name, [value[layer] for layer in kept])
    text.num_hidden_layers = len(kept)
    new = type(model)._from_config(config, dtype=model.dtype).eval()
    place = {layer: position for position, layer in enumerate(kept)}
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(decoder.prefix + "."):
            number, _, rest = name[len(decoder.prefix) + 1 :].partition(".")
            if int(number) in removed:
                continue
            name = f"{decoder.prefix}.{place[int(number)]}.{rest}"
        state[name] = tensor.detach().cpu()
    new.load_state_dict(state)
    target = find_decoder(new)
    for kind, layers in (("attention", profile.attention), ("mlp", profile.mlp)):
        for layer in layers:
            if layer in place:
                for parameter in target.output_projection(place[layer], kind).parameters():
                    torch.nn.init.zeros_(parameter)
    new.generation_config = copy.deepcopy(model.generation_config)
    return cast(PreTrainedModel, new)


@torch.no_grad()
def export_pruned(model: PreTrainedModel, profile: DepthProfile) -> PreTrainedModel:
    """An ordinary transformers model (on the CPU) that computes what `drop` computes.

    Layers of which both parts are dropped are taken out, so the model is shorter. A layer of which one part
    is dropped keeps its shape: that part's output projection is zero, which is the same function but saves no
    time or memory; `drop(model, profile)` after loading saves the time. Where layers cannot be renumbered
    without changing the function, they are all kept. Raises UserError if the copy does not reproduce the
    dropped model's logits.
    """
    ids = torch.randint(
        0, int(model.config.get_text_config().vocab_size), (2, 16), generator=torch.Generator().manual_seed(0)
    )
    was_training = model.training
    model.eval()
    try:
        switch = drop(model, profile)
        try:
            want = model(input_ids=ids.to(model.device), use_cache=False).logits.float().cpu()
        finally:
            switch.close()
        attempts = [True, False] if profile.whole and len(profile.whole) < profile.layers else [False]
        for shorten in attempts:
            new = _rebuilt(model, profile, shorten=shorten)
            got = new(input_ids=ids, use_cache=False).logits.float()
            # rounding of the model's own number type, accumulated over its layers
            tolerance = 64 * torch.finfo(model.dtype).eps * profile.layers * float(want.abs().max())
            if float((got - want).abs().max()) <= tolerance:
                return new
    finally:
        model.train(was_training)
    raise UserError(
        f"{type(model).__name__}: the pruned copy does not reproduce the pruned model's predictions; save "
        "the profile with save_profile and use drop(model, profile) after loading the dense model"
    )


def save_profile(profile: DepthProfile, folder: str | Path) -> Path:
    """Write the profile as `evopress.json`: which sub-layers of the dense model are dropped."""
    path = Path(folder) / PROFILE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"method": "EvoPress (arXiv 2410.14649), depth pruning", **asdict(profile)}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def load_profile(folder: str | Path) -> DepthProfile:
    """Read `evopress.json`. Raises UserError if it is missing or damaged."""
    path = Path(folder) / PROFILE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return DepthProfile(int(content["layers"]), tuple(content["attention"]), tuple(content["mlp"]))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a depth profile ({error}); write it with save_profile") from None


def save_pruned(model: PreTrainedModel, profile: DepthProfile, folder: str | Path) -> PreTrainedModel:
    """Write the pruned model so that `from_pretrained` loads it without this package, with the profile beside
    it.

    Returns the model that was written (see `export_pruned` for what it is). The tokenizer is the dense
    model's: save it into the same folder with `tokenizer.save_pretrained(folder)`.
    """
    new = export_pruned(model, profile)
    new.save_pretrained(folder)
    save_profile(profile, folder)
    return new
