"""Sets of channels to silence, and what each of them cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodelens.analysis.arrays import Array, indices
from nodelens.errors import InvalidValueError
from nodelens.notebook import html_table

__all__ = [
    "INTACT",
    "Damage",
    "Lesion",
    "as_channels",
    "channel_numbers",
    "joined",
    "lesion",
    "rises",
]

Lesion = tuple[tuple[str, tuple[int, ...]], ...]
"""Layers and channel numbers, both sorted, so that equal sets are equal keys."""

INTACT: Lesion = ()
"""Nothing is silenced."""

_ROUNDING = 1e-7


def channel_numbers(channels: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return every layer's channels, numbers or a mask, as ascending numbers, each once.

    Raises InvalidValueError with the layer for what are no channels.
    """
    if not isinstance(channels, Mapping):
        raise InvalidValueError(f"channels are {channels!r:.60}, expected {{layer: channels}}")
    found = {}
    for layer, given in channels.items():
        listed = list(given) if isinstance(given, (Set, Iterator)) else given
        found[layer] = indices(listed, None, f"layer {layer!r}").tolist()
    return found


def lesion(channels: Mapping[str, Any]) -> Lesion:
    """Return the set as a key, with layers and channels sorted and empty layers left out.

    >>> lesion({"fc": [3, 1, 1], "conv": []})
    (('fc', (1, 3)),)
    """
    sets = channel_numbers(channels)
    return tuple(sorted((layer, tuple(chosen)) for layer, chosen in sets.items() if chosen))


def as_channels(which: Lesion) -> dict[str, list[int]]:
    """Return `{layer: channels}`, as `nodelens.interventions` takes it."""
    return {layer: list(chosen) for layer, chosen in which}


def joined(*parts: Lesion) -> Lesion:
    """Return the lesion that silences all that any of the parts does."""
    together: dict[str, list[int]] = {}
    for layer, chosen in (pair for part in parts for pair in part):
        together.setdefault(layer, []).extend(chosen)
    return lesion(together)


def shown_lesion(which: Lesion, most: int = 6) -> str:
    """Return a lesion in words, long lists of channels cut short.

    >>> shown_lesion((("fc", (1, 3)), ("out", tuple(range(9)))))
    'fc: 1, 3; out: 0, 1, 2, 3, 4, 5, ... (9)'
    """
    parts = []
    for layer, chosen in which:
        more = f", ... ({len(chosen)})" if len(chosen) > most else ""
        parts.append(f"{layer}: {', '.join(map(str, chosen[:most]))}{more}")
    return "; ".join(parts) or "nothing"


def rises(losses: Array, base: Any) -> Array:
    """Return losses less those of the intact model, without what a float32 loss loses."""
    unit = _ROUNDING * np.maximum(np.abs(base), 1e-3)
    rounded: Array = np.round((losses - base) / unit) * unit
    return rounded


@dataclass(frozen=True)
class Damage:
    """What every lesion did to every batch.

    `losses` and `right` are by lesion, each `(batches,)`: the loss summed over predictions, and how
    many were right (None where there are no classes). `rows` are the predictions, `(batches,)`.
    """

    losses: Mapping[Lesion, Array]
    right: Mapping[Lesion, Array] | None
    rows: Array

    @property
    def base(self) -> float:
        """Return the loss of a prediction of the intact model."""
        return float(self._of(self.losses, INTACT).sum() / self.rows.sum())

    def loss(self, which: Lesion) -> float:
        """Return the loss of a prediction under a lesion."""
        return float(self._of(self.losses, which).sum() / self.rows.sum())

    def changes(self, lesions: Sequence[Lesion]) -> Array:
        """Return how much each lesion raises the loss of a prediction, `(lesions,)`.

        What is lost in the rounding of a float32 loss is rounded off, so that channels that do
        nothing are tied.
        """
        return rises(np.array([self.loss(which) for which in lesions]), self.base)

    def change(self, which: Lesion) -> float:
        """Return how much one lesion raises the loss of a prediction."""
        return float(self.changes([which])[0])

    def accuracy(self, which: Lesion) -> float | None:
        """Return the fraction of predictions that are right, None where there are no classes."""
        if self.right is None:
            return None
        return float(self._of(self.right, which).sum() / self.rows.sum())

    def by_batch(self, which: Lesion) -> Array:
        """Return the loss of a prediction of every batch, `(batches,)`."""
        per_batch: Array = self._of(self.losses, which) / self.rows
        return per_batch

    def resampled(self, lesions: Sequence[Lesion], picks: NDArray[np.int64]) -> Array:
        """Return the loss changes over batches drawn anew, `(draws, lesions)`.

        `picks` are batch numbers, `(draws, batches)`.
        """
        intact = self._of(self.losses, INTACT)
        gaps = np.stack([self._of(self.losses, which) - intact for which in lesions])
        drawn: Array = gaps[:, picks].sum(2).T / self.rows[picks].sum(1)[:, None]
        return drawn

    def _repr_html_(self) -> str:
        lesions = [which for which in self.losses if which != INTACT]
        rows = [
            (shown_lesion(which), rise, self.accuracy(which))
            for which, rise in zip(lesions, self.changes(lesions).tolist(), strict=True)
        ]
        caption = f"{len(rows)} lesions; loss of the intact model {self.base:.4g}"
        return html_table(("silenced", "rise of the loss", "accuracy"), rows, caption)

    @staticmethod
    def _of(table: Mapping[Lesion, Any], which: Lesion) -> Any:
        if which not in table:
            raise InvalidValueError(f"the lesion {which!r} was not measured")
        return table[which]
