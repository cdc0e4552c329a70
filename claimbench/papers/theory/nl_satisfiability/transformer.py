"""A transformer encoder, trained from scratch to tell whether a formula is satisfiable.

It stands for the paper's T5 (Richardson and Sabharwal, arXiv 2112.09054) at a size that trains in minutes: one token
for each literal, three in a row for a clause, no words to learn first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from claimbench.blocks.training import fit
from claimbench.papers.theory.nl_satisfiability.samples import Sample


class ClauseEncoder(nn.Module):
    """Literals [batch, clauses, 3], from -n to n with 0 for none, to logits [batch, 2] (unsatisfiable, satisfiable).

    A token is the sum of its literal's embedding, its place in the clause and the clause's number; what fills up a
    formula is masked. The answer is read off the mean over tokens.
    """

    def __init__(self, *, n: int, clauses: int, layers: int = 6, width: int = 384, heads: int = 6) -> None:
        super().__init__()
        self.n = n
        self.literals = nn.Embedding(2 * n + 1, width)
        self.places = nn.Embedding(3, width)
        self.numbers = nn.Embedding(clauses, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.slots = 3 * clauses
        self.answer = nn.Sequential(nn.Linear(width + 1, width), nn.GELU(), nn.Linear(width, 2))
        for table in (self.literals, self.places, self.numbers):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, formulas: Int[Tensor, "batch clauses 3"]) -> Float[Tensor, "batch 2"]:
        clauses = formulas.shape[1]
        places = self.places.weight + self.numbers.weight[:clauses, None]
        tokens = (self.literals(formulas + self.n) + places).flatten(1, 2)
        absent = (formulas == 0).flatten(1)
        mixed = self.blocks(tokens, src_key_padding_mask=absent)
        kept = (~absent).unsqueeze(-1).to(mixed.dtype)
        count = kept.sum(dim=1)
        return self.answer(torch.cat([(mixed * kept).sum(dim=1) / count, 4 * count / self.slots], dim=1))


def _batches(
    sample: Sample, clauses: int, batch: int, seed: int, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Random batches for ever. Variables are renamed, signs flipped and clauses put in other places, gaps between
    them, which leaves the label as it is and shows every name and place to a model that is to read longer formulas.
    """
    gaps = clauses - sample.formulas.shape[1]
    formulas = torch.from_numpy(np.pad(sample.formulas, ((0, 0), (0, gaps), (0, 0)))).to(device)
    labels = torch.from_numpy(sample.labels).long().to(device)
    generator = torch.Generator(device=device).manual_seed(seed)
    while True:
        rows = torch.randint(len(labels), (batch,), generator=generator, device=device)
        part = formulas[rows]
        names = torch.rand(batch, sample.n, generator=generator, device=device).argsort(dim=1) + 1
        signs = 1 - 2 * torch.randint(2, (batch, sample.n), generator=generator, device=device)
        table = torch.cat([torch.zeros_like(names[:, :1]), names * signs], dim=1)
        renamed = torch.gather(table, 1, part.abs().flatten(1)).view_as(part)
        order = torch.rand(batch, clauses, generator=generator, device=device).argsort(dim=1)
        moved = torch.gather(part.sign() * renamed, 1, order[..., None].expand(-1, -1, 3))
        yield moved, labels[rows]


def train_encoder(
    sample: Sample,
    *,
    variables: int,
    clauses: int,
    steps: int,
    batch: int = 128,
    learning_rate: float = 3e-4,
    layers: int = 6,
    width: int = 384,
    heads: int = 6,
    seed: int = 0,
    device: str = "cpu",
) -> ClauseEncoder:
    """An encoder trained on a sample. variables, clauses: the most that it is to read, here or in tests.

    Raises FloatingPointError where training diverges.
    """
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model = ClauseEncoder(n=variables, clauses=clauses, layers=layers, width=width, heads=heads).to(
            device
        )
        renamable = Sample(sample.formulas, sample.labels, variables)
        fit(
            model,
            _batches(renamable, clauses, batch, seed, device),
            steps=steps,
            learning_rate=learning_rate,
        )
    return model


@torch.no_grad()
def predict(model: ClauseEncoder, sample: Sample, batch: int = 512) -> Bool[np.ndarray, " formulas"]:
    """Labels of a sample's formulas."""
    model.eval()
    device = model.literals.weight.device
    parts = torch.from_numpy(sample.formulas).split(batch)
    found = [model(part.to(device)).argmax(dim=1).bool().cpu() for part in parts]
    return np.asarray(torch.cat(found).numpy())
