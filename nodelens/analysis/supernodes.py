"""Supernodes: the few units of a feed-forward block that carry its loss, and who goes with them.

Units are those of a down projection, `(hidden, units)`, scored by `scar_loss_proxy` or any other
score. Selecting, and how much there is to the selection: concentration, overlap of definitions,
robustness, controls. The formulas are in `nodelens.metrics.formulas.supernodes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nodelens.analysis.arrays import Array, array, channel_scores, indices, seeded, whole_numbers
from nodelens.analysis.clustering.permutation import Contrast, contrast
from nodelens.errors import InvalidValueError, ShapeError, TooFewRowsError, whole
from nodelens.metrics.formulas import (
    connectivity,
    effective_dimension,
    read_connectivity,
    redundancy_to_core,
    top_share,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Overlap",
    "Robustness",
    "concentration",
    "halo_contrast",
    "lorenz",
    "matched_others",
    "outlier_z",
    "overlap",
    "random_cores",
    "read_halo",
    "robustness",
    "select_supernodes",
    "signal_redundancy",
    "write_concentration",
    "write_halo",
]

_TO_SIGMA = 1.482602218505602
"""The standard deviation of a Gaussian over its median absolute deviation."""


@dataclass(frozen=True)
class Overlap:
    """How alike definitions are: `jaccard` of what they select, `spearman` of how they rank.

    Both are tables, definitions by definitions. The Spearman correlation with a constant score is
    missing.
    """

    jaccard: pd.DataFrame
    spearman: pd.DataFrame


@dataclass(frozen=True)
class Robustness:
    """What of a selection comes again when batches are drawn anew, with replacement.

    `selected` are the units selected from all batches; `frequency` `(units,)` is how often each
    unit is selected, `jaccard` the mean overlap of a bootstrap's selection with that of all.
    `chance` is the overlap expected of selections at random.
    """

    selected: Tensor
    frequency: Tensor
    jaccard: float
    chance: float


def select_supernodes(scores: Mapping[str, Any], share: float = 0.01) -> dict[str, Tensor]:
    """Return the units of the `share` with the highest scores of every layer, ascending.

    `scores` are `{layer: (units,)}`, such as `result.scores("scar_loss_proxy")`. At least one unit
    of a layer is selected.
    """
    return {
        layer: top_share(torch.from_numpy(channel_scores(found, f"layer {layer!r}")), share)
        for layer, found in scores.items()
    }


def concentration(scores: Any, shares: Sequence[float] = (0.01, 0.05, 0.1)) -> dict[float, float]:
    """Return the fraction of all mass that the units of each top share hold, by share.

    Scores are at least 0. Where all units score alike, a share holds just itself (up to the whole
    number of units); where all are 0 nothing is held.
    """
    values = torch.from_numpy(_masses(scores))
    total = float(values.sum())
    return {
        share: float(values[top_share(values, share)].sum()) / total if total > 0 else 0.0
        for share in shares
    }


def lorenz(scores: Any) -> Tensor:
    """Return the fraction of mass held by the top 0, 1, 2, ... units, `(units + 1,)`."""
    values = np.sort(_masses(scores))[::-1]
    held = np.concatenate([[0.0], np.cumsum(values)])
    return torch.from_numpy(held / held[-1] if held[-1] > 0 else held)


def overlap(definitions: Mapping[str, Any], share: float = 0.01) -> Overlap:
    """Return how alike several scores of one layer are, `{name: (units,)}`."""
    import pandas
    from scipy.stats import rankdata

    names = list(definitions)
    if not names:
        raise InvalidValueError("there are no definitions, expected {name: scores}")
    first = channel_scores(definitions[names[0]], names[0])
    scores = [channel_scores(definitions[name], name, len(first)) for name in names]
    chosen = [set(top_share(torch.from_numpy(s), share).tolist()) for s in scores]
    jaccard = [[_jaccard(a, b) for b in chosen] for a in chosen]
    spearman = pandas.DataFrame([rankdata(s) for s in scores], index=names).T.corr()
    return Overlap(pandas.DataFrame(jaccard, names, names), spearman)


def robustness(
    batch_scores: Any, share: float = 0.01, *, samples: int = 200, seed: int = 42
) -> Robustness:
    """Return how much of the selection holds when batches are drawn anew.

    `batch_scores` are `(batches, units)`, a score that is a mean over rows of batches of like size
    (such as `scar_loss_proxy` of each batch): a bootstrap's score is the mean over batches drawn.
    """
    values = array(batch_scores, "batch_scores")
    if values.ndim != 2 or not values.shape[1]:
        raise ShapeError(f"batch_scores has shape {values.shape}, expected (batches, units)")
    if len(values) < 2:
        raise TooFewRowsError(f"{len(values)} batches, expected at least 2")
    whole("samples", samples, 1)
    random = seeded(seed)
    draws = random.multinomial(len(values), np.full(len(values), 1 / len(values)), samples)
    selected = top_share(torch.from_numpy(values.mean(0)), share)
    again = [top_share(torch.from_numpy(draw @ values), share) for draw in draws]
    frequency = torch.zeros(values.shape[1], dtype=torch.float64)
    for units in again:
        frequency[units] += 1 / samples
    mine, count = set(selected.tolist()), len(selected)
    agreement = float(np.mean([_jaccard(mine, set(units.tolist())) for units in again]))
    # The mean number in common of two selections at random is count^2 / units.
    common = count**2 / values.shape[1]
    return Robustness(selected, frequency, agreement, common / (2 * count - common))


def outlier_z(scores: Any) -> Tensor:
    """Return how far each unit is out, (s - median) / (1.48 MAD), `(units,)`, without a unit.

    Relative to the layer's own spread, so that scales do not count. Where more than half of the
    units score alike, the spread is that of the others: their mean absolute deviation, times 1.25;
    where all do, z is 0.
    """
    values = channel_scores(scores, "scores")
    largest = np.abs(values).max(initial=0.0)
    if largest == 0:
        return torch.zeros(len(values), dtype=torch.float64)
    away = values / largest - np.median(values / largest)
    spread = _TO_SIGMA * float(np.median(np.abs(away)))
    if spread == 0:
        spread = float(np.sqrt(np.pi / 2) * np.abs(away).mean())
    return torch.from_numpy(away / spread if spread > 0 else np.zeros_like(away))


def write_halo(
    down_weight: Tensor, core: Any, share: float = 0.1, *, dimensions: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Return the units that write where the core does, and every unit's connectivity, `(units,)`.

    The halo is the `share` of the units outside the core with the highest connectivity, at least
    one; `dimensions` is the share of the stream that counts as the core's.
    """
    weight = _weight(down_weight, "down_weight")
    members = torch.from_numpy(indices(core, weight.shape[1], "the core"))
    conn = connectivity(weight, members, dimensions)
    outside = torch.ones(len(conn), dtype=torch.bool)
    outside[members] = False
    others = outside.nonzero().flatten()
    if not len(others):
        raise InvalidValueError("every unit is in the core: there is none left for a halo")
    return others[top_share(conn[others], share)], conn


