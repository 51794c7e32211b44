"""SparseGPT: weights removed by an optimal brain surgeon, and the kept ones corrected for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.model import wrap
from nodelens.model.layers import Layer, describe, weight_rows
from nodelens.pruning.config import check_amount, whole
from nodelens.pruning.given import Tensors
from nodelens.pruning.masks import keep_best, keep_pattern, removed_count, weight_of
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.reading import (
    OfWeightStatistics,
    in_shape,
    measure,
    measure_alone,
)
from nodelens.pruning.strategy import Protected
from nodelens.pruning.units import prunable
from nodelens.reading import located
from nodelens.statistics import CoMoments, Read, wide

__all__ = ["SparseGpt", "Updated", "inverse_factor", "surgeon"]


@dataclass(frozen=True)
class Updated:
    """New weights, zero where removed, and the mask (True = kept); both of the weight's shape."""

    weight: Tensor
    mask: Tensor


@register_strategy(
    "sparsegpt",
    paper="Frantar and Alistarh (2023), SparseGPT: massive language models can be accurately "
    "pruned in one-shot, ICML",
)
class SparseGpt(OfWeightStatistics):
    """Loss of removing a weight while the others of its row make up for it, W_ij^2 / [H^-1]_jj.

    H = X X^T over all tokens, with `damping` times its mean diagonal added. The score is that of
    one weight alone. What is published goes through the columns in blocks of `block_size`, removes
    and corrects: `updated` does so, and `prune` with `structured=False` gives its mask.
    """

    options: ClassVar[Mapping[str, Any]] = {"block_size": 128, "damping": 0.01}
    block_size: int
    damping: float

    def _check(self) -> None:
        super()._check()
        whole("block_size", self.block_size, 1)
        if self.config.nm is not None and self.block_size % self.config.nm[1]:
            raise InvalidValueError(
                f"block_size is {self.block_size}, expected a multiple of {self.config.nm[1]}"
            )
        if not isinstance(self.damping, (int, float)) or not self.damping > 0:
            raise InvalidValueError(f"damping is {self.damping!r}, expected a number above 0")

    def reads(self, layer: Layer) -> dict[str, Read]:
        view = "rows" if layer.window is None else "patches"
        return {"inputs": Read("input", CoMoments, view=view)}

    def rate(self, found: Mapping[str, Any], layer: Layer, rows: Tensor) -> Tensor:
        parts = []
        for part, hessian in _by_group(rows, found["inputs"], layer):
            factor, dead = inverse_factor(hessian, self.damping)
            diagonal = factor.square().sum(0)
            parts.append((part.square() / diagonal).masked_fill(dead, 0))
        return torch.cat(parts)

    def prune(
        self,
        layer: nn.Module,
        inputs: Tensor | None = None,
        amount: float | None = None,
        *,
        protected: Protected = None,
        **tensors: Tensor | None,
    ) -> Tensor:
        """Return a bool mask of the weight's shape, True = kept: of single weights, `updated`'s."""
        low = self.config.pruning_mode == "low" and protected is None
        if self.config.structured or not low:
            return super().prune(layer, inputs, amount, protected=protected, **tensors)
        return self.updated(layer, inputs, amount).mask

    def updated(
        self, layer: nn.Module, inputs: Tensor | None = None, amount: float | None = None
    ) -> Updated:
        """Return a layer's new weights and mask, in its own dtype; the layer stays as it is.

        Exactly floor(amount * n) weights go, or M - N of every M with `nm=(N, M)`.
        """
        with self.named():
            weight_of(layer)
            described = describe("to prune", layer)
            assert described is not None
            found = measure_alone(self.reads(described), layer, described, Tensors(inputs))
            return self._updated(layer, described, found, amount)

    def updates(
        self,
        model: Any,
        batches: Iterable[Any],
        amount: float | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        pattern: str | None = None,
    ) -> dict[str, Updated]:
        """Return new weights and masks of a model's layers, all from the inputs it has unpruned."""
        wrapper = wrap(model)
        with self.named():
            batches = self._batches(wrapper, batches)
            names = list(prunable(wrapper, layers, pattern))
            wanted = {name: self.reads(located(wrapper, name)) for name in names}
            found = measure(wrapper, wanted, batches)
            return {
                name: self._updated(
                    wrapper.torch_module(name), located(wrapper, name), found[name], amount
                )
                for name in names
            }

    def _updated(
        self, module: nn.Module, layer: Layer, found: Mapping[str, Any], amount: float | None
    ) -> Updated:
        if self.config.structured:
            raise InvalidValueError("it corrects single weights: give structured=False")
        amount = self.config.amount if amount is None else check_amount(amount)
        rows = wide(weight_rows(module))
        if self.config.nm is not None and rows.shape[1] % self.config.nm[1]:
            raise ShapeError(
                f"layer {layer.name!r}: rows of {rows.shape[1]} weights do not divide into groups "
                f"of {self.config.nm[1]}"
            )
        parts = [
            surgeon(
                part,
                hessian,
                amount,
                nm=self.config.nm,
                block_size=self.block_size,
                damping=self.damping,
            )
            for part, hessian in _by_group(rows, found["inputs"], layer)
        ]
        new, mask = (torch.cat(list(x)) for x in zip(*parts, strict=True))
        dtype = weight_of(module).dtype
        return Updated(in_shape(new, module).to(dtype), in_shape(mask, module))


