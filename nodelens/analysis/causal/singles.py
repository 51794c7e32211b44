"""Single channels of one layer, many a pass, where all outputs of such a pass fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens.analysis.causal.lesions import Lesion
from nodelens.data import Batch
from nodelens.interventions import Condition, channel_predictions
from nodelens.interventions.silence import numbered
from nodelens.model.wrapper import ModelWrapper

__all__ = ["Singles", "chunked"]

_MOST_BYTES = 2**26
"""Of all outputs in one pass: where a batch fills the machine by itself, sharing gains nothing."""


class Singles:
    """What single channels cost every batch; outputs of the intact model are kept where small."""

    def __init__(self, wrapper: ModelWrapper, parts: Sequence[Any], options: Any) -> None:
        self.wrapper, self.parts = wrapper, parts
        self.condition = {name: options[name] for name in ("value", "site")}
        self.loss = options["loss"]
        self._dense: dict[int, Any] = {}
        self._bytes = 0

    def cost(self, lesions: Sequence[Lesion], at_once: int) -> list[Any]:
        """Return losses, right predictions and rows of every batch, one record a lesion.

        `lesions` are single channels of one layer.
        """
        (layer,) = {name for ((name, _),) in lesions}
        channels = [channel for ((_, (channel,)),) in lesions]
        condition = Condition({layer: channels}, **self.condition)
        with torch.random.fork_rng(devices=[]):
            by_batch = [
                self._of_batch(n, given, condition, at_once) for n, given in enumerate(self.parts)
            ]
        return [_record(found) for found in zip(*by_batch, strict=True)]

    def _of_batch(self, number: int, given: Any, condition: Condition, at_once: int) -> Any:
        with numbered(number):
            batch = self.wrapper.prepare_batch(given)
            dense = self._intact(number, batch)
            size = max(_bytes(dense), 1)
            return channel_predictions(
                self.wrapper, batch, dense, condition,
                at_once=max(1, min(at_once, _MOST_BYTES // size - 1)), loss=self.loss,
            )  # fmt: skip

    def _intact(self, number: int, batch: Batch) -> Any:
        if number in self._dense:
            return self._dense[number]
        dense = self.wrapper.forward(batch)
        if self._bytes + (size := _bytes(dense)) <= _MOST_BYTES:
            self._dense[number] = dense
            self._bytes += size
        return dense


def chunked(lesions: Iterable[Lesion], at_once: int) -> dict[Lesion, list[Lesion]]:
    """Return, for every single channel, the up to `at_once` of its layer it is measured with.

    >>> [len(some) for some in chunked([(("fc", (n,)),) for n in range(3)], 2).values()]
    [2, 2, 1]
    """
    by_layer: dict[str, list[Lesion]] = {}
    for which in lesions:
        if len(which) == 1 and len(which[0][1]) == 1:
            by_layer.setdefault(which[0][0], []).append(which)
    return {
        which: some
        for mine in by_layer.values()
        for start in range(0, len(mine), at_once)
        for some in [mine[start : start + at_once]]
        for which in some
    }


def _record(found: Sequence[Any]) -> dict[str, Any]:
    classes = all(one.correct is not None for one in found)
    return {
        "losses": [float(one.loss) for one in found],
        "right": [int(one.correct.sum()) for one in found] if classes else None,
        "rows": [one.terms for one in found],
    }


def _bytes(outputs: Any) -> int:
    from torch.utils._pytree import tree_leaves

    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
