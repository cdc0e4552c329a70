"""RegMix's claims: what is fixed in paper.toml, what a seed sees, tables of runs, transformers and operations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from claimbench.blocks.tiny_transformer import TinyTransformer, token_loss
from claimbench.errors import NotApplicable, UserError
from claimbench.paper import Paper, load_paper
from claimbench.papers.data import regmix
from claimbench.papers.data.regmix import claims, setup
from claimbench.papers.data.regmix.flops import Decoder, doremi
from claimbench.papers.data.regmix.runs import read_runs
from claimbench.papers.data.regmix.transformers import mixture_losses, sequence_starts
from claimbench.subjects.documents import Document, Text
from claimbench.subjects.tabular import Tabular, numeric_column
from claimbench.trial import BLOCKS, Subjects, Trial, registry


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(Path(regmix.__file__).parent / "paper.toml")


class Given(Subjects):
    """Subjects that are there already."""

    def __init__(self, **values: Any) -> None:
        super().__init__({}, "cpu")
        self._open = values

    def __getitem__(self, name: str) -> Any:
        return self._open[name]

    def __contains__(self, name: object) -> bool:
        return name in self._open


def documents(count: int = 48) -> Text:
    """Four domains of random letters; the target's letters are a and b's union."""
    rng = np.random.default_rng(0)
    letters = {"a": (97, 103), "b": (101, 109), "c": (48, 58), "target": (97, 108)}
    return Text(
        Document("".join(map(chr, rng.integers(*span, 300))), name)
        for name, span in letters.items()
        for _ in range(count)
    )


def trial(paper: Paper, claim: str, arm: str, point: Any = None, seed: int = 3, **size: Any) -> Trial:
    found = paper.find_claim(claim)
    sizes = {**found.sizes("smoke"), "target": "target", **size}
    point = {"length": 1, **(point or {})}
    return Trial(arm=arm, point=point, seed=seed, size=sizes, subject=Given(text=documents()))


def test_every_measure_of_the_toml_exists_at_every_scale(paper: Paper) -> None:
    known = registry(claims.__name__)
    assert {claim.measured_by for claim in paper.claim} == set(known.measures)
    for claim in paper.claim[:3]:
        for scale in ("smoke", "quick", "full"):
            sizes = claim.sizes(scale)
            for point in claim.points(scale):
                cell = Trial("", point, 0, size=sizes)
                for which in ("proxy", "large") if "length" in point else ("proxy",):
                    kind = point.get("models", sizes.get("models"))
                    assert setup.model_of(cell, which, kind)["tokens"] > 0


def test_proxies_are_smaller_than_large_models(paper: Paper) -> None:
    claim = paper.find_claim("rank-invariance")
    cell = Trial("", claim.points("full")[0], 0, size=claim.sizes("full"))
    small, large = (setup.model_of(cell, which, "transformer") for which in ("proxy", "large"))
    assert large["tokens"] == 10 * small["tokens"]
    counts = [
        TinyTransformer(layers=m["layers"], width=m["width"], heads=m["heads"]).parameter_count(
            embeddings=False
        )
        for m in (small, large)
    ]
    assert counts[1] > 15 * counts[0]


# ---- what a seed sees ----


def test_seeds_share_no_document_and_the_target_is_held_out() -> None:
    text = documents()
    limits = {"domain_bytes": 10**6, "target_bytes": 10**6}
    seeds = [setup.seed_domains(text, "target", seed=seed, **limits) for seed in (4, 5, 4 + BLOCKS)]
    assert list(seeds[0].texts) == ["a", "b", "c"]
    pieces = [
        {
            part
            for texts in (d.texts.values(), [d.validation, d.test])
            for t in texts
            for part in t.split(b"\n\n")
        }
        for d in seeds
    ]
    assert not pieces[0] & pieces[1]
    assert pieces[0] == pieces[2]
    assert not set(seeds[0].validation.split(b"\n\n")) & set(seeds[0].test.split(b"\n\n"))
    assert len(pieces[0]) == 4 * 48 // BLOCKS
    np.testing.assert_allclose(seeds[0].prior, 1 / 3)


def test_texts_that_cannot_be_mixed_are_named() -> None:
    limits = {"seed": 0, "domain_bytes": 9, "target_bytes": 9}
    with pytest.raises(UserError, match="--size target=NAME, one of a, b, c, target"):
        setup.seed_domains(documents(), "targt", **limits)
    with pytest.raises(UserError, match="domain target has 20 documents; 24"):
        setup.seed_domains(documents(20), "target", **limits)
    with pytest.raises(UserError, match="sub-folder"):
        setup.seed_domains(Text([Document("x", "")]), "x", **limits)


def test_overlap_is_one_with_itself_and_nothing_with_other_letters() -> None:
    own = b"abcabcabd" * 20
    np.testing.assert_allclose(setup.overlap([own, b"xyzxyz" * 20], own), [1, 0])


# ---- the large models of claim 3 ----


def test_large_models_have_equal_tokens_and_searches_pay_for_their_proxies(
    paper: Paper, monkeypatch: Any
) -> None:
    monkeypatch.setattr(claims, "shared_runs", in_memory)
    arms = ["regmix", "natural", "uniform", "nearest-domain", "best-proxy", "log-ridge"]
    sizes = {"proxy_order": 2, "large_order": 2, "proxy_tokens": 5000, "runs": 24}
    trials = [trial(paper, "chosen-mixture-beats-human", arm, **sizes) for arm in arms]
    found = dict(zip(arms, claims.large_models(trials), strict=True))
    assert {metrics["run_tokens"] for metrics in found.values()} == {5000.0}
    spent = {
        arm: (metrics["total_tokens"] - 5000) / trials[0].size["proxy_tokens"]
        for arm, metrics in found.items()
    }
    searched = dict.fromkeys(("regmix", "best-proxy", "log-ridge"), 24)
    assert spent == {**searched, "natural": 0, "uniform": 0, "nearest-domain": 3}
    assert found["nearest-domain"]["largest_share"] == 1
    assert found["uniform"]["largest_share"] == pytest.approx(1 / 3)
    # only a and b have the target's letters, and each lacks some
    assert found["best-proxy"]["loss"] < min(found["uniform"]["loss"], found["nearest-domain"]["loss"])
    assert found["regmix"]["loss"] < found["nearest-domain"]["loss"]


def in_memory(trial: Trial, model: dict[str, Any], count: int, stream: int, *, repeat: bool = False) -> Any:
    """`shared_runs` without a cache on disk: the subject here is an object and has no reference."""
    domains = setup.trial_domains(trial)
    mixtures = setup.sample_mixtures(domains.prior, count, seed=[trial.seed, stream])
    losses = setup.model_losses(model, domains, mixtures, seed=trial.seed + repeat, device="cpu")
    zero = np.zeros(count)
    return {"mixtures": mixtures, "validation": losses[:, 0], "test": losses[:, 1], "unigram": zero}


def test_a_perfect_score_transfers_and_a_constant_orders_nothing(paper: Paper, monkeypatch: Any) -> None:
    monkeypatch.setattr(claims, "shared_runs", in_memory)
    same = {
        "proxy_order": 3,
        "large_order": 3,
        "proxy_tokens": 2000,
        "ngram_mixtures": 40,
    }
    point = {"models": "ngram"}
    found = {
        arm: claims.transfer(trial(paper, "rank-invariance", arm, point, **same))
        for arm in ("proxy", "bigram", "overlap", "large-repeat")
    }
    assert found["proxy"]["spearman"] == pytest.approx(1)  # the same model on the same half of the target
    assert 0.95 < found["proxy"]["held_out"] < 1
    assert found["proxy"] == found["large-repeat"]
    assert min(metrics["regret"] for metrics in found.values()) >= 0
    assert claims.correlation(np.ones(5), np.arange(5.0)) == 0
    assert claims.correlation(np.arange(5.0) ** 3, np.arange(5.0)) == pytest.approx(1)


# ---- finished runs as a table ----


def table(count: int, shares: str, loss: tuple[str, str]) -> dict[str, np.ndarray]:
    mixtures = np.random.default_rng(1).dirichlet(np.ones(3), count)
    columns = {f"{shares}{name}": mixtures[:, place] for place, name in enumerate("abc")}
    return {"index": np.arange(count), **columns, f"{loss[0]}t{loss[1]}": (mixtures[:, 0] - 0.4) ** 2}


@pytest.mark.parametrize(
    ("shares", "loss"),
    [("w_", ("loss_", "")), ("train_", ("valid_", "")), ("train_", ("metric/", "_val_loss"))],
)
def test_both_layouts_are_read(shares: str, loss: tuple[str, str]) -> None:
    columns = table(30, shares, loss)
    runs = read_runs(columns, "t")
    assert runs.domains == ("a", "b", "c")
    np.testing.assert_allclose(runs.mixtures[:, 1], columns[f"{shares}b"])
    np.testing.assert_array_equal(runs.losses, columns[f"{loss[0]}t{loss[1]}"])
    np.testing.assert_allclose(read_runs(columns).losses, runs.losses)
    columns[f"{loss[0]}t{loss[1]}"][4] = np.nan
    assert len(read_runs(columns, "t").losses) == 29


def test_tables_that_are_no_runs_are_named() -> None:
    columns = table(30, "w_", ("loss_", ""))
    with pytest.raises(UserError, match="one of t"):
        read_runs(columns, "other")
    with pytest.raises(UserError, match="the shares of 30 rows"):
        read_runs({**columns, "w_d": np.ones(30)}, "t")
    with pytest.raises(UserError, match="no column begins with"):
        read_runs({"loss_t": np.ones(3)})
    with pytest.raises(UserError, match="no column is called"):
        read_runs({"w_a": np.ones(3)})


def test_a_table_is_split_anew_by_every_seed_and_fitted(paper: Paper) -> None:
    columns = {name: numeric_column(values) for name, values in table(80, "w_", ("loss_", "")).items()}
    base = replace(
        trial(paper, "regression-ranks-unseen-mixtures", "log-ridge", {"n": 48}, tests=24),
        subject=Given(text=documents(), runs=Tabular(columns)),
    )
    base = replace(base, size={**base.size, "target": "t"})
    orders = [claims.training_and_test_runs(replace(base, seed=seed)) for seed in (1, 2)]
    assert not np.array_equal(orders[0][0], orders[1][0])
    assert sorted(orders[0][1]) == sorted(orders[1][1])
    ridge, line = (claims.ranking(replace(base, arm=arm)) for arm in ("log-ridge", "linear"))
    assert ridge["spearman"] > line["spearman"]
    assert ridge["error"] < 1
    with pytest.raises(NotApplicable, match="too few for 64"):
        claims.ranking(replace(base, point={"n": 64}))


# ---- transformers ----


def test_sequences_come_from_the_mixtures_domains() -> None:
    lengths, window = [50, 200, 30], 9
    rng = np.random.default_rng(2)
    mixtures = np.array([[1.0, 0, 0], [0, 0, 1.0], [0.25, 0.5, 0.25]])
    starts = sequence_starts(mixtures, lengths, rng.random(20_000), rng.random(20_000), window)
    domain = np.searchsorted(np.cumsum(lengths), starts, side="right")
    assert (domain == np.searchsorted(np.cumsum(lengths), starts + window - 1, side="right")).all()
    assert (domain[0] == 0).all()
    assert (domain[1] == 2).all()
    # 5 standard errors of a share of 20,000 draws
    np.testing.assert_allclose(np.bincount(domain[2]) / 20_000, mixtures[2], atol=5 * 0.5 / 20_000**0.5)
    assert starts[0].max() == 50 - window


def test_a_stack_trains_each_mixture_as_if_alone_and_the_right_domain_helps() -> None:
    rng = np.random.default_rng(3)
    domains = [bytes(rng.integers(*span, 600).astype(np.uint8)) for span in ((97, 101), (48, 52))]
    target = bytes(rng.integers(97, 101, 300).astype(np.uint8))
    small = {"layers": 1, "width": 8, "heads": 2, "context": 16, "batch": 8, "tokens": 12 * 128.0}
    train = {**small, "learning_rate": 0.1, "seed": 5}
    both = mixture_losses(domains, np.eye(2), [target], **train)
    alone = mixture_losses(domains, np.eye(2)[1:], [target], **train)
    parts = mixture_losses(domains, np.eye(2), [target], chunk=1, test_sequences=18, **train)  # all there are
    np.testing.assert_allclose(both[1], alone[0], rtol=1e-4)
    np.testing.assert_allclose(both, parts, rtol=1e-4)
    assert both[0, 0] < np.log(256) / 2 < both[1, 0]
    with pytest.raises(UserError, match="a sequence needs 17"):
        mixture_losses([b"short", *domains], np.eye(3), [target], **train)


# ---- operations ----


def test_counted_operations_are_those_that_torch_counts() -> None:
    width, hidden, context, sequences = 16, 48, 12, 3
    model = TinyTransformer(vocabulary=40, layers=2, width=width, heads=2, context=context, hidden=hidden)
    ids = torch.randint(0, 40, (sequences, context + 1))
    with FlopCounterMode(display=False) as counter:
        token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
    counted = sum(
        flops
        for op, flops in counter.get_flop_counts()["Global"].items()
        if str(op) in ("aten.mm", "aten.addmm")
    )
    decoder = Decoder(layers=2, width=width, hidden=hidden, vocabulary=40, context=context)
    assert decoder.training(sequences * context, head=True) == counted
    assert decoder.body == sum(p.numel() for p in model.blocks.parameters() if p.ndim == 2)


def test_the_papers_models_have_the_papers_sizes() -> None:
    small, large = Decoder(2, 256, 512, 50_432, 2048), Decoder(22, 2048, 5632, 50_432, 2048)
    assert small.body == 1_310_720
    assert small.head == 12_910_592
    assert large.body == pytest.approx(1.1e9, rel=0.03)
    # the mean over positions 1 .. context of what position t attends to, twice a width each
    assert small.scores == 2 * 2 * 256 * np.mean(np.arange(1, 2049))
    assert small.training(1.0, head=False, scores=True) == 6 * (small.body + small.scores)


def test_the_ratio_depends_on_the_head(paper: Paper) -> None:
    claim = paper.find_claim("search-compute")

    def flops(arm: str, budget: str) -> dict[str, float]:
        return claims.search_compute(Trial(arm, {"budget": budget}, 0, size=claim.sizes("quick")))

    ours, stated, own = flops("regmix", "stated"), flops("doremi", "stated"), flops("doremi", "own-run")
    assert ours["flops_blocks"] == 512 * 6 * 1_310_720 * 512 * 2048 * 1000
    assert stated["flops_blocks"] == pytest.approx(3.7e19)
    assert own["flops_blocks"] == doremi(280e6, 0, 512 * 1024 * 200_000)[0]
    assert ours["flops_head"] / stated["flops_head"] > 1 > 0.1 > ours["flops_head"] / own["flops_head"]
    final = flops("final-run", "stated")
    assert final["flops_blocks"] == pytest.approx(1.7e20, rel=0.01)
