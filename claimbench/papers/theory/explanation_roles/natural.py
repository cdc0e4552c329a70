"""Are retrieved explanations worth it on your own texts? The paper's pipeline (arXiv 2102.02201, section 3)
on frozen encoders.

    u = encoder(x),  v_c = encoder(e_c),  h_c = [u, v_c, u * v_c, |u - v_c|],  p(y | x) = reader(mean over c of h_c)

This is the paper's H-Mean with a frozen encoder in the place of RoBERTa: the query meets each retrieved
explanation separately and what results is averaged. Every arm has the same reader, tuned over the same grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.explanation_roles.retrieval import most_similar, unit

ARMS = (
    "retrieved-explanations",
    "no-explanation",
    "random-explanations",
    "retrieved-examples",
    "own-explanation",
)
EACH = 4  # explanations read for a query, as in the paper's averaging model
FOLDS = 5
ROWS = 5000  # of a larger table so many are drawn
READERS = {"logistic": (0.01, 0.1, 1.0), "mlp": (1e-4, 1e-2, 1.0)}  # C, and alpha
INNER = 0.2  # the share of training rows on which a reader's setting is chosen
AT_ONCE = 1024

Relevance = Callable[[Sequence[str], Sequence[str]], Any]
"""relevance(queries, explanations): similarities [queries, explanations], the more the better."""


class Encoder(Protocol):
    """Texts to rows, such as a `SentenceEncoder`."""

    def encode(self, texts: Sequence[str]) -> Any: ...


@dataclass(frozen=True)
class Outcome:
    """right: whether each row's class was given when its fold was tested; the same rows in every arm."""

    right: Bool[np.ndarray, " rows"]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


@dataclass(frozen=True)
class Difference:
    """One arm's accuracy less another's, with a 95 % interval."""

    value: float
    low: float
    high: float


def difference(one: Outcome, other: Outcome, groups: Int[np.ndarray, " rows"]) -> Difference:
    """The paired difference over rows; rows of one group (of one text) count as one draw.

    The interval is 1.96 standard errors of the mean of the rows' differences, and covers which rows were
    drawn, not how another training would differ.
    """
    paired = one.right.astype(float) - other.right.astype(float)
    value = float(paired.mean())
    sums = np.bincount(groups, weights=paired - value)
    count = len(np.unique(groups))
    error = np.sqrt((sums**2).sum() * count / max(count - 1, 1)) / len(paired)
    return Difference(value, value - 1.96 * float(error), value + 1.96 * float(error))


@dataclass(frozen=True)
class Embedded:
    """A table's rows as a reader needs them. groups: rows of the same text have the same number. explained:
    which rows have an explanation. between: similarities of rows' texts to rows' explanations from the user's
    own function, or None for the inner product of the encoders' rows.
    """

    labels: Int[np.ndarray, " rows"]
    groups: Int[np.ndarray, " rows"]
    texts: Float32[np.ndarray, "rows width"]
    told: Float32[np.ndarray, "rows width"]
    explained: Bool[np.ndarray, " rows"]
    between: Float[np.ndarray, "rows rows"] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def embed(
    texts: Sequence[str],
    labels: Sequence[Any],
    explanations: Sequence[str],
    encoder: Encoder | Callable[[Sequence[str]], Any],
    *,
    explanation_encoder: Encoder | Callable[[Sequence[str]], Any] | None = None,
    relevance: Relevance | None = None,
) -> Embedded:
    """Encode a table once, each different text once. An empty explanation is none.

    Raises UserError for columns of different lengths, fewer than two classes or 20 rows, or encoders whose
    rows do not fit.
    """
    if not len(texts) == len(labels) == len(explanations):
        raise UserError(
            f"table: {len(texts)} texts, {len(labels)} labels and {len(explanations)} explanations; one of each a row"
        )
    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    if len(texts) < 20 or len(classes) < 2:
        raise UserError(
            f"table: {len(texts)} rows of {len(classes)} classes; at least 20 rows of 2 classes are needed"
        )
    explained = np.array([bool(text.strip()) for text in explanations])
    different, groups = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)
    own = _encoded(encoder, different.tolist())
    others, places = np.unique(np.asarray(explanations, dtype=object).astype(str), return_inverse=True)
    told = _encoded(explanation_encoder or encoder, others.tolist())
    if own.shape[1] != told.shape[1]:
        raise UserError(
            f"explanation encoder: rows of width {told.shape[1]} beside the encoder's {own.shape[1]}; they must fit"
        )
    between = None
    if relevance is not None:
        between = np.asarray(relevance(different.tolist(), others.tolist()), dtype=np.float64)
        if between.shape != (len(different), len(others)) or not np.isfinite(between).all():
            raise UserError(
                f"relevance: returns shape {list(between.shape)}; finite [{len(different)}, {len(others)}] is needed"
            )
        between = between[groups][:, places]
    return Embedded(codes, groups, own[groups], told[places], explained, between)


