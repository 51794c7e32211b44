"""All metrics on one network: two passes, then what each costs alone, then how far they agree."""

from __future__ import annotations

import json
import resource
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas

from nodelens import Aggregator, CompositeLens, Lens, LensResult, MetricLens
from nodelens.metrics import list_metrics
from nodelens.metrics.facts import LensFacts
from projects.all_metrics.networks import Network

__all__ = ["fitting", "measured", "own_options"]


def measured(network: Network, path: Path) -> dict[str, Any]:
    """Measure every metric and write what was found to `path`."""
    lenses, options, refused = fitting(network)
    plain = [lens for lens in lenses if "loss" not in LensFacts.of(lens.name).needs]
    found: dict[str, Any] = {"title": network.title, "rows": network.rows, "refused": refused}
    scores: list[pandas.DataFrame] = []
    for name, group in (("forward", plain), ("gradient", [x for x in lenses if x not in plain])):
        found[name], result = _together(group, network, options)
        scores.append(_table(result, network))
        path.write_text(json.dumps(found, indent=1))
    found["agreement"] = _agreement(pandas.concat(scores))
    path.write_text(json.dumps(found, indent=1))
    found["lenses"] = [_alone(lens, network, options) for lens in lenses if network.rounds]
    path.write_text(json.dumps(found, indent=1))
    return found


def fitting(network: Network) -> tuple[list[MetricLens], dict[str, Any], dict[str, str]]:
    """Return the lenses that fit, the options of their run, and why the others do not."""
    lenses: list[MetricLens] = []
    options: dict[str, Any] = {}
    refused: dict[str, str] = {}
    network.model.route(network.model.prepare_batch(next(iter(network.batches()))))
    for name in list_metrics():
        lens, own = Lens.named(name).example(network.model)
        assert isinstance(lens, MetricLens)
        lens.pattern = network.pattern
        if (reason := lens.refusal(network.model)) is not None:
            refused[name] = reason
            continue
        lenses.append(lens)
        options.update(own)
    return lenses, options, refused


def _together(
    lenses: Sequence[MetricLens], network: Network, options: dict[str, Any]
) -> tuple[dict[str, Any], LensResult]:
    """One pass over the whole stream with all of them: seconds, and memory against the plan."""
    composite = CompositeLens(lenses)
    first = next(iter(network.batches()))
    own = own_options(composite, network, options)
    planned = composite.plan(network.model, first, **own)
    before, start = _peak(), perf_counter()
    # Not in a loop, which would hold the statistics of one batch while the next is measured.
    aggregator = composite.measure(network.model, network.batches(), progress=False, **own)
    streamed = perf_counter() - start
    after, start = _peak(), perf_counter()
    result = aggregator.result()
    return {
        "lenses": [lens.name for lens in lenses],
        "planned_bytes": sum(planned.bytes.values()),
        "planned_peak": sum(planned.peak.values()),
        "peak_grew_by": after - before,
        "seconds": streamed,
        "scoring_seconds": perf_counter() - start,
        "notes": result.notes,
    }, result


def own_options(lens: Lens, network: Network, options: dict[str, Any]) -> dict[str, Any]:
    """Return those options of the run that are this lens's, and how next tokens are sorted."""
    mine = {k: v for k, v in options.items() if k in lens.prepare_options()}
    return {**mine, "token_classes": network.token_classes}


def _alone(lens: MetricLens, network: Network, options: dict[str, Any]) -> dict[str, Any]:
    """What one lens costs on its own: seconds a batch with the pass it needs, and bytes kept."""
    batches = list(islice(iter(network.batches()), network.rounds))
    own = own_options(lens, network, options)
    seconds, scoring = [], 0.0
    for _ in range(network.rounds):
        start = perf_counter()
        aggregator = lens.aggregator()
        for statistics in lens.analyse_batched(network.model, batches, **own):
            aggregator.update(statistics)
        seconds.append((perf_counter() - start) / len(batches))
        start = perf_counter()
        aggregator.result()
        scoring = perf_counter() - start
    return {
        "lens": lens.name,
        "family": lens.family,
        "needs": LensFacts.of(lens.name).needs,
        "seconds_a_batch": median(seconds),
        "scoring_seconds": scoring,
        "bytes": _bytes(aggregator),
    }


def _bytes(aggregator: Aggregator) -> int:
    """The bytes of all tensors that an aggregator holds."""
    found = [s for named in aggregator.statistics.values() for s in named.values()]
    tensors = [t for s in found for t in s.state().values()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _table(result: LensResult, network: Network) -> pandas.DataFrame:
    """The scores of single units, each with the set of units it ranks.

    Scores of one layer may be of its channels, of its inputs or of its heads: scores are set side
    by side only where they are of equally many units.
    """
    table = result.to_pandas().dropna(subset=["channel"])
    layers = table["layer"].map(network.unit)
    units = table.groupby(["layer", "score"])["channel"].transform("size")
    return table.assign(unit_set=layers + " of " + units.astype(str))


def _agreement(table: pandas.DataFrame) -> dict[str, Any]:
    """Median over sets of units of the rank correlation of every two scores."""
    matrices = []
    for _, part in table.groupby("unit_set"):
        wide = part.pivot_table(index="channel", columns="score", values="value", aggfunc="first")
        matrices.append(wide.corr(method="spearman", min_periods=8))
    names = list(dict.fromkeys(name for matrix in matrices for name in matrix.columns))
    stack = np.stack([m.reindex(index=names, columns=names).to_numpy() for m in matrices])
    with warnings.catch_warnings():
        # Two scores that are never of the same units have no correlation.
        warnings.filterwarnings("ignore", "All-NaN slice encountered")
        middle = np.nanmedian(stack, axis=0)
    return {"names": names, "spearman": np.where(np.isnan(middle), None, middle).tolist()}


def _peak() -> int:
    """The most memory this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
