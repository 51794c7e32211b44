"""Per-channel moments, extremes and counts against NumPy and SciPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodelens.statistics import (
    AbsoluteMean,
    CoMoments,
    CrossMoments,
    Extremes,
    Mean,
    Moments,
    NearZero,
    PositionMoments,
    Sample,
)
from tests.statistics.streams import cut, stream

SEEDS = st.integers(0, 2**31 - 1)
LAYOUTS = pytest.mark.parametrize("layout", ["rows", "maps"])


def as_rows(sample: Sample) -> np.ndarray:
    """The sample's values as `(rows, channels)` in float64."""
    values = sample.values.double()
    if values.ndim > 2:
        values = values.flatten(2).transpose(1, 2).flatten(0, 1)
    return values.numpy()


def in_parts(statistic, sample: Sample, ends=(3, 4, 11), **options):
    first, *others = cut(sample, [end for end in ends if end < len(sample.values)])
    total = statistic.measure(first, **options).widened()
    for part in others:
        total.merge(statistic.measure(part, **options))
    return total


def close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=tolerance, atol=tolerance)


@LAYOUTS
@settings(max_examples=15)
@given(seed=SEEDS, rows=st.integers(2, 40), shift=st.sampled_from([0.0, -1e4]))
def test_central_moments_are_those_of_scipy(layout, seed, rows, shift):
    sample = stream(layout, rows, seed=seed, shift=shift)
    x, found = as_rows(sample), in_parts(Moments, sample, order=4)
    assert found.rows == len(x)
    tolerance = 1e-12 if shift == 0 else 1e-10
    close(found.mean, x.mean(0), tolerance)
    for order, name in ((2, "m2"), (3, "m3"), (4, "m4")):
        expected = scipy.stats.moment(x, order, axis=0) * len(x)
        scale = scipy.stats.moment(x, 2, axis=0) ** (order / 2) * len(x)
        np.testing.assert_allclose(
            getattr(found, name).numpy() / scale, expected / scale, rtol=0, atol=tolerance * 10
        )
    close(found.variance(), x.var(0, ddof=1), tolerance)
    close(found.mean_square(), (x**2).mean(0), tolerance)


@LAYOUTS
def test_float32_far_from_zero_keeps_its_variance(layout):
    sample = stream(layout, 4000, seed=1, shift=1e4, dtype=torch.float32)
    found = in_parts(Moments, sample, ends=range(100, 4000, 100), order=4)
    x = as_rows(sample)
    close(found.variance(), x.var(0, ddof=1), 1e-4)
    close(found.m4 * len(x) / found.m2**2 - 3, scipy.stats.kurtosis(x), 1e-3)


def test_a_batch_of_low_order_takes_the_high_orders_away():
    first, second = cut(stream("rows", 9, seed=2), [4])
    total = Moments.measure(first, order=4).widened()
    total.merge(Moments.measure(second))
    assert total.m3 is None and total.m4 is None
    close(total.m2, as_rows(stream("rows", 9, seed=2)).var(0) * 9)
    low = Moments.measure(first).widened()
    low.merge(Moments.measure(second, order=4))
    close(low.m2, total.m2.numpy())


def test_one_row_has_no_variance():
    one = Moments.measure(stream("rows", 1, seed=3))
    assert one.variance().isnan().all() and not one.m2.any()


def test_both_orders_are_served_by_the_higher():
    assert Moments.joined({}, {"order": 4}) == {"order": 4}
    assert Moments.joined({"order": 2}, {}) == {}


@LAYOUTS
@settings(max_examples=12)
@given(seed=SEEDS, rows=st.integers(1, 30))
def test_sums_extremes_and_counts_are_those_of_numpy(layout, seed, rows):
    sample = stream(layout, rows, seed=seed)
    sample.values[torch.rand(sample.values.shape) < 0.3] = 0
    x = as_rows(sample)
    extremes = in_parts(Extremes, sample)
    close(extremes.low, x.min(0), 0)
    close(extremes.high, x.max(0), 0)
    close(in_parts(Mean, sample).mean(), x.mean(0))
    close(in_parts(AbsoluteMean, sample).mean(), np.abs(x).mean(0))
    close(in_parts(NearZero, sample).fraction(), (x == 0).mean(0), 0)
    close(in_parts(NearZero, sample, eps=0.5).fraction(), (np.abs(x) <= 0.5).mean(0), 0)


@pytest.mark.parametrize("statistic", [Mean, AbsoluteMean, Extremes, NearZero, Moments])
def test_finished_values_are_one_a_channel(statistic):
    for value in statistic.measure(stream("maps", 4, seed=4)).widened().values().values():
        assert value.shape == (3,)


def test_counts_are_exact_beyond_float32():
    total = NearZero(2**25, torch.tensor([2**25 - 1]), 0.0)
    total.merge(NearZero(1, torch.tensor([1]), 0.0))
    assert total.count.tolist() == [2**25] and total.fraction().item() == 2**25 / (2**25 + 1)


@settings(max_examples=12)
@given(seed=SEEDS, rows=st.integers(2, 20), shift=st.sampled_from([0.0, 1e4]))
def test_position_moments_are_those_of_every_position(seed, rows, shift):
    sample = stream("images", rows, seed=seed, shift=shift)
    x, found = sample.values.flatten(1).numpy(), in_parts(PositionMoments, sample)
    assert found.rows == rows
    close(found.mean, x.mean(0), 1e-10)
    close(found.variance(), x.var(0, ddof=1), 1e-9)
    assert found.maps(found.variance()).shape == (3, 2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["rows", "maps", "images"])
@settings(max_examples=12)
@given(rows=st.integers(1, 60), ends=st.lists(st.integers(1, 59), max_size=3))
def test_constants_do_not_vary_by_a_single_bit(dtype, layout, rows, ends):
    shape = {"rows": (), "maps": (7,), "images": (2, 3)}[layout]
    constants = torch.tensor([0.1, -1234.567, 1e-30], dtype=dtype)
    values = constants.view(1, 3, *[1] * len(shape)).expand(rows, 3, *shape).clone()
    sample = Sample(values, targets=torch.arange(rows) % 2)
    kinds = [PositionMoments] if layout == "images" else [Moments, CoMoments, CrossMoments]
    for kind in kinds:
        found = in_parts(kind, sample, sorted(ends))
        assert not found.m2.any(), kind
        expected = constants.double().repeat_interleave(found.mean.numel() // 3)
        assert torch.equal(found.mean, expected), kind
    if layout == "rows":
        high = in_parts(Moments, sample, sorted(ends), order=4)
        assert not high.m3.any() and not high.m4.any()


def test_nearly_constant_channels_keep_their_variance():
    x = torch.full((100, 1), 1000.0)
    x[0] = 1000.0001
    assert x[0] != x[1]
    found = Moments.measure(Sample(x)).widened()
    np.testing.assert_allclose(found.variance(), x.double().numpy().var(ddof=1), rtol=0.05)


def test_a_million_rows_of_maps_add_up_as_in_float64():
    x = torch.randn((20_000, 2, 49), generator=torch.Generator().manual_seed(0)) + 1
    expected = x.double().sum((0, 2)).numpy()
    np.testing.assert_allclose(Mean.measure(Sample(x)).total, expected, rtol=1e-6)
    constant = Mean.measure(Sample(torch.full_like(x, 0.1)))
    np.testing.assert_allclose(constant.total / constant.rows, [0.1, 0.1], rtol=1e-6)
