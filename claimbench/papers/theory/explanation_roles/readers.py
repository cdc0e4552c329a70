"""Readers: classifiers of the synthetic task's sequences that may see retrieved explanations, or other
retrieved examples.

A reader takes one float tensor [batch, columns] (so that many can be trained as a stack), which `pack` makes:

    sequence | task's place + 1 (0: hidden) | K sets of C things read | features for the retriever, if it learns

Integers are tokens of their own; the original wrote them as text, and its sub-words tell near integers apart
and alike in ways that are not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from claimbench.blocks.tiny_transformer import TinyTransformer, normalise
from claimbench.errors import UserError
from claimbench.papers.theory.explanation_roles.retrieval import Retriever, marginal
from claimbench.papers.theory.explanation_roles.synthetic import HEAD, SyntheticTask

Context = Literal["nothing", "explanations", "examples"]
Pooling = Literal["concatenate", "mean", "integers"]
Architecture = Literal["histogram", "transformer"]


@dataclass(frozen=True)
class Reading:
    """What a reader is shown, and how it takes it in.

    context: nothing, other points' explanations, or other points themselves with their labels. sets, each: K
    and C. pooling: the C things of a set side by side (TextCat), or the query beside each of them and the
    hidden states averaged (H-Mean), or one explanation whose integers are the rounded means over the set.
    auxiliary: the weight of the loss of predicting the point's own explanation, which is then a target and
    never read. learnt: whether the retriever is trained with the reader. index: whether the reader sees which
    task it is.
    """

    context: Context = "nothing"
    sets: int = 1
    each: int = 1
    pooling: Pooling = "concatenate"
    auxiliary: float = 0.0
    learnt: bool = False
    index: bool = True

    @property
    def shown(self) -> int:
        """Things of a set that the reader meets."""
        return 1 if self.pooling == "integers" else self.each

    @property
    def together(self) -> int:
        """Things that stand side by side in one pass of the reader."""
        return self.each if self.pooling == "concatenate" else 1

    def width(self, task: SyntheticTask) -> int:
        """Columns of one thing that is read."""
        return {"nothing": 0, "explanations": 4, "examples": task.length}[self.context]

    def tokens(self, task: SyntheticTask) -> int:
        """Integers that are read for one prediction, the query's among them."""
        one = {"nothing": 0, "explanations": 5, "examples": task.length + 1}[self.context]
        return self.sets * (task.length + self.each * one)


