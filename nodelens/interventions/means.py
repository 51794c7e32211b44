"""Means of channels over a stream, to be put in the place of silenced ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nodelens.data import Batch
from nodelens.interventions.channels import Condition, Part, parts_of
from nodelens.interventions.silence import Change, edited_outputs, numbered
from nodelens.interventions.values import channel_moments
from nodelens.model.wrapper import wrap
from nodelens.statistics import Moments

__all__ = ["means"]


def means(
    model: Any,
    batches: Iterable[Any],
    channels: Iterable[str] = (),
    *,
    heads: Iterable[str] = (),
    site: str = "output",
) -> dict[str, Tensor]:
    """Return the mean of every channel over all batches, `{layer: (channels,)}`, float64.

    Measured where `silenced_outputs` silences the layers, so the means of a layer that feeds a
    BatchNorm are those behind it. Padding does not count; all calls of a layer do. Meant for
    `value=`. `channels` and `heads` are names of layers, or the mappings that are to be silenced.
    """
    wrapper, found = wrap(model), dict[str, Moments]()
    nothing: tuple[int, ...] = ()
    condition = Condition(
        dict.fromkeys(channels, nothing), dict.fromkeys(heads, nothing), site=site
    )
    parts = parts_of(wrapper, condition)
    with torch.random.fork_rng(devices=[]):
        for number, given in enumerate(batches):
            with numbered(number):
                batch = wrapper.prepare_batch(given)
                here: list[tuple[str, Moments]] = []
                edited_outputs(wrapper, batch, parts, _measuring(here, batch), here.clear)
            for name, moments in here:
                if (known := found.setdefault(name, moments)) is not moments:
                    known.merge(moments)
    return {name: moments.mean for name, moments in found.items()}


def _measuring(found: list[tuple[str, Moments]], batch: Batch) -> Change:
    def measure(raw: Any, part: Part) -> Any:
        found.append((part.layer.name, channel_moments(raw, part, batch).widened()))
        return raw

    return measure
