"""Joint counts: the grid, and that a stream's order and cuts change no count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodelens.errors import InvalidValueError, MergeError, ShapeError
from nodelens.statistics import JointCounts, Sample
from nodelens.statistics.joint import Grid

SIZES = [1, 2, 3, 30, 64]


def measured(x: torch.Tensor, targets: torch.Tensor, **options: int) -> JointCounts:
    return JointCounts.measure(Sample(x, targets=targets), **options)


def streamed(x: torch.Tensor, targets: torch.Tensor, **options: int) -> JointCounts:
    parts = zip(x.split(SIZES), targets.split(SIZES), strict=True)
    total, *rest = [measured(*part, **options).widened() for part in parts]
    for part in rest:
        total.merge(part)
    return total


@pytest.mark.parametrize("targets", ["classes", "numbers"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_ranges_that_grow_leave_the_counts_of_one_look(targets: str, scale: float):
    growth = torch.logspace(-6, 6, 100, dtype=torch.float64)[:, None]
    x = torch.randn(100, 4, dtype=torch.float64) * growth * scale
    x[:, 3] = x[:, 3].abs() + 100 * scale
    numbers = torch.randn(100, 2, dtype=torch.float64) * growth.flip(0)
    t = torch.arange(100) % 7 if targets == "classes" else numbers
    whole, parts = measured(x, t, bins=16), streamed(x, t, bins=16)
    assert torch.equal(parts.counts, whole.counts)
    assert int(whole.counts.sum()) == 100 * 4 * (1 if targets == "classes" else 2)


def test_counts_are_those_of_numpy_on_the_same_edges():
    x, labels = torch.randn(100, 3, dtype=torch.float64) + 3, torch.arange(100) % 4
    found = streamed(x, labels, bins=32)
    grid = Grid.over(found.low, found.high, 32)
    for channel, y in enumerate(x.numpy().T):
        width = 2.0 ** int(grid.exponent[channel])
        edges = (int(grid.first[channel]) + np.arange(33)) * width
        for label in range(4):
            expected = np.histogram(y[labels.numpy() == label], edges)[0]
            assert found.counts[channel, 0, label].tolist() == expected.tolist()


def test_between_half_and_all_bins_are_in_use_wherever_the_range_lies():
    low = torch.tensor([0.0, -1.0, 1e3, -5.0, 1.0, 0.1], dtype=torch.float64)
    high = low + torch.tensor([1.0, 2.0, 0.7, 1e5, 1.0, 0.2], dtype=torch.float64)
    used = Grid.over(low, high, 64).used
    assert int(used.min()) >= 32 and int(used.max()) <= 64
    assert Grid.over(low, low, 64).used.tolist() == [1] * 6


def test_what_float32_cannot_tell_shares_a_bin():
    near = 1e6 * (1 + torch.tensor([[0.0], [2e-7]], dtype=torch.float64))
    apart = 1e6 * (1 + torch.tensor([[0.0], [2e-5]], dtype=torch.float64))
    labels = torch.tensor([0, 1])
    assert measured(near, labels).used().tolist() == [1]
    assert int(measured(apart, labels).used()) > 1


def test_targets_that_change_their_kind_or_size_are_refused():
    x = torch.randn(5, 2)
    total = measured(x, torch.randn(5)).widened()
    with pytest.raises(MergeError, match="numeric in another"):
        total.merge(measured(x, torch.arange(5)))
    with pytest.raises(ShapeError, match="2 dimensions in one batch, 1 before"):
        total.merge(measured(x, torch.randn(5, 2)))
    with pytest.raises(MergeError, match="joint counts of"):
        total.merge(measured(x, torch.randn(5), bins=8))
    with pytest.raises(InvalidValueError, match="expected powers of two"):
        measured(x, torch.arange(5), bins=10)
