"""A causal check as a lens: its lesions measured batch by batch, their losses merged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens.analysis.causal.check import CausalCheck, CausalResult
from nodelens.analysis.causal.lesions import INTACT, Damage, Lesion
from nodelens.errors import InvalidValueError
from nodelens.interventions import channel_indices, known_layers, silenced_outputs
from nodelens.lens import Lens
from nodelens.model.loss import finite_prediction
from nodelens.model.wrapper import ModelWrapper
from nodelens.progress import announce
from nodelens.statistics import Mean

__all__ = ["CausalLens", "EstimatingLens"]


class EstimatingLens(Lens):
    """Base of lenses whose result are estimates with intervals, under "model"."""

    edits = True
    family = "intervention"
    site = "output"
    unitless: ClassVar[tuple[str, ...]] = ("spearman", "top_recall", "p", "interaction_p")
    """Estimates that are not in the loss's unit."""

    @abstractmethod
    def concluded(self, statistics: Any) -> CausalResult:
        """Return the whole result from an aggregator's statistics."""

    def finish(self, statistics: Any) -> dict[str, dict[str, Tensor]]:
        """Return every estimate under "model", each `(1,)`, with `_low` and `_high`."""
        scores: dict[str, Tensor] = {}
        for name, found in self.concluded(statistics).estimates.items():
            ends = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            scores |= {key: torch.tensor([value]).double() for key, value in ends.items()}
        return {"model": scores}

    def check_lesions(self, wrapper: ModelWrapper, lesions: Sequence[Lesion]) -> None:
        """Raise LayerNotFoundError or InvalidValueError for what the model has not."""
        for which in lesions:
            for name in known_layers(wrapper, dict(which)):
                layer = wrapper.layers[name]
                width = layer.channels if self.site == "output" else layer.inputs
                channel_indices(dict(which)[name], width, name)

    def score_units(self, score: str) -> tuple[str, int]:
        name = score.removesuffix("_low").removesuffix("_high").partition(".")[0]
        return ("1" if name in self.unitless else "loss"), 0


class CausalLens(EstimatingLens):
    """Base of the checks: every batch is passed intact, and once under each lesion.

    What is kept is the summed loss of every lesion, so that streams merge exactly.
    """

    needs = ("targets",)
    loss: Any = None
    seed = 0
    degenerate = (
        "Changes below the rounding of a float32 loss count as equal; a score that is constant "
        "correlates by 0."
    )

    @abstractmethod
    def check(self) -> CausalCheck:
        """Return the check, with all its lesions."""

    @property
    def evaluations(self) -> int:
        """Return how many passes a batch takes, the intact one included."""
        return self.check().evaluations

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the wrapped model once every layer and channel named is known to exist."""
        wrapper, check = super().prepare(model, **kwargs), self.check()
        check.check_on(wrapper, self.site)
        self.check_lesions(wrapper, check.lesions)
        return wrapper

    def _lesions(self, stream: Any) -> list[Any]:
        def make() -> list[Any]:
            announce(f"lens {self.name!r}: {self.evaluations} passes a batch")
            return list(_each(self.check()))

        lesions: list[Any] = stream.once("lesions", make)
        return lesions

    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> dict[str, Any]:
        return {"outputs": model.nnsight.output}

    def _conclude(self, found: list[Any], stream: Any, batch: Any) -> dict[str, dict[Any, Any]]:
        model = stream.model
        told = [self._told(found[0]["outputs"], batch, model)]
        for which in self._lesions(stream):
            channels = {layer: list(chosen) for layer, chosen in which}
            outputs = silenced_outputs(model, batch, channels, site=self.site)
            told.append(self._told(outputs, batch, model))
        losses = torch.stack([one.loss.detach().double().reshape(()) for one in told])
        measured = {"losses": Mean(told[0].terms, losses)}
        if all(one.correct is not None for one in told):
            right = [one.correct.sum().double() for one in told]
            measured["right"] = Mean(told[0].terms, torch.stack(right))
        return {"model": measured}

    def _told(self, outputs: Any, batch: Any, model: ModelWrapper) -> Any:
        return finite_prediction(outputs, batch, model.module, self.loss)

    def concluded(self, statistics: Any) -> CausalResult:
        """Return the whole result of the check from an aggregator's statistics."""
        check, found = self.check(), statistics["model"]
        if not found["losses"].rows:
            raise InvalidValueError("nothing was predicted, expected at least one row with targets")
        keys = [INTACT, *_each(check)]
        totals = {name: s.total.cpu().numpy()[:, None] for name, s in found.items()}
        losses = dict(zip(keys, totals["losses"], strict=True))
        right = dict(zip(keys, totals["right"], strict=True)) if "right" in totals else None
        rows = torch.tensor([float(found["losses"].rows)], dtype=torch.float64).numpy()
        return check.conclude(Damage(losses, right, rows))


def _each(check: CausalCheck) -> list[Any]:
    """Every lesion once, in order."""
    return [which for which in dict.fromkeys(check.lesions) if which != INTACT]
