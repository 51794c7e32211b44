"""What only a batch shows of a model's layers: how many rows, maps of which size, what targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.model.layers import Layer, canonical, first_tensor
from nodelens.model.logits import logits_of
from nodelens.model.loss import statistic_targets
from nodelens.model.rows import labelled_rows, row_targets
from nodelens.model.wrapper import ModelWrapper

__all__ = ["Facts", "Shown", "facts_of_targets", "learn_facts"]


@dataclass(frozen=True)
class Shown:
    """What a batch shows of one site: samples (in all calls), maps, and the targets of its rows.

    `classes` is the number of classes so far, with those that no row is of below the highest, of
    which `occurring` have a row; `dimensions` is that of numeric targets; None for neither.
    `outputs` is the number of logits of the model.
    """

    samples: int = 0
    space: tuple[int, ...] = ()
    classes: int | None = None
    occurring: int | None = None
    dimensions: int | None = None
    outputs: int | None = None


@dataclass
class Facts:
    """What is known of every site, by `(layer, site)`; nothing without a batch."""

    sites: dict[tuple[str, str], Shown] = field(default_factory=dict)

    def of(self, layer: Layer) -> dict[str, Shown]:
        """Return what is known of a layer's input and output."""
        sites = ("input", "output")
        return {s: self.sites[(layer.name, s)] for s in sites if (layer.name, s) in self.sites}


def learn_facts(wrapper: ModelWrapper, batch: Batch) -> Facts:
    """Return what one plain forward pass of `batch` shows; nothing of the model changes."""
    facts = Facts()
    targets = statistic_targets(batch, wrapper.module)

    def note(layer: Layer, site: str, value: Any) -> None:
        tensor = canonical(first_tensor(value), layer, site, batch.axes())
        before = facts.sites.get((layer.name, site), Shown()).samples
        shown = Shown(before + len(tensor), tuple(tensor.shape[2:]))
        if targets is not None:
            shown = _with_targets(shown, row_targets(targets, len(tensor), layer))
        facts.sites[(layer.name, site)] = shown

    with _watching(wrapper, note):
        outputs = wrapper.forward(batch)
    if first_tensor(outputs) is not None:
        size = logits_of(outputs).shape[-1]
        facts.sites = {k: replace(shown, outputs=size) for k, shown in facts.sites.items()}
    return facts


def facts_of_targets(wrapper: ModelWrapper, batch: Batch) -> Facts:
    """Return how many classes the targets of a batch show every site, without a pass."""
    targets = statistic_targets(batch, wrapper.module)
    if targets is None or targets.is_floating_point():
        return Facts()
    shown = _with_targets(Shown(), targets.flatten())
    return Facts({(name, site): shown for name in wrapper.layers for site in ("input", "output")})


def _with_targets(shown: Shown, found: Tensor) -> Shown:
    if found.is_floating_point() or found.ndim > 1:
        return replace(shown, dimensions=prod(found.shape[1:]))
    labelled = labelled_rows(found)
    labels = found if labelled is None else found[labelled]
    if not labels.numel():
        return replace(shown, classes=1, occurring=1)
    return replace(shown, classes=int(labels.max()) + 1, occurring=len(labels.unique()))


@contextmanager
def _watching(wrapper: ModelWrapper, note: Callable[[Layer, str, Any], None]) -> Iterator[None]:
    handles = []

    def hook(layer: Layer) -> Callable[..., None]:
        def seen(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            note(layer, "input", args if args else kwargs)
            note(layer, "output", output)

        return seen

    try:
        for name, layer in wrapper.layers.items():
            module = wrapper.torch_module(name)
            handles.append(module.register_forward_hook(hook(layer), with_kwargs=True))
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
