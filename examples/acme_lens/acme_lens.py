"""How often the channels of a layer are silent."""

from dataclasses import dataclass

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.statistics import Read, Statistic


@dataclass
class SilentRows(Statistic):
    """Rows, and in how many of them each channel is at most 0, `(channels,)`."""

    rows: int
    silent: Tensor

    @classmethod
    def measure(cls, sample):
        axes = (0,) if sample.values.ndim == 2 else (0, 2)
        return cls(sample.rows, (sample.values <= 0).sum(axes))

    def merge(self, other):
        self.check_mergeable(other)
        self.rows += other.rows
        self.silent += other.silent


@Lens.register("acme.silence")
class Silence(MetricLens):
    """Fraction of rows in which a channel is silent, at most 0, `(channels,)`."""

    family = "acme"
    unit = "fraction of rows"
    importance = -1

    def reads(self, layer):
        return {"seen": Read("output", SilentRows)}

    def score(self, statistics, layer):
        seen = statistics["seen"]
        return seen.silent.double() / seen.rows
