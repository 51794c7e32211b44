"""Gradients of the loss by weights, batch by batch; nothing of the model is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import InvalidValueError, NodeLensError, NonFiniteError
from nodelens.model import ModelWrapper
from nodelens.model.layers import is_transposed_linear
from nodelens.model.loaded import check_untied
from nodelens.model.loss import predict
from nodelens.model.session import untouched

__all__ = ["samples", "weight_gradients"]


def weight_gradients(
    model: ModelWrapper,
    batches: Iterable[Any],
    layers: Sequence[str],
    *,
    loss: Any = None,
    per_sample: bool = False,
) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield `({layer: (channels, width)}, terms)`: the gradient of the loss summed over `terms`.

    One for every batch, or with `per_sample` for every sample of each. Weights are stood in for by
    views of themselves that ask for a gradient, so `.grad` and `requires_grad` stay as they are.
    Raises NonFiniteError for a gradient that is not finite, with the layer's name,
    IncompatibleModelError for two layers that share a weight.
    """
    check_untied(model.module, layers, least=2)
    # A shuffled DataLoader draws from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        for number, given in enumerate(batches):
            try:
                whole = model.prepare_batch(given)
                for batch in samples(whole) if per_sample else [whole]:
                    yield _of_batch(model, batch, layers, loss)
            except NodeLensError as error:
                error.within(f"batch {number}")
                raise


def samples(batch: Batch) -> Iterator[Batch]:
    """Yield the batch's samples, each as a batch of one."""
    size = batch.size()

    def cut(value: Any, i: int) -> Any:
        own = isinstance(value, Tensor) and value.ndim and len(value) == size
        return value[i : i + 1] if own else value

    for i in range(size):
        yield replace(
            batch,
            args=tuple(cut(a, i) for a in batch.args),
            kwargs={k: cut(v, i) for k, v in batch.kwargs.items()},
            **{k: cut(getattr(batch, k), i) for k in ("targets", "labels", "mask")},
        )


def _of_batch(
    model: ModelWrapper, batch: Batch, layers: Sequence[str], loss: Any
) -> tuple[dict[str, Tensor], int]:
    with untouched(model.module, gradients=True):
        keys = {name: "weight" if name == "model" else f"{name}.weight" for name in layers}
        views = {key: _weight(model, name).requires_grad_() for name, key in keys.items()}
        outputs = torch.func.functional_call(model.module, views, batch.args, dict(batch.kwargs))
        found = predict(outputs, batch, model.module, loss)
        asked = [views[keys[name]] for name in layers]
        gradients = torch.autograd.grad(found.loss, asked, allow_unused=True)
    pairs = zip(layers, gradients, strict=True)
    return {name: _rows(model, name, gradient) for name, gradient in pairs}, found.terms


def _weight(model: ModelWrapper, name: str) -> Tensor:
    weight = model.torch_module(name).weight
    assert isinstance(weight, Tensor)
    if not weight.is_floating_point():
        raise InvalidValueError(f"layer {name!r}: weights are {weight.dtype}, expected floats")
    return weight.detach()


def _rows(model: ModelWrapper, name: str, gradient: Tensor | None) -> Tensor:
    module = model.torch_module(name)
    if gradient is None:
        raise InvalidValueError(f"layer {name!r}: the loss does not depend on its weight")
    if not bool(torch.isfinite(gradient).all()):
        raise NonFiniteError(f"layer {name!r}: the gradient of its weight is not finite")
    return gradient.T if is_transposed_linear(module) else gradient.flatten(1)
