"""How the claims on knowledge capacity (arXiv 2404.05405) are measured. What is claimed and how it is judged stands in
paper.toml. Arms of a seed see the same facts, and every arm's learning rate is chosen from one grid.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from claimbench.blocks.tiny_transformer import TinyTransformer
from claimbench.errors import UserError
from claimbench.papers.theory.knowledge_capacity.facts import (
    Facts,
    draw_bio,
    draw_facts,
    facts_from_columns,
)
from claimbench.papers.theory.knowledge_capacity.learning import (
    Junk,
    MakeModel,
    capacity,
    measure_capacity,
    trained,
)
from claimbench.papers.theory.knowledge_capacity.rounding import round_weights
from claimbench.subjects.tabular import Tabular
from claimbench.trial import Table, Trial, derive, measure

SHAPES = ("layers", "width", "heads")
LEAST = 0.01  # bits a parameter that count as some


def trial_facts(trial: Trial) -> Facts:
    """The user's table, or this seed's people."""
    if "facts" in trial.subject:
        return facts_of(trial.subject["facts"])
    return seed_facts(trial.seed, {**trial.size, **trial.point})


def seed_facts(seed: int, size: dict[str, Any]) -> Facts:
    if size["kind"] == "bio":
        return draw_bio(int(size["people"]), seed=[seed, 0])
    return draw_facts(
        int(size["people"]),
        seed=[seed, 0],
        words=int(size["words"]),
        parts=int(size["parts"]),
        attributes=int(size["attributes"]),
        values=int(size["values"]),
    )


def facts_of(table: Tabular) -> Facts:
    """A table's rows: the target is the name, every other column an attribute.

    Raises UserError if there is no target, or what `facts_from_columns` says.
    """
    if table.target is None:
        raise UserError("facts: which column holds the names? Give it: --facts FILE#target=COLUMN")
    target = table.target
    names = (
        [target.classes[int(code)] for code in target.values] if target.classes else target.values.tolist()
    )
    attributes = {
        label: [column.categories[code] if code >= 0 else "" for code in column.values]
        if column.categories is not None
        else column.values.tolist()
        for label, column in table.columns.items()
    }
    return facts_from_columns(names, attributes)


def make_transformer(
    vocabulary: int,
    context: int,
    *,
    layers: int,
    width: int,
    heads: int,
    mlp: str = "gelu",
    head: str = "tied",
) -> nn.Module:
    """The arms' model. head "untied": rotary positions and an output matrix of its own, as Llama has."""
    untied = head == "untied"
    return TinyTransformer(
        vocabulary=vocabulary,
        layers=layers,
        width=width,
        heads=heads,
        context=context,
        mlp="swiglu" if mlp == "swiglu" else "gelu",
        positions="rotary" if untied else "learned",
        tied=not untied,
    )


def shape_of(size: dict[str, Any]) -> dict[str, Any]:
    return {name: int(size[name]) for name in SHAPES}


