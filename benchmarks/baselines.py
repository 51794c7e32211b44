"""What a careful person would write by hand, without this package: hooks and torch operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["hooked_gradients", "hooked_redundancy", "hooked_statistics", "plain"]

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
    total: dict[str, Tensor] = {}
    means: dict[str, tuple[int, Tensor]] = {}

    def hook(name: str, source: Tensor, output: Tensor) -> None:
        x = _rows(source if site == "input" else output, module.get_submodule(name))
        mean = x.mean(0)
        deviation = x - mean
        product = deviation.T @ deviation
        if name not in total:
            total[name], means[name] = product.double(), (len(x), mean.double())
            return
        seen, before = means[name]
        gap = mean.double() - before
        both = seen + len(x)
        total[name].add_(product).addr_(gap, gap, alpha=seen * len(x) / both)
        means[name] = both, before + gap * (len(x) / both)

    _run(module, layers, batches, hook)
    return total


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
) -> None:
    """Run every batch forward, and backward to the named layers' inputs alone."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        for batch in batches:
            inputs: list[Tensor] = []
            with _hooks(module, layers, inputs):
                value = loss(module(*batch["args"], **batch["kwargs"]), batch)
                torch.autograd.grad(value, inputs)
    finally:
        for p in trained:
            p.requires_grad_(True)


@contextmanager
def _hooks(module: nn.Module, layers: Sequence[str], inputs: list[Tensor]) -> Iterator[None]:
    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        u = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        inputs.append(u)
        return (u, *args[1:])

    handles = [module.get_submodule(n).register_forward_pre_hook(before) for n in layers]
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
