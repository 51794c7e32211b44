"""What a strategy scores by: the tensors of one layer, or a model's units and batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.model import ModelWrapper
from nodelens.pruning.units import Units

__all__ = ["Run", "Tensors"]


@dataclass(frozen=True)
class Tensors:
    """What there is of one layer given alone; any may be missing.

    `inputs` and `outputs` are rows `(rows, width)` or maps, `targets` `(rows,)`; `gradients` are
    those of the weight unless the strategy says otherwise.
    """

    inputs: Tensor | None = None
    outputs: Tensor | None = None
    gradients: Tensor | None = None
    targets: Tensor | None = None

    def outputs_of(self, layer: nn.Module) -> Tensor | None:
        """Return the outputs; what the layer makes of the inputs where there are those alone."""
        if self.inputs is None or self.outputs is not None:
            return self.outputs
        with torch.no_grad():
            outputs: Tensor = layer(self.inputs)
        return outputs


@dataclass(frozen=True)
class Run:
    """The units of a model to score, the batches to do it on, and options of the measurement."""

    model: ModelWrapper
    units: Mapping[str, Units]
    batches: Iterable[Any]
    options: Mapping[str, Any]
