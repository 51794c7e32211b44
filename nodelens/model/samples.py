"""What one stop of a pass shows to the statistics: one sample for all that see the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from nodelens.data import Batch
from nodelens.model.layers import Layer, check_finite
from nodelens.model.loss import aligned_targets
from nodelens.model.rows import counted_rows, labelled_rows, row_targets
from nodelens.model.views import look
from nodelens.statistics import Sample, Statistic
from nodelens.statistics.base import measured
from nodelens.statistics.read import Read

if TYPE_CHECKING:
    from nodelens.model.wrapper import ModelWrapper

__all__ = ["Samples"]


class Samples:
    """The samples of one layer's input or output: padding left out, targets where they are needed.

    `values` (and `gradient`, `source`) are canonical. Reads of targets see labelled rows only.
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
    ) -> None:
        self.wrapper, self.batch, self.layer, self.terms = wrapper, batch, layer, terms
        self.kept = counted_rows(values, batch, layer)
        self.rows = len(values)
        self.values = values if self.kept is None else values[self.kept]
        self.gradient, self.source = self._counted(gradient), self._counted(source)
        self.targets: Tensor | None = None
        self.labelled: Tensor | None = None
        self._looks: dict[tuple[str, bool], Tensor] = {}
        self._samples: dict[int, Sample] = {}

    def measured(self, reads: list[Read], site: str) -> Iterator[tuple[Read, Statistic]]:
        """Yield every read with its statistic; those of the same rows are measured together.

        Raises NonFiniteError when a value that counts is not finite.
        """
        if any("targets" in read.statistic.needs for read in reads):
            self._label()
        together: dict[int, tuple[Sample, list[Read]]] = {}
        for read in reads:
            sample = self._sample(read)
            together.setdefault(id(sample), (sample, []))[1].append(read)
        if self.gradient is None:
            self._check([sample for sample, _ in together.values()], site)
        for sample, group in together.values():
            wanted = [(read.statistic, dict(read.options)) for read in group]
            yield from zip(group, measured(sample, wanted), strict=True)

    def _counted(self, x: Tensor | None) -> Tensor | None:
        return x if x is None or self.kept is None else x[self.kept]

    def _check(self, samples: list[Sample], site: str) -> None:
        # The sums over all rows are wanted anyway, and not finite where a value is not.
        whole = next((s for s in samples if s.values.numel() == self.values.numel()), None)
        if whole is None or not math.isfinite(float(whole.total.sum())):
            check_finite(self.values, self.layer.name, site)

    def _label(self) -> None:
        found = row_targets(
            aligned_targets(self.batch, self.wrapper.module), self.rows, self.layer
        ).to(self.values.device)
        found = found if self.kept is None else found[self.kept]
        self.labelled = labelled_rows(found)
        self.targets = found if self.labelled is None else found[self.labelled]

    def _sample(self, read: Read) -> Sample:
        part = self.labelled is not None and "targets" in read.statistic.needs
        shown = self._look(read.view, part)
        # Two views of a plain layer are one tensor: what is worked out for one serves the other.
        if id(shown) not in self._samples:
            self._samples[id(shown)] = Sample(
                shown,
                gradient=None
                if self.gradient is None
                else self._seen(read.view, self.gradient, part),
                targets=self.targets if part or self.labelled is None else None,
                inputs=self.source,
                window=self.layer.window,
                loss_terms=self.terms,
            )
        return self._samples[id(shown)]

    def _look(self, view: str, part: bool) -> Tensor:
        if (view, part) not in self._looks:
            self._looks[(view, part)] = self._seen(view, self.values, part)
        return self._looks[(view, part)]

    def _seen(self, view: str, x: Tensor, part: bool) -> Tensor:
        module = self.wrapper.torch_module(self.layer.name)
        reference = self.wrapper.reference_weight(self.layer)
        return look(view, x[self.labelled] if part else x, self.layer, module, reference)
