"""Lenses that each break one promise; `Sound` breaks none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import MergeError
from nodelens.statistics import CoMoments, Mean, Moments, Read, Sample, Statistic


class Sound(MetricLens):
    """Keeps every promise; each faulty lens below breaks one."""

    unit = "activation^2"
    minimum_rows = 2

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read("output", Moments)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        return statistics["values"].variance()


@dataclass
class MeanOfBatchMeans(Statistic):
    rows: int
    parts: int
    total: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> MeanOfBatchMeans:
        values = sample.values if sample.values.ndim == 2 else sample.values.mean(2)
        return cls(sample.rows, 1, values.mean(0) if len(values) else values.sum(0))

    def merge(self, other: MeanOfBatchMeans) -> None:
        self.total += other.total
        self.parts += other.parts
        self.rows += other.rows


class WeighsBatchesEqually(Sound):
    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read("output", MeanOfBatchMeans)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        return statistics["values"].total / statistics["values"].parts


@dataclass
class LastBatch(Mean):
    def merge(self, other: Any) -> None:
        self.total = other.total
        self.rows += other.rows


class RemembersTheLastBatch(Sound):
    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read("output", LastBatch)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        return statistics["values"].mean()


@dataclass
class Greedy(Mean):
    def merge(self, other: Any) -> None:
        super().merge(other)
        other.total += self.total


class ChangesWhatItMerges(Sound):
    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read("output", Greedy)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        return statistics["values"].mean()


@dataclass
class NaiveSquares(Statistic):
    """Sums of squares in float16, the width of a careless accumulator."""

    rows: int
    total: Tensor

    @classmethod
    def measure(cls, sample: Sample) -> NaiveSquares:
        values = sample.values if sample.values.ndim == 2 else sample.values.sum(2)
        return cls(sample.rows, values.square().sum(0).half())

    def merge(self, other: NaiveSquares) -> None:
        self.total = (self.total.half() + other.total.half()).double()
        self.rows += other.rows


class SumsInHalfPrecision(Sound):
    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read("output", NaiveSquares)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        return statistics["values"].total / statistics["values"].rows


class DrawsFromTheGlobalGenerator(Sound):
    def score(self, statistics: Any, layer: Any) -> Tensor:
        variance = super().score(statistics, layer)
        return variance + torch.rand(len(variance))


@dataclass
class Shaped(Mean):
    """Compares a tuple that comes back from JSON as a list."""

    space: tuple[int, ...] = (1,)

    def merge(self, other: Any) -> None:
        if self.space != other.space:
            raise MergeError(f"maps of {other.space} after maps of {self.space}")
        super().merge(other)


class CannotGoOnFromAFile(Sound):
    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read("output", Shaped)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        return statistics["values"].mean()


class DividesByTheVariance(Sound):
    def score(self, statistics: Any, layer: Any) -> Tensor:
        return 1 / super().score(statistics, layer)


class InvertsTheCovariance(Sound):
    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read("output", CoMoments)}

    def score(self, statistics: Any, layer: Any) -> Tensor:
        rho = torch.corrcoef(statistics["values"].covariance())
        return -0.5 * torch.log(1 - rho.fill_diagonal_(0).square()).mean(1)


class HasNoUnit(Sound):
    unit = ""


class ScoresOneChannelTooFew(Sound):
    def score(self, statistics: Any, layer: Any) -> Tensor:
        return super().score(statistics, layer)[1:]


class ByHand(Lens):
    """Reads outputs itself, without the care that declared reads get."""

    unit = "activation"
    importance = 0

    def _intervene(self, model: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: self.seen(module.output) for name, module in self._get_modules(model)}

    def seen(self, output: Any) -> dict[str, Statistic]:
        values = (output[0] if isinstance(output, tuple) else output).detach().double()
        rows = values.flatten(2).transpose(1, 2).flatten(0, 1) if values.ndim == 4 else values
        rows = rows.reshape(-1, rows.shape[-1])
        return {"value": Mean(len(rows), rows.sum(0))}

    def finish(self, statistics: Any) -> dict[str, dict[str, Tensor]]:
        return {name: {self.name: found["value"].mean()} for name, found in statistics.items()}


class CountsPadding(ByHand):
    pass


class EditsWithoutSayingSo(ByHand):
    def _intervene(self, model: Any, **kwargs: Any) -> dict[str, Any]:
        found = {}
        for name, module in self._get_modules(model):
            found[name] = self.seen(module.output)
            if not isinstance(module.output, tuple):
                module.output = module.output * 2
        return found


class WritesAWeight(Sound):
    def _conclude(self, found: Any, stream: Any, batch: Any) -> Any:
        with torch.no_grad():
            next(stream.model.module.parameters()).add_(1e-6)
        return super()._conclude(found, stream, batch)


class LeavesAHook(Sound):
    def _conclude(self, found: Any, stream: Any, batch: Any) -> Any:
        next(stream.model.module.children()).register_forward_hook(lambda *_: None)
        return super()._conclude(found, stream, batch)


class LeavesAGradient(Sound):
    def _conclude(self, found: Any, stream: Any, batch: Any) -> Any:
        parameter = next(stream.model.module.parameters())
        parameter.grad = torch.zeros_like(parameter)
        return super()._conclude(found, stream, batch)


class LeavesTrainingMode(Sound):
    def prepare(self, model: Any, **kwargs: Any) -> Any:
        wrapper = super().prepare(model, **kwargs)
        wrapper.module.eval()
        return wrapper


class CrashesHalfWay(Sound):
    """Freezes the parameters and, when something fails, never thaws them."""

    def _trace(self, model: Any, *inputs: Any, **kwargs: Any) -> Any:
        trained = [p for p in model.module.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        found = super()._trace(model, *inputs, **kwargs)
        for parameter in trained:
            parameter.requires_grad_(True)
        return found


class CannotTakeAnEmptyBatch(Sound):
    def _conclude(self, found: Any, stream: Any, batch: Any) -> Any:
        if batch.size() == 0:
            raise ZeroDivisionError("no row")
        return super()._conclude(found, stream, batch)


class RefusesHalfPrecision(Sound):
    def _conclude(self, found: Any, stream: Any, batch: Any) -> Any:
        if next(stream.model.module.parameters()).dtype == torch.bfloat16:
            raise TypeError("bfloat16")
        return super()._conclude(found, stream, batch)


class TakesAnyOption(Sound):
    @classmethod
    def from_name(cls, *args: Any, **kwargs: Any) -> Any:
        return cls()

    def run(self, model: Any, batches: Any, **kwargs: Any) -> Any:
        kwargs = {name: value for name, value in kwargs.items() if name == "progress"}
        return super().run(model, batches, **kwargs)


class SaysHalf(Sound):
    formula = r"\operatorname{Var}(y)"
