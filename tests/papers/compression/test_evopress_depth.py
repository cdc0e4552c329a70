"""Dropping sub-layers of transformers models: the right function, the right cache, checkpoints that load anywhere."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from claimbench.errors import UserError
from claimbench.papers.compression.evopress import (
    DepthProfile,
    Stage,
    drop,
    export_pruned,
    load_profile,
    prune_depth,
    save_pruned,
)
from claimbench.papers.compression.evopress.decoder import SublayerSwitch, find_decoder
from claimbench.papers.compression.evopress.fitness import Calibration, Judge, sequences
from claimbench.papers.compression.evopress.scores import block_changes, score_profile, single_drops

VOCABULARY, LAYERS = 61, 4
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.4,  # so that every part matters
}
GPT2_SHAPE = {
    "vocab_size": VOCABULARY,
    "n_layer": LAYERS,
    "n_embd": 16,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.4,
}
STYLES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
    "mistral": lambda: MistralForCausalLM(
        MistralConfig(**SHAPE, num_key_value_heads=2, head_dim=4, sliding_window=6)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(
            **SHAPE, num_key_value_heads=2, use_sliding_window=True, sliding_window=6, max_window_layers=2
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2_SHAPE)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SHAPE)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=4, sliding_window=6)
    ),
}


def make(style: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = STYLES[style]().eval()
    with torch.no_grad():  # biases start at zero, where forgetting one would not show
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    return model


def text(rows: int = 3, length: int = 12) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


PROFILE = DepthProfile(LAYERS, attention=(0, 1), mlp=(1, 3))


@pytest.mark.parametrize("style", STYLES)
def test_dropped_parts_equal_zero_projections_and_the_saved_model_equals_both(style, tmp_path) -> None:
    model, ids = make(style), text()
    with torch.no_grad():
        dense = model(ids).logits
        switch = drop(model, PROFILE)
        dropped = model(ids).logits
        switch.close()
        assert torch.equal(model(ids).logits, dense), "the model is as it was"
        # the independent reference: the same model with its output projections at zero
        zeroed = copy.deepcopy(model)
        decoder = find_decoder(zeroed)
        for kind, layers in (("attention", PROFILE.attention), ("mlp", PROFILE.mlp)):
            for layer in layers:
                for parameter in decoder.output_projection(layer, kind).parameters():
                    parameter.zero_()
        assert torch.allclose(zeroed(ids).logits, dropped, rtol=1e-5, atol=1e-5)
        assert (dense - dropped).abs().max() > 1e-2
        save_pruned(model, PROFILE, tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.allclose(loaded(ids).logits, dropped, rtol=1e-5, atol=1e-5)
    assert loaded.config.num_hidden_layers == LAYERS - 1, "layer 1 is gone as a whole"
    assert load_profile(tmp_path) == PROFILE


@pytest.mark.parametrize("style", STYLES)
def test_generation_with_a_cache_is_generation_without(style) -> None:
    """Attention of layer 0 dropped: models read the sequence length from its cache."""
    model = make(style)
    with drop(model, PROFILE):
        arguments = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
        cached = model.generate(text(2, 8), use_cache=True, **arguments)
        plain = model.generate(text(2, 8), use_cache=False, **arguments)
    assert torch.equal(cached, plain)
    assert cached.shape == (2, 18)


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_a_cache_filled_piece_by_piece_gives_the_logits_of_the_whole(style) -> None:
    """Without explicit positions: a dropped attention of layer 0 must have counted the tokens."""
    model, ids = make(style), text(2, 12)
    with drop(model, PROFILE):
        whole = model(ids, use_cache=False).logits
        cache, pieces = DynamicCache(config=model.config), []
        for piece in ids.split(5, dim=1):
            pieces.append(model(piece, past_key_values=cache, use_cache=True).logits)
        assert cache.get_seq_length() == 12
    assert torch.allclose(torch.cat(pieces, dim=1), whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("style", STYLES)
def test_shared_prefixes_change_nothing(style) -> None:
    model, ids = make(style), text()
    profiles = np.random.default_rng(2).integers(0, 2, (6, 2 * LAYERS))
    profiles[5] = profiles[3]  # equal candidates are run once
    with SublayerSwitch(model) as switch:
        shared, plain = Judge(switch, tokens_at_once=30), Judge(switch, share_prefixes=False)
        assert shared.shares
        assert not plain.shares
        ours, theirs = shared.evaluate(profiles, ids), plain.evaluate(profiles, ids)
        for criterion in ("kl", "loss"):
            # float32 sums of about 60 logits of size about 10, over 12 positions
            assert np.allclose(ours[criterion], theirs[criterion], rtol=1e-4, atol=1e-5)


class HandBuilt(nn.Module):
    """A Llama layer of which one part is left out, written out by hand."""

    def __init__(self, layer: nn.Module, attention: bool, mlp: bool) -> None:
        super().__init__()
        self.layer, self.attention, self.mlp = layer, attention, mlp

    def forward(self, x, **kwargs):
        if self.attention:
            x = x + self.layer.self_attn(hidden_states=self.layer.input_layernorm(x), **kwargs)[0]
        return x + self.layer.mlp(self.layer.post_attention_layernorm(x)) if self.mlp else x


def test_perplexity_equals_a_model_rebuilt_without_the_parts() -> None:
    model, ids = make("llama"), text(4, 20)
    rebuilt = copy.deepcopy(model)
    rebuilt.model.layers = nn.ModuleList(
        HandBuilt(layer, number not in PROFILE.attention, number not in PROFILE.mlp)
        for number, layer in enumerate(rebuilt.model.layers)
        if number not in PROFILE.whole
    )
    rebuilt.config.num_hidden_layers = len(rebuilt.model.layers)
    with torch.no_grad():
        logits = rebuilt(ids, use_cache=False).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    with SublayerSwitch(model) as switch:
        judge = Judge(switch)
        assert judge.perplexity(PROFILE.levels, ids) == pytest.approx(float(loss.exp()), rel=1e-5)
        dense = judge.perplexity(np.zeros(2 * LAYERS, dtype=int), ids)
        assert judge.dense_perplexity(ids) == pytest.approx(dense, rel=1e-6)


@pytest.mark.parametrize("top_k", [0, 7])
def test_kl_is_zero_for_the_identity_and_right_for_the_rest(top_k) -> None:
    model, ids = make("llama"), text()
    with torch.no_grad():
        dense = model(ids).logits[:, :-1]
        with drop(model, PROFILE):
            pruned = model(ids).logits[:, :-1]
    if top_k:
        dense, kept = dense.topk(top_k, dim=-1)
        pruned = pruned.gather(-1, kept)
    want = nn.functional.kl_div(
        pruned.log_softmax(-1), dense.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    with SublayerSwitch(model) as switch:
        got = Judge(switch, top_k=top_k)(np.stack([np.zeros(2 * LAYERS, dtype=int), PROFILE.levels]), ids)
    assert np.abs(got[0]).max() <= 1e-6
    assert got[1] == pytest.approx(want.mean(-1).numpy(), rel=1e-4)


def test_top_k_of_the_whole_vocabulary_is_the_full_kl() -> None:
    with SublayerSwitch(make("gpt2")) as switch:
        profile, ids = PROFILE.levels, text()
        assert Judge(switch, top_k=VOCABULARY)(profile, ids) == pytest.approx(
            Judge(switch)(profile, ids), rel=1e-5
        )


def test_the_search_finds_the_enumerated_optimum_and_leaves_the_model_alone() -> None:
    """4 layers, 1 attention and 1 MLP: 16 profiles, judged on the whole calibration text."""
    model = make("llama").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokens = text(1, 240)[0]
    stages = (Stage(240, 3), Stage(240, 1))
    result = prune_depth(
        model, tokens, remove=1, sequence_length=24, generations=4, offspring=6, stages=stages, starts=4
    )
    again = prune_depth(
        model, tokens, remove=1, sequence_length=24, generations=4, offspring=6, stages=stages, starts=4
    )
    assert result.outcome.history[-1].fitness == again.outcome.history[-1].fitness
    assert result.profile == again.profile
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.eval()
    with SublayerSwitch(model) as switch:
        pairs = [(a, m) for a in range(LAYERS) for m in range(LAYERS)]
        every = np.stack([DepthProfile(LAYERS, (a,), (m,)).levels for a, m in pairs])
        values = Judge(switch)(every, sequences(tokens, 24)).mean(axis=1)
    assert pairs[int(values.argmin())] == (result.profile.attention[0], result.profile.mlp[0])
    assert result.outcome.fitness == pytest.approx(values.min(), rel=1e-5)


def test_whole_blocks_and_protected_layers() -> None:
    result = prune_depth(
        make("gpt2"),
        text(1, 200)[0],
        remove=0.5,
        sequence_length=20,
        generations=2,
        offspring=2,
        stages=(Stage(40, 1),),
        starts=2,
        protect=(0,),
        whole=True,
    )
    assert result.profile.attention == result.profile.mlp
    assert len(result.profile.whole) == 2
    assert 0 not in result.profile.whole
    assert export_pruned(make("gpt2"), result.profile).config.num_hidden_layers == 2


def test_calibration_draws_whole_distinct_sequences() -> None:
    with SublayerSwitch(make("llama")) as switch:
        ids = text(10, 8)
        calibration = Calibration(Judge(switch), ids)
        drawn = calibration.draw(32, np.random.default_rng(0))
        rows = [row.tolist() for row in ids]
        assert drawn.shape == (4, 8)
        assert len({rows.index(row.tolist()) for row in drawn}) == 4
        assert calibration.draw(10**9, np.random.default_rng(0)).shape == (10, 8)
        assert calibration.draw(1, np.random.default_rng(0)).shape == (1, 8)
        calibration(np.zeros((3, 2 * LAYERS), dtype=int), drawn)
        assert calibration.tokens == 3 * 32


def test_scores_see_what_the_model_computes() -> None:
    model, ids = make("llama"), text(4, 16)
    with torch.no_grad():
        states = [state.double() for state in model(ids, output_hidden_states=True).hidden_states[:-1]]
    with SublayerSwitch(model) as switch:
        judge = Judge(switch, tokens_at_once=20)
        for window in (1, 2):
            found = block_changes(judge, ids, window)
            for start in range(
                LAYERS - window
            ):  # the last state of transformers is taken after the final norm
                before, after = states[start], states[start + window]
                assert found["cosine"][start] == pytest.approx(
                    float(nn.functional.cosine_similarity(before, after, dim=-1).mean()), abs=1e-5
                )
                change = (after - before).norm(dim=-1)
                assert found["l2"][start] == pytest.approx(float(change.mean()), rel=1e-5)
                assert found["relative-norm"][start] == pytest.approx(
                    float((change / after.norm(dim=-1)).mean()), rel=1e-5
                )
        singles = single_drops(judge, ids, "loss")
        blocks = [
            judge(DepthProfile(LAYERS, (block,), (block,)).levels, ids, "loss").mean()
            for block in range(LAYERS)
        ]
        for score in ("cosine", "window-cosine", "relative-norm", "l2", "perplexity"):
            profile, spent = score_profile(judge, ids, score, 2)
            assert len(profile.whole) == len(profile.attention) == len(profile.mlp) == 2
            assert spent == ids.numel() * (LAYERS if score == "perplexity" else 1)
            if score == "perplexity":
                assert set(profile.whole) == set(np.argsort(blocks)[:2].tolist())
            if score == "window-cosine":
                assert profile.whole[1] == profile.whole[0] + 1
        lone = judge(DepthProfile(LAYERS, (2,), ()).levels, ids, "loss").mean()
        assert singles[2] == pytest.approx(
            lone - judge(np.zeros(2 * LAYERS, int), ids, "loss").mean(), abs=1e-6
        )


def test_an_injected_change_of_a_block_is_what_scores_call_unimportant() -> None:
    """A block whose projections are almost zero hardly changes the stream: scores of the stream drop it first."""
    model = make("llama")
    with torch.no_grad():
        for kind in ("attention", "mlp"):
            find_decoder(model).output_projection(2, kind).weight.mul_(1e-3)
    with SublayerSwitch(model) as switch:
        judge = Judge(switch)
        for score in ("cosine", "window-cosine", "relative-norm", "l2"):
            profile, _ = score_profile(judge, text(8, 16), score, 1)
            assert profile.whole == (2,)


def test_what_is_not_understood_is_said_in_one_line(tmp_path) -> None:
    shape = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    opt = OPTForCausalLM(OPTConfig(**shape, ffn_dim=16, word_embed_proj_dim=16, pad_token_id=0))
    with pytest.raises(UserError, match="OPTForCausalLM: no list of 2 decoder layers"):
        prune_depth(opt, torch.zeros(64, dtype=torch.long), remove=1)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=2)).eval()
    with pytest.raises(UserError, match="does not pass its input on"):
        SublayerSwitch(bloom)
    assert "forward" not in vars(find_decoder(bloom).part(0, "attention")), (
        "a refused model is left as it was"
    )
    with pytest.raises(UserError, match="transformers causal language model is needed, not Linear"):
        find_decoder(nn.Linear(2, 2))
    model = make("llama")
    with pytest.raises(UserError, match="remove: 4 means 4 of 4 layers"):
        prune_depth(model, text(1, 64)[0], remove=4, sequence_length=16)
    with pytest.raises(UserError, match="64 tokens do not fill one sequence of 512"):
        prune_depth(model, text(1, 64)[0], remove=1)
    with pytest.raises(UserError, match="made for 9 layers, the model has 4"):
        drop(model, DepthProfile(9, (0,), (0,)))
    with SublayerSwitch(model), pytest.raises(UserError, match="switched already"):
        SublayerSwitch(model)
    with pytest.raises(UserError, match=r"evopress.json: cannot be read"):
        load_profile(tmp_path)
    (tmp_path / "evopress.json").write_text('{"layers": 3}')
    with pytest.raises(UserError, match=r"evopress.json: not a depth profile"):
        load_profile(tmp_path)
