from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from claimbench.errors import UserError
from claimbench.subjects import open_subject, prepare, resolve_subject
from claimbench.subjects.conversation import Reply
from claimbench.subjects.wheels import Unreachable

ASK = [{"role": "user", "content": "Name a colour."}]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("https://me:secret@host.org/v1#m", "leave user and password out"),
        ("https://host.org/v1?key=secret#m", "leave out what follows"),
        ("https://host.org/secret/v1", "name the model behind a #"),
        ("ftp://host.org/secret#m", "not an address"),
        ("https://#secret", "not an address"),
        ("https://host.org:secret/v1#m", "not an address"),
        ("https://[secret/v1#m", "not an address"),
        ("smollm2", 'did you mean "smollm2-135m"'),
        ("byte-lm", "no chat model"),
    ],
)
def test_addresses_and_names_that_will_not_do(value: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        resolve_subject("chat", value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_objects_are_refused() -> None:
    for value in (lambda messages: "yes", object(), None):
        with pytest.raises(UserError, match="a chat model is an address"):
            resolve_subject("chat", value, version="1")


# The embedded model, from the user's cache: a module's fixtures come before a test's own places.


@pytest.fixture(scope="module")
def embedded() -> Any:
    pytest.importorskip("transformers")
    ref = resolve_subject("chat", "smollm2-135m")
    try:
        prepare([ref])
    except Unreachable as reason:
        pytest.skip(str(reason))
    return open_subject(ref)


QUESTIONS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Count from 1 to 9, with commas between the numbers."}],
]


def _said(replies: list[Reply]) -> list[tuple[str, int | None, int | None, str]]:
    return [(r.text, r.prompt_tokens, r.completion_tokens, r.finish_reason) for r in replies]


@pytest.mark.network
def test_the_embedded_model_answers_alike_in_batches_and_one_by_one(embedded: Any) -> None:
    """Reference: each token of the longest answer is the likeliest by a pass over the whole text, without padding."""
    import torch

    together = embedded.complete_many(QUESTIONS, max_tokens=8)
    assert _said(together) == _said([embedded.complete(question, max_tokens=8) for question in QUESTIONS])
    assert together[0].text == "The capital of France is Paris."
    assert together[0].finish_reason == "stop"
    prompt = embedded.prompt(QUESTIONS[1])
    answer = embedded.lm.encode(together[1].text).tolist()
    with torch.no_grad():
        logits = embedded.lm.model(input_ids=torch.tensor([prompt + answer])).logits[0]
    assert logits[len(prompt) - 1 : -1].argmax(dim=1).tolist() == answer
    assert _said(together)[1][1:] == (len(prompt), len(answer), "length")


@pytest.mark.network
def test_sampling_repeats_with_its_seed_and_varies_with_another(embedded: Any) -> None:
    first, second = (
        embedded.complete_many(QUESTIONS, max_tokens=4, temperature=1.5, seed=seed) for seed in (1, 2)
    )
    alone = embedded.complete(QUESTIONS[1], max_tokens=4, temperature=1.5, seed=1)
    assert _said([alone]) == _said(first[1:])
    assert _said(first) != _said(second)


@pytest.mark.network
def test_an_answer_ends_before_its_stop_text(embedded: Any) -> None:
    cut, other = embedded.complete_many(QUESTIONS, max_tokens=6, stop=[" France", "capital of"])
    assert cut.text == "The "
    assert (cut.finish_reason, cut.completion_tokens) == ("stop", 3)  # "The", " capital", " of"
    assert (other.finish_reason, other.completion_tokens) == ("length", 6)


@pytest.mark.network
def test_a_conversation_longer_than_the_context_is_refused(embedded: Any) -> None:
    with pytest.raises(UserError, match="exceed the model's context of 8192"):
        embedded.complete([{"role": "user", "content": "tree " * 8200}], max_tokens=5)


def test_noise_samples_the_softmax() -> None:
    """The Gumbel-max draws of many seeds have the softmax's frequencies (chi-squared test, 4 degrees of freedom)."""
    import numpy as np
    import torch
    from scipy.stats import chisquare

    from claimbench.subjects.conversation import asked
    from claimbench.subjects.local_chat import _Draws

    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])
    conversations = [[{"role": "user", "content": str(index)}] for index in range(4000)]
    draws = _Draws(conversations, asked(1, 0.7, 5, ()), torch.device("cpu"))
    chosen = draws(torch.empty(0), logits.expand(4000, 5)).argmax(dim=1).numpy()
    expected = torch.softmax(logits.double() / 0.7, dim=0).numpy() * 4000
    assert chisquare(np.bincount(chosen, minlength=5), expected).pvalue > 1e-4


def test_a_directory_speaks_only_with_a_template(saved_model: Path, tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(UserError, match="has no chat template"):
        resolve_subject("chat", saved_model)
    folder = Path(shutil.copytree(saved_model, tmp_path / "model"))
    template = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    template += "<{{ m.content }}>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    penalties = {"repetition_penalty": 5.0, "do_sample": True, "min_new_tokens": 7, "eos_token_id": 256}
    (folder / "generation_config.json").write_text(json.dumps(penalties))
    opened = open_subject(resolve_subject("chat", folder))
    assert opened.prompt([{"role": "user", "content": "ab"}]) == list(b"<ab>")
    assert opened.lm.model.generation_config.repetition_penalty is None
    assert opened.ends == (256,)
    replies = [opened.complete(ASK, max_tokens=4) for _ in range(2)]
    assert _said(replies[:1]) == _said(replies[1:])
    with pytest.raises(UserError, match="refuses them: no tools"):
        opened.complete([{"role": "tool", "content": "x"}], max_tokens=4)
