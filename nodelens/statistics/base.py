"""What every statistic is: measured from one batch, merged as a whole, saved by its fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from nodelens.errors import MergeError, UnknownNameError, nearest
from nodelens.statistics.blocks import Block
from nodelens.statistics.kernels import Asked, Survey
from nodelens.statistics.reduce import wide
from nodelens.statistics.sample import Sample

__all__ = ["Additive", "Constant", "Statistic", "measured", "surveyed"]


class Statistic(ABC):
    """A summary of rows that merges exactly: of batches, ranks, files, interrupted runs.

    Subclasses are dataclasses. Tensor fields are the state and end up in float64; everything else
    (`rows`, options) must be plain JSON. `measure` depends on its batch alone, so a stream gives
    the same state however it was shared out.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What `measure` reads besides the values: "gradient", "targets", "input", "beside"."""

    _classes: ClassVar[dict[str, type[Statistic]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Statistic._classes[cls.kind()] = cls

    @classmethod
    def kind(cls) -> str:
        """Return the name the class is saved under."""
        return f"{cls.__module__}.{cls.__qualname__}"

    @classmethod
    def of_kind(cls, kind: str) -> type[Statistic]:
        """Return the class saved as `kind`; nothing is imported on a file's behalf."""
        try:
            return cls._classes[kind]
        except KeyError:
            raise UnknownNameError(
                f"unknown statistic {kind!r}{nearest(kind, cls._classes)}; "
                "import the package that defines it first"
            ) from None

    @classmethod
    @abstractmethod
    def measure(cls, sample: Sample, *args: Any, **kwargs: Any) -> Self:
        """Return the statistic of one batch; options are keywords of the subclass."""

    @classmethod
    def asks(cls, *args: Any, **kwargs: Any) -> Asked | None:
        """Return what a survey of the sample has to find for this statistic, None for nothing."""
        return None

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in the rows of `other`, which stays as it is."""

    def values(self) -> dict[str, Tensor]:
        """Return finished values by name, each `(channels,)`: what a plain lens reports."""
        return {name: value for name, value in self.state().items() if value.ndim == 1}

    @classmethod
    def joined(cls, mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return options under which one statistic serves both readers, or None."""
        return dict(mine) if mine == other else None

    def state(self) -> dict[str, Tensor]:
        """Return the tensor fields by name."""
        return {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}

    def plain(self) -> dict[str, Any]:
        """Return the other fields by name."""
        return {k: v for k, v in vars(self).items() if not isinstance(v, Tensor)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Self:
        """Return the statistic with these fields."""
        return cls(**plain, **state)

    def widened(self) -> Self:
        """Return a copy that owns its state, in float64 where it is a floating type."""
        return type(self).from_state({k: wide(v) for k, v in self.state().items()}, self.plain())

    def check_mergeable(self, other: Statistic) -> None:
        """Raise MergeError unless `other` is of the same class and channels."""
        if type(self) is not type(other):
            raise MergeError(f"cannot merge {type(other).__name__} into {type(self).__name__}")


class Additive(Statistic):
    """A statistic that adds up over blocks of rows, once the mean of its batch is known.

    All additive statistics of a sample are measured together: every block goes by once. Where sums
    are compiled, those that `surveyed` knows come from one visit of all values instead.
    """

    @classmethod
    def asks(cls, *args: Any, **kwargs: Any) -> Asked:
        return Asked()

    @classmethod
    def surveyed(cls, sample: Sample, found: Survey, *args: Any, **kwargs: Any) -> Self | None:
        """Return the statistic from a survey; None for one that goes block by block."""
        return None

    @classmethod
    @abstractmethod
    def empty(cls, sample: Sample, *args: Any, **kwargs: Any) -> Self:
        """Return the statistic of a sample none of whose blocks has been seen."""

    @abstractmethod
    def absorb(self, block: Block, sample: Sample) -> None:
        """Take in one block of the sample."""

    @classmethod
    def measure(cls, sample: Sample, *args: Any, **kwargs: Any) -> Self:
        (statistic,) = measured(sample, [(cls, kwargs)])
        assert isinstance(statistic, cls)
        return statistic


Wanted = Sequence[tuple[type[Statistic], Mapping[str, Any]]]
"""Statistics of one sample, each with its options."""


def surveyed(sample: Sample, wanted: Wanted) -> Survey | None:
    """Return one survey of a sample for several statistics; None where there is none to be had."""
    asked = [each for kind, options in wanted if (each := kind.asks(**options)) is not None]
    return sample.survey(reduce(Asked.joined, asked)) if asked else None


def measured(sample: Sample, wanted: Wanted) -> list[Statistic]:
    """Return several statistics of one sample, the same as each one's `measure` would give."""
    found, additive = [], []
    survey = surveyed(sample, wanted)
    for kind, options in wanted:
        statistic: Statistic | None = None
        if not issubclass(kind, Additive):
            statistic = kind.measure(sample, **options)
        elif survey is not None:
            statistic = kind.surveyed(sample, survey, **options)
        if statistic is None:
            additive.append(statistic := kind.empty(sample, **options))  # type: ignore[attr-defined]
        found.append(statistic)
    for block in sample.blocks() if additive else ():
        for part in additive:
            part.absorb(block, sample)
    return found


class Constant(Statistic):
    """Something every batch must agree on, such as a weight: merging checks, and adds nothing."""

    def merge(self, other: Self) -> None:
        if other is self:
            return
        self.check_mergeable(other)
        mine, theirs = self.state(), other.state()
        same = self.plain() == other.plain() and mine.keys() == theirs.keys()
        if not same or not all(torch.equal(wide(mine[k]), wide(theirs[k])) for k in mine):
            changed = [f.name for f in fields(self)]  # type: ignore[arg-type]
            raise MergeError(
                f"{type(self).__name__} ({', '.join(changed)}) differs between the parts: "
                "they come from different models, or the weights changed in between"
            )

    def widened(self) -> Self:
        return self
