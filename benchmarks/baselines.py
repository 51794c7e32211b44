"""What a careful person would write by hand, without this package: hooks and torch operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

__all__ = [
    "hooked_gradients",
    "hooked_redundancy",
    "hooked_statistics",
    "hooked_synergy",
    "plain",
]

Hook = Callable[[str, Tensor, Tensor], None]
"""(layer, input, output)"""


def plain(module: nn.Module, batches: Sequence[dict[str, Any]]) -> None:
    """Run every batch, keeping nothing."""
    with torch.inference_mode():
        for batch in batches:
            module(*batch["args"], **batch["kwargs"])


def hooked_redundancy(
    module: nn.Module, layers: Sequence[str], batches: Sequence[dict[str, Any]], site: str
) -> dict[str, Tensor]:
    """Return sums of products of deviations by layer: centre, multiply, add up in float64."""
    sums = _Products()

    def hook(name: str, source: Tensor, output: Tensor) -> None:
        x = _rows(source if site == "input" else output, module.get_submodule(name))
        sums.add(name, x, x)

    _run(module, layers, batches, hook)
    return sums.total


def hooked_synergy(
    module: nn.Module, layers: Sequence[str], batches: Sequence[dict[str, Any]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return by layer the products of channels with one another, and with one-hot classes."""
    pairs, targets = _Products(), _Products()
    classes = 1 + max(int(batch["targets"].max()) for batch in batches)
    labels: list[Tensor] = []

    def hook(name: str, source: Tensor, output: Tensor) -> None:
        layer = module.get_submodule(name)
        y, t = _rows(output, layer), one_hot(labels[0], classes).float()
        pairs.add(name, y, y)
        targets.add(name, y, t.repeat_interleave(len(y) // len(t), 0))

    def before(_: nn.Module, args: Any) -> None:
        labels[:] = [next(waiting)]

    waiting = (batch["targets"] for batch in batches)
    handle = module.register_forward_pre_hook(before)
    try:
        _run(module, layers, batches, hook)
    finally:
        handle.remove()
    return pairs.total, targets.total


class _Products:
    """Sums of products of deviations of two sets of columns, by name."""

    def __init__(self) -> None:
        self.total: dict[str, Tensor] = {}
        self.means: dict[str, tuple[int, Tensor, Tensor]] = {}

    def add(self, name: str, x: Tensor, y: Tensor) -> None:
        """Take in a batch: centre, multiply, add up in float64."""
        a, deviation = self._centred(x)
        b, other = (a, deviation) if y is x else self._centred(y)
        product = deviation.T @ other
        if name not in self.total:
            self.total[name], self.means[name] = product.double(), (len(x), a, b)
            return
        seen, before, others = self.means[name]
        gap, gap_of_other, both = a - before, b - others, seen + len(x)
        self.total[name].add_(product).addr_(gap, gap_of_other, alpha=seen * len(x) / both)
        share = len(x) / both
        self.means[name] = both, before + gap * share, others + gap_of_other * share

    @staticmethod
    def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(0)
        return mean.double(), x - mean


def hooked_statistics(
    module: nn.Module, layers: Sequence[str], batches: Sequence[dict[str, Any]]
) -> dict[str, list[Tensor]]:
    """Return what the O(C) lenses need, summed by layer with the torch operations they use."""
    sums: dict[str, list[Tensor]] = {}

    def hook(name: str, source: Tensor, output: Tensor) -> None:
        layer = module.get_submodule(name)
        y, x = _rows(output, layer), _rows(source, layer)
        found = [*_powers(y, 4), *_powers(x, 2), y.abs().sum(0), (y == 0).sum(0)]
        found += [y.amax(0), y.amin(0), _size_counts(y)]
        known = sums.get(name)
        sums[name] = found if known is None else [a + b for a, b in zip(known, found, strict=True)]

    _run(module, layers, batches, hook)
    return sums


def hooked_gradients(
    module: nn.Module,
    layers: Sequence[str],
    batches: Sequence[dict[str, Any]],
    loss: Callable[[Any, dict[str, Any]], Tensor],
    site: str = "input",
    sums: bool = False,
) -> dict[str, list[Tensor]]:
    """Run every batch forward, and backward to the named layers' inputs or outputs alone.

    With `sums` add up by layer what the gradient lenses need of activation and gradient.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    total: dict[str, list[Tensor]] = {}
    for p in trained:
        p.requires_grad_(False)
    try:
        for batch in batches:
            kept: list[Tensor] = []
            with _keeping(module, layers, kept, site):
                value = loss(module(*batch["args"], **batch["kwargs"]), batch)
                gradients = torch.autograd.grad(value, kept)
            for name, u, g in zip(layers if sums else (), kept, gradients, strict=False):
                layer = module.get_submodule(name)
                found = _gradient_sums(_rows(u.detach(), layer), _rows(g, layer))
                known = total.get(name, found)
                total[name] = [a + b for a, b in zip(known, found, strict=True)]
    finally:
        for p in trained:
            p.requires_grad_(True)
    return total


def _gradient_sums(u: Tensor, g: Tensor) -> list[Tensor]:
    product = u * g
    found = product.sum(0), product.abs().sum(0), (product * product).sum(0)
    return [*found, (u * u).sum(0), (g * g).sum(0)]


@contextmanager
def _keeping(
    module: nn.Module, layers: Sequence[str], kept: list[Tensor], site: str
) -> Iterator[None]:
    def leaf(x: Tensor) -> Tensor:
        kept.append(x if x.requires_grad else x.detach().requires_grad_())
        return kept[-1].clone()

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (leaf(args[0]), *args[1:])

    def after(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return leaf(output)

    found = [module.get_submodule(name) for name in layers]
    handles = [
        m.register_forward_pre_hook(before) if site == "input" else m.register_forward_hook(after)
        for m in found
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(
    module: nn.Module, layers: Sequence[str], batches: Sequence[dict[str, Any]], hook: Hook
) -> None:
    def on(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, args, output: hook(name, args[0], output)

    handles = [module.get_submodule(n).register_forward_hook(on(n)) for n in layers]
    try:
        plain(module, batches)
    finally:
        for handle in handles:
            handle.remove()


def _rows(x: Tensor, layer: nn.Module) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return x.movedim(1, -1).reshape(-1, x.shape[1])
    return x.reshape(-1, x.shape[-1])


def _powers(x: Tensor, order: int) -> list[Tensor]:
    mean = x.mean(0)
    deviation = x - mean
    square = deviation * deviation
    if order == 2:
        return [mean, square.sum(0)]
    return [mean, square.sum(0), (deviation * square).sum(0), (square * square).sum(0)]


def _size_counts(y: Tensor) -> Tensor:
    """Counts by channel in 1024 log-spaced bins of absolute value."""
    bins = (y.contiguous().view(torch.int32) & 0x7FFFFFFF) >> 17
    index = (bins - (bins.amax(0) - 1023)).clamp_(min=0)
    index += torch.arange(y.shape[1], dtype=torch.int32) * 1024
    return torch.bincount(index.view(-1), minlength=1024 * y.shape[1])