def trial_model(trial: Trial, **options: Any) -> MakeModel:
    """A builder of the arm's model, or of the user's."""
    if "architecture" in trial.subject:
        made: MakeModel = trial.subject["architecture"]
        return made
    shape = shape_of({**trial.size, **trial.point})
    if trial.arm.endswith("deep"):  # as many weights in the blocks: four times the layers, half the width
        shape = {
            "layers": 4 * shape["layers"],
            "width": shape["width"] // 2,
            "heads": max(1, shape["heads"] // 2),
        }
    return partial(make_transformer, **{**shape, **options})


def learnt(
    trial: Trial, facts: Facts, make: MakeModel, exposures: int, junk: Junk | None = None
) -> dict[str, float]:
    """What a model holds of the facts after so many exposures at the tuned rate, as a trial's numbers."""
    found = capacity(
        facts,
        make,
        exposures=exposures,
        batch=int(trial.size["batch"]),
        learning_rate=trial.tuned("learning_rate"),
        seed=trial.seed,
        junk=junk,
        device=trial.device,
    )
    return {
        "ratio": found.ratio,
        "saturation": found.bits / found.ceiling,
        "answered": found.answered,
        "parameters": float(found.parameters),
    }


# ---- claim 1: bits a parameter ----


@measure("bits-per-parameter")
def bits_per_parameter(trial: Trial) -> dict[str, float]:
    """Train the arm's model for its exposures; bits of the facts that it must hold, for each parameter."""
    exposures = int(trial.size["few" if trial.arm == "few-exposures" else "many"])
    return learnt(trial, trial_facts(trial), trial_model(trial), exposures)


@derive("bits-per-parameter")
def peaks(table: Table) -> dict[str, float]:
    """Over numbers of people, the most bits a parameter at each size of model; the least and most of these over sizes.

    The gain of many exposures over few is taken at the peaks; fewer than LEAST bits a parameter count as LEAST.
    """
    best: dict[tuple[str, Any], float] = {}
    for row in table:
        key = (row.arm, (row.point["layers"], row.point["width"]))
        best[key] = max(best.get(key, 0.0), row.metrics["ratio"])
    many = {size: value for (arm, size), value in best.items() if arm == "many-exposures"}
    gains = [value / max(best["few-exposures", size], LEAST) for size, value in many.items()]
    return {
        "least_peak": min(many.values()),
        "most_peak": max(many.values()),
        "least_gain": min(gains),
    }


# ---- claim 2: int8 ----


@measure("int8-free")
def int8_free(trial: Trial) -> dict[str, float]:
    """Round the trained model's weights as the arm says; bits a parameter that are left."""
    facts = trial_facts(trial)
    make = trial_model(trial)
    folder = trial.shared(
        build_trained,
        size={**trial.size, **trial.point},
        facts=trial.subject.ref("facts") if "facts" in trial.subject else None,
        architecture=trial.subject.ref("architecture") if "architecture" in trial.subject else None,
    )
    model = make(facts.vocabulary, facts.context)
    load_model(model, folder / "model.safetensors")
    whole = measure_capacity(model, facts, device=trial.device)
    if trial.arm == "float32":
        found, bits = whole, 32 * whole.parameters
    else:
        code, _, grouped = trial.arm.removeprefix("int").partition("-")
        rounded, bits = round_weights(model, int(code), int(trial.size["group"]) if grouped else None)
        found = measure_capacity(rounded, facts, device=trial.device)
    return {
        "ratio": found.ratio,
        "kept": found.bits / whole.bits if whole.bits else 0.0,
        "answered": found.answered,
        "stored": bits / max(found.bits, 1.0),
    }


def build_trained(
    folder: Path, *, seed: int, device: str, size: dict[str, Any], facts: Any, architecture: Any
) -> None:
    """The model that all roundings of a seed start from."""
    from claimbench.subjects import open_subject

    known = facts_of(open_subject(facts)) if facts is not None else seed_facts(seed, size)
    own = architecture is not None
    model = trained(
        known,
        open_subject(architecture) if own else partial(make_transformer, **shape_of(size)),
        exposures=int(size["many"]),
        batch=int(size["batch"]),
        learning_rate=float(size["learning_rate"]),
        seed=seed,
        device=device,
    )
    save_model(model.cpu(), str(folder / "model.safetensors"))


# ---- claim 3: plain and gated MLPs ----


@measure("mlp-vs-gated")
def mlp_vs_gated(trial: Trial) -> dict[str, float]:
    """Train the arm's kind of MLP for the point's exposures; both kinds have as many weights."""
    make = trial_model(trial, mlp=trial.arm, head="untied")
    return learnt(trial, trial_facts(trial), make, int(trial.point["exposures"]))


# ---- claim 4: junk ----


@measure("domain-token")
def domain_token(trial: Trial) -> dict[str, float]:
    """Train on useful sheets, alone or among junk, with or without a mark; bits of the useful ones."""
    facts = trial_facts(trial)
    junk = None
    if trial.arm != "clean":
        junk = Junk(
            partial(strangers, facts),
            share=int(trial.size["share"]),
            domain=facts.vocabulary if trial.arm == "domain-token" else None,
        )
    return learnt(trial, facts, trial_model(trial), int(trial.size["few"]), junk)


def strangers(facts: Facts, people: int, generator: np.random.Generator) -> Tensor:
    """Sheets of people drawn from the same words and values, each column by itself: next to none is ever met again."""
    sheets = facts.sequences.numpy()
    rows = generator.integers(facts.people, size=(people, sheets.shape[1]))
    return torch.from_numpy(np.take_along_axis(sheets, rows, axis=0))
