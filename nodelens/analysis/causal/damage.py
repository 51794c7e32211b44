"""Measuring what lesions cost: the one place where a model is evaluated for a causal check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nodelens.analysis.causal.lesions import INTACT, Damage, Lesion, as_channels
from nodelens.analysis.causal.record import Record
from nodelens.analysis.causal.singles import Singles, chunked
from nodelens.errors import InvalidValueError, NodeLensError, whole
from nodelens.interventions import Evaluation, evaluate
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.progress import Progress, announce, watched

__all__ = ["measured_damage"]


def measured_damage(
    model: Any,
    batches: Iterable[Any],
    lesions: Sequence[Lesion],
    *,
    value: Any = "zero",
    site: str = "output",
    loss: Any = None,
    path: str | Path | None = None,
    progress: bool | Progress = True,
    at_once: int = 16,
) -> Damage:
    """Return the loss of every batch under every lesion, and of the intact model.

    Each lesion is one evaluation on all batches, which are held in memory; equal lesions are
    measured once. Up to `at_once` single channels of a layer share a pass where the model keeps
    rows apart and its outputs are small; the numbers are the same. With `path` every lesion is
    written there as soon as it is known, and a later call measures only what is missing.
    `progress` is True for a bar, or a function of (evaluations done, rows seen). `value`, `site`
    and `loss` are those of `nodelens.interventions.evaluate`.

    Raises MergeError for a record of another model, other batches or another `site`,
    InvalidValueError without a batch or with `at_once` below 1.
    """
    whole("at_once", at_once, 1)
    wrapper = wrap(model)
    with torch.random.fork_rng(devices=[]):
        parts = list(batches)
    if not parts:
        raise InvalidValueError("no batch to measure damage on, expected at least one")
    options = {"value": value, "site": site, "loss": loss}
    named = value if isinstance(value, str) else "given"
    intact = _cost(wrapper, parts, INTACT, options)
    record = Record(path, {"site": site, "value": named}, intact)
    wanted = list(dict.fromkeys([INTACT, *lesions]))
    known = [which for which in wanted if which in record.found]
    missing = [which for which in wanted if which not in record.found]
    together, singles = chunked(missing, at_once), Singles(wrapper, parts, options)
    rows = int(sum(intact["rows"]))
    seen = [rows * len(known)]
    if progress is True:
        announce(f"{len(missing)} evaluations of {rows:,} rows, {len(known)} known already")
    for which in watched(
        known + missing, len(known), progress, lambda: seen[0], what="evaluations"
    ):
        if which not in record.found:
            some = together.get(which, [which])
            for one, cost in zip(some, _costs(singles, some, options), strict=True):
                record.add(one, cost)
        seen[0] += rows
    return _gathered(record, wanted)


def _costs(singles: Singles, some: Sequence[Lesion], options: Any) -> list[Any]:
    if len(some) > 1:
        return singles.cost(some, len(some))
    return [_cost(singles.wrapper, singles.parts, some[0], options)]


def _cost(wrapper: ModelWrapper, parts: Sequence[Any], which: Lesion, options: Any) -> Any:
    """Return losses, right predictions and rows of every batch, as lists of plain numbers."""
    found = [_of_batch(wrapper, batch, n, which, options) for n, batch in enumerate(parts)]
    classes = all(one.accuracy is not None for one in found)
    return {
        "losses": [one.loss * one.rows for one in found],
        "right": [round((one.accuracy or 0.0) * one.rows) for one in found] if classes else None,
        "rows": [one.rows for one in found],
    }


def _of_batch(
    wrapper: ModelWrapper, batch: Any, number: int, which: Lesion, options: Any
) -> Evaluation:
    try:
        return evaluate(wrapper, [batch], as_channels(which), **options)
    except NodeLensError as error:
        # It counts batches from its own first, which is always this one.
        error.message = error.message.removeprefix("batch 0: ")
        error.within(f"batch {number}")
        raise


def _gathered(record: Record, wanted: Sequence[Lesion]) -> Damage:
    found = {which: record.found[which] for which in wanted}
    classes = all(one["right"] is not None for one in found.values())
    return Damage(
        {which: np.array(one["losses"], float) for which, one in found.items()},
        {w: np.array(one["right"], float) for w, one in found.items()} if classes else None,
        np.array(found[INTACT]["rows"], float),
    )
