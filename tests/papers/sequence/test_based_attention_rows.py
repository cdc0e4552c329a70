"""Attention of a real model: what is recorded, how it is projected, and what each map makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from claimbench.errors import UserError
from claimbench.paper import load_paper
from claimbench.papers.sequence.based import attention_rows as rows
from claimbench.papers.sequence.based import claims
from claimbench.papers.sequence.based.language import repeats
from claimbench.papers.sequence.based.taylor import Taylor
from claimbench.shelf import BUILT_IN
from claimbench.subjects import resolve_subject
from claimbench.testing import declared, smoke_trials
from claimbench.trial import Subjects

transformers = pytest.importorskip("transformers")
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_what_is_recorded_gives_the_models_own_attention() -> None:
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=16, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, 50, (1, 12))
    model.set_attn_implementation("sdpa")
    recorded = rows.record(model, tokens)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(input_ids=tokens, output_attentions=True).attentions
    assert len(recorded) == 3
    for (q, k, v), attention in zip(recorded, expected, strict=True):
        assert q.shape == k.shape == v.shape == (1, 4, 12, 8)
        exact = rows.softmax_rows((q @ k.transpose(-1, -2) * 8**-0.5)[0])
        assert torch.allclose(exact, attention[0], rtol=0, atol=1e-5)


def test_the_projection_is_the_best_of_its_rank_and_keeps_the_bound() -> None:
    q, k = torch.randn(2, 3, 20, 12, dtype=DOUBLE)
    near = rows.project(q, k, 5, 0.7)
    assert torch.allclose(near.q @ near.k.transpose(-1, -2) * 5**-0.5, near.scores, rtol=1e-9, atol=1e-12)
    assert torch.allclose(near.scores.tril().abs().amax((1, 2)), torch.full((3,), 0.7, dtype=DOUBLE))
    singular = torch.linalg.svdvals(
        near.full
    )  # Eckart and Young: what is lost are the singular values beyond the fifth
    lost = (near.full - near.scores).square().sum((1, 2))
    assert torch.allclose(lost, singular[:, 5:].square().sum(-1), rtol=1e-9)
    whole = rows.project(q, k, 12, 0.7)
    assert torch.allclose(whole.scores, whole.full, rtol=1e-9, atol=1e-12)
    centred = rows.softmax_rows(whole.full / whole.full.tril().abs().amax((1, 2), keepdim=True))
    natural = q @ k.transpose(-1, -2) * 12**-0.5
    shifted = natural - natural.mean(-1, keepdim=True)  # centring keys shifts rows of scores, nothing else
    own = rows.softmax_rows(shifted / shifted.tril().abs().amax((1, 2), keepdim=True))
    assert torch.allclose(centred, own, rtol=1e-9)


@pytest.mark.parametrize("arm", ["taylor", "elu", "elu-wide", "performer", "performer-wide", "uniform"])
def test_every_maps_rows_are_causal_averages(arm: str) -> None:
    feature_map = claims.attention_map(arm, 6, 0)
    q, k = torch.randn(2, 2, 20, 6, dtype=DOUBLE)
    found = rows.map_rows(feature_map, q, k)
    assert torch.allclose(found.sum(-1), torch.ones(2, 20, dtype=DOUBLE))
    assert bool((found.triu(1) == 0).all())
    assert feature_map.dimension >= claims.attention_map("taylor", 6, 0).dimension or arm in (
        "elu",
        "uniform",
    )


def test_the_taylor_maps_error_falls_with_the_cube_of_the_scores() -> None:
    """exp(s) − (1 + s + s²/2) = s³/6 + …: a tenth of the score has a thousandth of the error."""
    q, k = torch.randn(2, 2, 40, 8, dtype=DOUBLE)
    errors = []
    for largest in (0.3, 0.03):
        near = rows.project(q, k, 8, largest)
        errors.append(
            rows.relative_error(rows.map_rows(Taylor(8), near.q, near.k), rows.softmax_rows(near.scores))
        )
    assert errors[0] / errors[1] == pytest.approx(1000, rel=0.2)


def test_beyond_moderate_scores_the_map_prefers_what_softmax_forgets() -> None:
    q = torch.full((1, 2, 1), 3.0, dtype=DOUBLE)
    k = torch.tensor([[[-3.0], [0.0]]], dtype=DOUBLE)  # scores −9 and 0
    found = rows.map_rows(Taylor(1), q, k)[0, 1]
    assert float(found[0]) > 0.9
    assert float(rows.softmax_rows(q @ k.transpose(-1, -2))[0, 1, 0]) < 1e-3


def test_the_measure_runs_on_a_model_of_ones_own(tmp_path: Path) -> None:
    from claimbench.blocks.byte_lm import byte_lm
    from claimbench.subjects.byte_model import byte_tokenizer

    folder, prose = tmp_path / "model", tmp_path / "text"
    byte_lm(layers=2, width=32, heads=2, hidden=48, context=64).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    prose.mkdir()
    for index in range(24):
        (prose / f"{index}.txt").write_text("".join(f"{index * i % 97} bottles, " for i in range(400)))
    refs = {
        "model": resolve_subject("causal-lm", str(folder)),
        "text": resolve_subject("text", str(prose)),
    }
    claim = load_paper(BUILT_IN / "sequence" / "based" / "paper.toml").find_claim("dial-to-attention")
    found = {}
    for trial in smoke_trials(claim, {"largest": 0.5, "width": 8}, seed=2, subject=Subjects(refs, "cpu")):
        found[trial.arm] = claims.dial_to_attention(trial)
        assert set(found[trial.arm]) == declared(claim)
        assert found[trial.arm]["window_error_whole"] < 1e-12 < found[trial.arm]["window_error_half"]
    assert found["taylor"]["error"] < 0.1 * min(
        result["error"] for arm, result in found.items() if arm != "taylor"
    )
    assert found["taylor"]["top_recall"] == 1
    trial.point = {"largest": 0.5, "width": 17}
    with pytest.raises(UserError, match="width=17"):
        claims.dial_to_attention(trial)


def test_repeats_are_what_a_search_finds() -> None:
    sequences = torch.randint(0, 3, (5, 60))
    found = repeats(sequences, 3)
    for row, hits in zip(sequences.tolist(), found.tolist(), strict=True):
        grams = [tuple(row[max(i - 2, 0) : i + 1]) for i in range(60)]
        assert hits == [len(grams[i]) == 3 and grams[i] in grams[2:i] for i in range(60)]
    assert 0 < found.double().mean() < 1
