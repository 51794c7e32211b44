"""What every layer takes in and gives, kept whole by plain torch hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Plain:
    """A batch as torch wants it: what to call the model with, what to differentiate, what counts.

    `loss` is called with the model's output and sums over samples or tokens; `mask` is
    `(batch, tokens)`, True for what counts; `targets` has one entry a sample.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    loss: Callable[[Any], Tensor] | None = None
    targets: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Captured:
    """All that one layer has shown, in float64, batches and calls one after the other.

    Linear layers: `(rows, width)`, padding left out. Convolutions: `(samples, channels, *space)`.
    `targets` has one entry along the first axis of `outputs`.
    """

    module: nn.Module
    inputs: Array
    outputs: Array
    input_gradients: Array
    gradients: Array
    targets: Array | None

    @property
    def is_convolution(self) -> bool:
        return isinstance(self.module, _CONVOLUTIONS)

    @property
    def weight(self) -> Array:
        """One row a channel, in the layout of an unfolded patch."""
        weight = as_array(self.module.weight)
        return weight.T if transposed(self.module) else weight.reshape(len(weight), -1)


def transposed(module: nn.Module) -> bool:
    """Whether the weight is `(inputs, channels)`, as GPT-2 has it."""
    return type(module).__name__ == "Conv1D"


def as_array(tensor: Tensor) -> Array:
    numbers = tensor.detach().cpu()
    return (numbers.double() if numbers.is_floating_point() else numbers).numpy()


def capture(
    model: nn.Module, batches: Iterable[Plain], names: Sequence[str] | None = None
) -> dict[str, Captured]:
    """Return what the named layers (all linear and convolution layers) show over all batches."""
    modules = {"model": model} if _scorable(model) else dict(model.named_modules())
    chosen = names or [name for name, module in modules.items() if _scorable(module)]
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for batch in batches:
        for name, calls in _one_pass(model, batch, {name: modules[name] for name in chosen}):
            convolves = isinstance(modules[name], _CONVOLUTIONS)
            seen[name] += [_counted(call, batch, convolves) for call in calls]
    return {name: _joined(modules[name], calls) for name, calls in seen.items() if calls}


def _scorable(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS)) or transposed(module)


def _one_pass(
    model: nn.Module, batch: Plain, modules: Mapping[str, nn.Module]
) -> list[tuple[str, list[dict[str, Tensor]]]]:
    calls: dict[str, list[dict[str, Tensor]]] = {name: [] for name in modules}

    def before(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any) -> Any:
            own = args[0].clone() if args[0].requires_grad else args[0].clone().requires_grad_()
            calls[name].append({"input": own})
            return (own, *args[1:])

        return hook

    def after(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            calls[name][-1]["output"] = output
            # What follows may work in place, so it gets a copy.
            return output.clone()

        return hook

    handles = [m.register_forward_pre_hook(before(name)) for name, m in modules.items()]
    handles += [m.register_forward_hook(after(name)) for name, m in modules.items()]
    try:
        outputs = model(*batch.args, **batch.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if batch.loss is not None:
        _differentiate(batch.loss(outputs), [call for made in calls.values() for call in made])
    return list(calls.items())


def _differentiate(loss: Tensor, calls: list[dict[str, Tensor]]) -> None:
    sites = [(call, site) for call in calls for site in ("input", "output")]
    tensors = [call[site] for call, site in sites]
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    for (call, site), tensor, gradient in zip(sites, tensors, gradients, strict=True):
        call[f"{site} gradient"] = torch.zeros_like(tensor) if gradient is None else gradient


def _counted(call: Mapping[str, Tensor], batch: Plain, convolves: bool) -> dict[str, Any]:
    """The arrays of one call: tokens as rows, padding left out, a target for every row."""
    arrays = {site: as_array(tensor) for site, tensor in call.items()}
    targets = None if batch.targets is None else as_array(batch.targets)
    if convolves:
        return {**arrays, "targets": targets}
    arrays = {site: a.reshape(-1, a.shape[-1]) for site, a in arrays.items()}
    rows = len(arrays["output"])
    if targets is not None:
        targets = targets.repeat(rows // len(targets), axis=0)
    if batch.mask is not None and batch.mask.numel() == rows:
        kept = as_array(batch.mask).astype(bool).reshape(-1)
        arrays = {site: a[kept] for site, a in arrays.items()}
        targets = None if targets is None else targets[kept]
    return {**arrays, "targets": targets}


def _joined(module: nn.Module, calls: list[dict[str, Any]]) -> Captured:
    def whole(site: str) -> Any:
        parts = [call[site] for call in calls if call.get(site) is not None]
        return np.concatenate(parts) if parts else None

    return Captured(
        module,
        whole("input"),
        whole("output"),
        whole("input gradient"),
        whole("output gradient"),
        whole("targets"),
    )
