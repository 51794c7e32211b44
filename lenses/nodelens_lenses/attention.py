"""Scores of attention heads, under the name of the attention's output projection.

x is what the output projection takes in and g the gradient of the summed loss there, cut into one
slice a head. The definitions are those of the units of feed-forward blocks, with a head's slice in
the place of a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.errors import InvalidValueError, nearest
from nodelens.model import Layer
from nodelens.model.attention import functional_projections
from nodelens.statistics import ActivationGradient, Moments, Read

__all__ = ["AttnActivationPower", "AttnGradientPower", "AttnLossProxy", "AttnTaylor"]

_PER = ("head", "key_value_head")
_WHERE = (
    r"$x_{rh}$ is the slice of head $h$ of what the output projection takes in, "
    r"$g_{rh}$ the gradient of the summed loss there"
)
_SCAR = "after Supernodes and Halos (SCAR), arXiv 2604.23475, which scores the units of FFNs so"


class _Attention(MetricLens):
    """Scores of the heads of the queries, which is what an output projection takes in.

    The number of `heads` comes from the model (its attention modules, else its configuration), or
    is given: a number, for the layers chosen with `layers` or `pattern`, or `{layer: number}`. With
    `per="key_value_head"` query heads that share a key and value are one slice, as they have to go
    together.
    """

    family = "attention"
    importance = +1
    state = "O(D)"
    cost = "D"
    where = _WHERE

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        heads: int | Mapping[str, int] | None = None,
        per: str = "head",
    ) -> None:
        super().__init__(pattern, layers=layers)
        if per not in _PER:
            raise InvalidValueError(
                f"per is {per!r}{nearest(per, _PER)}, expected one of {', '.join(_PER)}"
            )
        if per != "head" and heads is not None:
            raise InvalidValueError(
                f"per={per!r} goes by what the model says of itself: leave heads= out, or give the "
                "number of key-value heads as heads="
            )
        self.heads = dict(heads) if isinstance(heads, Mapping) else heads
        self.per = per
        _check_counts(self.heads)

    def covers(self, layer: Layer) -> bool:
        if layer.is_convolution:
            return False
        if isinstance(self.heads, int) and (self.pattern is not None or self.layers is not None):
            return True
        return layer.heads > 0 if not isinstance(self.heads, dict) else layer.name in self.heads

    def scores(self, name: str, model: ModelWrapper) -> bool:
        return name not in _closed(model) and super().scores(name, model)

    def refusal(self, model: ModelWrapper) -> str | None:
        closed = _closed(model)
        named = self.heads if isinstance(self.heads, dict) else {}
        asked = [*(self.layers or ()), *named]
        hidden = next((name for name in asked if name in closed), None)
        unknown = [name for name in named if name not in model.layers]
        if unknown:
            return f"it has no layer {unknown[0]!r}{nearest(unknown[0], model.layers)}"
        if hidden is None and super().refusal(model) is None:
            return None
        if closed:
            return (
                f"layer {hidden or closed[0]!r} is the output projection of an "
                "nn.MultiheadAttention, which torch computes without calling the layer: "
                "what its heads give cannot be read"
            )
        return (
            "it has no attention of which the output projection and the number of heads can be "
            "told: name them with heads={layer: number of heads}"
        )

    def left_out(self, model: ModelWrapper) -> list[str]:
        everything = self.pattern is None and self.layers is None
        closed = _closed(model) if everything and not isinstance(self.heads, dict) else []
        return [*super().left_out(model), *closed]

    def reads(self, layer: Layer) -> dict[str, Read]:
        groups = self._count(layer) or 1
        return {"heads": Read("input", ActivationGradient, {"groups": groups})}

    def _count(self, layer: Layer) -> int:
        """The number of slices of a layer's input; 0 where nothing tells it."""
        if self.per == "key_value_head":
            return layer.key_value_heads
        given = self.heads.get(layer.name) if isinstance(self.heads, dict) else self.heads
        heads = given or layer.heads
        if heads and layer.inputs % heads:
            raise InvalidValueError(
                f"layer {layer.name!r} takes in {layer.inputs} values, which do not divide into "
                f"{heads} heads"
            )
        return heads

    def _known(self, layer: Layer) -> int:
        if not (count := self._count(layer)):
            raise InvalidValueError("the number of heads is not known: give heads=")
        return count

    def _mean(self, statistics: Mapping[str, Any], layer: Layer, name: str) -> Tensor:
        self._known(layer)
        mean: Tensor = statistics["heads"].mean(name)
        return mean