@dataclass(frozen=True)
class Shape:
    """A reader's size. hidden: units of the histogram reader, width of the transformer. layers, heads: of the
    transformer. index_width: of the histogram reader's embedding of tasks.
    """

    architecture: Architecture = "histogram"
    hidden: int = 256
    layers: int = 2
    heads: int = 4
    index_width: int = 16

    def __post_init__(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise UserError(
                f'architecture = "{self.architecture}": there are {", ".join(get_args(Architecture))}'
            )


class Reader(nn.Module):
    """log p(y | x) [batch, 2] from what `pack` packs; with `auxiliary`, further columns of logits for the
    explanation.

    features: the width of the retriever's features where it learns, else 0. precision: the retriever's.
    """

    def __init__(
        self,
        task: SyntheticTask,
        reading: Reading,
        shape: Shape,
        *,
        features: int = 0,
        precision: float = 1.0,
    ) -> None:
        super().__init__()
        self.task, self.reading = task, reading
        self.outputs = 2 + (4 * task.codes if reading.auxiliary else 0)
        kind = HistogramBody if shape.architecture == "histogram" else TransformerBody
        self.body = kind(task, reading, shape)
        self.head = nn.Linear(self.body.width, self.outputs)
        self.retriever = Retriever(features, precision) if reading.learnt else None

    def forward(self, packed: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch outputs"]:
        length, reading = self.task.length, self.reading
        width, batch = reading.width(self.task), packed.shape[0]
        sequence, place = packed[:, :length].long(), packed[:, length].long()
        if not reading.index:
            place = torch.zeros_like(place)
        end = length + 1 + reading.sets * reading.shown * width
        read = packed[:, length + 1 : end].long().reshape(batch, reading.sets, reading.shown, width)
        logits = self.head(self.body(sequence, place, read))  # (batch, sets, outputs)
        if self.retriever is None:
            sets = logits.new_zeros(batch, reading.sets).log_softmax(-1)
        else:
            features = packed[:, end:].unflatten(1, (1 + reading.sets * reading.each, -1))
            retrieved = features[:, 1:].unflatten(1, (reading.sets, reading.each))
            sets = self.retriever(features[:, 0], retrieved)
        found = marginal(logits[..., :2], sets)
        return torch.cat([found, logits[..., 2:].mean(1)], dim=-1) if reading.auxiliary else found


class HistogramBody(nn.Module):
    """An MLP on how often each integer occurs, s[1], an embedding of the task, and what is read.

    Explanations are read by looking their integers up in the counts: the code of each picks a row of a matrix
    that weighs the integers' counts. It begins with equal integers, as attention over shared embeddings does,
    and is learnt. Examples are read by their counts, signed by their labels: of those that ask as the query
    does, the mean, its product with the query's counts, and the sum of these.
    """

    def __init__(self, task: SyntheticTask, reading: Reading, shape: Shape) -> None:
        super().__init__()
        self.task, self.reading, self.width = task, reading, shape.hidden
        integers = task.integers
        self.places = nn.Embedding(task.known + 1, shape.index_width)
        nn.init.normal_(self.places.weight, std=0.02)  # so that a task is not told apart by chance alone
        own = integers + HEAD + shape.index_width
        more = {"nothing": 0, "explanations": 4 * reading.together, "examples": 2 * integers + 1}[
            reading.context
        ]
        self.lookup: nn.Parameter | None = None
        if reading.context == "explanations":
            equal = torch.from_numpy(task.decoded())[:, None] == torch.arange(1, integers + 1)
            self.lookup = nn.Parameter(equal.float())
        self.layers = nn.Sequential(
            nn.Linear(own + more, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.hidden), nn.GELU()
        )

    def forward(
        self,
        sequence: Int[Tensor, "batch length"],
        place: Int[Tensor, " batch"],
        read: Int[Tensor, "batch sets each width"],
    ) -> Float[Tensor, "batch sets hidden"]:
        counts = self.counts(sequence)
        asked = (sequence[:, 1, None] == torch.arange(1, HEAD + 1, device=sequence.device)).float()
        own = torch.cat([counts, asked, self.places(place)], dim=-1)
        sets, _each = read.shape[1:3]
        if self.lookup is None and self.reading.context == "nothing":
            return self.layers(own)[:, None].expand(-1, sets, -1)
        if self.lookup is None:
            more = self.signed(counts, sequence, read)
        else:
            more = torch.einsum("bkcjv,bv->bkcj", self.lookup[read], counts)
            if self.reading.pooling == "concatenate":
                more = more.flatten(2)
        own = own.reshape(-1, *[1] * (more.ndim - 2), own.shape[-1]).expand(*more.shape[:-1], -1)
        hidden = self.layers(torch.cat([own, more], dim=-1))
        return hidden if hidden.ndim == 3 else hidden.mean(2)

    def counts(self, sequence: Int[Tensor, "*batch length"]) -> Float[Tensor, "*batch integers"]:
        """How often each integer occurs after s[1], as a share of the slots times 4: about 1 for what occurs
        often.
        """
        values = torch.arange(1, self.task.integers + 1, device=sequence.device)
        found = (sequence[..., HEAD:, None] == values).sum(-2)
        return found.float() * (4 / (self.task.length - HEAD))

    def signed(
        self,
        counts: Float[Tensor, "batch integers"],
        sequence: Int[Tensor, "batch length"],
        read: Int[Tensor, "batch sets each width"],
    ) -> Float[Tensor, "batch sets features"]:
        """What examples say: columns s[1:] and the label, each."""
        others = torch.cat([torch.zeros_like(read[..., :1]), read[..., :-1]], dim=-1)
        sign = (2 * read[..., -1] - 1) * (read[..., 0] == sequence[:, None, None, 1])
        mean = (self.counts(others) * sign[..., None]).sum(2) / sign.abs().sum(2, keepdim=True).clamp(min=1)
        product = mean * counts[:, None]
        return torch.cat([mean, product, product.sum(-1, keepdim=True)], dim=-1)


class TransformerBody(nn.Module):
    """A small causal transformer that reads what was retrieved, then the query; its last state is the result.

    Tokens: 0 ends a thing read; an integer has one token, wherever it stands; then tasks' places, the hidden
    one first.
    """

    written: Tensor

    def __init__(self, task: SyntheticTask, reading: Reading, shape: Shape) -> None:
        super().__init__()
        self.task, self.reading, self.width = task, reading, shape.hidden
        decoded = torch.from_numpy(task.decoded())
        most = max(task.integers, int(decoded.max()))
        self.register_buffer("written", torch.where(decoded < 0, most - decoded, decoded), persistent=False)
        self.first_place = most + task.codes
        self.decoder = TinyTransformer(
            vocabulary=self.first_place + task.known + 1,
            layers=shape.layers,
            width=shape.hidden,
            heads=shape.heads,
            context=reading.together * (reading.width(task) + 1) * (reading.context != "nothing")
            + task.length
            + 1,
        )

    def forward(
        self,
        sequence: Int[Tensor, "batch length"],
        place: Int[Tensor, " batch"],
        read: Int[Tensor, "batch sets each width"],
    ) -> Float[Tensor, "batch sets hidden"]:
        batch, sets, _each, _ = read.shape
        query = torch.cat(
            [self.first_place + place[:, None], sequence[:, 1:], torch.zeros_like(place)[:, None]], dim=1
        )
        if self.reading.context == "nothing":
            return self.states(query)[:, None].expand(-1, sets, -1)
        if self.reading.context == "explanations":
            read = self.written[read]
        things = torch.cat([read, torch.zeros_like(read[..., :1])], dim=-1)
        if self.reading.pooling == "concatenate":
            things = things.flatten(2)[:, :, None]
        queries = query[:, None, None].expand(-1, sets, things.shape[2], -1)
        tokens = torch.cat([things, queries], dim=-1)
        return self.states(tokens.flatten(0, 2)).reshape(batch, sets, things.shape[2], -1).mean(2)

    def states(self, tokens: Int[Tensor, "rows time"]) -> Float[Tensor, "rows hidden"]:
        """The state at the last token, after the last norm."""
        x = self.decoder.embedding(tokens)
        for block in self.decoder.blocks:
            x = block(x)
        return normalise(x[:, -1]) * self.decoder.gain


def reader_loss(task: SyntheticTask, auxiliary: float) -> nn.Module:
    """-log p(y | x), and with `auxiliary` so many times the mean loss of the four integers of the point's
    explanation.
    """
    return _Loss(task.codes, auxiliary)


class _Loss(nn.Module):
    def __init__(self, codes: int, auxiliary: float) -> None:
        super().__init__()
        self.codes, self.auxiliary = codes, auxiliary

    def forward(
        self, outputs: Float[Tensor, "batch outputs"], targets: Int[Tensor, "batch 5"]
    ) -> Float[Tensor, ""]:
        loss = nn.functional.nll_loss(outputs[:, :2], targets[:, 0])
        if not self.auxiliary:
            return loss
        told = outputs[:, 2:].unflatten(1, (4, self.codes)).flatten(0, 1)
        return loss + self.auxiliary * nn.functional.cross_entropy(told, targets[:, 1:].flatten())
