"""Findings about single channels, and about what scores say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nodelens.figures.style import shown_unit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "agreement",
    "concentration",
    "dead",
    "matter",
    "redundancy",
    "spread_over_layers",
    "wilson",
]

REDUNDANCY = "average_redundancy"
SPARSITY = "activation_sparsity"
SALIENCY = "taylor_saliency"


def matter(
    channels: pd.DataFrame, score: str, keep: int, *, picked: bool
) -> tuple[tuple[str, str, str] | None, str]:
    """Return a key number and a sentence on the channels that a score would keep longest.

    `keep` is 1 when high values argue for a channel and -1 when low ones do; `picked` says that
    the score was found to be the best order of silencing.
    """
    known = channels[channels[score].notna()]
    ranked = known.assign(rank=keep * known[score]).sort_values("rank", ascending=False)
    layers = known["layer"].nunique()
    if ranked.empty or known[score].nunique() < 2:
        return None, ""
    first = ranked.drop_duplicates("layer").sort_index() if layers <= 5 else ranked.head(5)
    named = _listed([_channel(row.layer, row.channel) for row in first.itertuples()])
    of = "the first of each layer" if layers <= 5 else "the first of all layers"
    reason = ", the order that costs least," if picked else ""
    verb = (
        "keeps longest" if picked else "is highest in" if keep > 0 else "argues by low values for"
    )
    return _half(ranked[score], score, keep), f"`{score}`{reason} {verb} {named}, {of}."


def _half(values: pd.Series, score: str, keep: int) -> tuple[str, str, str] | None:
    """Return how few channels hold half of a score's total, where that can be said."""
    if keep < 0 or values.min() < 0 or values.sum() <= 0:
        return None
    held = int((values.cumsum() < values.sum() / 2).sum()) + 1
    return f"{held:,} of {len(values):,}", "channels hold half of the score", f"of all `{score}`"


def redundancy(
    channels: pd.DataFrame, units: Mapping[str, str]
) -> tuple[tuple[str, str, str] | None, str]:
    """Return a key number and a sentence on the channels that share most with their layer."""
    if REDUNDANCY not in channels or channels[REDUNDANCY].isna().all():
        return None, ""
    top = channels.nlargest(3, REDUNDANCY)
    unit = shown_unit(units.get(REDUNDANCY, ""))
    named = [
        f"{_channel(row.layer, row.channel)} ({row.value:.2g})"
        for row in top.rename(columns={REDUNDANCY: "value"}).itertuples()
    ]
    first = top.iloc[0]
    typical = channels[REDUNDANCY].median()
    number = (
        _channel(first["layer"], first["channel"]).replace("`", ""),
        "is the most redundant channel",
        f"on average it shares {first[REDUNDANCY]:.2g} {unit} with each other channel of its"
        f" layer; the median channel shares {typical:.2g}",
    )
    return number, (
        f"The most redundant channels are {_listed(named)}, in {unit} of `{REDUNDANCY}`; the median"
        f" channel has {typical:.2g}."
    )


def dead(channels: pd.DataFrame) -> tuple[tuple[str, str, str] | None, str]:
    """Return a key number and a sentence on channels that do nothing on any row.

    A channel is dead when its output is 0 on every row (activation_sparsity of 1), or when the loss
    never depends on it (taylor_saliency of exactly 0), as behind a ReLU that never opens.
    """
    tests = {SPARSITY: lambda x: x >= 1, SALIENCY: lambda x: x == 0}
    known = [name for name in tests if name in channels]
    if not known:
        return None, ""
    found = channels[np.logical_or.reduce([tests[name](channels[name]) for name in known])]
    meaning = "on no row measured does the loss depend on them"
    if SALIENCY not in known:
        meaning = "0 on every row measured"
    number = (f"{len(found)} of {len(channels):,}", "channels are dead", meaning)
    if found.empty:
        return number, "No channel is dead."
    if len(found) <= 5:
        named = [_channel(row.layer, row.channel) for row in found.itertuples()]
    else:
        counts = found["layer"].value_counts(sort=False)
        sizes = channels["layer"].value_counts(sort=False)
        named = [f"{n} of {sizes[str(name)]} in `{name}`" for name, n in counts.items()]
    return number, f"Dead ({meaning}): {_listed(named)}."


def agreement(correlation: pd.DataFrame) -> str:
    """Return a sentence on the scores that rank the channels of a layer most and least alike."""
    values = correlation.to_numpy(dtype=float).copy()
    values[np.triu_indices(len(values))] = np.nan
    if len(values) < 2 or np.isnan(values).all():
        return ""
    names = list(correlation.columns)
    i, j = np.unravel_index(np.nanargmax(values), values.shape)
    text = f"`{names[j]}` and `{names[i]}` rank channels most alike ({values[i, j]:.2f})"
    k, m = np.unravel_index(np.nanargmin(values), values.shape)
    if (k, m) != (i, j):
        opposed = "most oppositely" if values[k, m] < 0 else "least alike"
        text += f"; `{names[m]}` and `{names[k]}` {opposed} ({values[k, m]:.2f})"
    return text.replace("-", "\N{MINUS SIGN}") + "."


def spread_over_layers(layer_ranks: pd.DataFrame) -> str:
    """Return a sentence on the score whose ranks differ most from layer to layer."""
    spread = (layer_ranks.max(axis=1) - layer_ranks.min(axis=1)).dropna()
    if spread.empty or layer_ranks.shape[1] < 2:
        return ""
    name = str(spread.idxmax())
    row = layer_ranks.T[name]
    return (
        f"`{name}` differs most between layers: channels of `{row.idxmax()}` have mean rank"
        f" {row.max():.2f}, those of `{row.idxmin()}` {row.min():.2f}."
    )


def concentration(channels: pd.DataFrame) -> str:
    """Return a sentence on the score of which the top tenth of channels holds the largest share."""
    shares = {}
    for name in channels.columns[2:]:
        values = channels[name].dropna().sort_values(ascending=False)
        top = max(1, round(0.1 * len(values)))
        if len(values) > top and values.min() >= 0 and values.sum() > 0:
            shares[str(name)] = float(values.iloc[:top].sum() / values.sum())
    if not shares:
        return ""
    name = max(shares, key=lambda score: shares[score])
    return (
        f"`{name}` is the most concentrated: a tenth of all channels holds {shares[name]:.0%} of"
        " its total."
    )


def wilson(fraction: float, rows: int) -> tuple[float, float]:
    """Return the 95% interval (Wilson 1927) of a fraction that was counted on `rows` rows.

    >>> tuple(round(bound, 3) for bound in wilson(0.5, 100))
    (0.404, 0.596)
    """
    from scipy.stats import binomtest

    ends = binomtest(round(fraction * rows), rows).proportion_ci(0.95, method="wilson")
    return float(ends.low), float(ends.high)


def _channel(layer: object, channel: object) -> str:
    return f"`{layer}[{channel}]`"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
