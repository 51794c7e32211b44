"""Whose predictions suffer when a channel goes: one class's, or everyone's?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nodelens import Lens, ModelWrapper
from nodelens.analysis.causal import CausalResult, ClassProfile
from nodelens.analysis.causal.lens import EstimatingLens
from nodelens.errors import MissingTargetsError
from nodelens.interventions import silenced_outputs
from nodelens.model.loss import IGNORED, finite_prediction
from nodelens.progress import announce
from nodelens.statistics import Mean

__all__ = ["ClassSelectivityProfileLens"]


@Lens.register("class_selectivity_profile")
class ClassSelectivityProfileLens(EstimatingLens):
    """How far what silencing a channel costs falls on one class, a mean over channels, in [0, 1].

    `channels` are `{layer: channels}`, silenced one by one. Chance is the mean over `draws` in
    which every class's changes are dealt anew to channels. `resamples` and `seed` are of the
    bootstrap over channels; `site` and `value` are as for `ablation`. The loss is cross-entropy;
    of a language model, classes are tokens.

    Scores stand under "model", each `(1,)`, with `_low` and `_high`: `selectivity`, `control`, that
    of chance, and the `gap` between both. `concluded` gives the loss change of every class by
    channel.
    """

    needs = ("targets",)
    unitless = ("selectivity", "control", "gap")
    formula = (
        r"\operatorname{sel}_i = \frac{\max_k \Delta_{ik} - \bar\Delta_i}"
        r"{\lvert \max_k \Delta_{ik} \rvert + \lvert \bar\Delta_i \rvert}"
    )
    where = (
        r"$\Delta_{ik}$ is the rise in the loss of class $k$ with channel $i$ silenced, "
        r"$\bar\Delta_i$ its mean over the classes that suffer less"
    )
    degenerate = (
        "A channel from which no class suffers has selectivity 0; changes below the rounding of a "
        "float32 loss count as none."
    )
    exempt = dict.fromkeys(
        ("split_invariance", "half_precision"),
        "a quotient of small differences of float32 losses keeps the rounding of all of them",
    )

    def __init__(
        self,
        channels: Mapping[str, Sequence[int]],
        *,
        draws: int = 200,
        resamples: int = 1000,
        seed: int = 0,
        site: str = "output",
        value: Any = "zero",
    ) -> None:
        super().__init__()
        self.channels, self.draws, self.resamples = channels, draws, resamples
        self.seed, self.site, self.value = seed, site, value
        self.check()

    def check(self) -> ClassProfile:
        """Return the lesions, one a channel."""
        return ClassProfile(
            self.channels, draws=self.draws, resamples=self.resamples, seed=self.seed
        )

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the wrapped model once every channel named is known to exist."""
        wrapper = super().prepare(model, **kwargs)
        self.check_lesions(wrapper, self.check().lesions)
        return wrapper

    def _lesions(self) -> list[Any]:
        check = self.check()
        announce(f"lens {self.name!r}: {check.evaluations} passes a batch")
        return check.lesions

    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> dict[str, Any]:
        return {"outputs": model.nnsight.output}

    def _conclude(self, found: list[Any], stream: Any, batch: Any) -> dict[str, dict[Any, Any]]:
        model: ModelWrapper = stream.model
        classes, sums = _by_class(found[0]["outputs"], batch, model)
        told = [sums]
        for which in stream.once("lesions", self._lesions):
            channels = {layer: list(chosen) for layer, chosen in which}
            outputs = silenced_outputs(model, batch, channels, site=self.site, value=self.value)
            told.append(_by_class(outputs, batch, model)[1])
        rows = zip(classes.items(), torch.stack(told, 1), strict=True)
        return {"model": {f"class {k}": Mean(count, losses) for (k, count), losses in rows}}

    def concluded(self, statistics: Any) -> CausalResult:
        found = statistics["model"]
        losses = {int(name.split()[1]): mean.mean().cpu().numpy() for name, mean in found.items()}
        return self.check().conclude(losses)

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens on two channels of a first layer."""
        route = model.known_route()
        names = [n for n in model.layers if route is None or route.reached(n)]
        return cls({names[0]: [0, 1]}, draws=2, resamples=20), {}


def _by_class(outputs: Any, batch: Any, model: ModelWrapper) -> tuple[dict[int, int], Tensor]:
    """Return how many rows each class has, and its summed loss, `(classes,)`."""
    told = finite_prediction(outputs, batch, model.module, None)
    if told.logits is None or told.targets is None:
        raise MissingTargetsError("a profile of classes needs class numbers as targets")
    targets = told.targets.long()
    counted = targets != IGNORED
    losses = cross_entropy(told.logits.double(), targets, reduction="none", ignore_index=IGNORED)
    numbers, place, counts = targets[counted].unique(return_inverse=True, return_counts=True)
    sums = losses.new_zeros(len(numbers)).index_add(0, place, losses[counted].detach())
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True)), sums
