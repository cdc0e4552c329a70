"""How good a compressed model is: Kullback-Leibler divergence from the dense one, or its own loss, for many
candidates.

EvoPress (arXiv 2410.14649, section 3) judges a profile by KL(dense || compressed) per token in nats, over all
positions but the last. All candidates of a stage see the same minibatch, so what they share is computed once:
the dense model's log-probabilities, and the hidden states of every run of first layers in which candidates
agree (the level-switch mutation changes few units, so offspring of one parent agree with it up to the first
changed layer). Sharing changes what is computed, never what it means; tokens are counted as if nothing were
shared, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from claimbench.errors import UserError
from claimbench.papers.compression.evopress.decoder import Decoder, LayeredRun

Criterion = Literal["kl", "loss"]


class Compressed(Protocol):
    """A model whose layers can be set to levels: `SublayerSwitch` (drop) or `WeightDatabase` (sparsity,
    bits).
    """

    decoder: Decoder

    @property
    def units_of_layer(self) -> list[list[int]]:
        """Per layer, the places in a profile that concern it."""

    def set_layer(self, layer: int, levels: tuple[int, ...]) -> None:
        """Put a layer's units at these levels."""

    def reset(self) -> None:
        """The dense model."""


def sequences(tokens: Int[Tensor, " tokens"], length: int) -> Int[Tensor, "sequences length"]:
    """Disjoint sequences of `length` tokens; the rest is left out. Raises UserError if there is not one."""
    count = len(tokens) // length
    if count == 0:
        raise UserError(f"text: {len(tokens)} tokens do not fill one sequence of {length}; give more text")
    return tokens[: count * length].reshape(count, length)


