"""Two layers, and a channel with the model's own decision: NumPy and scikit-learn on whole rows."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import minmax_scale

from tests.oracles.capture import Array, Captured
from tests.oracles.information import mean_over_others, nats, pairwise, synergy
from tests.oracles.rows import group_of, pixels, pooled, windows


def paired(captured: Captured, following: Captured) -> tuple[Array, Array]:
    """Return the outputs of two layers row by row, or averaged over space where maps differ."""
    a, b = captured.outputs, following.outputs
    if a.shape[:1] + a.shape[2:] == b.shape[:1] + b.shape[2:]:
        return pixels(a), pixels(b)
    means = [pooled(x) if x.ndim > 2 else x for x in (a, b)]
    return means[0], means[1]


def downstream(rows: Array, following: Array) -> Array:
    """Return the mean information of every channel with those of another layer."""
    channels = rows.shape[1]
    rho = np.corrcoef(np.hstack([rows, following]), rowvar=False)[:channels, channels:]
    return nats(rho**2).mean(1)


def repeated(rows: Array) -> Array:
    """Return the mean information of every channel with the others of its layer."""
    return mean_over_others(pairwise(rows))


def transition_efficiency(rows: Array, repetition: Array, following: Array) -> Array:
    return downstream(rows, following) / (1 + repetition)


def within_layer_importance(captured: Captured) -> Array:
    rows = pixels(captured.outputs)
    return 0.6 * _scaled(np.abs(rows).mean(0)) - 0.4 * _scaled(repeated(rows))


def cross_layer_importance(captured: Captured, following: Captured) -> Array:
    rows, weight = pixels(captured.outputs), captured.weight
    quotient = []
    for channel, w in enumerate(weight):
        spread = np.cov(_read_by(captured, channel), rowvar=False)
        quotient.append(w @ spread @ w / (w @ w))
    return (
        0.25 * _scaled(np.array(quotient))
        + 0.35 * _scaled(downstream(*paired(captured, following)))
        - 0.25 * _scaled(repeated(rows))
        + 0.15 * _scaled(np.abs(rows).mean(0))
    )


def _read_by(captured: Captured, channel: int) -> Array:
    if not captured.is_convolution:
        return captured.inputs
    seen = windows(captured)[:, :, group_of(captured, channel)]
    return seen.reshape(seen.shape[0] * seen.shape[1], -1)


def adaptive_importance(captured: Captured, following: Captured) -> Array:
    rows = pixels(captured.outputs)
    size = np.abs(rows).mean(0)
    score = 0.4 * _scaled(size) - 0.25 * _scaled(repeated(rows))
    if np.exp(-size.std(ddof=1) / size.mean()) >= 0.7:
        return score
    return score + 0.35 * _scaled(downstream(*paired(captured, following)))


def _scaled(values: Array) -> Array:
    return minmax_scale(values)


def decision(logits: Array, classes: Array, kind: str) -> Array:
    """Return the target that a model's logits make, one number a prediction."""
    if kind == "logit_pc1":
        return PCA(n_components=1, svd_solver="full").fit_transform(logits)[:, 0]
    correct = np.array([row[k] for row, k in zip(logits, classes, strict=True)])
    if kind == "correct_logit":
        return correct
    return correct - np.array([np.delete(r, k).max() for r, k in zip(logits, classes, strict=True)])


def synergy_with_chosen(rows: Array, target: Array, k: int, candidates: int) -> Array:
    """Return the mean synergy with k of the most redundant channels, those that tell most alone."""
    alone = [abs(np.corrcoef(y, target)[0, 1]) for y in rows.T]
    rho = np.abs(np.corrcoef(rows, rowvar=False))
    scores = []
    for i in range(rows.shape[1]):
        others = sorted((j for j in range(len(rho)) if j != i), key=lambda j: -rho[i, j])
        best = sorted(others[:candidates], key=lambda j: -alone[j])[:k]
        scores.append(np.mean([synergy(rows[:, [i, j]], target)[0] for j in best]))
    return np.array(scores)
