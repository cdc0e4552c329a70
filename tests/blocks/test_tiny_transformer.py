from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from claimbench.blocks.causal_attention import SHORT, causal_attention
from claimbench.blocks.stacked import Stack
from claimbench.blocks.tiny_transformer import EPSILON, TinyTransformer, normalise, rotate, token_loss

FORMS = [
    dict(zip(("mlp", "positions", "tied"), form, strict=True))
    for form in itertools.product(("swiglu", "gelu"), ("rotary", "learned"), (True, False))
]


def _model(**form: Any) -> TinyTransformer:
    return TinyTransformer(vocabulary=11, layers=2, width=12, heads=3, context=9, **form).double()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_every_form_is_causal_and_stacks(form: dict[str, Any]) -> None:
    torch.manual_seed(0)
    models = [_model(**form) for _ in range(3)]
    ids = torch.randint(11, (3, 2, 9))
    alone = torch.stack([model(own) for model, own in zip(models, ids, strict=True)])
    assert alone.shape == (3, 2, 9, 11)
    torch.testing.assert_close(Stack.of(models)(ids), alone, rtol=1e-11, atol=1e-12)
    changed = ids.clone()
    changed[..., 5:] = 0
    other = Stack.of(models)(changed)
    torch.testing.assert_close(other[..., :5, :], alone[..., :5, :], rtol=1e-11, atol=1e-12)
    assert not torch.allclose(other[..., 6:, :], alone[..., 6:, :], rtol=1e-3)


def test_it_is_transformers_llama_with_the_same_weights() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    width, heads, hidden = 16, 2, 24
    model = TinyTransformer(vocabulary=30, layers=2, width=width, heads=heads, hidden=hidden, context=20)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gain"):
                parameter.uniform_(0.5, 1.5)
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=30,
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=heads,
            max_position_embeddings=20,
            rms_norm_eps=EPSILON,
            tie_word_embeddings=True,
        )
    )
    # Llama turns coordinate i with i + half, here 2i with 2i + 1: the same up to the order of a head's rows.
    half = width // heads // 2
    order = torch.cat(
        [
            torch.cat([torch.arange(0, 2 * half, 2), torch.arange(1, 2 * half, 2)]) + h * 2 * half
            for h in range(heads)
        ]
    )
    with torch.no_grad():
        llama.model.embed_tokens.weight.copy_(model.embedding.weight)
        llama.model.norm.weight.copy_(model.gain)
        for theirs, ours in zip(llama.model.layers, model.blocks, strict=True):
            query, key, value = ours.attention_in.weight.chunk(3)
            gate, up = ours.mlp_in.weight.chunk(2)
            pairs = {
                theirs.self_attn.q_proj: query[order],
                theirs.self_attn.k_proj: key[order],
                theirs.self_attn.v_proj: value,
                theirs.self_attn.o_proj: ours.attention_out.weight,
                theirs.mlp.gate_proj: gate,
                theirs.mlp.up_proj: up,
                theirs.mlp.down_proj: ours.mlp_out.weight,
                theirs.input_layernorm: ours.attention_gain,
                theirs.post_attention_layernorm: ours.mlp_gain,
            }
            for layer, weight in pairs.items():
                layer.weight.copy_(weight)
        ids = torch.randint(30, (3, 20))
        torch.testing.assert_close(model(ids), llama.eval()(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_normalise_is_torchs_norm_without_its_gain() -> None:
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(normalise(x), nn.functional.rms_norm(x, (8,), eps=EPSILON))
    assert torch.autograd.gradcheck(normalise, x)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    turns = TinyTransformer(width=8, heads=1, context=10).blocks[0].turns.double()
    query, key = torch.randn(2, 8, dtype=torch.float64)
    products = rotate(query.expand(10, 8), turns) @ rotate(key.expand(10, 8), turns).T
    for distance in range(-9, 10):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-5)
    assert products[0].std() > 0.01


@pytest.mark.parametrize("time", [5, SHORT + 1])
def test_attention_under_vmap_is_attention_of_each_also_where_keys_are_shared(time: int) -> None:
    query, value = torch.randn(2, 3, 2, 4, time, 6, dtype=torch.float64, requires_grad=True).unbind(0)
    key = torch.randn(2, 4, time, 6, dtype=torch.float64, requires_grad=True)
    together = torch.func.vmap(causal_attention, in_dims=(0, None, 0))(query, key, value)
    scores = torch.einsum("mbhtd,bhsd->mbhts", query, key) / 6**0.5
    later = torch.ones(time, time, dtype=torch.bool).triu(1)
    plain = scores.masked_fill(later, -torch.inf).softmax(-1) @ value
    torch.testing.assert_close(together, plain)
    for ours, theirs in zip(
        torch.autograd.grad(together.square().sum(), (query, key, value)),
        torch.autograd.grad(plain.square().sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_parameters_are_those_of_the_formula() -> None:
    """A block: 4 d^2 (attention), 3 d h (gated MLP), 2 d (gains); d for the last gain; V d an embedding."""
    d, h, v = 32, 88, 256
    model = TinyTransformer(width=d, tied=False)
    inner = 2 * (4 * d * d + 3 * d * h + 2 * d) + d
    assert model.parameter_count(embeddings=False) == inner
    assert model.parameter_count() == inner + 2 * v * d
    assert TinyTransformer(width=d).parameter_count() == inner + v * d
    learned = TinyTransformer(width=d, mlp="gelu", positions="learned", context=48)
    assert learned.parameter_count() == 2 * (12 * d * d + 2 * d) + d + v * d + 48 * d


def test_an_untrained_model_is_near_uniform() -> None:
    torch.manual_seed(0)
    ids = torch.randint(256, (4, 33))
    loss = token_loss(TinyTransformer()(ids[:, :-1]), ids[:, 1:]).detach()
    assert abs(float(loss) - torch.log(torch.tensor(256.0))) < 0.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="width 12 must be heads 4 times"):
        TinyTransformer(width=12, heads=4)
    with pytest.raises(ValueError, match="longer than the context of 64"):
        TinyTransformer()(torch.zeros(1, 65, dtype=torch.long))
