"""Metric lenses that are made of others: each part's reads under its name, each part's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, NodeLensError, nearest
from nodelens.metrics.lens import MetricLens
from nodelens.model.layers import Layer
from nodelens.model.wrapper import ModelWrapper
from nodelens.statistics.read import Read

__all__ = ["PartsLens"]


class PartsLens(MetricLens):
    """A lens that is worked out from the scores of other metric lenses, its parts, in one pass.

    Subclasses make the parts with `_with_parts` and take their scores with `_scores_of`. Layers are
    scored that every part can score.
    """

    def _with_parts(
        self, names: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None
    ) -> None:
        """Make the parts, each by its name with the options given for it."""
        self.options = {name: dict(given) for name, given in (options or {}).items()}
        for name in self.options:
            if name not in names:
                raise InvalidValueError(
                    f"options are given for {name!r}{nearest(name, names)}, which is no part; "
                    f"the parts are {', '.join(names)}"
                )
        self._members = {name: _part(name, self.options.get(name, {}), self.name) for name in names}
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

    def remarks(self, statistics: Mapping[str, Any], layer: Layer) -> list[str]:
        return [
            f"part {name!r}: {remark}"
            for name, part in self._members.items()
            for remark in part.remarks(_own(name, statistics), layer)
        ]

    def _scores_of(self, name: str, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        """The scores of one part, float64, from the statistics of all."""
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


def _part(name: str, options: Mapping[str, Any], owner: str) -> MetricLens:
    from nodelens.metrics import get_metric

    try:
        part = get_metric(name, **options)
    except NodeLensError as error:
        error.within(f"part {name!r} of {owner}")
        raise
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
