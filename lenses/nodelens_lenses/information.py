"""What a channel says about something else, in nats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.metrics import targets
from nodelens.metrics.formulas import explained_variance, gaussian_information, ratio
from nodelens.metrics.rows import full_rows
from nodelens.model import Layer
from nodelens.statistics import CoMoments, CrossMoments, Read, Weights

__all__ = ["MutualInformationGaussian"]

_REFERENCES = ("targets", "pc1")


@Lens.register("mutual_information_gaussian", aliases=("mi_gaussian", "mutual_information"))
class MutualInformationGaussian(MetricLens):
    """Gaussian mutual information of every channel with a target, `(channels,)`, in nats.

    -1/2 log(1 - R^2), R^2 the squared (multiple) correlation with numeric targets or with one-hot
    classes. With `reference="pc1"` the target is the first principal component of the layer's own
    inputs, which needs no targets but a D x D state. `target` takes a target of the model's own
    instead: "correct_logit", "logit_margin" (correct minus best other) or "logit_pc1", the first
    principal component of the logits. rho is clamped to 1 - `eps`; a constant channel scores 0
    (Cover and Thomas 2006).
    """

    family = "information"
    unit = "nat"
    importance = +1
    state = "O(C T); D^2 for pc1"
    minimum_rows = 2
    cost = "C T; D^2 for pc1"
    formula = r"-\tfrac12 \log\bigl(1 - R_i^2\bigr)"
    where = (
        "$R_i^2$ is the squared multiple correlation of channel $i$ with the targets, "
        r"one-hot for classes, clamped to $(1 - \varepsilon)^2$"
    )
    degenerate = "A constant channel scores 0."
    paper = "Cover and Thomas (2006), Elements of Information Theory, ch. 8"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        reference: str = "targets",
        target: str = "targets",
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if reference not in _REFERENCES:
            raise InvalidValueError(
                f"reference is {reference!r}, expected one of {', '.join(_REFERENCES)}"
            )
        self.reference = reference
        self.target = targets.checked(target)
        if reference == "pc1" and target != "targets":
            raise InvalidValueError(f"target is {target!r}, which reference='pc1' does not look at")
        self.eps = eps

    def reads(self, layer: Layer) -> dict[str, Read]:
        if self.reference == "targets":
            return {"targets": targets.about(self.target, CrossMoments)}
        return {
            "inputs": Read("input", CoMoments, view="patches"),
            "weights": Read("weight", Weights),
        }

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        if self.reference == "targets":
            seen = targets.chosen(statistics["targets"], self.target)
            explained = explained_variance(seen.cross, seen.m2, seen.target_m2)
        else:
            rows = full_rows(statistics["weights"].rows.double(), layer)
            explained = _explained_by_first_component(rows, statistics["inputs"].m2)
        return gaussian_information(explained, self.eps)


def _explained_by_first_component(rows: Tensor, m2: Tensor) -> Tensor:
    """Squared correlation of w'x with v'x, v the leading eigenvector of the inputs' covariance."""
    values, vectors = torch.linalg.eigh(m2)
    along = (rows @ vectors[:, -1]).square() * values[-1]
    explained: Tensor = ratio(along, ((rows @ m2) * rows).sum(1)).clamp_(0, 1)
    return explained
