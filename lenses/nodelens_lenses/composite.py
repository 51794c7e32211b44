"""Weighted sums of other lenses' scores, each normalised within its layer first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from nodelens import Lens
from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics.formulas import NORMALISATIONS, normalised
from nodelens.metrics.parts import PartsLens
from nodelens.model import Layer

__all__ = ["AlignmentMinusRedundancy", "ClassInformativeScore", "CompositeImportance"]


class _Composite(PartsLens):
    """A weighted sum of the scores of other lenses, each normalised within its layer.

    `weights` are `{lens name: weight}`, with any metric lenses for parts; without them, those that
    the docstring names. `options` are `{lens name: {option: value}}`. `normalise` is "minmax",
    "rank" or "zscore".
    """

    family = "composite"
    unit = "1"
    importance = +1
    state = "C^2"
    cost = "C^2"
    minimum_rows = 2
    default: ClassVar[Mapping[str, float]] = {}
    """Weights of the parts, by lens name, unless others are given."""
    formula = r"\sum_p \alpha_p N(s_p)_i, \qquad N(s)_i = \frac{s_i - \min s}{\max s - \min s}"
    where = (
        r"$s_p$ are the scores of part $p$ in the layer and $\alpha_p$ its weight; with "
        '`normalise="rank"` $N$ is the rank from 0 to 1, ties averaged, with `"zscore"` '
        r"$(s_i - \bar s)$ over the standard deviation of $s$"
    )
    degenerate = (
        "A part that scores all channels of a layer alike, or its only channel, adds 0 (as a rank "
        "1/2 of its weight). What a dead or doubled channel scores follows from the parts."
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        weights: Mapping[str, float] | None = None,
        normalise: str = "minmax",
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if normalise not in NORMALISATIONS:
            raise InvalidValueError(
                f"normalise is {normalise!r}{nearest(normalise, NORMALISATIONS)}, "
                f"expected one of {', '.join(NORMALISATIONS)}"
            )
        self.weights = dict(self.default if weights is None else weights)
        self.normalise = normalise
        _check_weights(self.weights)
        self._with_parts(list(self.weights), options)

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        total: Tensor | None = None
        for name, weight in self.weights.items():
            term = weight * normalised(self._scores_of(name, statistics, layer), self.normalise)
            if total is not None and total.shape != term.shape:
                raise InvalidValueError(
                    f"part {name!r} gives {len(term)} scores and those before it {len(total)}: "
                    "parts must score the same channels"
                )
            total = term if total is None else total + term
        assert total is not None
        return total


@Lens.register("composite_importance", aliases=("composite", "combined_score"))
class CompositeImportance(_Composite):
    """Weighted sum of normalised scores, `(channels,)`: alignment, redundancy and synergy together.

    `weights` are `{lens name: weight}`, with any metric lenses for parts; without them,
    `rayleigh_quotient` 1, `average_redundancy` -1 and `gaussian_pid_synergy_mmi` 1. `options` are
    `{lens name: {option: value}}`. Every part is normalised within its layer as `normalise` says,
    "minmax", "rank" or "zscore". Weights count as they are written: a part of which a high score
    argues against a channel, such as redundancy, enters with a minus. One pass serves all parts.

    Layers are scored that every part can score, and parts have to score the same things: lenses of
    channels, or of an FFN's units, or of heads. A part that fails is an error that names it.
    """

    default: ClassVar[Mapping[str, float]] = {
        "rayleigh_quotient": 1.0,
        "average_redundancy": -1.0,
        "gaussian_pid_synergy_mmi": 1.0,
    }
    state = "C^2 + C T"
    minimum_rows = 3


@Lens.register("alignment_minus_redundancy", aliases=("rq_minus_r",))
class AlignmentMinusRedundancy(_Composite):
    """Normalised Rayleigh quotient minus normalised redundancy, `(channels,)`, in [-1, 1].

    A `composite_importance` of `rayleigh_quotient` with weight 1 and `average_redundancy` with -1.
    Needs no targets.
    """

    default: ClassVar[Mapping[str, float]] = {"rayleigh_quotient": 1.0, "average_redundancy": -1.0}


@Lens.register("class_informative_score", aliases=("class_info",))
class ClassInformativeScore(_Composite):
    """What a channel says about the class and how clearly it prefers one, `(channels,)`, in [0, 2].

    A `composite_importance` of `mi_about_class` and `class_selectivity`, each with weight 1. Needs
    class numbers as targets.
    """

    default: ClassVar[Mapping[str, float]] = {"mi_about_class": 1.0, "class_selectivity": 1.0}
    state = "K C"
    cost = "C"
    minimum_rows = 2


def _check_weights(weights: Mapping[str, Any]) -> None:
    if not weights:
        raise InvalidValueError("weights is empty, expected {lens name: weight}")
    for name, weight in weights.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight == 0:
            raise InvalidValueError(
                f"the weight of part {name!r} is {weight!r}, expected a number other than 0"
            )
