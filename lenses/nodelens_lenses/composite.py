"""Weighted sums of other lenses' scores, each normalised within its layer first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.errors import InvalidValueError, NodeLensError, nearest
from nodelens.metrics import get_metric
from nodelens.metrics.formulas import NORMALISATIONS, normalised
from nodelens.model import Layer
from nodelens.statistics import Read

__all__ = ["AlignmentMinusRedundancy", "ClassInformativeScore", "CompositeImportance"]


class _Composite(MetricLens):
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
        self.options = {name: dict(given) for name, given in (options or {}).items()}
        _check_weights(self.weights, self.options)
        self._members = {
            name: _part(name, self.options.get(name, {}), self.name) for name in self.weights
        }
        vars(self)["minimum_rows"] = 1  # every part says how many its own statistics need

    def covers(self, layer: Layer) -> bool:
        return all(part.covers(layer) for part in self._members.values())

    def scores(self, name: str, model: ModelWrapper) -> bool:
        return all(part.scores(name, model) for part in self._members.values())

    def refusal(self, model: ModelWrapper) -> str | None:
        for name, part in self._members.items():
            if (reason := part.refusal(model)) is not None:
                return f"part {name!r}: {reason}"
        if super().refusal(model) is None:
            return None
        return f"no layer of it can be scored by all of {', '.join(self._members)}"

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the wrapped model once every part can score it, each given its own options."""
        for part in self._members.values():
            own = {k: v for k, v in kwargs.items() if k in part.prepare_options()}
            model = part.prepare(model, **own)
        others = {k: v for k, v in kwargs.items() if k not in self.prepare_options()}
        return super().prepare(model, **others)

    def prepare_options(self) -> set[str]:
        return {name for part in self._members.values() for name in part.prepare_options()}

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {
            f"{name}.{key}": read
            for name, part in self._members.items()
            for key, read in part.reads(layer).items()
        }

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

    def remarks(self, statistics: Mapping[str, Any], layer: Layer) -> list[str]:
        return [
            f"part {name!r}: {remark}"
            for name, part in self._members.items()
            for remark in part.remarks(_own(name, statistics), layer)
        ]

    def _scores_of(self, name: str, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        part, measured = self._members[name], _own(name, statistics)
        found = {read: measured[key] for key, read in part.reads(layer).items()}
        try:
            scores = part.finish({layer.name: {"layer": layer, **found}}).get(layer.name, {})
        except NodeLensError as error:
            error.message = error.message.removeprefix(f"layer {layer.name!r}: ")
            error.within(f"part {name!r}")
            raise
        if part.name not in scores:
            raise InvalidValueError(f"part {name!r} gives no score of this layer")
        return scores[part.name].to(torch.float64)


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


def _part(name: str, options: Mapping[str, Any], owner: str) -> MetricLens:
    try:
        part = get_metric(name, **options)
    except NodeLensError as error:
        error.within(f"part {name!r} of {owner}")
        raise
    except TypeError as missing:
        raise InvalidValueError(f"part {name!r} of {owner}: {missing}; give options=") from missing
    if not part.by_layer:
        raise InvalidValueError(
            f"part {name!r} of {owner} scores several layers together, expected a lens that scores "
            "each by itself"
        )
    return part


def _own(name: str, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of one part, by the names that it knows them under."""
    start = f"{name}."
    return {key[len(start) :]: s for key, s in statistics.items() if key.startswith(start)}


def _check_weights(weights: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if not weights:
        raise InvalidValueError("weights is empty, expected {lens name: weight}")
    for name, weight in weights.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight == 0:
            raise InvalidValueError(
                f"the weight of part {name!r} is {weight!r}, expected a number other than 0"
            )
    for name in options:
        if name not in weights:
            raise InvalidValueError(
                f"options are given for {name!r}{nearest(name, weights)}, which is no part; "
                f"the parts are {', '.join(weights)}"
            )
