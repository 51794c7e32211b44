"""Do the channels that a source is said to reach change when the source goes?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelens.analysis.arrays import Array, seeded
from nodelens.analysis.causal.check import CausalResult, score_arrays
from nodelens.analysis.causal.doses import of_places
from nodelens.analysis.causal.estimates import (
    Estimate,
    interval,
    rank_correlations,
    resamples_of,
)
from nodelens.analysis.causal.lesions import INTACT, Lesion, as_channels
from nodelens.analysis.causal.sampling import matched, places
from nodelens.data import Batch
from nodelens.errors import InvalidValueError, LayerNotFoundError, ShapeError, nearest, whole
from nodelens.interventions import known_layers, silencing
from nodelens.model.layers import canonical, check_finite
from nodelens.model.route import Route
from nodelens.model.rows import counted_rows
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.progress import Progress, announce, watched
from nodelens.statistics import Mean, Moments, Sample
from nodelens.statistics.moments import CentralMoments

__all__ = ["Receivers", "changed", "halo_receivers", "read_calls", "received", "received_rows"]


class Receivers:
    """The lesions of a source and of its controls, and what the change of a receiver says of them.

    `lesions` are the source, then `draws` times as many channels out of `others`, of the same
    layers. `predicted` is the influence on every channel of the receiver, `(channels,)`.

    Raises InvalidValueError without source channels.
    """

    def __init__(
        self,
        source: Mapping[str, Any],
        receiver: str,
        influence: Any,
        *,
        others: Mapping[str, Any] | None = None,
        draws: int = 10,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        targets, pool = places(source), places(others or {})
        if not targets:
            raise InvalidValueError("no source channels to silence, expected {layer: channels}")
        self.receiver, self.resamples = receiver, whole("resamples", resamples, 0)
        self.predicted = score_arrays({receiver: influence})[receiver]
        self._generator = seeded(seed)
        controls = [
            of_places(matched(targets, pool, None, self._generator))
            for _ in range(whole("draws", draws, 0) if pool else 0)
        ]
        self.lesions: list[Lesion] = [of_places(targets), *controls]

    def check_on(self, wrapper: ModelWrapper) -> None:
        """Raise LayerNotFoundError or ShapeError where the model has no such receiver or source."""
        if self.receiver not in wrapper.layers:
            known = nearest(self.receiver, wrapper.layers)
            raise LayerNotFoundError(f"no layer {self.receiver!r}{known}")
        width = wrapper.layers[self.receiver].channels
        if len(self.predicted) != width:
            raise ShapeError(
                f"layer {self.receiver!r}: influence on {len(self.predicted)} of {width} channels"
            )
        for which in self.lesions:
            known_layers(wrapper, as_channels(which))

    def check_order(self, route: Route) -> None:
        """Raise InvalidValueError where a source is not called before the receiver."""
        for layer, _ in self.lesions[0]:
            if not route.order(layer) < route.order(self.receiver):
                raise InvalidValueError(
                    f"layer {layer!r} is not called before {self.receiver!r}: "
                    "expected a source that comes first"
                )

    def conclude(self, intact: CentralMoments, changes: Sequence[Mean]) -> CausalResult:
        """Return the result from the intact receiver, and its squared changes by each lesion."""
        # What varies by rounding alone is constant.
        variance, mean = (intact.m2 / intact.rows).numpy(), intact.mean.numpy()
        varies = variance > 1e-12 * np.maximum(mean**2, 1e-30)
        scale = np.where(varies, variance, 1.0)
        found: list[Array] = [
            np.where(varies, np.sqrt(change.mean().numpy() / scale), 0.0) for change in changes
        ]
        estimates = _estimates(self.predicted, found, self.resamples, deepcopy(self._generator))
        rows = _rows(self.receiver, self.predicted, found)
        return CausalResult("halo_receivers", estimates, rows, len(self.lesions))


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
    its output over its standard deviation; 0 for one that never varies; padding does not count.
    Controls silence as many channels out of `others`, of the same layers. `spearman` is of
    influence and disruption, `control` of influence and the mean disruption by controls, `gap` the
    difference; intervals are over receivers. Evaluations: 1 + draws, each also runs the intact
    model.

    Raises LayerNotFoundError, ShapeError for an influence of another length.
    """
    wrapper = wrap(model)
    check = Receivers(
        source, receiver, influence, others=others, draws=draws, resamples=resamples, seed=seed
    )
    check.check_on(wrapper)
    with torch.random.fork_rng(devices=[]):
        parts = [wrapper.prepare_batch(batch) for batch in batches]
    if not parts:
        raise InvalidValueError("no row to measure disruption on, expected at least one batch")
    check.check_order(wrapper.route(parts[0]))
    if progress is True:
        announce(f"{len(check.lesions)} evaluations, the intact model beside each")
    changes: list[Mean] = []
    intact: Moments | None = None
    for which in watched(check.lesions, 0, progress, lambda: len(changes), what="evaluations"):
        intact, change = None, None
        for batch in parts:
            before = received(wrapper, batch, receiver)
            after = received(wrapper, batch, receiver, which, site=site, value=value)
            intact = _with(intact, Moments.measure(Sample(before)))
            change = _with(change, changed(before, after))
        assert change is not None
        changes.append(change)
    assert intact is not None
    return check.conclude(intact, changes)


def _with(mine: Any, more: Any) -> Any:
    if mine is None:
        return more.widened()
    mine.merge(more)
    return mine


def changed(before: Tensor, after: Tensor) -> Mean:
    """Return the squared change of every channel, from `(rows, channels)` intact and not."""
    return Mean(len(before), (after - before).square().sum(0))


def received(
    wrapper: ModelWrapper, batch: Batch, receiver: str, which: Lesion = INTACT, **options: Any
) -> Tensor:
    """Return what the receiver gives back under a lesion, `(rows, channels)` in float64.

    `options` are those of `nodelens.interventions.silencing`.
    """
    route = wrapper.route(batch)
    bodies: list[Callable[[], Any]] = [
        lambda: read_calls(wrapper, route.visits[receiver], receiver)
    ]
    if which != INTACT:
        bodies.insert(0, silencing(wrapper, route, as_channels(which), **options))
    raw = wrapper.trace(batch, bodies, watched=[receiver, *as_channels(which)])[-1]
    return received_rows(raw, wrapper, batch, receiver)


def received_rows(raw: Sequence[Any], wrapper: ModelWrapper, batch: Batch, receiver: str) -> Tensor:
    """Return the rows that count of every call of a layer, `(rows, channels)` in float64."""
    layer, found = wrapper.layers[receiver], []
    for part in raw:
        values = canonical(part, layer, "output", batch.axes()).detach()
        check_finite(values, receiver, "output")
        kept = counted_rows(values, batch, layer)
        values = values if kept is None else values[kept]
        found.append(values.double().movedim(1, -1).reshape(-1, layer.channels))
    return torch.cat(found).cpu()


def read_calls(wrapper: ModelWrapper, visits: int, receiver: str) -> list[Any]:
    """Return copies of what a layer gives back in each of its calls; runs inside the trace."""
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
