"""Every metric lens that fits a model, measured together, and what each costs alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any

import torch

from nodelens.aggregator import Aggregator
from nodelens.analysis.causal.board import BoardEntry
from nodelens.composite import CompositeLens
from nodelens.errors import InvalidValueError
from nodelens.lens import Lens
from nodelens.metrics import list_metrics
from nodelens.metrics.facts import LensFacts
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.progress import Progress
from nodelens.result import LensResult

__all__ = ["fitting", "scored"]


def fitting(
    model: ModelWrapper, lenses: Sequence[str | Lens] | None = None, pattern: str | None = None
) -> tuple[list[Lens], dict[str, Any], dict[str, str]]:
    """Return the lenses that fit, the options their runs need, and why the others do not fit.

    Names are made by the lens's own `example`, so a plugin says how it is to be tried; lenses that
    are given stay as they are. The route has to be known.
    """
    fit: list[Lens] = []
    options: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for given in list_metrics() if lenses is None else lenses:
        lens, own = (given, {}) if isinstance(given, Lens) else Lens.named(given).example(model)
        if not isinstance(given, Lens):
            lens.pattern = pattern
        if (reason := lens.refusal(model)) is not None:
            refused[lens.name] = reason
            continue
        fit.append(lens)
        options.update(own)
    if not fit:
        raise InvalidValueError(f"none of the lenses fits the model: {refused}")
    return fit, options, refused


def scored(
    model: Any,
    batches: Sequence[Any],
    layers: Mapping[str, int],
    *,
    lenses: Sequence[str | Lens] | None = None,
    pattern: str | None = None,
    unit: Callable[[str], str] = str,
    options: Mapping[str, Any] | None = None,
    timed_batches: int = 1,
    progress: bool | Progress = True,
) -> tuple[dict[str, BoardEntry], dict[str, str]]:
    """Return every score of the units of `layers` that any lens gives, and why lenses are missing.

    `layers` is `{layer: units}`. All lenses are measured in one pass, those that need gradients in
    a second. A score counts for a layer where it is of as many units, under the layer's own name or
    one that `unit` maps to the same. Each lens is then run alone on `timed_batches` for its seconds
    a batch and the bytes it keeps; 0 leaves that out.
    """
    wrapper = wrap(model)
    wrapper.route(wrapper.prepare_batch(batches[0]))
    fit, needed, refused = fitting(wrapper, lenses, pattern)
    merged = {**needed, **(options or {})}
    plain = [lens for lens in fit if "loss" not in _needs(lens)]
    board: dict[str, BoardEntry] = {}
    for group in (plain, [lens for lens in fit if lens not in plain]):
        if group:
            composite = CompositeLens(group)
            own = _own(composite, merged)
            result = composite.run(wrapper, batches, progress=progress, **own)
            board |= _entries(composite, result, layers, unit)
    without = {lens.name for lens in fit} - {entry.lens for entry in board.values()}
    refused |= dict.fromkeys(without, "it gives no score of single units of these layers")
    if timed_batches:
        board = _with_costs(board, fit, wrapper, list(islice(batches, timed_batches)), merged)
    return board, refused


def _needs(lens: Lens) -> tuple[str, ...]:
    return tuple(LensFacts(type(lens)).needs)


def _own(lens: Lens, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that the lens takes, and those of batches, such as `token_classes`."""
    from nodelens.data import BATCH_OPTIONS

    known = {*lens.prepare_options(), *lens.intervene_options(), *BATCH_OPTIONS}
    return {name: value for name, value in options.items() if name in known}


def _entries(
    composite: CompositeLens,
    result: LensResult,
    layers: Mapping[str, int],
    unit: Callable[[str], str],
) -> dict[str, BoardEntry]:
    place = {unit(layer): layer for layer in layers}
    owners = dict(composite.parts())
    found: dict[str, BoardEntry] = {}
    for name in result.score_names:
        label = max((n for n in owners if name.startswith(n)), key=len)
        by_layer = _by_layer(result.scores(name), place, layers, unit)
        for scores, suffix in zip(by_layer, ("", " (other name)"), strict=False):
            found[name + suffix] = BoardEntry(
                scores, result.importance[name], owners[label].name, owners[label].family
            )
    return found


def _by_layer(
    scores: Mapping[str, Any],
    place: Mapping[str, str],
    layers: Mapping[str, int],
    unit: Callable[[str], str],
) -> list[dict[str, Any]]:
    """The scores under the names of the layers silenced; a second table where a unit has two."""
    tables: list[dict[str, Any]] = []
    for scored_layer, values in scores.items():
        layer = place.get(unit(scored_layer))
        if layer is None or values.ndim != 1 or len(values) != layers[layer]:
            continue
        free = next((table for table in tables if layer not in table), None)
        if free is None:
            free = {}
            tables.append(free)
        free[layer] = values
    return tables


def _with_costs(
    board: Mapping[str, BoardEntry],
    lenses: Sequence[Lens],
    model: ModelWrapper,
    batches: Sequence[Any],
    options: Mapping[str, Any],
) -> dict[str, BoardEntry]:
    costs = {lens.name: _cost(lens, model, batches, _own(lens, options)) for lens in lenses}
    return {
        name: replace(entry, seconds=costs[entry.lens][0], bytes=costs[entry.lens][1])
        for name, entry in board.items()
    }


def _cost(
    lens: Lens, model: ModelWrapper, batches: Sequence[Any], options: Mapping[str, Any]
) -> tuple[float, int]:
    """Seconds a batch with the pass the lens needs, its median, and bytes kept."""
    aggregator, seconds = lens.aggregator(), []
    stream = lens.analyse_batched(model, batches, **options)
    start = perf_counter()
    for statistics in stream:
        seconds.append(perf_counter() - start)
        aggregator.update(statistics)
        start = perf_counter()
    return median(seconds), _bytes(aggregator)


def _bytes(aggregator: Aggregator) -> int:
    _, tensors = aggregator.packed()
    return sum(
        t.numel() * t.element_size() for t in tensors.values() if isinstance(t, torch.Tensor)
    )
