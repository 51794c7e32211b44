"""What the weights alone say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.model import Layer
from nodelens.statistics import Read, RowNorms

__all__ = ["WeightMagnitude"]


@Lens.register("weight_magnitude", aliases=("magnitude",))
class WeightMagnitude(MetricLens):
    """Norm of every weight row, `(channels,)`, in weight units: L2, or L1 with `norm=1`."""

    family = "weights"
    unit = "weight"
    importance = +1
    exempt: ClassVar = {"non_finite_input": "it reads weights alone"}
    formula = r"\lVert w \rVert_2 = \sqrt{\textstyle\sum_d w_d^2}"
    where = r"`norm=1` is $\sum_d \lvert w_d \rvert$"
    degenerate = "A unit without weights scores 0."
    paper = "Li et al. (2017), Pruning filters for efficient ConvNets, ICLR"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        norm: int = 2,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if norm not in (1, 2):
            raise InvalidValueError(f"norm is {norm}, expected 1 or 2")
        self.norm = norm

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"rows": Read("weight", RowNorms)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        rows: RowNorms = statistics["rows"]
        return rows.l1 if self.norm == 1 else rows.squared.sqrt()
