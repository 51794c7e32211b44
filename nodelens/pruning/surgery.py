"""Narrowing the modules of a model: weights, biases, norms and the widths that modules keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import SurgeryError
from nodelens.model.layers import is_transposed_linear, named, weight_rows
from nodelens.pruning.groups import Cuts, transposed_linear_pruner

__all__ = ["narrow", "silence_weights"]


def narrow(model: nn.Module, cuts: Cuts) -> None:
    """Take the channels of `cuts` out of a model's modules, in place.

    Raises SurgeryError for a grouped convolution whose groups would not be equally wide.
    """
    modules = named(model)
    with torch.no_grad():
        for name in sorted(cuts.names):
            outputs, inputs = cuts.outputs.get(name, set()), cuts.inputs.get(name, set())
            _narrow(model, name, modules[name], outputs, inputs)


def silence_weights(model: nn.Module, cuts: Cuts) -> None:
    """Set the weights and biases of the channels of `cuts` to zero, in place."""
    modules = named(model)
    with torch.no_grad():
        for name, numbers in cuts.outputs.items():
            weight_rows(modules[name])[sorted(numbers)] = 0
            bias = getattr(modules[name], "bias", None)
            if isinstance(bias, Tensor):
                bias[sorted(numbers)] = 0
        for name, numbers in cuts.inputs.items():
            weight_rows(modules[name])[:, sorted(numbers)] = 0


def _narrow(
    model: nn.Module, name: str, module: nn.Module, outputs: set[int], inputs: set[int]
) -> None:
    if _is_grouped(module):
        assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        _narrow_grouped(name, module, outputs, inputs)
        return
    pruner = _pruner(model, module)
    if outputs:
        pruner.prune_out_channels(module, sorted(outputs))
    if inputs:
        pruner.prune_in_channels(module, sorted(inputs))


def _is_grouped(module: nn.Module) -> bool:
    # torch-pruning narrows depthwise convolutions well, but takes the first inputs of others.
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return False
    return 1 < module.groups != module.out_channels


def _pruner(model: nn.Module, module: nn.Module) -> Any:
    from torch_pruning import ops
    from torch_pruning.pruner.function import PrunerBox

    if is_transposed_linear(module):
        return transposed_linear_pruner(model)[type(module)]
    return PrunerBox[ops.module2type(module)]


def _narrow_grouped(
    name: str, module: nn.Conv1d | nn.Conv2d | nn.Conv3d, outputs: set[int], inputs: set[int]
) -> None:
    made = _kept_by_group(module.out_channels, module.groups, outputs)
    taken = _kept_by_group(module.in_channels, module.groups, inputs)
    left = [g for g in range(module.groups) if made[g]]
    _check_equal(name, "outputs", made, left)
    _check_equal(name, "inputs", taken, left)
    if any(taken[g] for g in range(module.groups) if g not in left):
        raise SurgeryError(
            f"layer {name!r}: a group of it loses all outputs and keeps inputs; remove these too"
        )
    wide = module.out_channels // module.groups
    parts = [module.weight[[g * wide + i for i in made[g]]][:, taken[g]] for g in left]
    rows = [g * wide + i for g in left for i in made[g]]
    module.weight = nn.Parameter(torch.cat(parts))
    if module.bias is not None:
        module.bias = nn.Parameter(module.bias[rows])
    module.groups, module.out_channels = len(left), len(rows)
    module.in_channels = sum(len(taken[g]) for g in left)


def _kept_by_group(width: int, groups: int, removed: Iterable[int]) -> list[list[int]]:
    """What is kept of every group, numbered within it."""
    gone, each = set(removed), width // groups
    return [[i for i in range(each) if g * each + i not in gone] for g in range(groups)]


def _check_equal(name: str, side: str, kept: list[list[int]], left: list[int]) -> None:
    counts = [len(kept[g]) for g in left]
    if not counts or len(set(counts)) > 1 or not counts[0]:
        raise SurgeryError(
            f"layer {name!r} is a convolution of {len(kept)} groups, which keep "
            f"{', '.join(map(str, counts)) or 'no'} {side}: keep equally many in each"
        )
