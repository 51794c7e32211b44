"""Streams of samples to measure statistics on, every statistic of the package with its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import nodelens.testing  # noqa: F401 (brings in every module that may define a statistic)
from nodelens import Lens
from nodelens.model.layers import describe
from nodelens.statistics import (
    ActivationGradient,
    ChannelIndependence,
    ClassCrossMoments,
    ClassPatchMoments,
    CoMoments,
    Constant,
    CrossLayerMoments,
    GroupCoMoments,
    Histogram,
    JointCounts,
    MapRanks,
    Moments,
    NearZero,
    PartnerMoments,
    PatchMoments,
    PositionMoments,
    QuantileSketch,
    Sample,
    Statistic,
    WeightFisher,
    WeightUpdates,
)

CHANNELS, INPUTS = 3, 4
CONVOLUTION = nn.Conv2d(
    INPUTS, 6, (2, 3), stride=(2, 1), padding=(1, 2), groups=2, padding_mode="circular"
)
CONVOLUTION_LAYER = describe("convolution", CONVOLUTION)

OPTIONS: dict[type[Statistic], list[dict[str, Any]]] = {
    Moments: [{}, {"order": 4}],
    NearZero: [{}, {"eps": 0.3}],
    CoMoments: [{}, {"start": 1, "stop": 3}, {"start": 0, "stop": 2, "precise": True}],
    PartnerMoments: [{"count": 2, "seed": 3}],
    GroupCoMoments: [{"groups": 1}, {"groups": CHANNELS}],
    CrossLayerMoments: [{}, {"start": 1, "stop": 3}],
    Histogram: [{"low": -1.5, "high": 2.0, "bins": 7}],
    QuantileSketch: [{}, {"octaves": 2}],
    JointCounts: [{}, {"bins": 8}],
    ActivationGradient: [{}, {"per": "sample"}, {"reduction": "mean"}, {"groups": 3}],
}
LAYOUTS: dict[type[Statistic], list[str]] = {
    PatchMoments: ["rows", "windows"],
    ClassPatchMoments: ["rows", "windows"],
    PositionMoments: ["images"],
    MapRanks: ["images"],
    ChannelIndependence: ["images"],
    WeightFisher: ["rows", "windows"],
    WeightUpdates: ["rows", "windows"],
}


@dataclass(frozen=True)
class Kind:
    """A statistic with its options, on samples of one layout."""

    statistic: type[Statistic]
    options: tuple[tuple[str, Any], ...]
    layout: str

    def measure(self, sample: Sample) -> Any:
        return self.statistic.measure(sample, **dict(self.options))

    def __str__(self) -> str:
        options = "-".join(f"{name}={value}" for name, value in self.options)
        return "-".join(filter(None, (self.statistic.__name__, options, self.layout)))


def mergeable_classes() -> list[type[Statistic]]:
    """Every statistic that any installed lens or the core defines, constants left out."""
    Lens.names()
    homes = ("nodelens.", "nodelens_lenses.")
    classes = Statistic._classes.values()
    return [
        c
        for c in classes
        if c.__module__.startswith(homes)
        and not issubclass(c, Constant)
        and not getattr(c, "__abstractmethods__", None)
    ]


KINDS = [
    Kind(statistic, tuple(options.items()), layout)
    for statistic in mergeable_classes()
    for options in OPTIONS.get(statistic, [{}])
    for layout in LAYOUTS.get(statistic, ["rows", "maps"])
]


def stream(
    layout: str,
    rows: int,
    *,
    seed: int,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float64,
    targets: str = "classes",
) -> Sample:
    """A sample of `rows` samples whose later rows know classes that the first do not."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    shape, inputs, window = _shapes(layout, rows)
    values = draw(*shape) + shift
    highest = torch.linspace(1, 4.99, rows)
    classes = (torch.rand(rows, generator=generator) * highest).long()
    numeric = draw(rows, 2) + 0.5 * values.flatten(1)[:, :1]
    return Sample(
        values=values,
        gradient=draw(*shape),
        targets=classes if targets == "classes" else numeric,
        inputs=None if inputs is None else draw(*inputs),
        window=window,
        loss_terms=4,
        beside=_beside(values, generator),
        beside_name="next",
    )


def _beside(values: Tensor, generator: torch.Generator) -> Tensor:
    """Two channels of another layer in the same rows, the first of which follows a channel."""
    shape = (len(values), 2, *values.shape[2:])
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return noise.to(values.dtype) + values[:, :1] * torch.tensor([1.0, 0.0]).view(
        1, 2, *[1] * (values.ndim - 2)
    ).to(values.dtype)


def _shapes(layout: str, rows: int) -> tuple[tuple[int, ...], tuple[int, ...] | None, Any]:
    if layout == "rows":
        return (rows, CHANNELS), (rows, INPUTS), None
    if layout == "maps":
        return (rows, CHANNELS, 5), None, None
    if layout == "images":
        return (rows, CHANNELS, 2, 3), None, None
    assert CONVOLUTION_LAYER is not None
    return (rows, 6, 3, 6), (rows, INPUTS, 4, 4), CONVOLUTION_LAYER.window


def sample_for(kind: Kind, rows: int, **options: Any) -> Sample:
    """A sample for a kind; what reads patches gets the layer's input as its values."""
    sample = stream(kind.layout, rows, **options)
    if kind.statistic is ClassCrossMoments:
        numbers = stream(kind.layout, rows, **{**options, "targets": "numbers"}).targets
        assert sample.targets is not None and numbers is not None
        return replace(sample, targets=torch.column_stack([sample.targets, numbers]))
    if kind.layout == "windows" and kind.statistic in (PatchMoments, ClassPatchMoments):
        assert sample.inputs is not None
        shift = options.get("shift", 0.0)
        return replace(sample, values=sample.inputs + shift, gradient=None, inputs=None)
    if kind.layout == "windows":
        return replace(
            sample, values=sample.values.flatten(2), gradient=_flat(sample.gradient), beside=None
        )
    return sample


def _flat(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.flatten(2)


def cut(sample: Sample, ends: Sequence[int]) -> list[Sample]:
    """The sample in pieces of its samples, cut before `ends`."""
    bounds = [0, *sorted(ends), len(sample.values)]

    def piece(start: int, end: int) -> dict[str, Any]:
        names = ("values", "gradient", "targets", "inputs", "beside")
        given = {name: getattr(sample, name) for name in names}
        return {name: t[start:end] for name, t in given.items() if t is not None}

    return [replace(sample, **piece(start, end)) for start, end in pairwise(bounds)]


def merged(kind: Kind, *samples: Sample) -> Any:
    """What an aggregator holds after these samples: the first one widened, the others taken in."""
    first, *others = samples
    total = kind.measure(first).widened()
    for sample in others:
        total.merge(kind.measure(sample))
    return total


def assert_same(actual: Statistic, expected: Statistic, tolerance: float = 1e-10) -> None:
    """Raise AssertionError unless two states agree, each tensor relative to its largest entry.

    Sums that cancel are compared as if of size 1, which is what single rows are like.
    """
    assert type(actual) is type(expected)
    assert actual.plain() == expected.plain()
    mine, theirs = actual.state(), expected.state()
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name].shape == value.shape, name
        if not value.is_floating_point():
            assert torch.equal(mine[name], value), name
            continue
        finite = value[value.isfinite()].abs()
        size = float(finite.max()) if finite.numel() else 1.0
        torch.testing.assert_close(
            mine[name].double(),
            value.double(),
            rtol=0,
            atol=tolerance * max(size, 1.0),
            msg=lambda text, name=name: f"{name}: {text}",
        )
