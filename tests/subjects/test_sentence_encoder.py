from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from claimbench.errors import UserError
from claimbench.subjects import downloads, minilm, open_subject, prepare, resolve_subject
from claimbench.subjects.pretrained import home
from claimbench.subjects.sentence_encoder import Recipe, SentenceEncoder
from claimbench.subjects.wheels import Unreachable

NAME = "all-minilm-l6-v2"
ROUNDING = 1e-5  # rows have length 1: six blocks of float32 sums, in another order, move a component by less
TEXTS = [
    "A man is eating food.",
    "",
    "The stock market fell by two percent on Tuesday.",
    "Ünïcode, 漢字 and 🙂",
    "a long text " * 200,
    "Someone is having a meal.",
]


@pytest.fixture(scope="module")
def minilm_encoder() -> SentenceEncoder:
    """The embedded encoder, from the user's cache (a module's fixtures come before a test's own places)."""
    pytest.importorskip("transformers")
    ref = resolve_subject("sentence-encoder", NAME)
    try:
        prepare([ref])
    except Unreachable as reason:
        pytest.skip(str(reason))
    return open_subject(ref)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small blocks over bytes, without sentence-transformers' files. Copy it before changing it."""
    pytest.importorskip("transformers")
    import torch
    from transformers import BertConfig, BertModel

    from claimbench.subjects.byte_model import byte_tokenizer

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=257,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=256,
    )
    BertModel(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def _with_modules(folder: Path, pooling: dict, *, unit: bool = True, **others: dict) -> Path:
    types = ["Transformer", "Pooling", *(["Normalize"] if unit else [])]
    modules = [
        {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(types)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for name, content in others.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def _states(folder: Path, text: str) -> np.ndarray:
    """(tokens, width) of one text by itself: no batch, no padding, no mask."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(text.encode())])).last_hidden_state[0].numpy()


def _unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


@pytest.mark.network
def test_minilm_agrees_with_its_files_read_by_hand(minilm_encoder: SentenceEncoder) -> None:
    """Reference: the tokenizers library and BertModel, text by text without padding, averaged with NumPy."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    folder = minilm_encoder.model.name_or_path
    limit = json.loads((Path(folder) / "sentence_bert_config.json").read_bytes())["max_seq_length"]
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    model = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rows = minilm_encoder.encode(TEXTS)
    assert (minilm_encoder.width, minilm_encoder.context) == (384, limit)
    assert (rows.shape, rows.dtype) == ((len(TEXTS), 384), np.float32)
    for text, row in zip(TEXTS, rows, strict=True):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
        np.testing.assert_allclose(row, _unit(states[0].double().mean(0).numpy()), atol=ROUNDING)


@pytest.mark.network
def test_minilm_rows_are_of_length_one_in_order_and_free_of_their_batch(
    minilm_encoder: SentenceEncoder,
) -> None:
    rows = minilm_encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=ROUNDING)
    np.testing.assert_allclose(minilm_encoder.encode(TEXTS, batch=1), rows, atol=ROUNDING)
    np.testing.assert_allclose(minilm_encoder.encode(TEXTS[::-1], batch=2), rows[::-1], atol=ROUNDING)
    assert np.abs(rows[0] - rows[2]).max() > 100 * ROUNDING  # else no order could be told from another


@pytest.mark.network
def test_minilm_puts_paraphrases_nearer_than_unrelated_texts(minilm_encoder: SentenceEncoder) -> None:
    pairs = [
        ("A man is eating food.", "Someone is having a meal."),
        ("How do I reset my password?", "I forgot my login and need a new one."),
        ("The stock market fell sharply.", "Share prices dropped a lot."),
        ("Water boils at 100 degrees.", "The boiling point of water is 100 °C."),
    ]
    left, right = (minilm_encoder.encode([pair[side] for pair in pairs]) for side in (0, 1))
    similarity = left @ right.T
    paraphrases = np.diag(similarity)
    assert paraphrases.min() > (similarity - np.diag(paraphrases)).max() + 0.1


@pytest.mark.network
def test_minilm_cuts_at_its_context(minilm_encoder: SentenceEncoder) -> None:
    words = ["tree"] * (minilm_encoder.context - 2)  # [CLS] and [SEP] are the other two tokens
    whole, longer, shorter = minilm_encoder.encode(
        [" ".join(words), " ".join([*words, "fire"]), " ".join([*words[:-1], "fire"])]
    )
    np.testing.assert_allclose(longer, whole, atol=ROUNDING)
    assert np.abs(shorter - whole).max() > 10 * ROUNDING


@pytest.mark.network
def test_minilm_is_the_pinned_files_and_named(minilm_encoder: SentenceEncoder) -> None:
    import hashlib

    folder = Path(minilm_encoder.model.name_or_path)
    found = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in minilm.MEMBERS
        if name != "model.safetensors"
    }
    assert found.items() < minilm.MEMBERS.items()
    assert sum(parameter.numel() for parameter in minilm_encoder.model.parameters()) == 22_713_216


def test_the_default_is_known_before_it_is_there(own_cache: Path) -> None:
    ref = resolve_subject("sentence-encoder", NAME)
    assert (ref.value, ref.path, ref.private) == (NAME, "", False)
    assert downloads([ref]) == minilm.WHEEL.bytes
    assert not home(ref).exists()
    with pytest.raises(UserError, match=f'did you mean "{NAME}"'):
        resolve_subject("sentence-encoder", "minilm-l6-v2")


def test_resolving_imports_neither_torch_nor_transformers(small: Path, own_cache: Path) -> None:
    program = (
        "import sys\nfrom claimbench.subjects import resolve_subject\n"
        f"refs = [resolve_subject('sentence-encoder', name) for name in ({NAME!r}, {str(small)!r})]\n"
        "assert len({ref.identity for ref in refs}) == 2\n"
        "assert not {'torch', 'transformers', 'scipy'} & set(sys.modules), 'heavy'\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("pooling", "by_hand"),
    [
        ({"pooling_mode_mean_tokens": True}, lambda states: states.mean(0)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda states: states[0]),
        ({"pooling_mode_max_tokens": True}, lambda states: states.max(0)),
        ({"pooling_mode": "cls"}, lambda states: states[0]),
        ({"pooling_mode": ["max"]}, lambda states: states.max(0)),
        ({}, lambda states: states.mean(0)),
    ],
)
@pytest.mark.parametrize("unit", [True, False])
def test_pooling_and_length_are_those_of_the_directory(
    small: Path, tmp_path: Path, own_cache: Path, pooling: dict, by_hand: Callable, unit: bool
) -> None:
    folder = _with_modules(shutil.copytree(small, tmp_path / "model"), pooling, unit=unit)
    rows = open_subject(resolve_subject("sentence-encoder", folder)).encode(["short", "a longer text", ""])
    for text, row in zip(["short", "a longer text"], rows, strict=False):
        expected = by_hand(_states(small, text))
        np.testing.assert_allclose(row, _unit(expected) if unit else expected, atol=ROUNDING)
    assert np.isfinite(rows).all()


def test_a_directorys_limit_case_and_prompt_are_kept(small: Path, tmp_path: Path, own_cache: Path) -> None:
    folder = _with_modules(
        shutil.copytree(small, tmp_path / "model"),
        {"pooling_mode": "mean"},
        sentence_bert_config={"max_seq_length": 9, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"query": "Q: "}, "default_prompt_name": "query"},
    )
    encoder = open_subject(resolve_subject("sentence-encoder", folder))
    assert encoder.context == 9
    expected = _unit(_states(small, "q: abcdef").mean(0))
    np.testing.assert_allclose(encoder.encode(["ABCDEFGHIJ"])[0], expected, atol=ROUNDING)


