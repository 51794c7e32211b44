"""What a run was given to compare a layer with, kept with the statistics for scoring."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.statistics.base import Constant
from nodelens.statistics.sample import Sample

__all__ = ["ReferenceSpectrum"]


@dataclass
class ReferenceSpectrum(Constant):
    """The eigenvalues that a layer's are compared with, `(eigenvalues,)`, whatever the sample.

    `spectrum` is their numbers as text, so that they can be an option of a read.
    """

    eigenvalues: Tensor

    @classmethod
    def measure(cls, sample: Sample, *, spectrum: str = "") -> Self:
        numbers = [float(number) for number in spectrum.split()]
        return cls(torch.tensor(numbers, dtype=torch.float64, device="cpu"))
