"""Whose predictions suffer when a channel goes: one class's, or everyone's?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelens.analysis.arrays import Array
from nodelens.analysis.causal.check import CausalResult
from nodelens.analysis.causal.damage import measured_damage
from nodelens.analysis.causal.estimates import Estimate, interval, resamples_of
from nodelens.analysis.causal.lesions import INTACT, Lesion, lesion, rises
from nodelens.analysis.causal.sampling import Place, places
from nodelens.errors import InvalidValueError, MissingTargetsError, whole
from nodelens.progress import Progress

__all__ = ["ClassProfile", "class_selectivity_profile"]


class ClassProfile:
    """The lesions of single channels, and what they say once every class has its losses.

    `channels` are `{layer: channels}`, `draws` those of the null, `resamples` of the bootstrap.

    Raises InvalidValueError without channels.
    """

    name = "class_selectivity_profile"

    def __init__(
        self, channels: Mapping[str, Any], *, draws: int = 200, resamples: int = 1000, seed: int = 0
    ) -> None:
        self.channels = places(channels)
        if not self.channels:
            raise InvalidValueError("no channels to profile, expected {layer: channels}")
        self.lesions: list[Lesion] = [lesion({layer: [n]}) for layer, n in self.channels]
        self.draws, self.resamples = whole("draws", draws, 1), whole("resamples", resamples, 0)
        self.seed = whole("seed", seed, 0)

    @property
    def evaluations(self) -> int:
        """Return how often a run goes over all batches, the intact model included."""
        return len(self.lesions) + 1

    def conclude(self, losses: Mapping[int, Array]) -> CausalResult:
        """Return the result from the mean loss of every class, `(1 + channels,)`, intact first.

        Raises InvalidValueError for fewer than two classes.
        """
        if len(losses) < 2:
            raise InvalidValueError(f"there are {len(losses)} classes, expected at least 2")
        numbers = sorted(losses)
        # What rounding leaves of a channel that does nothing would be as selective as anything.
        change = np.stack([rises(losses[k][1:], losses[k][0]) for k in numbers], 1)
        generator = np.random.default_rng(self.seed)
        chance = _by_chance(change, self.draws, generator)
        found = _selectivity(change)
        rows = _rows(self.channels, numbers, change, found)
        estimates = _means(found, chance, self.resamples, generator)
        return CausalResult(self.name, estimates, rows, self.evaluations)


def class_selectivity_profile(
    model: Any,
    batches: Iterable[Any],
    channels: Mapping[str, Any],
    *,
    value: Any = "zero",
    site: str = "output",
    loss: Any = None,
    path: str | Path | None = None,
    progress: bool | Progress = True,
    draws: int = 200,
    resamples: int = 1000,
    seed: int = 0,
) -> CausalResult:
    """Return what silencing single channels costs each class, and how selective that is.

    `batches` are (tensor, class numbers); their rows are sorted into one batch a class. A row of
    the table has the loss change of every class, `class_K`, and `selectivity`: how far the class
    that suffers most is above the mean of the others, over the sum of both sizes, in [0, 1].
    `control` is what chance makes of it: the mean over `draws` in which each class's changes are
    dealt anew to channels. Estimates are means over channels.

    Raises MissingTargetsError without class numbers, InvalidValueError with fewer than two classes.
    """
    check = ClassProfile(channels, draws=draws, resamples=resamples, seed=seed)
    numbers, parts = _by_class(batches)
    damage = measured_damage(
        model, parts, check.lesions,
        value=value, site=site, loss=loss, path=path, progress=progress,
    )  # fmt: skip
    losses = np.stack([damage.by_batch(which) for which in (INTACT, *check.lesions)], 1)
    return check.conclude(dict(zip(numbers, losses, strict=True)))


def _by_class(batches: Iterable[Any]) -> tuple[list[int], list[tuple[Tensor, Tensor]]]:
    pairs = list(batches)
    if not pairs:
        raise InvalidValueError("no batch to profile on, expected at least one")
    for batch in pairs:
        if not (
            isinstance(batch, (tuple, list))
            and len(batch) == 2
            and all(isinstance(part, Tensor) for part in batch)
            and not batch[1].is_floating_point()
        ):
            raise MissingTargetsError(
                f"a {type(batch).__name__} cannot be sorted into classes: "
                "expected (tensor, class numbers)"
            )
    x, y = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
    numbers = sorted(set(y.tolist()))
    if len(numbers) < 2:
        raise InvalidValueError(f"there are {len(numbers)} classes, expected at least 2")
    return numbers, [(x[y == number], y[y == number]) for number in numbers]


def _selectivity(change: Array) -> Array:
    """Return the selectivity of every channel, `(channels,)`; 0 where no class suffers."""
    most = change.max(1)
    rest = (change.sum(1) - most) / (change.shape[1] - 1)
    size = np.abs(most) + np.abs(rest)
    safe = np.where(size > 0, size, 1.0)
    found: Array = np.where((size > 0) & (most > 0), (most - rest) / safe, 0.0)
    return found


def _by_chance(change: Array, draws: int, generator: np.random.Generator) -> Array:
    """Return the selectivity of channels whose classes were dealt from others, `(draws, n)`."""
    return np.stack([_selectivity(generator.permuted(change, axis=0)) for _ in range(draws)])


def _means(
    found: Array, chance: Array, resamples: int, generator: np.random.Generator
) -> dict[str, Estimate]:
    picks = resamples_of(len(found), resamples, generator)
    mine, control = found[picks].mean(1), chance.mean(1)
    gap = mine - control.mean()
    return {
        "selectivity": interval(mine[0], mine[1:]),
        "control": interval(control.mean(), control),
        "gap": interval(gap[0], gap[1:]),
    }


def _rows(
    chosen: list[Place], numbers: list[int], change: Array, found: Array
) -> list[dict[str, Any]]:
    return [
        {
            "layer": layer,
            "channel": channel,
            "selectivity": float(selectivity),
            "most": numbers[int(row.argmax())],
            **{f"class_{k}": float(v) for k, v in zip(numbers, row, strict=True)},
        }
        for (layer, channel), row, selectivity in zip(chosen, change, found, strict=True)
    ]
