"""The database that EvoPress searches: every linear of a model at every level, prepared once.

Sieberling et al. 2024 (arXiv 2410.14649), sections 4.2 and 4.3. Layers are prepared in order, each on the
activations that it sees when all layers before it stand at the base (uniform) level, so that its Hessian fits
the compressed model. Sparsity: one step is the same *number of weights* for every linear, so any two may
exchange a step. Bit widths: one step is one bit of a linear's weights, so only linears of equal size may. In
a few lines:

    database = sparsity_database(model, calibration_ids, sparsity=0.6)
    result = search_levels(database, calibration_ids, ...)
    database.write(result.levels)                       # the model carries the found weights; save_pretrained as usual
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from claimbench.errors import UserError
from claimbench.papers.compression.evopress.baselines import nearest_profile, owl_sparsities
from claimbench.papers.compression.evopress.decoder import Decoder, LayeredRun, find_decoder
from claimbench.papers.compression.evopress.fitness import Calibration, Criterion, Judge
from claimbench.papers.compression.evopress.levels import (
    BitsMethod,
    SparsityMethod,
    bit_levels,
    outlier_share,
    output_errors,
    sparse_levels,
)
from claimbench.papers.compression.evopress.search import Outcome, Profile, Space, Stage, evolve

# per linear: its levels' weights, given weight [outputs, inputs] and Hessian [inputs, inputs]
Prepare = Callable[
    [str, Float[Tensor, "outputs inputs"], Float[Tensor, "inputs inputs"]],
    Float[Tensor, "levels outputs inputs"],
]


@dataclass
class Unit:
    """One linear: where it is, its dense weight, its weight at each level, each level's error alone."""

    layer: int
    name: str
    module: nn.Module
    dense: Tensor
    levels: list[Tensor]  # in the module's own layout
    lowest: int  # the level of levels[0]
    errors: Float[np.ndarray, " levels"]
    outliers: tuple[int, int]  # OWL: entries above the threshold, and all entries

    @property
    def size(self) -> int:
        return self.dense.numel()


@dataclass
class WeightDatabase:
    """A model whose linears can be set to levels (`fitness.Compressed`). Setting a level swaps a pointer, no
    copy.
    """

    decoder: Decoder
    units: list[Unit]
    space: Space
    base: Profile
    kind: str
    _places: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = [
            [place for place, unit in enumerate(self.units) if unit.layer == layer]
            for layer in range(len(self.decoder))
        ]

    @property
    def units_of_layer(self) -> list[list[int]]:
        return self._places

    def set_layer(self, layer: int, levels: tuple[int, ...]) -> None:
        for place, level in zip(self._places[layer], levels, strict=True):
            unit = self.units[place]
            cast(nn.Parameter, unit.module.weight).data = unit.levels[level - unit.lowest]

    def reset(self) -> None:
        """The dense weights."""
        for unit in self.units:
            cast(nn.Parameter, unit.module.weight).data = unit.dense

    def write(self, levels: Profile) -> None:
        """Leave the model with the profile's weights (copies: the database may be dropped)."""
        if not self.space.contains(levels):
            raise UserError("levels: outside the database's range")
        for unit, level in zip(self.units, levels, strict=True):
            cast(nn.Parameter, unit.module.weight).data = unit.levels[int(level) - unit.lowest].clone()

    @property
    def errors(self) -> Float[np.ndarray, "units levels"]:
        """Normalised output error of each linear at each level, alone: what the dynamic programme adds up."""
        width = max(len(unit.errors) for unit in self.units)
        return np.stack(
            [
                np.pad(unit.errors, (0, width - len(unit.errors)), constant_values=np.inf)
                for unit in self.units
            ]
        )


def _layout(module: nn.Module) -> Tensor:
    """The weight as outputs x inputs (GPT-2's Conv1D stores it the other way round)."""
    weight = cast(Tensor, module.weight).data
    return weight if isinstance(module, nn.Linear) else weight.T


