"""How far a unit's weights follow the directions in which its inputs vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.errors import InvalidValueError, MissingTargetsError, nearest
from nodelens.metrics.formulas import ratio, rayleigh_quotient
from nodelens.model import Layer
from nodelens.statistics import Moments, PatchMoments, PositionMoments, Read, RowNorms

__all__ = ["DeltaAlignment", "RayleighQuotient"]

_SPATIAL = ("unfold", "patchwise", "pixels", "gap")


class _Alignment(MetricLens):
    """A quotient of variances.

    `regularization` (reg) counts as variance of the inputs in every direction. `relative=True`
    divides by the total variance of the inputs, tr(S) + reg D, and leaves no unit.
    """

    family = "alignment"
    unit = "1"
    importance = +1
    state = "O(C + D)"
    minimum_rows = 2

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        relative: bool = True,
        regularization: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if regularization < 0:
            raise InvalidValueError(f"regularization is {regularization}, expected 0 or more")
        self.relative = relative
        self.regularization = regularization

    def score_units(self, score: str) -> tuple[str, int]:
        return ("1" if self.relative else "activation^2"), self.importance

    def _quotient(self, made: Moments, norms: RowNorms, seen: Moments, layer: Layer) -> Tensor:
        total = group_total(seen.variance(), layer) if self.relative else None
        return rayleigh_quotient(
            made.variance(), norms.squared, total, norms.width, self.regularization
        )


@Lens.register("rayleigh_quotient", aliases=("rq", "RQ"))
class RayleighQuotient(_Alignment):
    """Variance of a unit's output per squared weight norm, `(channels,)`.

    (w' S w + reg w'w) / w'w with S the covariance of the inputs; `relative=True` divides by
    tr(S) + reg D and has no unit. w' S w is the variance of the unit's own output and tr(S) the sum
    of its inputs' variances, so no covariance matrix is kept. A unit without weights scores 0.

    For convolutions `spatial` says what an input is: "unfold" the patch under the kernel, every
    position a row; "patchwise" the same position by position, averaged with each position's input
    variance as its weight; "pixels" one pixel, with the kernel summed over its taps; "gap" the map
    averaged over space, with the summed kernel.
    """

    cost = "C + D; C D for pixels and gap"
    formula = (
        r"\frac{w^\top S w + \lambda w^\top w}{w^\top w} \Big/ \bigl(\operatorname{tr} S + "
        r"\lambda D\bigr), \qquad w^\top S w = \operatorname{Var}(y)"
    )
    where = (
        r"$S$ is the covariance of the inputs (im2col patches for a convolution), $\lambda$ "
        "is `regularization`, $D$ the length of $w$; `relative=False` leaves the second "
        "factor out"
    )
    degenerate = (
        "A unit without weights scores 0. When the inputs do not vary, every unit scores "
        "$1/D$, or 0 with `regularization=0`."
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        relative: bool = True,
        regularization: float = 1e-6,
        spatial: str = "unfold",
    ) -> None:
        super().__init__(pattern, layers=layers, relative=relative, regularization=regularization)
        if spatial not in _SPATIAL:
            raise InvalidValueError(
                f"spatial is {spatial!r}{nearest(spatial, _SPATIAL)}, "
                f"expected one of {', '.join(_SPATIAL)}"
            )
        self.spatial = spatial

    def reads(self, layer: Layer) -> dict[str, Read]:
        spatial = self.spatial if layer.is_convolution else "unfold"
        if spatial == "patchwise":
            made = Read("output", PositionMoments, view="maps")
            seen = Read("input", PositionMoments, view="maps")
        elif spatial == "pixels":
            made, seen = Read("input", Moments, view="tap_sum"), Read("input", Moments)
        elif spatial == "gap":
            made = Read("input", Moments, view="pooled_tap_sum")
            seen = Read("input", Moments, view="pooled")
        else:
            made = Read("output", Moments)
            seen = _inputs_of(layer)
        weights = "tap_sum" if spatial in ("pixels", "gap") else "rows"
        return {"made": made, "seen": seen, "weights": Read("weight", RowNorms, view=weights)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        made, seen, norms = statistics["made"], statistics["seen"], statistics["weights"]
        if isinstance(made, PositionMoments):
            return self._by_position(made, norms, seen, layer)
        return self._quotient(made, norms, seen, layer)

    def _by_position(
        self, made: PositionMoments, norms: RowNorms, seen: PositionMoments, layer: Layer
    ) -> Tensor:
        """Mean over positions of the quotient there, weighted by tr(S) there."""
        assert layer.window is not None
        output = made.variance().view(layer.channels, -1)
        padded = layer.window.padded(seen.maps(seen.variance())[None])[0]
        totals = group_total(layer.window.window_sums(padded), layer)
        squared = norms.squared[:, None]
        quotient = ratio(output + self.regularization * squared, squared)
        if self.relative:
            quotient = ratio(quotient, totals + self.regularization * norms.width)
        return ratio((quotient * totals).sum(1), totals.sum(1))


@Lens.register("delta_alignment")
class DeltaAlignment(_Alignment):
    """Rayleigh quotient of what training changed, `(channels,)`: that of W - W0.

    W0 comes from `initial_weights=`, a state dict (or `{layer: weight}`) from before training,
    given to `prepare`, `analyse` or `run`; without it this is an error. A row that has not moved
    scores 0.
    """

    cost = "C D"
    formula = (
        r"\frac{\Delta w^\top S \Delta w + \lambda \Delta w^\top \Delta w}{\Delta w^\top "
        r"\Delta w} \Big/ \bigl(\operatorname{tr} S + \lambda D\bigr), \qquad \Delta w = w - "
        "w_0"
    )
    where = (
        r"$S$ is the covariance of the inputs, $\lambda$ is `regularization`, $w_0$ the "
        "weights before training"
    )
    degenerate = "A row that has not moved scores 0."

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens, and weights a little off the model's as its initial weights."""
        generator = torch.Generator().manual_seed(0)
        initial = {
            name: tensor.detach() + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor)
            for name, tensor in model.module.named_parameters()
        }
        return cls(), {"initial_weights": initial}

    def prepare(
        self, model: Any, *, initial_weights: Mapping[str, Tensor] | None = None, **kwargs: Any
    ) -> ModelWrapper:
        """Return the wrapped model, which from now on knows its initial weights."""
        wrapper = super().prepare(model, **kwargs)
        if initial_weights is not None:
            if not isinstance(initial_weights, Mapping):
                raise MissingTargetsError(
                    f"initial_weights is a {type(initial_weights).__name__}, "
                    "expected a state dict or {layer name: weight}"
                )
            wrapper.references["initial_weights"] = initial_weights
        if "initial_weights" not in wrapper.references:
            raise MissingTargetsError(
                f"lens {self.name!r} needs initial_weights=, a state dict from before training"
            )
        return wrapper

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {
            "made": Read("input", Moments, view="change"),
            "seen": _inputs_of(layer),
            "weights": Read("weight", RowNorms, view="change"),
        }

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._quotient(statistics["made"], statistics["weights"], statistics["seen"], layer)


def _inputs_of(layer: Layer) -> Read:
    """What the weights of a layer see: its inputs, or the patches under its kernel."""
    if layer.is_convolution:
        return Read("input", PatchMoments, view="maps")
    return Read("input", Moments)


def group_total(variance: Tensor, layer: Layer) -> Tensor:
    """Return the total input variance each channel sees, `(channels, ...)`: that of its group."""
    groups = 1 if layer.window is None else layer.window.groups
    totals = variance.unflatten(0, (groups, -1)).sum(1)
    spread: Tensor = totals.repeat_interleave(layer.channels // groups, dim=0)
    return spread