class Judge:
    """Evaluates profiles of one compressible model on token sequences.

    top_k: compare the dense model's `top_k` likeliest tokens only, both sides renormalised over them (the
    paper's memory saver; 0: all). tokens_at_once: how many tokens, times candidates, one layer call may hold.
    logits_at_once: how many logits may be held; both bound memory and change nothing else.
    """

    def __init__(
        self,
        compressed: Compressed,
        *,
        top_k: int = 0,
        tokens_at_once: int = 8192,
        logits_at_once: int = 1 << 25,
        share_prefixes: bool = True,
    ) -> None:
        self.compressed = compressed
        self.decoder = compressed.decoder
        self.run = LayeredRun(self.decoder)
        vocabulary = int(self.decoder.model.config.get_text_config().vocab_size)
        if top_k < 0 or top_k > vocabulary:
            raise UserError(f"top_k: {top_k} is not between 0 (all) and the vocabulary's {vocabulary}")
        self.top_k, self.vocabulary = top_k, vocabulary
        self.tokens_at_once, self.logits_at_once = tokens_at_once, logits_at_once
        self.units = sum(len(units) for units in compressed.units_of_layer)
        compressed.reset()
        self.shares = share_prefixes and self.run.agrees()

    @torch.no_grad()
    def _hidden(
        self, keys: list[Int[np.ndarray, "candidates levels"]], ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "candidates batch tokens width"]:
        """The last layer's output for every candidate; candidates equal up to a layer are run through it
        once.
        """
        states = self.run.embed(ids)[None]
        where = np.zeros(len(keys[0]), dtype=np.int64)
        batch, length = ids.shape
        for layer, levels in enumerate(keys):
            combined = np.column_stack([where, levels])
            runs, first, where_next = np.unique(combined, axis=0, return_index=True, return_inverse=True)
            output = states.new_empty(len(runs), *states.shape[1:])
            kinds, kind_of = np.unique(runs[:, 1:], axis=0, return_inverse=True)
            for number, kind in enumerate(kinds):
                members = np.flatnonzero(kind_of.reshape(-1) == number)
                self.compressed.set_layer(layer, tuple(int(level) for level in kind))
                step = max(1, self.tokens_at_once // (batch * length))
                for begin in range(0, len(members), step):
                    chosen = members[begin : begin + step]
                    flat = states[torch.as_tensor(runs[chosen, 0], device=states.device)].flatten(0, 1)
                    output[torch.as_tensor(chosen, device=states.device)] = self.run.layer(
                        layer, flat
                    ).unflatten(0, (len(chosen), batch))
            states, where = output, where_next.reshape(-1)
            del first
        return states[torch.as_tensor(where, device=states.device)]

    def _logits(
        self, profiles: Int[np.ndarray, "candidates units"], ids: Int[Tensor, "batch tokens"]
    ) -> Iterator[tuple[slice, Float[Tensor, "some batch tokens vocabulary"]]]:
        """Logits of the candidates, a few at a time."""
        places = self.compressed.units_of_layer
        try:
            if not self.shares:
                for number, profile in enumerate(profiles):
                    for layer, units in enumerate(places):
                        self.compressed.set_layer(layer, tuple(int(level) for level in profile[units]))
                    yield (
                        slice(number, number + 1),
                        self.decoder.model(input_ids=ids, use_cache=False).logits[None],
                    )
                return
            hidden = self._hidden([profiles[:, units] for units in places], ids)
            step = max(1, self.logits_at_once // (ids.numel() * self.vocabulary))
            for begin in range(0, len(profiles), step):
                part = hidden[begin : begin + step]
                out = self.run.logits(part.flatten(0, 1), ids.repeat(len(part), 1))
                yield slice(begin, begin + len(part)), out.unflatten(0, (len(part), len(ids)))
        finally:
            self.compressed.reset()

    @torch.no_grad()
    def _dense_logits(
        self, ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens_less_1 vocabulary"]:
        self.compressed.reset()
        if not self.shares:
            return cast(Tensor, self.decoder.model(input_ids=ids, use_cache=False).logits)[:, :-1].float()
        hidden = self.run.embed(ids)
        for layer in range(len(self.decoder)):
            hidden = self.run.layer(layer, hidden)
        return self.run.logits(hidden, ids)[:, :-1].float()

    def _dense(
        self, ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch tokens_less_1 kept"], Int[Tensor, "batch tokens_less_1 kept"] | None]:
        """The dense model's log-probabilities, and which tokens they are of if only the top ones are kept."""
        logits = self._dense_logits(ids)
        if not self.top_k:
            return logits.log_softmax(-1), None
        best, kept = logits.topk(self.top_k, dim=-1)
        return best.log_softmax(-1), kept

    def _at_once(self, ids: Int[Tensor, "sequences tokens"]) -> int:
        """How many sequences go through the model together. Raises UserError for sequences that predict
        nothing.
        """
        length = ids.shape[1]
        if length < 2:
            raise UserError("sequences must hold at least 2 tokens")
        return max(1, min(self.tokens_at_once // length, self.logits_at_once // (length * self.vocabulary)))

    def dense_perplexity(self, ids: Int[Tensor, "sequences tokens"]) -> float:
        """exp of the dense model's mean cross-entropy per token."""
        total = 0.0
        for part in ids.to(self.decoder.model.device).split(self._at_once(ids)):
            logits = self._dense_logits(part)
            total += float(
                functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
            )
        return float(np.exp(total / (len(ids) * (ids.shape[1] - 1))))

    @torch.no_grad()
    def evaluate(
        self,
        profiles: Int[np.ndarray, "candidates units"],
        ids: Int[Tensor, "sequences tokens"],
        criteria: Sequence[Criterion] = ("kl", "loss"),
    ) -> dict[Criterion, Float[np.ndarray, "candidates sequences"]]:
        """Mean per token of each sequence: KL(dense || candidate) in nats ("kl"), the candidate's
        cross-entropy ("loss").

        exp of the mean loss over sequences is the perplexity. Raises UserError if a profile has the wrong
        length.
        """
        profiles = np.atleast_2d(profiles)
        if profiles.shape[1] != self.units:
            raise UserError(f"profile: {profiles.shape[1]} levels, but the model has {self.units} units")
        values = {criterion: np.zeros((len(profiles), len(ids))) for criterion in criteria}
        ids = ids.to(self.decoder.model.device)
        at_once = self._at_once(ids)
        for begin in range(0, len(ids), at_once):
            part = ids[begin : begin + at_once]
            columns = slice(begin, begin + len(part))
            dense, kept = self._dense(part) if "kl" in values else (None, None)
            for rows, logits in self._logits(profiles, part):
                logits = logits[:, :, :-1].float()
                if "loss" in values:
                    target = part[None, :, 1:, None].expand(len(logits), -1, -1, 1)
                    loss = logits.logsumexp(-1) - logits.gather(-1, target).squeeze(-1)
                    values["loss"][rows, columns] = loss.mean(-1).double().cpu().numpy()
                if dense is not None:
                    if kept is not None:
                        logits = logits.gather(-1, kept[None].expand(len(logits), -1, -1, -1))
                    # exactly zero where the logits are the dense ones: both log-probabilities are equal then
                    divergence = (dense.exp() * (dense - logits.log_softmax(-1))).sum(-1)
                    values["kl"][rows, columns] = divergence.mean(-1).double().cpu().numpy()
        return values

    def __call__(
        self,
        profiles: Int[np.ndarray, "candidates units"],
        ids: Int[Tensor, "sequences tokens"],
        criterion: Criterion = "kl",
    ) -> Float[np.ndarray, "candidates sequences"]:
        """One criterion of `evaluate`."""
        return self.evaluate(profiles, ids, (criterion,))[criterion]

    def perplexity(self, profile: Int[np.ndarray, " units"], ids: Int[Tensor, "sequences tokens"]) -> float:
        """exp of the mean cross-entropy per token."""
        return float(np.exp(self(profile, ids, "loss").mean()))


class Calibration:
    """The search's fitness: minibatches of calibration sequences, judged by KL or loss (`search.Fitness`).

    ids: calibration sequences. A draw takes whole sequences without replacement, at least one and at most
    all.
    """

    def __init__(
        self, judge: Judge, ids: Int[Tensor, "sequences tokens"], criterion: Criterion = "kl"
    ) -> None:
        self.judge, self.ids, self.criterion = judge, ids, criterion
        self.tokens = 0  # forward tokens actually asked for: candidates times tokens

    def draw(self, tokens: int, rng: np.random.Generator) -> Int[Tensor, "drawn tokens"]:
        count = int(np.clip(round(tokens / self.ids.shape[1]), 1, len(self.ids)))
        return self.ids[torch.as_tensor(rng.choice(len(self.ids), size=count, replace=False))]

    def __call__(
        self, profiles: Int[np.ndarray, "candidates units"], minibatch: Any
    ) -> Float[np.ndarray, " candidates"]:
        self.tokens += len(profiles) * minibatch.numel()
        return self.judge(profiles, minibatch, self.criterion).mean(axis=1)
