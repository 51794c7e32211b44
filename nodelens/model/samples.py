"""What one stop of a pass shows to the statistics: one sample for all that see the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import MissingTargetsError, ShapeError
from nodelens.model.layers import Layer, check_finite
from nodelens.model.logits import Logits
from nodelens.model.loss import IGNORED, statistic_targets
from nodelens.model.rows import counted_rows, labelled_rows, row_targets
from nodelens.model.views import look
from nodelens.statistics import Sample, Statistic
from nodelens.statistics.base import measured, surveyed
from nodelens.statistics.read import BESIDE_CLASS, Read

if TYPE_CHECKING:
    from nodelens.model.wrapper import ModelWrapper

__all__ = ["Beside", "Samples"]


@dataclass(frozen=True)
class Beside:
    """What another layer shows in the same rows, channels on axis 1."""

    name: str
    site: str
    values: Tensor


class Samples:
    """The samples of one layer's input or output: padding left out, targets where they are needed.

    `values` (and `gradient`, `source`, what is beside) are canonical. Reads of targets see labelled
    rows only.
    """

    def __init__(
        self,
        wrapper: ModelWrapper,
        batch: Batch,
        layer: Layer,
        values: Tensor,
        *,
        gradient: Tensor | None = None,
        source: Tensor | None = None,
        terms: int = 1,
        logits: Logits | None = None,
        beside: Beside | None = None,
    ) -> None:
        self.wrapper, self.batch, self.layer, self.terms = wrapper, batch, layer, terms
        self.kept = counted_rows(values, batch, layer)
        self.rows = len(values)
        self.values = values if self.kept is None else values[self.kept]
        self.gradient, self.source = self._counted(gradient), self._counted(source)
        self.logits = logits
        self.beside_name = "" if beside is None else beside.name
        self.beside_site = "" if beside is None else beside.site
        self.beside = None if beside is None else self._counted(beside.values)
        self._labels: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._looks: dict[tuple[str, str], Tensor] = {}
        self._samples: dict[tuple[int, str], Sample] = {}

    def measured(self, reads: list[Read], site: str) -> Iterator[tuple[Read, Statistic]]:
        """Yield every read with its statistic; those of the same rows are measured together.

        Raises NonFiniteError when a value that counts is not finite.
        """
        for kind in dict.fromkeys(r.target for r in reads if "targets" in r.statistic.needs):
            self._labels[kind] = self._labelled(kind)
        together: dict[int, tuple[Sample, list[Read]]] = {}
        for read in reads:
            sample = self._sample(read)
            together.setdefault(id(sample), (sample, []))[1].append(read)
        groups = [
            (sample, group, [(read.statistic, dict(read.options)) for read in group])
            for sample, group in together.values()
        ]
        for sample, _, wanted in groups:
            surveyed(sample, wanted)
        if self.gradient is None:
            self._check([sample for sample, _, _ in groups], site)
        for sample, group, wanted in groups:
            yield from zip(group, measured(sample, wanted), strict=True)

    def _counted(self, x: Tensor | None) -> Tensor | None:
        return x if x is None or self.kept is None else x[self.kept]

    def _check(self, samples: list[Sample], site: str) -> None:
        # The sums over all rows are wanted anyway, and not finite where a value is not.
        whole = next((s for s in samples if s.values.numel() == self.values.numel()), None)
        if whole is None or not math.isfinite(float(whole.flat.total.sum())):
            check_finite(self.values, self.layer.name, site)
        if self.beside is not None:
            check_finite(self.beside, self.beside_name, self.beside_site)
        for kind, (targets, _) in self._labels.items():
            named = kind if kind == "targets" else f"target {kind!r}"
            check_finite(targets, self.layer.name, named)

    def _labelled(self, kind: str) -> tuple[Tensor, Tensor | None]:
        """The targets of the rows that have one, and which rows those are, None for all."""
        found, values = statistic_targets(self.batch, self.wrapper.module), None
        if kind != "targets":
            assert self.logits is not None
            classes = found if kind.startswith(BESIDE_CLASS) else None
            found, values = self.logits.of(kind.removeprefix(BESIDE_CLASS))
            if kind.startswith(BESIDE_CLASS):
                found, values = _beside_class(classes, found, values)
        rows = row_targets(found, self.rows, self.layer).to(self.values.device)
        if values is not None and rows.ndim > 1:
            raise ShapeError(
                f"layer {self.layer.name!r} has {self.rows} rows for {rows.numel()} predictions: "
                f"which of them target {kind!r} is that of cannot be told"
            )
        rows = rows if self.kept is None else rows[self.kept]
        labelled = labelled_rows(rows)
        rows = rows if labelled is None else rows[labelled]
        return rows if values is None else values.to(rows.device)[rows], labelled

    def _sample(self, read: Read) -> Sample:
        kind = self._kind(read)
        targets, labelled = self._labels.get(kind, (None, None))
        shown = self._look(read.view, "" if labelled is None else kind)
        # Two views of a plain layer are one tensor: what is worked out for one serves the other.
        key = (id(shown), kind)
        if key not in self._samples:
            slope = self.gradient
            self._samples[key] = Sample(
                shown,
                gradient=None if slope is None else self._seen(read.view, slope, labelled),
                targets=targets,
                inputs=self.source,
                window=self.layer.window,
                loss_terms=self.terms,
                beside=None if self.beside is None else self._rows(self.beside),
                beside_name=self.beside_name,
            )
        return self._samples[key]

    def _kind(self, read: Read) -> str:
        """Whose rows a read sees; one that needs no targets shares those that leave none out."""
        if "targets" in read.statistic.needs:
            return read.target
        return next((kind for kind, (_, part) in self._labels.items() if part is None), "")

    def _look(self, view: str, kind: str) -> Tensor:
        if (view, kind) not in self._looks:
            labelled = self._labels[kind][1] if kind else None
            self._looks[(view, kind)] = self._seen(view, self.values, labelled)
        return self._looks[(view, kind)]

    def _seen(self, view: str, x: Tensor, labelled: Tensor | None) -> Tensor:
        module = self.wrapper.torch_module(self.layer.name)
        reference = self.wrapper.reference_weight(self.layer)
        return look(view, x if labelled is None else x[labelled], self.layer, module, reference)

    @staticmethod
    def _rows(x: Tensor) -> Tensor:
        return x.flatten(2) if x.ndim > 2 else x


def _beside_class(classes: Tensor | None, numbers: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of predictions that have a class, and the values of all behind their class."""
    if classes is None or classes.is_floating_point() or classes.shape != numbers.shape:
        raise MissingTargetsError(
            "what is looked at within classes needs class numbers, one a prediction: give batches "
            "as (inputs, class numbers)"
        )
    classes = classes.to(values.device)
    numbers = numbers.masked_fill(classes == IGNORED, IGNORED)
    return numbers, torch.column_stack([classes.flatten().to(values.dtype), values])
