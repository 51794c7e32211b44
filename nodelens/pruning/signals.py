"""Token signals of FFN units, q = u g: what a unit gives times what the loss feels of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import InvalidValueError, NodeLensError
from nodelens.model import ModelWrapper
from nodelens.model.layers import check_finite
from nodelens.model.loss import predict
from nodelens.model.session import untouched
from nodelens.statistics import CoMoments, Sample

__all__ = ["core_moments", "token_signals"]


def core_moments(
    model: ModelWrapper, batches: Iterable[Any], cores: Mapping[str, Tensor], loss: Any = None
) -> dict[str, CoMoments]:
    """Return the second moments of the core's signals with all units', by down projection.

    Units stand in the order core first, then the others by number; `m2` has the core's rows.
    """
    found: dict[str, CoMoments] = {}
    for number, given in enumerate(batches):
        try:
            signals = token_signals(model, model.prepare_batch(given), list(cores), loss)
        except NodeLensError as error:
            error.within(f"batch {number}")
            raise
        for name, q in signals.items():
            sample = Sample(q[:, core_first(cores[name], q.shape[1])])
            own = CoMoments.measure(sample, start=0, stop=len(cores[name])).widened()
            if name in found:
                found[name].merge(own)
            else:
                found[name] = own
    return found


def core_first(core: Tensor, size: int) -> Tensor:
    """Return all unit numbers, those of the core first, the others in order."""
    outside = torch.ones(size, dtype=torch.bool)
    outside[core] = False
    return torch.cat([core, outside.nonzero().flatten()])


def token_signals(
    model: ModelWrapper, batch: Batch, layers: Sequence[str], loss: Any = None
) -> dict[str, Tensor]:
    """Return q = u g of every token that counts, `(tokens, units)`, by down projection.

    u is what the down projection takes in, g the gradient of the summed loss there.
    """
    seen: dict[str, Tensor] = {}
    with untouched(model.module, gradients=True), ExitStack() as hooks:
        for name in layers:
            handle = model.torch_module(name).register_forward_pre_hook(_noting(seen, name))
            hooks.callback(handle.remove)
        outputs = model.module(*batch.args, **batch.kwargs)
        found = predict(outputs, batch, model.module, loss)
        missed = [name for name in layers if name not in seen]
        if missed:
            raise InvalidValueError(f"layer {missed[0]!r}: the forward pass does not call it")
        gradients = torch.autograd.grad(found.loss, [seen[name] for name in layers])
    return dict(_products(layers, seen, gradients, batch))


def _noting(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(module: Any, args: Any) -> None:
        source: Tensor = args[0]
        if not source.requires_grad:
            # The weights are frozen, so before the first of these layers nothing asks for one.
            source.requires_grad_()
        seen[name] = source

    return hook


def _products(
    layers: Sequence[str], seen: Mapping[str, Tensor], gradients: Sequence[Tensor], batch: Batch
) -> Iterator[tuple[str, Tensor]]:
    for name, gradient in zip(layers, gradients, strict=True):
        q = seen[name].detach().double() * gradient.double()
        if batch.mask is not None and q.shape[:-1] == batch.mask.shape:
            q = q[batch.mask]
        q = q.reshape(-1, q.shape[-1])
        check_finite(q, name, "signal")
        yield name, q