@torch.no_grad()
def _build(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequences tokens"],
    prepare: Prepare,
    lowest: Callable[[int], int],
    *,
    base: int,
) -> tuple[Decoder, list[Unit]]:
    """Prepare all linears layer by layer, the layers before at level `base`."""
    decoder = find_decoder(model)
    run = LayeredRun(decoder)
    model.eval()
    if not run.agrees():
        raise UserError(
            f"{type(model).__name__}: its layers cannot be run one by one, which preparing levels needs"
        )
    hidden = run.embed(ids.to(model.device))
    units: list[Unit] = []
    for layer in range(len(decoder)):
        linears = decoder.linears(layer)
        hessians: dict[str, Tensor] = {}

        def gather(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
                x = args[0].flatten(0, -2)
                hessians[name] = hessians.get(name, 0) + x.T @ x  # noqa: B023 - run within this iteration

            return hook

        handles = [module.register_forward_pre_hook(gather(name)) for name, module in linears.items()]
        for sequence in hidden.split(16):
            run.layer(layer, sequence)
        for handle in handles:
            handle.remove()
        for name, module in linears.items():
            weight, hessian = _layout(module), hessians[name]
            low = lowest(weight.numel())
            levels = prepare(name, weight, hessian)
            stored = levels if isinstance(module, nn.Linear) else levels.transpose(1, 2).contiguous()
            units.append(
                Unit(
                    layer,
                    name,
                    module,
                    cast(Tensor, module.weight).data,
                    list(stored),
                    low,
                    output_errors(weight, levels, hessian).cpu().numpy(),
                    outlier_share(weight, hessian),
                )
            )
            cast(nn.Parameter, module.weight).data = stored[base - low]
        hidden = torch.cat([run.layer(layer, sequence) for sequence in hidden.split(16)])
    for unit in units:
        cast(nn.Parameter, unit.module.weight).data = unit.dense
    return decoder, units


def sparsity_database(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequences tokens"],
    sparsity: float,
    *,
    step: int | None = None,
    steps_of_smallest: int = 16,
    each_side: int = 8,
    method: SparsityMethod = "sparsegpt",
) -> WeightDatabase:
    """Levels -each_side..each_side around `sparsity`; one level up prunes `step` more weights of that linear.

    step: default the smallest linear over `steps_of_smallest` (the paper: 10^6 on 7-billion-parameter
    models). Levels that would prune fewer than none or more than all weights do not exist. All linears may
    exchange steps: a step is the same number of weights.
    """
    if not 0 < sparsity < 1:
        raise UserError(f"sparsity: {sparsity} is not between 0 and 1")
    decoder = find_decoder(model)
    if step is None:
        linears = (module for layer in range(len(decoder)) for module in decoder.linears(layer).values())
        step = max(1, min(cast(Tensor, module.weight).numel() for module in linears) // steps_of_smallest)

    def span(size: int) -> range:
        zeros = round(sparsity * size)
        return range(-min(each_side, zeros // step), min(each_side, (size - zeros) // step) + 1)

    def prepare(name: str, weight: Tensor, hessian: Tensor) -> Tensor:
        zeros = torch.tensor(
            [round(sparsity * weight.numel()) + level * step for level in span(weight.numel())]
        )
        return sparse_levels(weight, hessian, zeros, method)

    decoder, units = _build(model, ids, prepare, lambda size: span(size)[0], base=0)
    spans = [span(unit.size) for unit in units]
    space = Space(
        np.array([s[0] for s in spans]),
        np.array([s[-1] for s in spans]),
        np.zeros(len(units), dtype=np.int64),
        np.full(len(units), step),
    )
    return WeightDatabase(decoder, units, space, np.zeros(len(units), dtype=np.int64), "sparsity")


def bits_database(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequences tokens"],
    *,
    bits: tuple[int, ...] = (2, 3, 4, 5, 6),
    base: int = 3,
    group: int = 128,
    method: BitsMethod = "gptq",
) -> WeightDatabase:
    """Every linear at each of `bits` (consecutive); a level is the number of bits. Linears of equal size may
    exchange one.
    """
    if list(bits) != list(range(bits[0], bits[-1] + 1)) or base not in bits:
        raise UserError(f"bits: {bits} must be consecutive and contain base = {base}")

    def prepare(_: str, weight: Tensor, hessian: Tensor) -> Tensor:
        return bit_levels(weight, hessian, torch.tensor(bits), method, group)

    decoder, units = _build(model, ids, prepare, lambda _: bits[0], base=base)
    sizes = np.array([unit.size for unit in units])
    space = Space(np.full(len(units), bits[0]), np.full(len(units), bits[-1]), sizes, sizes)
    return WeightDatabase(decoder, units, space, np.full(len(units), base), "bits")


def start_bits(database: WeightDatabase, target: float, rng: np.random.Generator) -> Profile:
    """The start for an average of `target` bits: round up, then lower random linears until the budget is met.

    Raises UserError for a target outside the database.
    """
    space = database.space
    sizes = np.array([unit.size for unit in database.units])
    profile = np.full(space.units, int(np.ceil(target)))
    if not space.contains(profile) or target < float(space.lower.min()):
        raise UserError(
            f"target: {target} bits lie outside the database's {space.lower.min()}..{space.upper.max()}"
        )
    while float(profile @ sizes) > target * float(sizes.sum()) * (1 + 1e-12):
        profile[rng.choice(np.flatnonzero(profile > space.lower))] -= 1
    return profile


def owl_profile(database: WeightDatabase, sparsity: float, spread: float = 0.08) -> Profile:
    """OWL's sparsities on the database's steps, at exactly the uniform profile's number of weights."""
    if database.kind != "sparsity":
        raise UserError("owl_profile: OWL spreads sparsity; this database holds bit widths")
    layers = np.array([unit.layer for unit in database.units])
    counts = np.array([unit.outliers for unit in database.units], dtype=np.float64)
    shares = np.array([counts[layers == layer].sum(axis=0) for layer in range(len(database.decoder))])
    wanted = owl_sparsities(shares[:, 0] / shares[:, 1], sparsity, spread)[layers] - sparsity
    assert database.space.cost is not None
    steps = wanted * np.array([unit.size for unit in database.units]) / database.space.cost
    return nearest_profile(steps, database.space, int(database.base.sum()))


def search_levels(
    database: WeightDatabase,
    ids: Int[Tensor, "sequences tokens"],
    start: Profile | None = None,
    *,
    generations: int = 400,
    offspring: int = 64,
    stages: tuple[Stage, ...] = (Stage(2048, 8), Stage(16384, 2), Stage(65536, 1)),
    criterion: Criterion = "kl",
    top_k: int = 0,
    tokens_at_once: int = 8192,
    seed: int = 0,
) -> Outcome:
    """EvoPress over a database at constant size, from the uniform profile unless `start` says otherwise.

    Defaults are the paper's for sparsity; for bit widths it takes 150 generations of 128 offspring with
    survivors 16, 4, 1 on 2048, 16384 and 131072 tokens.
    """
    fitness = Calibration(Judge(database, top_k=top_k, tokens_at_once=tokens_at_once), ids, criterion)
    return evolve(
        database.space,
        fitness,
        database.base if start is None else start,
        generations=generations,
        offspring=offspring,
        stages=stages,
        seed=seed,
    )
