"""Is the smaller model what the masked one is? Compared on the example batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.errors import SurgeryError
from nodelens.interventions import silenced_outputs, silencing
from nodelens.model import ModelWrapper
from nodelens.model.session import untouched
from nodelens.pruning.groups import Cuts

__all__ = ["compared"]

_CANNOT_RUN = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


def compared(
    wrapper: ModelWrapper,
    batch: Batch,
    small: nn.Module,
    silent: Cuts,
    cut: Iterable[str],
    tolerance: float | None,
) -> tuple[float, float]:
    """Return the largest difference from the masked model, and the largest that is allowed.

    Both are relative to the largest masked output. Raises SurgeryError for more than `tolerance`,
    NaN, outputs of another shape, or a model that cannot run.
    """
    wanted = _answers(_masked(wrapper, batch, silent))
    try:
        with untouched(small):
            found = _answers(small(*batch.args, **batch.kwargs))
    except _CANNOT_RUN as failure:
        raise SurgeryError(
            f"the smaller {type(small).__name__} cannot run ({failure}): it counts these channels "
            f"elsewhere; nothing was changed. Cut were {_listed(cut)}"
        ) from failure
    if tolerance is None:
        tolerance = max((torch.finfo(t.dtype).eps ** 0.5 for t in wanted), default=0.0)
    difference = _difference(found, wanted)
    if not difference <= tolerance:
        raise SurgeryError(
            f"the smaller model's output differs from the masked one's by {difference:.1e} of the "
            f"largest output, allowed are {tolerance:.1e}: a silent channel still has an effect "
            "here, as through a norm over channels, a BatchNorm behind a sum or a concatenation, "
            "or an activation that is not zero at zero; nothing was changed. "
            f"Cut were {_listed(cut)}"
        )
    return difference, tolerance


def _masked(wrapper: ModelWrapper, batch: Batch, silent: Cuts) -> Any:
    outputs = {name: sorted(numbers) for name, numbers in silent.outputs.items()}
    inputs = {name: sorted(numbers) for name, numbers in silent.inputs.items()}
    if not (outputs and inputs):
        site = "input" if inputs else "output"
        return silenced_outputs(wrapper, batch, inputs or outputs, site=site)
    route = wrapper.route(batch)
    bodies = [
        silencing(wrapper, route, channels, site=site)
        for channels, site in ((inputs, "input"), (outputs, "output"))
    ]
    return wrapper.trace(batch, bodies, watched=[*inputs, *outputs])[-1]


def _answers(outputs: Any) -> list[Tensor]:
    """The logits of a model that has such, else all of its floating point outputs."""
    from torch.utils._pytree import tree_leaves

    logits = getattr(outputs, "logits", None)
    leaves = [logits] if isinstance(logits, Tensor) else tree_leaves(outputs)
    return [t.detach() for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]


def _difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    shapes = [tuple(t.shape) for t in found], [tuple(t.shape) for t in wanted]
    if shapes[0] != shapes[1]:
        raise SurgeryError(
            f"the smaller model's outputs have shapes {shapes[0]}, the model's {shapes[1]}: these "
            "channels are its output, which has to stay whole"
        )
    largest = 0.0
    for mine, its in zip(found, wanted, strict=True):
        apart, scale = (mine.double() - its.double()).abs(), its.double().abs()
        if not bool(torch.isfinite(apart).all()):
            return float("nan")
        if mine.numel() and float(apart.max()):
            largest = max(largest, float(apart.max() / scale.max().clamp(min=1e-300)))
    return largest


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)[:12]))
