"""What figures are drawn from: scores by layer and tables, checked where they come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nodelens.errors import InvalidValueError, ShapeError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Array", "LayerScores", "layer_scores", "missing_note", "numbers", "one_of", "table_of"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LayerScores:
    """One score of every layer, `values[layer]` `(channels,)`, NaN where there is no value."""

    values: dict[str, Array]
    name: str
    unit: str
    why: str = "missing or not finite"

    def positive(self) -> LayerScores:
        """Return the scores above 0, all others missing; InvalidValueError where there are none."""
        kept = {layer: np.where(x > 0, x, np.nan) for layer, x in self.values.items()}
        if not any((x > 0).any() for x in kept.values()):
            raise InvalidValueError("no score is above 0, which a logarithmic axis needs")
        return replace(self, values=kept, why="not above 0")

    @property
    def layers(self) -> list[str]:
        """Return the layers in order."""
        return list(self.values)

    @property
    def finite(self) -> dict[str, Array]:
        """Return the values that are numbers, layer by layer; a layer may have none."""
        return {layer: values[np.isfinite(values)] for layer, values in self.values.items()}

    @property
    def note(self) -> str:
        """Return how many values are missing, as a line for the axis; empty if none is."""
        return missing_note(np.concatenate(list(self.values.values())), "channel", self.why)


def layer_scores(
    data: Any, score: str | None = None, name: str | None = None, unit: str | None = None
) -> LayerScores:
    """Return one score of every layer from a LensResult or `{layer: (channels,)}`.

    `score` chooses among those of a LensResult, the first by default; `name` and `unit` take the
    place of its own.

    Raises InvalidValueError for no layer or no finite score, ShapeError for another shape.
    """
    own = ""
    if hasattr(data, "score_names"):
        given = data.scores(score)
        score = score if score is not None else data.score_names[0]
        own = data.units.get(score, "")
    else:
        given = data
    values = {str(layer): _row(layer, scores) for layer, scores in given.items()}
    if not values:
        raise InvalidValueError("there are no layers to draw, expected scores of at least one")
    if not any(np.isfinite(found).any() for found in values.values()):
        raise InvalidValueError(
            f"none of {sum(map(len, values.values()))} scores is finite, expected at least one"
        )
    return LayerScores(values, name or score or "score", own if unit is None else unit)


def _row(layer: Any, scores: Any) -> Array:
    found = numbers(scores)
    if found.ndim != 1:
        raise ShapeError(f"layer {layer!r}: scores of shape {found.shape}, expected (channels,)")
    if not len(found):
        raise InvalidValueError(f"layer {layer!r}: there are no scores, expected one or more")
    return np.where(np.isfinite(found), found, np.nan)


def numbers(values: Any) -> Array:
    """Return tensors (also on a device, with gradients), arrays or lists as float64."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def missing_note(values: Any, what: str = "value", why: str = "missing or not finite") -> str:
    """Return a line that says how many values are no numbers, and why; empty if all are.

    >>> missing_note([1.0, float("nan")], "channel")
    '\\n1 of 2 channels missing or not finite'
    """
    found = numbers(values)
    missing = int((~np.isfinite(found)).sum())
    return f"\n{missing:,} of {found.size:,} {what}s {why}" if missing else ""


def table_of(data: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Return a DataFrame, rows (mappings), or anything that has `to_pandas`, as a table.

    Raises InvalidValueError for an empty table or one without a column.
    """
    import pandas

    if hasattr(data, "to_pandas"):
        data = data.to_pandas()
    table = data if isinstance(data, pandas.DataFrame) else pandas.DataFrame(list(data))
    if not len(table):
        raise InvalidValueError("the table has no rows, expected at least one")
    for column in columns:
        if column not in table.columns:
            raise InvalidValueError(
                f"the table has no column {column!r}{nearest(column, map(str, table.columns))}, "
                f"expected {', '.join(columns)}"
            )
    return table


def one_of(value: str, valid: Iterable[str] | Mapping[str, Any], what: str) -> str:
    """Return `value`; InvalidValueError with the nearest where it is not one of `valid`."""
    known = list(valid)
    if value not in known:
        raise InvalidValueError(
            f"{what} is {value!r}{nearest(value, known)}, expected one of {', '.join(known)}"
        )
    return value
