"""Do the channels that a source is said to reach change when the source goes?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelens.analysis.causal.check import CausalResult, score_arrays
from nodelens.analysis.causal.doses import of_places
from nodelens.analysis.causal.estimates import (
    Estimate,
    interval,
    rank_correlations,
    resamples_of,
)
from nodelens.analysis.causal.lesions import INTACT, Array, Lesion, as_channels
from nodelens.analysis.causal.sampling import matched, places
from nodelens.data import Batch
from nodelens.errors import InvalidValueError, LayerNotFoundError, ShapeError, nearest
from nodelens.interventions import silencing
from nodelens.model.layers import canonical
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.progress import Progress, watched

__all__ = ["halo_receivers"]


def halo_receivers(
    model: Any,
    batches: Iterable[Any],
    source: Mapping[str, Any],
    receiver: str,
    influence: Any,
    *,
    others: Mapping[str, Any] | None = None,
    draws: int = 10,
    site: str = "output",
    value: Any = "zero",
    resamples: int = 1000,
    seed: int = 0,
    progress: bool | Progress = True,
) -> CausalResult:
    """Return how far predicted influence foretells which receivers are disrupted.

    `source` is `{layer: channels}`, `receiver` a later layer, `influence` the prediction for its
    channels, `(channels,)`. The disruption of a channel is the root of the mean squared change of
    its output over its standard deviation; 0 for one that never varies. Controls silence as many
    channels out of `others`, of the same layers. `spearman` is of influence and disruption,
    `control` of influence and the mean disruption by controls, `gap` the difference; intervals are
    over receivers. Evaluations: 1 + draws, each also runs the intact model.

    Raises LayerNotFoundError, ShapeError for an influence of another length.
    """
    wrapper = wrap(model)
    predicted = _prediction(wrapper, receiver, influence)
    targets = places(source)
    if not targets:
        raise InvalidValueError("no source channels to silence, expected {layer: channels}")
    generator = np.random.default_rng(seed)
    pool = places(others or {})
    controls = [
        of_places(matched(targets, pool, None, generator)) for _ in range(draws if pool else 0)
    ]
    lesions = [of_places(targets), *controls]
    with torch.random.fork_rng(devices=[]):
        parts = [wrapper.prepare_batch(batch) for batch in batches]
    options = {"site": site, "value": value}
    found: list[Array] = []
    for which in watched(lesions, 0, progress, lambda: len(found), what="evaluations"):
        found.append(_disruption(wrapper, parts, which, receiver, options))
    estimates = _estimates(predicted, found, resamples, generator)
    return CausalResult(
        "halo_receivers", estimates, _rows(receiver, predicted, found), len(lesions)
    )


def _prediction(wrapper: ModelWrapper, receiver: str, influence: Any) -> Array:
    if receiver not in wrapper.layers:
        raise LayerNotFoundError(f"no layer {receiver!r}{nearest(receiver, wrapper.layers)}")
    predicted = score_arrays({receiver: influence})[receiver]
    if len(predicted) != (width := wrapper.layers[receiver].channels):
        raise ShapeError(f"layer {receiver!r}: influence on {len(predicted)} of {width} channels")
    return predicted


def _disruption(
    wrapper: ModelWrapper, parts: Sequence[Batch], which: Lesion, receiver: str, options: Any
) -> Array:
    """Return the disruption of every receiver, `(channels,)`."""
    width = wrapper.layers[receiver].channels
    rows, total, square, gap = 0, *(np.zeros(width) for _ in range(3))
    for batch in parts:
        before, after = (
            _outputs(wrapper, batch, one, receiver, options) for one in (INTACT, which)
        )
        rows += len(before)
        total += before.sum(0)
        square += (before**2).sum(0)
        gap += ((after - before) ** 2).sum(0)
    if not rows:
        raise InvalidValueError("no row to measure disruption on, expected at least one batch")
    mean = total / rows
    # The variance of a constant comes out of this difference as rounding of its square.
    variance = square / rows - mean**2
    varies = variance > 1e-12 * np.maximum(mean**2, 1e-30)
    found: Array = np.where(varies, np.sqrt(gap / rows / np.where(varies, variance, 1.0)), 0.0)
    return found


def _outputs(
    wrapper: ModelWrapper, batch: Batch, which: Lesion, receiver: str, options: Any
) -> Array:
    """Return what the receiver gives back under a lesion, `(rows, channels)`."""
    route = wrapper.route(batch)
    bodies: list[Callable[[], Any]] = [lambda: _read(wrapper, route.visits[receiver], receiver)]
    if which != INTACT:
        bodies.insert(0, silencing(wrapper, route, as_channels(which), **options))
    raw: list[Tensor] = wrapper.trace(batch, bodies, watched=[receiver, *as_channels(which)])[-1]
    layer = wrapper.layers[receiver]
    maps = [canonical(part, layer, "output").double() for part in raw]
    rows = [part.movedim(1, -1).reshape(-1, layer.channels) for part in maps]
    found: Array = torch.cat(rows).cpu().numpy()
    return found


def _read(wrapper: ModelWrapper, visits: int, receiver: str) -> list[Any]:
    found = []
    for number in range(visits):
        with wrapper.visit(number):
            output = wrapper.envoy(receiver).output
            # What follows may work in place.
            found.append(output.clone() if isinstance(output, Tensor) else output)
    return found


def _estimates(
    predicted: Array, found: Sequence[Array], resamples: int, generator: np.random.Generator
) -> dict[str, Estimate]:
    picks = resamples_of(len(predicted), resamples, generator)
    mine = rank_correlations(predicted[picks], found[0][picks])
    estimates = {"spearman": interval(mine[0], mine[1:])}
    if len(found) > 1:
        control = rank_correlations(predicted[picks], np.mean(found[1:], 0)[picks])
        estimates["control"] = interval(control[0], control[1:])
        estimates["gap"] = interval(mine[0] - control[0], (mine - control)[1:])
    return estimates


def _rows(receiver: str, predicted: Array, found: Sequence[Array]) -> list[dict[str, Any]]:
    control = np.mean(found[1:], 0) if len(found) > 1 else np.full(len(predicted), np.nan)
    return [
        {
            "layer": receiver,
            "channel": n,
            "influence": float(predicted[n]),
            "disruption": float(found[0][n]),
            "control": float(control[n]),
        }
        for n in range(len(predicted))
    ]