def test_a_plain_directory_averages_and_its_files_make_its_identity(
    small: Path, tmp_path: Path, own_cache: Path
) -> None:
    plain = resolve_subject("sentence-encoder", small)
    encoder = open_subject(plain)
    assert (encoder.recipe, encoder.context, encoder.width) == (Recipe(), 64, 32)
    assert plain.private
    copy = Path(shutil.copytree(small, tmp_path / "copy"))
    assert resolve_subject("sentence-encoder", copy).identity == plain.identity
    averaging = resolve_subject("sentence-encoder", _with_modules(copy, {"pooling_mode": "mean"}))
    taking_first = resolve_subject("sentence-encoder", _with_modules(copy, {"pooling_mode": "cls"}))
    assert len({plain.identity, averaging.identity, taking_first.identity}) == 3
    with pytest.raises(UserError, match="changed since"):
        open_subject(averaging)


def test_what_cannot_be_encoded_with_is_named(
    small: Path, saved_model: Path, tmp_path: Path, own_cache: Path
) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "model"))
    with pytest.raises(UserError, match="pooling by lasttoken is not known"):
        resolve_subject("sentence-encoder", _with_modules(folder, {"pooling_mode_lasttoken": True}))
    with pytest.raises(UserError, match="cls and mean"):
        resolve_subject("sentence-encoder", _with_modules(folder, {"pooling_mode": ["cls", "mean"]}))
    with pytest.raises(UserError, match="include_prompt"):
        resolve_subject("sentence-encoder", _with_modules(folder, {"include_prompt": False}))
    dense = [{"type": "x.Transformer", "path": ""}, {"type": "x.Dense", "path": "2_Dense"}]
    (folder / "modules.json").write_text(json.dumps(dense))
    with pytest.raises(UserError, match="not Dense"):
        resolve_subject("sentence-encoder", folder)
    with pytest.raises(UserError, match="not a sentence encoder"):
        resolve_subject("sentence-encoder", saved_model)


