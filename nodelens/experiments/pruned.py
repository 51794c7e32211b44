"""Networks with part of their channels pruned: masks, probes and trained copies of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from nodelens.errors import NodeLensError
from nodelens.experiments.orders import Order, section_of
from nodelens.experiments.stage import Run
from nodelens.interventions import means
from nodelens.interventions.channels import Condition
from nodelens.model import ModelWrapper
from nodelens.pruning.finetune import finetune
from nodelens.pruning.units import condition_of

__all__ = ["Mask", "Pruner"]


@dataclass(frozen=True)
class Mask:
    """What an order leaves at an amount, `{layer: bool, True = kept}`."""

    keep: Mapping[str, Tensor]

    @property
    def silenced(self) -> int:
        """Return how many channels go."""
        return sum(int((~keep).sum()) for keep in self.keep.values())

    @property
    def channels(self) -> int:
        """Return how many channels there were."""
        return sum(keep.numel() for keep in self.keep.values())


class Pruner:
    """Prunes the network of a run by scores of its calibration rows; its weights stay."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.model = ModelWrapper(run.network)
        self.section = section_of(run.config)
        self.calibration = run.splits.batches(run.splits.calibration)
        self._scored: tuple[Any, dict[str, Tensor], dict[str, Any]] | None = None
        self._means: dict[str, Tensor] = {}

    def mask(self, order: Order, amount: float) -> Mask:
        """Return what the order leaves when `amount` goes; ConfigError where it cannot."""
        try:
            scores, budget = self._scores(order)
            return Mask(order.strategy.masks(self.model, scores, amount, **budget))
        except NodeLensError as error:
            where: tuple[str | int, ...] = ("pruning",)
            where += () if order.place is None else ("strategies", order.place)
            raise self.run.config.error(where, str(error)) from error

    def condition(self, mask: Mask) -> Condition:
        """Return the probe that silences what the mask leaves out."""
        found = condition_of(self.model, mask.keep)
        if self.section.value != "mean":
            return found
        sites = {name: found.site_of(name) for name in [*found.channels, *found.heads]}
        return replace(found, value=self._mean(sites))

    def tuned(self, mask: Mask) -> ModelWrapper:
        """Return a copy trained with the mask on training rows, its epoch chosen on validation."""
        options = section_of(self.run.config).fine_tuning
        assert options is not None, "only asked for where the section has fine_tuning"
        splits = self.run.splits
        found = finetune(
            self.model,
            DataLoader(splits.train, batch_size=options.batch_size, shuffle=True),
            splits.batches(splits.validation),
            masks=mask.keep,
            seed=self.run.config.experiment.seed,
            **options.model_dump(exclude={"batch_size"}),
        )
        return ModelWrapper(found.model)

    def _scores(self, order: Order) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return scores, and what the budget needs beside; those of the last order are kept."""
        key = (order.place, order.seed)
        if self._scored is None or self._scored[0] != key:
            layers = None if self.section.layers is None else list(self.section.layers)
            scores = order.strategy.scores(self.model, self.calibration, layers=layers)
            budget = order.strategy.budget_options(self.model, scores, self.calibration)
            self._scored = key, scores, budget
        return self._scored[1:]

    def _mean(self, where: Mapping[str, str]) -> dict[str, Tensor]:
        for site in ("input", "output"):
            missing = [n for n, s in where.items() if s == site and n not in self._means]
            if missing:
                self._means |= means(self.model, self.calibration, missing, site=site)
        return self._means
