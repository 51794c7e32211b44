"""Second moments within every class: of channels with one another, and with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import Self

from nodelens.errors import InvalidValueError, MergeError, MissingTargetsError, ShapeError
from nodelens.statistics.base import Statistic
from nodelens.statistics.comoments import class_labels, indicators, targets_of
from nodelens.statistics.reduce import gram, wide
from nodelens.statistics.sample import Sample

__all__ = ["ClassCoMoments", "ClassCrossMoments"]


def _shares(counts: Tensor, others: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The other part's share of every class, and the weight of the gap of the means."""
    share = others.to(dtype) / (counts + others).clamp(min=1)
    return share, share * counts


@dataclass
class ClassCoMoments(Statistic):
    """Rows, mean and sum of products of deviations within every class.

    `counts` is `(classes,)` and `mean` `(classes, channels)`, up to the highest class so far; `m2`
    holds a matrix `(channels, channels)` for each class that had a row, by its number. So for few
    classes or narrow layers.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})
    by_class: ClassVar[bool] = True
    """Whether classes that have no row take next to no memory."""

    rows: int
    counts: Tensor
    mean: Tensor
    m2: dict[int, Tensor]

    @classmethod
    def measure(cls, sample: Sample) -> Self:
        labels, x = class_labels(sample), sample.values
        if labels.numel() and int(labels.min()) < 0:
            raise MissingTargetsError(f"class numbers start at 0, got {int(labels.min())}")
        classes = int(labels.max()) + 1 if labels.numel() else 1
        counts = torch.zeros(classes, dtype=torch.int64, device=x.device)
        found = cls(sample.rows, counts, wide(x.new_zeros(classes, x.shape[1])), {})
        # Where costs are worked out tensors have no numbers, and no row.
        for label in labels.unique().tolist() if labels.numel() else ():
            found._take(label, sample.deviation[labels == label], sample.refined_mean)
        return found

    def _take(self, label: int, deviation: Tensor, mean: Tensor) -> None:
        """Take in the rows of one class, as deviations from the mean of the batch."""
        own = Sample(deviation)
        self.counts[label] = own.rows
        self.mean[label] = mean + own.refined_mean
        # Wide: few rows leave directions of next to no variance, which narrow products blur.
        deviation = wide(own.deviation)
        self.m2[label] = gram(deviation, deviation)

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        more = len(other.counts) - len(self.counts)
        counts, mean = pad(other.counts, (0, max(-more, 0))), _grown(other.mean, -more)
        self.counts, self.mean = pad(self.counts, (0, max(more, 0))), _grown(self.mean, more)
        share, weight = _shares(self.counts, counts, self.mean.dtype)
        gap = mean.to(self.mean.dtype) - self.mean
        for label, m2 in other.m2.items():
            if label in self.m2:
                self.m2[label] += m2
                self.m2[label].addr_(gap[label], gap[label], alpha=float(weight[label]))
            else:
                self.m2[label] = wide(m2)
        self.mean += gap * share[:, None]
        self.counts = self.counts + counts
        self.rows += other.rows

    def padded(self, classes: int) -> Self:
        """Return the statistic as large as when every class up to `classes` has had a row.

        For costs: what is added is one matrix of zeros.
        """
        more, channels = classes - len(self.counts), self.mean.shape[1]
        counts, mean = pad(self.counts, (0, max(more, 0))), _grown(self.mean, more)
        missing = set(range(len(counts))) - self.m2.keys()
        m2 = self.m2 | dict.fromkeys(missing, mean.new_zeros(channels, channels))
        return type(self)(self.rows, counts, mean, m2)

    def total(self) -> Tensor:
        """Return the sum of products of deviations from the mean of all rows."""
        weight = self.counts.to(self.mean.dtype)[:, None]
        gap = self.mean - (weight * self.mean).sum(0) / max(self.rows, 1)
        total = (weight * gap).mT @ gap
        for label in sorted(self.m2):
            total += self.m2[label]
        return total

    def state(self) -> dict[str, Tensor]:
        matrices = {f"m2[{label}]": m2 for label, m2 in self.m2.items()}
        return {"counts": self.counts, "mean": self.mean, **matrices}

    def plain(self) -> dict[str, Any]:
        return {"rows": self.rows}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Self:
        m2 = {int(name[3:-1]): t for name, t in state.items() if name.startswith("m2[")}
        return cls(plain["rows"], state["counts"], state["mean"], m2)


def _grown(rows: Tensor, more: int) -> Tensor:
    return pad(rows, (0, 0, 0, max(more, 0)))


@dataclass
class ClassCrossMoments(Statistic):
    """Second moments of every channel with numbers, within every class.

    Targets are numbers `(rows, 1 + targets)`, of which column `label` holds the class number.
    `counts` is `(classes,)`; `mean` and `m2` are `(classes, channels)`, `target_mean` is `(classes,
    targets)`, `target_m2` `(classes, targets, targets)` and `cross` `(classes, targets, channels)`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"targets"})

    rows: int
    counts: Tensor
    mean: Tensor
    m2: Tensor
    target_mean: Tensor
    target_m2: Tensor
    cross: Tensor

    @classmethod
    def measure(cls, sample: Sample, *, label: int = 0) -> Self:
        labels, numbers = _labels_and_numbers(sample, label)
        x, member = sample.values, indicators(labels).double()
        samples, positions = member.sum(0), 1 if x.ndim == 2 else x.shape[2]
        scale = samples.clamp(min=1)[:, None]
        target_mean = member.mT @ numbers / scale
        gap = numbers - target_mean[labels]
        sums = sample.deviation if x.ndim == 2 else sample.deviation.sum(2)
        offset = member.mT @ wide(sums) / (scale * positions)
        within = wide(sample.deviation).sub_(_spread(offset[labels], x))
        square = within.square() if x.ndim == 2 else within.square().sum(2)
        summed = within if x.ndim == 2 else within.sum(2)
        pairs = member[:, :, None] * gap[:, None, :]
        classes, targets = target_mean.shape
        return cls(
            sample.rows,
            samples.long() * positions,
            (sample.refined_mean + offset) * (samples > 0)[:, None],
            member.mT @ square,
            target_mean,
            (pairs.flatten(1).mT @ gap).view(classes, targets, targets) * positions,
            (pairs.flatten(1).mT @ summed).view(classes, targets, -1),
        )

    def merge(self, other: Self) -> None:
        self.check_mergeable(other)
        size = max(len(self.counts), len(other.counts))
        theirs = other.padded(size)
        vars(self).update(vars(self.padded(size)))
        share, weight = _shares(self.counts, theirs.counts, self.mean.dtype)
        gap = theirs.mean - self.mean
        target_gap = theirs.target_mean - self.target_mean
        weighted = target_gap[:, :, None] * weight[:, None, None]
        self.m2 += theirs.m2 + gap.square() * weight[:, None]
        self.target_m2 += theirs.target_m2 + weighted * target_gap[:, None, :]
        self.cross += theirs.cross + weighted * gap[:, None, :]
        self.mean += gap * share[:, None]
        self.target_mean += target_gap * share[:, None]
        self.counts = self.counts + theirs.counts
        self.rows += theirs.rows

    def check_mergeable(self, other: Statistic) -> None:
        super().check_mergeable(other)
        assert isinstance(other, ClassCrossMoments)
        mine, theirs = self.target_mean.shape[1], other.target_mean.shape[1]
        if mine != theirs:
            raise MergeError(f"targets have {theirs} numbers in one batch, {mine} in another")

    def padded(self, classes: int) -> Self:
        """Return the same statistic with room for `classes` classes."""
        more = classes - len(self.counts)
        if not more:
            return self
        grown = {
            name: pad(tensor, (0, 0) * (tensor.ndim - 1) + (0, more))
            for name, tensor in self.state().items()
        }
        return type(self)(self.rows, **grown)


def _spread(rows: Tensor, like: Tensor) -> Tensor:
    return rows if like.ndim == 2 else rows.unsqueeze(-1)


def _labels_and_numbers(sample: Sample, label: int) -> tuple[Tensor, Tensor]:
    """The column of class numbers as integers, and the other columns in float64."""
    raw = targets_of(sample)
    if not len(raw) and raw.ndim == 1:
        raw = raw.new_zeros(0, 2)
    if raw.ndim != 2 or raw.shape[1] < 2:
        raise MissingTargetsError(
            "targets of a class number and numbers are needed, (rows, 2) or more, "
            f"got shape {tuple(raw.shape)}"
        )
    if not -raw.shape[1] <= label < raw.shape[1]:
        raise ShapeError(f"column {label} holds the class, but targets have {raw.shape[1]}")
    column = raw[:, label]
    if bool((column != column.round()).any()) or bool((column < 0).any()):
        raise InvalidValueError(
            f"column {label} of the targets is to hold class numbers, 0 or more, and does not"
        )
    others = [k for k in range(raw.shape[1]) if k != label % raw.shape[1]]
    return column.long(), raw[:, others].double()