def test_weights_that_are_missing_are_not_made_up(small: Path, tmp_path: Path, own_cache: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(small, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    without_pooler = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(without_pooler, folder / "model.safetensors", metadata={"format": "pt"})
    assert open_subject(resolve_subject("sentence-encoder", folder)).width == 32
    del without_pooler["encoder.layer.1.output.dense.weight"]
    save_file(without_pooler, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights .* encoder.layer.1.output.dense.weight"):
        open_subject(resolve_subject("sentence-encoder", folder))


def test_an_object_becomes_a_directory_and_others_are_refused(small: Path, own_cache: Path) -> None:
    encoder = open_subject(resolve_subject("sentence-encoder", small))
    pair = (encoder.model, encoder.tokenizer)
    with pytest.raises(UserError, match="needs version"):
        resolve_subject("sentence-encoder", pair)
    with pytest.raises(UserError, match="needs its tokenizer"):
        resolve_subject("sentence-encoder", encoder.model, version="mine-1")
    ref = resolve_subject("sentence-encoder", pair, version="mine-1")
    assert Path(ref.path).is_dir()
    np.testing.assert_array_equal(open_subject(ref).encode(["a", "bc"]), encoder.encode(["a", "bc"]))
    for value in (lambda texts: np.zeros((len(texts), 3)), encoder.tokenizer, object()):
        with pytest.raises(UserError, match=r"that workers can open saved \(a SentenceTransformer") as caught:
            resolve_subject("sentence-encoder", value, version="mine-1")
        assert "\n" not in str(caught.value)


def test_what_encode_is_not_given(small: Path, own_cache: Path) -> None:
    encoder = open_subject(resolve_subject("sentence-encoder", small))
    assert encoder.encode([]).shape == (0, 32)
    with pytest.raises(UserError, match="not one text"):
        encoder.encode("text")
    with pytest.raises(UserError, match="batch = 0"):
        encoder.encode(["text"], batch=0)