def _encoded(encoder: Any, texts: list[str]) -> Float32[np.ndarray, "texts width"]:
    rows = np.asarray(encoder.encode(texts) if hasattr(encoder, "encode") else encoder(texts))
    if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
        raise UserError(f"encoder: returns shape {list(rows.shape)}; finite [{len(texts)}, width] is needed")
    return unit(rows)


def compare(
    rows: Embedded,
    *,
    arms: Sequence[str] = ARMS,
    each: int = EACH,
    folds: int = FOLDS,
    reader: str = "logistic",
    by: str = "explanation",
    seed: int = 0,
) -> dict[str, Outcome]:
    """Every row's class predicted by readers that never saw its text, in each arm, by cross-validation over
    texts.

    retrieved-explanations: the `each` nearest of the training rows' explanations. no-explanation: u alone.
    random-explanations: as many, drawn at random. retrieved-examples: the nearest training texts and the
    shares of their classes instead of explanations. own-explanation: the row's own, which no user has for a
    query: what explanations could tell at best, or give away. by: "explanation" (the query to explanations)
    or "text" (to the texts that have them). Raises UserError for unknown names, and where a fold has too few
    explanations.
    """
    for name, value, known in (("reader", reader, READERS), ("by", by, ("explanation", "text"))):
        if value not in known:
            raise UserError(f'{name} = "{value}" is not known{nearest(value, known)}')
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise UserError(f'no arm "{unknown[0]}"{nearest(unknown[0], ARMS)}')
    if each < 1 or folds < 2:
        raise UserError(f"each = {each}, folds = {folds}: at least 1 and 2")
    rng = np.random.default_rng(seed)
    fold_of = rng.permutation(np.arange(rows.groups.max() + 1) % folds)[rows.groups]
    right = {arm: np.zeros(len(rows), dtype=bool) for arm in arms}
    for fold in range(folds):
        train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        if not len(test) or len(np.unique(rows.labels[train])) < 2:
            raise UserError(f"folds = {folds}: a fold has no rows of two classes to train on; take fewer")
        inner = rng.random(rows.groups.max() + 1)[rows.groups[train]] < INNER
        for arm in arms:
            features = arm_features(arm, rows, train, each, by, np.random.default_rng([seed, fold]))
            guesses = _read(reader, features, rows.labels, train, inner, test, seed)
            right[arm][test] = guesses == rows.labels[test]
    return {arm: Outcome(found) for arm, found in right.items()}


def compare_on_texts(
    texts: Sequence[str],
    labels: Sequence[Any],
    explanations: Sequence[str],
    encoder: Encoder | Callable[[Sequence[str]], Any],
    **options: Any,
) -> dict[str, Outcome]:
    """`embed`, then `compare` with its options: the whole question in one call.

    found = compare_on_texts(texts, labels, explanations, encoder, each=4)
    print({arm: outcome.accuracy for arm, outcome in found.items()})
    """
    return compare(embed(texts, labels, explanations, encoder), **options)


