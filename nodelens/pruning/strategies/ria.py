"""RIA: how large a weight is among those of its row and of its column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from nodelens.errors import InvalidValueError
from nodelens.metrics import formulas
from nodelens.model.layers import Layer
from nodelens.pruning.permutation import channel_permutation
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import OfWeightStatistics, per_weight
from nodelens.pruning.strategies.wanda import input_norms

__all__ = ["Ria", "relative_importance"]


@register_strategy(
    "ria",
    paper="Zhang, Bai, Lin, Zhao, Hou and Cannistraci (2024), Plug-and-play: an efficient "
    "post-training pruning method for large language models, ICLR",
)
class Ria(OfWeightStatistics):
    """Relative importance times activation norm, (|W_ij| / row + |W_ij| / column) ||X_j||^a.

    `a` is the power of the activations, 0.5 as published; weights compete within the layer. With
    `permute`, the m of an N:M pattern are columns chosen by `channel_permutation`, as published,
    not neighbours: a kernel that needs neighbours has to permute the layer's inputs too.
    """

    options: ClassVar[Mapping[str, Any]] = {"a": 0.5, "permute": False}
    a: float
    permute: bool

    def _check(self) -> None:
        super()._check()
        if isinstance(self.a, bool) or not isinstance(self.a, (int, float)) or not self.a >= 0:
            raise InvalidValueError(f"a is {self.a!r}, expected a power of at least 0")

        if not isinstance(self.permute, bool) or (self.permute and self.config.nm is None):
            raise InvalidValueError(
                f"permute is {self.permute!r}, expected a bool, and nm=(n, m) with True: it lays "
                "out columns for an N:M pattern"
            )

    def _keep_weights(self, score: Tensor, amount: float, safe: Tensor) -> Tensor:
        if not self.permute or self.config.nm is None:
            return super()._keep_weights(score, amount, safe)
        order = channel_permutation(score, self.config.nm)
        return super()._keep_weights(score[:, order], amount, safe)[:, order.argsort()]

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        grouped = rows.unflatten(0, (layer.groups, -1))
        relative = relative_importance(grouped).flatten(0, 1)
        return relative * per_weight(input_norms(found) ** self.a, layer)


def relative_importance(rows: Tensor) -> Tensor:
    """Return |W| as a part of its row's sum plus as a part of its column's, of the same shape.

    Takes `(..., channels, width)`. A row or column of zeros gives 0.

    >>> import torch
    >>> relative_importance(torch.tensor([[1.0, 3.0], [1.0, 0.0]]))
    tensor([[0.7500, 1.7500],
            [1.5000, 0.0000]])
    """
    size = rows.abs()
    of_row, of_column = (size.sum(axis, keepdim=True) for axis in (-1, -2))
    return formulas.ratio(size, of_row) + formulas.ratio(size, of_column)