def read_halo(
    up_weight: Tensor,
    down_weight: Tensor,
    core: Any,
    share: float = 0.1,
    *,
    dimensions: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Return the channels of a later layer that read where the core writes, and their shares.

    `up_weight` is `(channels, hidden)`, what reads the stream behind the block. The halo is the
    `share` of its channels with the highest connectivity, `(channels,)`.
    """
    up, down = _weight(up_weight, "up_weight"), _weight(down_weight, "down_weight")
    members = torch.from_numpy(indices(core, down.shape[1], "the core"))
    conn = read_connectivity(up, down, members, dimensions)
    return top_share(conn, share), conn


def signal_redundancy(signals: Any, core: Any) -> Tensor:
    """Return each unit's mean information with the core, `(units,)`, nats, from token signals.

    `signals` are `(rows, units)`: u * g, a unit's value times the loss's gradient there. Signals of
    1e-10 give what they give times 1e10.
    """
    values = array(signals, "signals")
    if values.ndim != 2 or len(values) < 2:
        raise ShapeError(f"signals have shape {values.shape}, expected (2 or more rows, units)")
    members = torch.from_numpy(indices(core, values.shape[1], "the core"))
    # Each brought to its own size first: squares of 1e-200 are no floats.
    size = np.abs(values).max(0)
    values = np.divide(values, size, out=np.zeros_like(values), where=size > 0)
    deviation = torch.from_numpy(values - values.mean(0))
    # What rounding leaves of a constant is no signal.
    deviation[:, deviation.abs().amax(0) < 1e-14] = 0
    return redundancy_to_core(deviation.T @ deviation, members)


def write_concentration(down_weight: Tensor) -> Tensor:
    """Return over how many dimensions of the stream each unit writes, `(units,)`.

    The exponential of the entropy of its absolute weights, from 1 (one dimension) to hidden (all
    alike); 0 for a unit that writes nothing.
    """
    size = _weight(down_weight, "down_weight").abs()
    found = [effective_dimension(column) for column in size.T]
    return torch.tensor(found, dtype=torch.float64)


def random_cores(
    units: int, size: int, count: int = 20, *, exclude: Any = (), seed: int = 42
) -> Tensor:
    """Return cores drawn at random as controls, `(count, size)`, each ascending.

    No unit of `exclude`, such as the core itself, is drawn.
    """
    taken = indices(np.asarray(exclude), units, "exclude")
    left = np.setdiff1d(np.arange(units), taken)
    if not 1 <= whole("size", size, 1) <= len(left):
        raise InvalidValueError(f"size is {size}, expected a number from 1 to {len(left)}")
    random = seeded(seed)
    drawn = [
        np.sort(random.choice(left, size, replace=False)) for _ in range(whole("count", count, 0))
    ]
    return torch.from_numpy(np.array(drawn, dtype=np.int64).reshape(count, size))


def matched_others(scores: Any, halo: Any, core: Any) -> Tensor:
    """Return for every unit of the halo one outside of halo and core with the nearest score.

    `(halo,)`, each unit once: pairs are made of the nearest ranks, the halo's highest scores first.
    """
    values = channel_scores(scores, "scores")
    members = indices(halo, len(values), "the halo")
    taken = np.union1d(members, indices(core, len(values), "the core"))
    free = list(np.setdiff1d(np.arange(len(values)), taken))
    if len(free) < len(members):
        raise InvalidValueError(
            f"{len(free)} units are outside of halo and core, expected at least {len(members)}"
        )
    match = {}
    for unit in sorted(members, key=lambda unit: -values[unit]):
        nearest_one = min(free, key=lambda other: abs(values[other] - values[unit]))
        free.remove(nearest_one)
        match[unit] = int(nearest_one)
    return torch.tensor([match[unit] for unit in members], dtype=torch.int64)


def halo_contrast(
    values: Any, halo: Any, others: Any, *, permutations: int = 999, seed: int = 42
) -> Contrast:
    """Return by how much halo units exceed their matches, `others`, in the mean of `values`.

    Halo and match swap places at random in the null (a paired permutation test). `halo` and
    `others` hold units' numbers, pair by pair, `others` as `matched_others` gives them.
    """
    scores = channel_scores(values, "values")
    # Not sorted: each stands beside its own match.
    mine, theirs = (
        whole_numbers(units, what, len(scores))
        for units, what in ((halo, "the halo"), (others, "others"))
    )
    whole("permutations", permutations, 1)
    if mine.ndim != 1 or mine.shape != theirs.shape or not len(mine):
        raise ShapeError(
            f"others of shape {theirs.shape} for a halo of shape {mine.shape}, expected one for "
            "each unit, and at least one"
        )
    gaps = scores[mine] - scores[theirs]
    signs = seeded(seed).choice([-1.0, 1.0], (permutations, len(gaps)))
    return contrast(float(gaps.mean()), signs @ gaps / len(gaps))


def _weight(given: Any, what: str) -> Tensor:
    found = torch.from_numpy(array(given, what))
    if found.ndim != 2 or not found.numel():
        raise ShapeError(f"{what} has shape {tuple(found.shape)}, expected a matrix")
    return found


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def _masses(scores: Any) -> Array:
    """Scores over the largest, which must all be at least 0."""
    values = channel_scores(scores, "scores")
    if not len(values) or values.min() < 0:
        raise InvalidValueError(
            "there are no scores"
            if not len(values)
            else f"a score is {values.min():g}, expected none below 0: a share of mass is asked for"
        )
    largest = values.max()
    return values / largest if largest > 0 else values
