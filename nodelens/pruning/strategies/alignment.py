"""Strategies that lean on a metric lens: alone, beside magnitude, pooled, layer after layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas import normalised, rank
from nodelens.metrics.formulas.normalise import NORMALISATIONS
from nodelens.model import Layer, ModelWrapper
from nodelens.model.layers import first_tensor, weight_rows
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.masks import keep_best, removed_count
from nodelens.pruning.measured import lens_scores
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.metric import MetricStrategy
from nodelens.pruning.units import Units

__all__ = ["Alignment", "CascadingAlignment", "GlobalAlignment", "Hybrid", "silenced"]


@register_strategy("alignment")
class Alignment(MetricStrategy):
    """The scores of a metric lens, the Rayleigh quotient unless `metric` names another."""


@register_strategy("hybrid")
class Hybrid(MetricStrategy):
    """alpha n(metric) + (1 - alpha) n(magnitude), each normalised within its layer.

    `normalise` is "minmax", "rank" or "zscore"; magnitude is the L2 norm of a unit's weights.
    """

    options: ClassVar[Mapping[str, Any]] = {"alpha": 0.5, "normalise": "minmax"}
    alpha: float
    normalise: str

    def _check(self) -> None:
        super()._check()
        if isinstance(self.alpha, bool) or not 0 <= self.alpha <= 1:
            raise InvalidValueError(f"alpha is {self.alpha!r}, expected a number from 0 to 1")
        if self.normalise not in NORMALISATIONS:
            normalised(torch.zeros(1), self.normalise)

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        return self._mixed(super()._score(layer, given), weight_rows(layer))

    def _scores(self, run: Run) -> dict[str, Tensor]:
        found = super()._scores(run)
        return {
            name: self._mixed(found[name], unit.weights(run.model))
            for name, unit in run.units.items()
        }

    def _mixed(self, metric: Tensor, rows: Tensor) -> Tensor:
        size = normalised(rows.double().norm(dim=1).cpu(), self.normalise)
        return self.alpha * normalised(metric.double(), self.normalise) + (1 - self.alpha) * size


@register_strategy("global_alignment")
class GlobalAlignment(MetricStrategy):
    """Ranks of the metric among the units of all layers, 0 to 1, under one threshold."""

    default_distribution = "global_threshold"

    def _scores(self, run: Run) -> dict[str, Tensor]:
        found = super()._scores(run)
        ranks = rank(torch.cat(list(found.values()))).split([len(s) for s in found.values()])
        return dict(zip(found, ranks, strict=True))


@register_strategy("cascading_alignment")
class CascadingAlignment(MetricStrategy):
    """The metric layer by layer, each measured while what earlier layers lose is silenced.

    Each layer loses the config's `amount`. One pass over the batches a layer; they are kept in
    memory.
    """

    def _scores(self, run: Run) -> dict[str, Tensor]:
        kept, found = list(run.batches), dict[str, Tensor]()
        with ExitStack() as before:
            for name, unit in run.units.items():
                own = lens_scores(self.lens, run.model, {name: unit}, kept, **run.options)[name]
                found[name] = self.sign * own
                order = found[name] if self.config.pruning_mode != "high" else -found[name]
                mask = keep_best(order, removed_count(self.config.amount, unit.size))
                before.enter_context(silenced(run.model, unit, mask))
        return found


@contextmanager
def silenced(model: ModelWrapper, unit: Units, mask: Tensor) -> Iterator[None]:
    """Silence the units of a layer that the mask does not keep, by a hook that goes again.

    A layer that feeds a BatchNorm is silenced behind it.
    """
    route, layer = model.known_route(), model.layers[unit.name]
    keep = mask.to(model.device)
    if unit.site == "input":
        module = model.torch_module(unit.name)
        handle = module.register_forward_pre_hook(
            lambda _, args: (_kept(args[0], layer, keep), *args[1:])
        )
    else:
        after = unit.name if route is None else route.norm_after.get(unit.name, unit.name)
        module = model.torch_module(after)
        handle = module.register_forward_hook(lambda _, args, out: _in_place_of(out, layer, keep))
    try:
        yield
    finally:
        handle.remove()


def _in_place_of(out: Any, layer: Layer, keep: Tensor) -> Any:
    if isinstance(out, Tensor):
        return _kept(out, layer, keep)
    first = first_tensor(out)
    assert first is not None
    return type(out)(_kept(first, layer, keep) if o is first else o for o in out)


def _kept(values: Tensor, layer: Layer, keep: Tensor) -> Tensor:
    axis = -1 if layer.window is None else values.ndim - len(layer.window.kernel) - 1
    shape = [1] * values.ndim
    shape[axis] = len(keep)
    return values * keep.to(values.dtype).view(shape)
