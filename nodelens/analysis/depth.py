"""A score along the depth of a network, and between kinds of layers: what is where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nodelens.analysis.arrays import Array, array, channel_scores
from nodelens.analysis.supernodes import concentration
from nodelens.errors import InvalidValueError

if TYPE_CHECKING:
    import pandas

__all__ = ["compared_kinds", "depth_profile"]

_QUANTILES = (0.05, 0.25, 0.75, 0.95)


def depth_profile(
    scores: Mapping[str, Any],
    *,
    share: float = 0.01,
    quantiles: Sequence[float] = _QUANTILES,
) -> pandas.DataFrame:
    """Return one row a layer, in the order given, which is that of the forward pass.

    `scores` are `{layer: (channels,)}`. `depth` runs from 0, the first layer, to 1, the last; then
    `channels`, `mean`, `median`, a column for each quantile such as `q95`, and `top_share`, the
    fraction of the mass in the top `share` of the channels: missing where a score is below 0.

    >>> depth_profile({"a": [1, 1, 2], "b": [0, 0, 9]})[["depth", "median", "top_share"]].values
    array([[0. , 1. , 0.5],
           [1. , 0. , 1. ]])
    """
    import pandas

    marks = array(quantiles, "quantiles")
    if marks.ndim != 1 or not ((marks >= 0) & (marks <= 1)).all():
        raise InvalidValueError(f"quantiles are {quantiles}, expected numbers from 0 to 1")
    rows = [
        {
            **place,
            "channels": len(values),
            "mean": values.mean(),
            "median": np.median(values),
            **{f"q{100 * q:02.0f}": np.quantile(values, q) for q in marks},
            "top_share": _top_share(values, share),
        }
        for place, values in _along(scores, "")
    ]
    return pandas.DataFrame(rows)


def compared_kinds(
    scores: Mapping[str, Mapping[str, Any]], *, share: float = 0.01
) -> pandas.DataFrame:
    """Return how an additive score, such as a loss proxy, is shared between kinds of layers.

    `scores` are `{kind: {layer: (units,)}}`, such as attention heads and FFN units, of the same
    unit of measure and none below 0; each kind's layers stand in the order of the pass. A row a
    layer: `kind`, `layer`, `depth` within the kind, `units`, `total`, `of_all` (the layer's share
    of all there is), `of_kind`, and `per_unit`: the mean of a unit over the mean of all units of
    every kind, 1 where it is worth as much as any. `largest` is the largest unit's share of its
    layer, `top_share` that of the top `share`. Where everything is 0 all shares are 0.

    Raises InvalidValueError for a score below 0.
    """
    import pandas

    _check(scores, "kinds")
    rows = [row for kind, layers in scores.items() for row in _rows(kind, layers, share)]
    table = pandas.DataFrame(rows)
    of_kind = table.groupby("kind")["total"].transform("sum")
    table["of_all"] = _over(table["total"], table["total"].sum())
    table["of_kind"] = _over(table["total"], of_kind)
    mean = table["total"].sum() / table["units"].sum()
    table["per_unit"] = _over(table["total"] / table["units"], mean)
    return table


def _rows(kind: str, layers: Mapping[str, Any], share: float) -> list[dict[str, Any]]:
    rows = []
    for place, values in _along(layers, f" of {kind!r}"):
        if values.min() < 0:
            raise InvalidValueError(
                f"layer {place['layer']!r} of {kind!r}: a score is {values.min():g}, "
                "expected none below 0"
            )
        rows.append(
            {
                "kind": kind,
                **place,
                "units": len(values),
                "total": values.sum(),
                "largest": float(_over(values.max(), values.sum())),
                "top_share": _top_share(values, share),
            }
        )
    return rows


def _along(layers: Mapping[str, Any], of: str) -> Iterator[tuple[dict[str, Any], Array]]:
    """Every layer's name and relative depth, with its scores `(channels,)`."""
    _check(layers, f"layers{of}")
    last = max(len(layers) - 1, 1)
    for number, (layer, given) in enumerate(layers.items()):
        values = channel_scores(given, f"layer {layer!r}{of}")
        if not len(values):
            raise InvalidValueError(f"layer {layer!r}{of} has no channels")
        yield {"layer": layer, "depth": number / last}, values


def _top_share(values: Array, share: float) -> float:
    return concentration(values, [share])[share] if values.min() >= 0 else float("nan")


def _over(part: Any, whole: Any) -> Any:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _check(given: Mapping[str, Any], what: str) -> None:
    if not isinstance(given, Mapping) or not given:
        raise InvalidValueError(f"there are no {what}, expected scores of at least one")