def arm_features(
    arm: str, rows: Embedded, train: Int[np.ndarray, " train"], each: int, by: str, rng: np.random.Generator
) -> Float32[np.ndarray, "rows features"]:
    """What an arm's reader sees of every row, when these are the training rows."""
    if arm == "no-explanation":
        return rows.texts
    if arm == "own-explanation":
        return met(rows.texts, rows.told, np.arange(len(rows))[:, None])
    if arm == "retrieved-examples":
        found = retrieve(rows, train, each, "examples", rng)
        shares = np.eye(rows.labels.max() + 1, dtype=np.float32)[rows.labels[found]].mean(axis=1)
        return np.column_stack([met(rows.texts, rows.texts, found), shares])
    found = retrieve(rows, train, each, "random" if arm == "random-explanations" else by, rng)
    return met(rows.texts, rows.told, found)


def retrieve(
    rows: Embedded, train: Int[np.ndarray, " train"], each: int, by: str, rng: np.random.Generator
) -> Int[np.ndarray, "rows each"]:
    """For every row `each` training rows of other texts, the most relevant first. by: "explanation", "text"
    or "random" (rows that have an explanation), or "examples" (any, by their texts).
    """
    pool = train if by == "examples" else train[rows.explained[train]]
    sizes = np.bincount(rows.groups[pool], minlength=rows.groups.max() + 1)
    if len(pool) - sizes.max(initial=0) < each:
        raise UserError(
            f"each = {each}: {len(pool)} training rows have something to retrieve, too few beside a row's own text"
        )
    found = np.empty((len(rows), each), dtype=np.int64)
    keys = rows.told if by == "explanation" else rows.texts
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        if by == "random":
            similarity = rng.random((len(rows.groups[part]), len(pool)))
        elif by == "explanation" and rows.between is not None:
            similarity = rows.between[part][:, pool].copy()
        else:
            similarity = rows.texts[part] @ keys[pool].T
        similarity[rows.groups[part][:, None] == rows.groups[pool]] = -np.inf
        found[part] = pool[most_similar(similarity, each)]
    return found


def met(
    queries: Float32[np.ndarray, "rows width"],
    pool: Float32[np.ndarray, "pool width"],
    found: Int[np.ndarray, "rows each"],
) -> Float32[np.ndarray, "rows features"]:
    """The mean over what was found of [u, v, u * v, |u - v|]."""
    read = pool[found]
    mean = read.mean(axis=1)
    apart = np.abs(read - queries[:, None]).mean(axis=1)
    return np.column_stack([queries, mean, queries * mean, apart])


def _read(
    reader: str,
    features: Float32[np.ndarray, "rows features"],
    labels: Int[np.ndarray, " rows"],
    train: Int[np.ndarray, " train"],
    inner: Bool[np.ndarray, " train"],
    test: Int[np.ndarray, " test"],
    seed: int,
) -> Int[np.ndarray, " test"]:
    """Choose the reader's setting on a share of the training rows, fit it on all of them, and predict the
    test rows.
    """
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit(features[train]).transform(features)
    fitted, held = train[~inner], train[inner]
    settings = READERS[reader]
    if len(held) and len(np.unique(labels[fitted])) > 1:
        scores = [
            (
                _model(reader, setting, seed).fit(scaled[fitted], labels[fitted]).predict(scaled[held])
                == labels[held]
            ).mean()
            for setting in settings
        ]
        setting = settings[int(np.argmax(scores))]
    else:
        setting = settings[len(settings) // 2]
    return _model(reader, setting, seed).fit(scaled[train], labels[train]).predict(scaled[test])


def _model(reader: str, setting: float, seed: int) -> Any:
    if reader == "logistic":
        from sklearn.linear_model import LogisticRegression

        # Columns have variance 1: the sum over some hundreds of them wants weights that much smaller.
        return LogisticRegression(C=setting / 10, max_iter=300, tol=1e-3)
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((128,), alpha=setting, max_iter=60, early_stopping=True, random_state=seed)