def surgeon(
    rows: Tensor,
    hessian: Tensor,
    amount: float,
    *,
    nm: tuple[int, int] | None = None,
    block_size: int = 128,
    damping: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Return corrected weight rows `(channels, width)`, zero where removed, and the mask.

    What removing a column's weights costs is made up for by the columns behind it, as inverse
    Hessians of ever fewer columns say, all of them rows of one Cholesky factor.
    """
    rows, width = rows.clone(), rows.shape[1]
    factor, dead = inverse_factor(hessian, damping)
    rows[:, dead] = 0
    mask, removed = torch.ones(rows.shape, dtype=torch.bool, device=rows.device), 0
    for start in range(0, width, block_size):
        stop = min(start + block_size, width)
        own = factor[start:stop, start:stop]
        # The budget of all columns so far: rounding never adds up over blocks.
        due = removed_count(amount, len(rows) * stop) - removed
        removed += due
        errors = _block(rows[:, start:stop], mask[:, start:stop], own, due, nm)
        rows[:, stop:] -= errors @ factor[start:stop, stop:]
    return rows, mask


def _block(
    rows: Tensor, mask: Tensor, factor: Tensor, due: int, nm: tuple[int, int] | None
) -> Tensor:
    """Remove weights of a block of columns, in place; return each one's error `(channels, block)`.

    All are chosen at the start, or of N:M group by group, by what the columns before have made of
    the weights.
    """
    diagonal = factor.diagonal()
    if nm is None:
        mask.copy_(keep_best((rows / diagonal).square().cpu(), due))
    errors = torch.zeros_like(rows)
    for i in range(rows.shape[1]):
        if nm is not None and i % nm[1] == 0:
            group = slice(i, i + nm[1])
            mask[:, group] = keep_pattern((rows[:, group] / diagonal[group]).square().cpu(), nm).to(
                mask.device
            )
        kept = torch.where(mask[:, i], rows[:, i], 0)
        errors[:, i] = (rows[:, i] - kept) / diagonal[i]
        rows[:, i] = kept
        rows[:, i + 1 :] -= errors[:, i, None] * factor[i, i + 1 :]
    return errors


def inverse_factor(hessian: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Return the upper Cholesky factor of the damped inverse, U^T U = H^-1, and dead columns.

    A column whose inputs are all zero is dead: its weights do nothing.
    """
    dead = hessian.diagonal() == 0
    damped = hessian + torch.diag(dead.to(hessian.dtype))
    mean = damped.diagonal().mean()
    damped = damped + damping * mean * torch.eye(len(damped)).to(damped)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True), dead


def _by_group(rows: Tensor, moments: CoMoments, layer: Layer) -> list[tuple[Tensor, Tensor]]:
    """The weight rows of every group, and X X^T of what they meet."""
    products = moments.m2 + moments.rows * torch.outer(moments.mean, moments.mean)
    size = rows.shape[1]
    return [
        (part, products[g * size : (g + 1) * size, g * size : (g + 1) * size])
        for g, part in enumerate(rows.chunk(layer.groups))
    ]
