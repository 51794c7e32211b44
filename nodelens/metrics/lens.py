"""Metric lenses: declarations of what is read at a layer, and how it becomes a score."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens.errors import MergeError, NodeLensError, NonFiniteError, ShapeError, TooFewRowsError
from nodelens.model.gather import Measured
from nodelens.model.layers import Layer
from nodelens.model.selection import select
from nodelens.model.wrapper import ModelWrapper
from nodelens.plan import Planned
from nodelens.plan.packing import Remarks
from nodelens.reading import ReadingLens, followed, located
from nodelens.statistics import Statistic
from nodelens.statistics.read import Read, serving

__all__ = ["MetricLens"]


class MetricLens(Planned):
    """A lens that gives every channel of a layer a number.

    Subclasses say what they read (`reads`) and how merged statistics become a score (`score`);
    the same code scores plain tensors (`compute`).
    """

    state: ClassVar[str] = "O(C)"
    minimum_rows: ClassVar[int] = 1
    by_block: ClassVar[bool] = False
    """Whether `score` also takes a block of channels (of pairwise statistics), and scores those.

    A layer number of a block is its share of the layer's: those of all blocks are added up.
    """

    @abstractmethod
    def reads(self, layer: Layer) -> dict[str, Read]:
        """Return what is to be measured at a layer, by the names `score` knows it under."""

    @abstractmethod
    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor | dict[str, Tensor]:
        """Return the score of every channel, `(channels,)`, or several by name.

        A number of the layer as a whole has shape `()`.
        """

    def covers(self, layer: Layer) -> bool:
        """Return whether the lens scores this layer."""
        return True

    def remarks(self, statistics: Mapping[str, Any], layer: Layer) -> list[str]:
        """Return what a reader of the scores must know: clamped pairs, sampled partners."""
        return self.told(self.tally(statistics, layer))

    def tally(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, int]:
        """Return what is counted for the remarks: numbers that add up over blocks of channels."""
        return {}

    def told(self, tally: Mapping[str, int]) -> list[str]:
        """Return the remarks that a tally gives rise to."""
        return []

    def scores(self, name: str, model: ModelWrapper) -> bool:
        """Return whether a module can be scored, before any batch is seen."""
        if name not in model.layers or not self.covers(layer := located(model, name)):
            return False
        return all(followed(model, name, read) for read in self.reads(layer).values())

    def finish(self, statistics: Measured) -> dict[str, dict[str, Tensor]]:
        """Return `{layer: {score: (channels,) or ()}}` from merged statistics; needs no model."""
        return {name: self._scored(name, statistics[name]) for name in self._mine(statistics)}

    def notes(self, statistics: Measured) -> list[str]:
        """Return the remarks on all layers."""
        return [
            f"{self.name}, layer {name!r}: {remark}"
            for name in self._mine(statistics)
            for remark in self.remarks(self._named(statistics[name]), _layer(statistics[name]))
        ]

    @property
    def by_layer(self) -> bool:
        kind, reading = type(self), ReadingLens
        own = kind.finish is not MetricLens.finish or kind.wanted is not reading.wanted
        return not (own or self.edits or kind._intervene is not reading._intervene)

    def score_part(
        self, found: Mapping[Any, Statistic], block: tuple[int, int] | None
    ) -> tuple[dict[str, Tensor], Remarks]:
        """Return the scores of a layer, or of a block of its channels, and what to know of them."""
        layer = _layer(found)
        scores = self._scored(layer.name, found, block)
        named = self._named(found, block)
        return scores, self.remarks(named, layer) if block is None else self.tally(named, layer)

    def remark_on(self, layer: str, remarks: Sequence[Remarks]) -> list[str]:
        """Return the notes on a layer, from what `score_part` said of its blocks."""
        tally: Counter[str] = Counter()
        said: list[str] = []
        for remark in remarks:
            if isinstance(remark, list):
                said += remark
            else:
                tally.update(remark)
        told = self.told(tally) if len(remarks) > 1 or not isinstance(remarks[0], list) else []
        return [f"{self.name}, layer {layer!r}: {sentence}" for sentence in [*said, *told]]

    def _mine(self, statistics: Measured) -> list[str]:
        names = [name for name, found in statistics.items() if self._is_mine(found)]
        return select(names, self._compiled, self.layers)

    def _is_mine(self, found: Mapping[Any, Statistic]) -> bool:
        """Whether the lens scores a layer: one that none follows has nothing read beside it."""
        layer = _layer(found)
        if not self.covers(layer):
            return False
        pairs = [read for read in self.reads(layer).values() if read.beside]
        return all(
            any(isinstance(key, Read) and key.kind == read.kind for key in found) for read in pairs
        )

    def _named(
        self, found: Mapping[Any, Statistic], block: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        named = {}
        for name, whole in self.reads(_layer(found)).items():
            read = whole if block is None else whole.block(*block)
            if (statistic := serving(read, found)) is None:
                raise MergeError(f"the statistics lack {read.statistic.__name__} of {read.site}")
            named[name] = statistic
        return named

    def _scored(
        self, name: str, found: Mapping[Any, Statistic], block: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        try:
            named = self._named(found, block)
            for statistic in named.values():
                self._check_rows(statistic)
            scored = self.score(named, _layer(found))
            scores = scored if isinstance(scored, dict) else {self.name: scored}
            for score, value in scores.items():
                _check_scores(score, value)
        except NodeLensError as error:
            error.within(f"layer {name!r}")
            raise
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise NonFiniteError(
                f"layer {name!r}: score {self.name!r} has no eigenvalues, as of squares of values "
                f"too large for their type: {error}"
            ) from error
        return {self._score_name(score): value for score, value in scores.items()}

    def _score_name(self, score: str) -> str:
        return score if score == self.name else f"{self.name}.{score}"

    def _check_rows(self, statistic: Statistic) -> None:
        rows = getattr(statistic, "rows", None)
        if isinstance(rows, int) and rows < self.minimum_rows:
            seen = {0: "no row", 1: "one row"}.get(rows, f"{rows} rows")
            raise TooFewRowsError(
                f"{seen} seen, expected at least {self.minimum_rows} to score {self.name!r}"
            )

    def compute(
        self,
        *,
        inputs: Tensor | None = None,
        outputs: Tensor | None = None,
        weights: Tensor | None = None,
        gradients: Tensor | None = None,
        targets: Tensor | None = None,
        initial_weights: Tensor | None = None,
        next_outputs: Tensor | None = None,
    ) -> Tensor:
        """Return the score of every channel, `(channels,)`, or the layer's `()`, of tensors.

        `inputs` are `(rows, width)`, or maps for convolution `weights` (stride 1, the padding that
        `outputs` show, none without them); `outputs` are worked out from inputs and weights when
        left out. `gradients` belong to the site the lens takes them at, `next_outputs` are those of
        the layer behind.
        """
        from nodelens.metrics.plain import measure_plain

        found = measure_plain(
            self,
            inputs=inputs,
            outputs=outputs,
            weights=weights,
            gradients=gradients,
            targets=targets,
            initial_weights=initial_weights,
            next_outputs=next_outputs,
        )
        scored = self._scored("tensors", found)
        return scored.get(self.name, next(iter(scored.values())))


def _layer(found: Mapping[Any, Any]) -> Layer:
    layer = found.get("layer")
    if not isinstance(layer, Layer):
        raise MergeError("the statistics do not say which layer they are of")
    return layer


def _check_scores(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise ShapeError(
            f"score {name!r} is {value!r}, expected a tensor of shape (channels,), "
            "or () for a number of the whole layer"
        )
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        raise NonFiniteError(f"{bad} of {value.numel()} values of score {name!r} are not finite")
