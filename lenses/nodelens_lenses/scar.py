"""Scores of the units of feed-forward blocks, under the name of the block's down projection.

u is what the down projection takes in, one entry a unit, g the gradient of the summed loss there.
The blocks are found by structure, whatever the model family calls them. (SCAR: "Supernodes and
Halos", arXiv 2604.23475.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.model import Layer
from nodelens.statistics import ActivationGradient, Moments, Read

__all__ = [
    "ScarActivationPower",
    "ScarCurvature",
    "ScarLossProxy",
    "ScarLossProxyFactored",
    "ScarTaylor",
]


class _Scar(MetricLens):
    family = "scar"
    importance = +1
    state = "O(D)"
    cost = "D"
    where = "$u$ is what the down projection takes in, $g$ the gradient of the summed loss there"
    degenerate = "A unit that is never on, or that the loss does not feel, scores 0."
    paper = "Supernodes and Halos (SCAR), arXiv 2604.23475"

    def covers(self, layer: Layer) -> bool:
        return layer.in_ffn

    def scores(self, name: str, model: ModelWrapper) -> bool:
        if model.known_route() is None:
            # Only a pass shows the structure; until then any linear layer may end a block.
            return name in model.layers and not model.layers[name].is_convolution
        return super().scores(name, model)

    def refusal(self, model: ModelWrapper) -> str | None:
        if super().refusal(model) is None:
            return None
        return (
            "it has no feed-forward block: one or two layers that widen the same input, "
            "and one that brings it back"
        )

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"units": Read("input", ActivationGradient)}


@Lens.register("scar_activation_power")
class ScarActivationPower(_Scar):
    """Mean square of every unit of an FFN, E u^2, `(channels,)`, in squared activation units."""

    unit = "activation^2"
    formula = r"\tfrac1n \textstyle\sum_r u_r^2"
    where = "$u$ is what the down projection of the feed-forward block takes in"
    degenerate = "A unit that is never on scores 0."

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"units": Read("input", Moments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        power: Tensor = statistics["units"].mean_square()
        return power


@Lens.register("scar_taylor")
class ScarTaylor(_Scar):
    """First-order loss change of every unit of an FFN, E abs(u g), `(channels,)`, in loss units."""

    unit = "loss"
    formula = r"\tfrac1n \textstyle\sum_r \lvert u_r g_r \rvert"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        taylor: Tensor = statistics["units"].mean("absolute")
        return taylor


@Lens.register("scar_curvature")
class ScarCurvature(_Scar):
    """Mean squared gradient at every unit of an FFN, E g^2, `(channels,)`.

    In squared loss per squared activation: the diagonal of the empirical Fisher information.
    """

    unit = "loss^2 / activation^2"
    formula = r"\tfrac1n \textstyle\sum_r g_r^2"
    where = "$g$ is the gradient of the summed loss by $u$, what the down projection takes in"
    degenerate = "A unit that the loss does not feel scores 0."

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        curvature: Tensor = statistics["units"].mean("gradient_square")
        return curvature


@Lens.register("scar_loss_proxy")
class ScarLossProxy(_Scar):
    """Loss proxy of every unit of an FFN, 1/2 E (u g)^2, `(channels,)`, in squared loss units."""

    unit = "loss^2"
    formula = r"\tfrac12 \cdot \tfrac1n \textstyle\sum_r (u_r g_r)^2"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        square: Tensor = statistics["units"].mean("square")
        return square / 2


@Lens.register("scar_loss_proxy_factored")
class ScarLossProxyFactored(_Scar):
    """The loss proxy with u and g taken as independent, 1/2 E u^2 E g^2, `(channels,)`."""

    unit = "loss^2"
    formula = (
        r"\tfrac12 \Bigl(\tfrac1n \textstyle\sum_r u_r^2\Bigr) \Bigl(\tfrac1n "
        r"\textstyle\sum_r g_r^2\Bigr)"
    )

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        units = statistics["units"]
        power: Tensor = units.mean("value_square") * units.mean("gradient_square") / 2
        return power
