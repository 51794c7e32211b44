"""How far a unit's weights follow the directions in which its inputs vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.errors import InvalidValueError, MissingTargetsError, TooFewRowsError, nearest
from nodelens.metrics.formulas import (
    class_quotient,
    group_total,
    ratio,
    rayleigh_quotient,
    total_squares,
)
from nodelens.model import Layer
from nodelens.statistics import (
    ClassMoments,
    ClassPatchMoments,
    Moments,
    PatchMoments,
    PositionMoments,
    Read,
    RowNorms,
)

__all__ = [
    *("ConditionalRayleighQuotient", "DeltaAlignment", "DeltaRq", "NormalizedDeltaAlignment"),
    *("RayleighQuotient", "RqFast", "RqPatchwise", "RqSpatial"),
]

_SPATIAL = ("unfold", "patchwise", "pixels", "gap")
_CONSTANT = (
    r"and so do inputs that never vary with `regularization=0`; otherwise they give $1/D$, or "
    r"`regularization` with `relative=False`."
)
_OF_SUMMED_KERNEL = (
    r"\frac{v^\top S v + \lambda v^\top v}{v^\top v} \Big/ \bigl(\operatorname{tr} S + "
    r"\lambda D\bigr), \qquad v = \sum_{\text{taps } t} w_t"
)


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
        if not regularization >= 0:
            raise InvalidValueError(f"regularization is {regularization}, expected 0 or more")
        self.relative = relative
        self.regularization = regularization

    def score_units(self, score: str) -> tuple[str, int]:
        return ("1" if self.relative else "activation^2"), self.importance

    def _quotient(self, made: Moments, norms: RowNorms, seen: Moments, layer: Layer) -> Tensor:
        total = _total(seen.variance(), layer) if self.relative else None
        return rayleigh_quotient(
            made.variance(), norms.squared, total, norms.width, self.regularization
        )


class _Quotient(_Alignment):
    spatial = "unfold"

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
        totals = _total(layer.window.window_sums(padded), layer)
        squared = norms.squared[:, None]
        quotient = ratio(output + self.regularization * squared, squared)
        if self.relative:
            quotient = ratio(quotient, totals + self.regularization * norms.width)
        return ratio((quotient * totals).sum(1), totals.sum(1))


@Lens.register("rayleigh_quotient", aliases=("rq", "RQ"))
class RayleighQuotient(_Quotient):
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


@Lens.register("rq_patchwise")
class RqPatchwise(_Quotient):
    """Rayleigh quotient position by position of the map, `(channels,)`.

    `rayleigh_quotient` with `spatial="patchwise"`: every position has a covariance of its own, that
    of the patches there over samples, and positions count by their input variance. So what differs
    between positions, but not between samples, does not count. Maps must keep their size. Of a
    layer that is no convolution it is the plain quotient.
    """

    spatial = "patchwise"
    state = "O(C + D) a position"
    formula = r"\frac{\sum_p t_p\, q_p}{\sum_p t_p}, \qquad t_p = \operatorname{tr} S_p"
    where = (
        r"$q_p$ is the [Rayleigh quotient](rayleigh_quotient.md) with $S_p$, the covariance of "
        r"the patches at position $p$"
    )
    degenerate = "A row without weights, and inputs that never vary, score 0."


@Lens.register("rq_spatial")
class RqSpatial(_Quotient):
    """Rayleigh quotient of the kernel summed over its taps, on single pixels, `(channels,)`.

    `rayleigh_quotient` with `spatial="pixels"`: every pixel of the input map is a row. Of a layer
    that is no convolution it is the plain quotient.
    """

    spatial = "pixels"
    formula = _OF_SUMMED_KERNEL
    where = (
        r"$S$ is the covariance of the input's pixels, $\lambda$ is `regularization`, "
        r"$D$ counts input channels"
    )
    degenerate = "A kernel whose taps sum to zero scores 0, " + _CONSTANT


@Lens.register("rq_fast", aliases=("rq_gap",))
class RqFast(_Quotient):
    """Rayleigh quotient of the summed kernel on maps averaged over space, `(channels,)`.

    `rayleigh_quotient` with `spatial="gap"`: a sample is a row, so it is the cheapest. Of a layer
    that is no convolution it is the plain quotient.
    """

    spatial = "gap"
    formula = _OF_SUMMED_KERNEL
    where = (
        r"$S$ is the covariance of the input maps' means over space, $\lambda$ is "
        r"`regularization`, $D$ counts input channels"
    )
    degenerate = "A kernel whose taps sum to zero scores 0, " + _CONSTANT


class _ClassQuotient(_Alignment):
    state = "O(K (C + D))"
    cost = "K (C + D)"

    def reads(self, layer: Layer) -> dict[str, Read]:
        seen = Read("input", ClassPatchMoments, view="maps")
        return {
            "made": Read("output", ClassMoments),
            "seen": seen if layer.is_convolution else Read("input", ClassMoments),
            "weights": Read("weight", RowNorms),
        }

    def tally(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, int]:
        return {"small": int((statistics["made"].counts == 1).sum())}

    def told(self, tally: Mapping[str, int]) -> list[str]:
        small = tally.get("small", 0)
        return [f"classes with one row, which has no variance, left out: {small}"] if small else []

    def _conditional(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        made, seen, norms = statistics["made"], statistics["seen"], statistics["weights"]
        kept = made.counts > 1
        if not kept.any():
            raise TooFewRowsError(
                f"no class has two rows, expected at least one to score {self.name!r}"
            )
        counts = made.counts[kept]
        free = (counts - 1)[:, None]
        total = _total((seen.m2[kept] / free).mT, layer).mT if self.relative else None
        return class_quotient(
            counts, made.m2[kept] / free, norms.squared, total, norms.width, self.regularization
        )


@Lens.register("conditional_rayleigh_quotient", aliases=("cond_rq",))
class ConditionalRayleighQuotient(_ClassQuotient):
    """Rayleigh quotient within a class, mean over classes by their rows, `(channels,)`.

    How far a unit's weights follow what varies among inputs of one class. Both the quotient and,
    with `relative=True`, what it is relative to are those of one class. Classes of a single row
    have no variance: they are left out, and the result's notes say how many.
    """

    formula = r"\sum_c p_c\, q_c"
    where = (
        r"$q_c$ is the [Rayleigh quotient](rayleigh_quotient.md) of the rows of class $c$, "
        r"$p_c$ their share of all rows"
    )
    degenerate = (
        f"A row without weights scores 0, {_CONSTANT} A class whose inputs never vary counts with "
        "that. It is an error if no class has two rows."
    )

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._conditional(statistics, layer)


@Lens.register("delta_rq")
class DeltaRq(_ClassQuotient):
    """Rayleigh quotient of all rows minus that within a class, `(channels,)`.

    How much of what a unit follows tells classes apart: about 0 for labels that say nothing of the
    inputs, and 0 for a single class. With `relative=False` it is the variance between
    classes, so hardly ever negative; the relative one is negative where a unit follows what varies
    within classes. Both are of the rows that have a label.
    """

    formula = r"q - \sum_c p_c\, q_c"
    where = (
        r"$q$ is the [Rayleigh quotient](rayleigh_quotient.md) of all rows, $q_c$ that of class "
        r"$c$, $p_c$ the class's share of the rows"
    )
    degenerate = "A row without weights, and inputs that never vary, score 0."

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        made, seen, norms = statistics["made"], statistics["seen"], statistics["weights"]
        within = self._conditional(statistics, layer)
        variance, inputs = (
            total_squares(s.counts, s.mean, s.m2) / (s.rows - 1) for s in (made, seen)
        )
        total = _total(inputs, layer) if self.relative else None
        whole = rayleigh_quotient(variance, norms.squared, total, norms.width, self.regularization)
        return whole - within


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


@Lens.register("normalized_delta_alignment")
class NormalizedDeltaAlignment(DeltaAlignment):
    """Rayleigh quotient of what training changed over how far it did, `(channels,)`.

    That of W - W0 divided by the norm of the same row of W - W0, so it falls as one over the size
    of a change of given direction: high where little was changed, along what varies.
    """

    formula = r"\frac{q(\Delta w)}{\lVert \Delta w \rVert}, \qquad \Delta w = w - w_0"
    where = r"$q(\Delta w)$ is [delta_alignment](delta_alignment.md), $w_0$ the row before training"
    degenerate = (
        "A row that has not moved scores 0; where inputs never vary, what is left of the quotient, "
        r"$1/D$, is still divided by the norm."
    )

    def score_units(self, score: str) -> tuple[str, int]:
        return ("1/weight" if self.relative else "activation^2/weight"), self.importance

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return ratio(super().score(statistics, layer), statistics["weights"].squared.sqrt())


def _inputs_of(layer: Layer) -> Read:
    """What the weights of a layer see: its inputs, or the patches under its kernel."""
    if layer.is_convolution:
        return Read("input", PatchMoments, view="maps")
    return Read("input", Moments)


def _total(variance: Tensor, layer: Layer) -> Tensor:
    return group_total(variance, layer.channels, layer.groups)
