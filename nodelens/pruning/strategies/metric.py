"""Any metric lens as a pruning strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from nodelens.errors import InvalidValueError
from nodelens.metrics import get_metric
from nodelens.model import ModelWrapper
from nodelens.pruning.given import Run, Tensors
from nodelens.pruning.measured import lens_alone, lens_scores
from nodelens.pruning.strategy import Strategy

__all__ = ["MetricStrategy"]


class MetricStrategy(Strategy):
    """The scores of the metric lens `metric`, with `metric_options` for it.

    Negated where a high score argues against a channel (importance -1). Where it argues neither way
    (importance 0) high scores are kept: `direction=-1` keeps low ones.
    """

    unit = "channels"
    needs = ("inputs",)
    options: ClassVar[Mapping[str, Any]] = {
        "metric": "rayleigh_quotient",
        "metric_options": None,
        "direction": None,
    }
    metric: str
    metric_options: Mapping[str, Any] | None
    direction: int | None

    def _check(self) -> None:
        if not self.name:
            vars(self)["name"] = self.metric
        super()._check()
        if self.direction not in (None, 1, -1):
            raise InvalidValueError(f"direction is {self.direction!r}, expected 1 or -1")
        self.lens = get_metric(self.metric, **(self.metric_options or {}))

    @property
    def sign(self) -> int:
        """Return 1 where high scores are kept, -1 where low ones are."""
        if self.direction is not None:
            return self.direction
        return -1 if self.lens.importance < 0 else 1

    def _score(self, layer: nn.Module, given: Tensors) -> Tensor:
        """Return the lens's score of the channels; `gradients` are those of the site it reads."""
        return self.sign * lens_alone(self.lens, layer, given)

    def _batches(self, model: ModelWrapper, batches: Iterable[Any] | None) -> Iterable[Any]:
        if batches is None and self.lens.constants(model) is not None:
            return []
        return super()._batches(model, batches)

    def _scores(self, run: Run) -> dict[str, Tensor]:
        found = lens_scores(self.lens, run.model, run.units, run.batches, **run.options)
        return {name: self.sign * score for name, score in found.items()}