@Lens.register("attn_activation_power")
class AttnActivationPower(_Attention):
    """Mean squared length of what every head gives, E ||x_h||^2, `(heads,)`.

    In squared activation units. Heads are those of the queries, which is what an output projection
    takes in. Their number comes from the model (its attention modules, else its configuration), or
    is given: `heads` is a number, for the layers chosen with `layers` or `pattern`, or
    `{layer: number}`. With `per="key_value_head"` query heads that share a key and value are one
    slice, as they have to go together.
    """

    unit = "activation^2"
    formula = r"\tfrac1n \textstyle\sum_r \lVert x_{rh} \rVert^2"
    where = r"$x_{rh}$ is the slice of head $h$ of what the output projection takes in"
    degenerate = "A head whose values are all zero scores 0; a copy scores as its original does."
    paper = _SCAR

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"values": Read("input", Moments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        power = statistics["values"].mean_square()
        heads: Tensor = power.unflatten(0, (self._known(layer), -1)).sum(1)
        return heads


@Lens.register("attn_gradient_power")
class AttnGradientPower(_Attention):
    """Mean squared length of the gradient at every head, E ||g_h||^2, `(heads,)`.

    In squared loss per squared activation. Options as for `attn_activation_power`.
    """

    unit = "loss^2 / activation^2"
    formula = r"\tfrac1n \textstyle\sum_r \lVert g_{rh} \rVert^2"
    degenerate = (
        "A head that the loss does not feel scores 0; a silent one scores by what the loss would "
        "feel of it."
    )
    paper = _SCAR

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._mean(statistics, layer, "gradient_square")


@Lens.register("attn_taylor")
class AttnTaylor(_Attention):
    """First-order change of the loss when a head goes, E abs(x_h . g_h), `(heads,)`.

    In units of the loss. Options as for `attn_activation_power`.
    """

    unit = "loss"
    formula = r"\tfrac1n \textstyle\sum_r \lvert x_{rh} \cdot g_{rh} \rvert"
    degenerate = "A head whose values are all zero, and one that the loss does not feel, score 0."
    paper = "Michel, Levy and Neubig (2019), Are sixteen heads really better than one?, NeurIPS"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._mean(statistics, layer, "absolute")


@Lens.register("attn_loss_proxy")
class AttnLossProxy(_Attention):
    """Loss proxy of every head, 1/2 E (x_h . g_h)^2, `(heads,)`, in squared loss units.

    Options as for `attn_activation_power`.
    """

    unit = "loss^2"
    formula = r"\tfrac1{2n} \textstyle\sum_r (x_{rh} \cdot g_{rh})^2"
    degenerate = "A head whose values are all zero, and one that the loss does not feel, score 0."
    paper = _SCAR

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._mean(statistics, layer, "square") / 2


def _closed(model: ModelWrapper) -> list[str]:
    return functional_projections({name: model.torch_module(name) for name in model.names})


def _check_counts(heads: int | dict[str, int] | None) -> None:
    counts = [heads] if not isinstance(heads, dict) else list(heads.values())
    for count in counts:
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise InvalidValueError(f"heads is {heads!r}, expected a number or {{layer: number}}")
        if count is not None and count < 1:
            raise InvalidValueError(f"heads is {heads!r}, expected 1 or more")
