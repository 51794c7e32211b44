"""Quantiles within 1% in bounded memory, and histograms, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodelens.errors import InvalidValueError, MergeError
from nodelens.statistics import Histogram, QuantileSketch, Sample

RANKS = (0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0)
DRAWS = {
    "normal": lambda g, n: g.normal(size=n),
    "lognormal": lambda g, n: g.lognormal(0, 1, n),
    "heavy-tailed": lambda g, n: g.pareto(2.5, n) + 1,
    "two scales": lambda g, n: np.where(g.random(n) < 0.99, 1.0, 300.0) * g.lognormal(0, 0.3, n),
    "tiny": lambda g, n: 1e-34 * g.lognormal(0, 0.5, n),
    "huge": lambda g, n: -1e30 * g.lognormal(0, 0.5, n),
    "constant": lambda g, n: np.full(n, -3.7),
    "few": lambda g, n: g.integers(1, 5, n).astype(float),
}
EVERY_DRAW = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())


def sketch_of(*parts: np.ndarray, dtype=torch.float32) -> QuantileSketch:
    total = None
    for part in parts:
        found = QuantileSketch.measure(Sample(torch.as_tensor(part).to(dtype)))
        if total is None:
            total = found.widened()
        else:
            total.merge(found)
    assert total is not None
    return total


def check_quantiles(sketch: QuantileSketch, values: np.ndarray) -> None:
    """Within 1% of NumPy's, but for what lies so far below the largest that it counts as 0."""
    sizes = np.abs(values)
    floor = sizes.max(0) * 2.0**-14.9
    for q in RANKS:
        expected, found = np.quantile(sizes, q, axis=0), sketch.quantile(q).numpy()
        assert found.dtype == np.float64
        seen = np.quantile(sizes, q, axis=0, method="lower") >= floor
        np.testing.assert_allclose(found[seen], expected[seen], rtol=0.01, err_msg=f"q={q}")
        assert (found <= expected * 1.01).all()


@EVERY_DRAW
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_are_within_one_percent(draw, dtype):
    x = draw(np.random.default_rng(0), (5000, 4))
    check_quantiles(sketch_of(*np.array_split(x, 7), dtype=dtype), x)


@settings(max_examples=40)
@given(
    values=st.lists(st.floats(min_value=2.0**-10, max_value=8), min_size=1, max_size=60),
    cut=st.integers(0, 60),
    q=st.floats(0, 1),
)
def test_any_values_and_any_rank_are_within_one_percent(values, cut, q):
    x = np.array(values, dtype=np.float32)[:, None]
    found = sketch_of(x[:cut], x[cut:]).quantile(q).item()
    expected = np.quantile(x, q)
    assert abs(found - expected) <= 0.01 * expected


def test_channels_of_different_size_do_not_disturb_one_another():
    draw = np.random.default_rng(2)
    x = draw.lognormal(size=(3000, 3)) * np.array([1e-20, 1.0, 1e20])
    check_quantiles(sketch_of(x[:10], x[10:]), x)


def test_what_is_tiny_beside_a_later_batch_counts_as_zero():
    small, large = np.full((90, 1), 1e-6), np.full((10, 1), 1e6)
    for parts in ((small, large), (large, small)):
        sketch = sketch_of(*parts)
        np.testing.assert_allclose(sketch.quantile(0.95), 1e6, rtol=0.01)
        assert sketch.quantile(0.5).item() == 0
        assert sketch.rows == 100


def test_zeros_count_as_zero():
    x = np.zeros((100, 2))
    x[90:, 0] = 5.0
    sketch = sketch_of(x[:50], x[50:])
    assert sketch.quantile(1.0)[1] == 0 and sketch.quantile(0.5)[1] == 0
    np.testing.assert_allclose(sketch.quantile(0.95)[0], 5.0, rtol=0.01)


def test_maps_are_sketched_as_their_rows():
    x = torch.randn((7, 3, 11), generator=torch.Generator().manual_seed(0))
    rows = x.transpose(1, 2).flatten(0, 1)
    maps, flat = QuantileSketch.measure(Sample(x)), QuantileSketch.measure(Sample(rows))
    assert torch.equal(maps.state()["counts"], flat.state()["counts"])


def test_a_rank_outside_zero_to_one_is_refused():
    with pytest.raises(InvalidValueError, match=r"q is 1\.5, expected a number from 0 to 1"):
        sketch_of(np.ones((3, 1))).quantile(1.5)


def test_sketches_of_different_size_are_not_merged():
    narrow = QuantileSketch.measure(Sample(torch.ones(3, 2)), octaves=2)
    with pytest.raises(MergeError, match=r"sketches of \(2, 1024\) and \(2, 128\) counters"):
        narrow.merge(QuantileSketch.measure(Sample(torch.ones(3, 2))))


@pytest.mark.parametrize("layout", ["rows", "maps"])
def test_a_histogram_counts_as_numpy_does(layout):
    x = torch.randn((60, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = x if layout == "rows" else x.view(6, 10, 3).transpose(1, 2)
    total = Histogram.measure(Sample(sample[:2]), low=-1.0, high=1.5, bins=9).widened()
    total.merge(Histogram.measure(Sample(sample[2:]), low=-1.0, high=1.5, bins=9))
    edges = [-np.inf, *total.edges().tolist(), np.inf]
    for channel in range(3):
        expected, _ = np.histogram(x[:, channel].numpy(), bins=edges)
        assert total.counts[channel].tolist() == expected.tolist()
    assert total.rows == 60 and total.counts.sum().item() == 180


def test_values_far_outside_a_histogram_are_counted_at_its_ends():
    x = torch.tensor([[-1e30], [1e30], [0.5]])
    assert Histogram.measure(Sample(x), low=0.0, high=1.0, bins=2).counts.tolist() == [[1, 0, 1, 1]]


@pytest.mark.parametrize(
    "options", [{"low": 1.0, "high": 1.0}, {"low": 0.0, "high": 1.0, "bins": 0}]
)
def test_a_histogram_without_bins_is_refused(options):
    with pytest.raises(InvalidValueError, match="is empty"):
        Histogram.measure(Sample(torch.ones(3, 1)), **options)


def test_histograms_with_other_bins_are_not_merged():
    first = Histogram.measure(Sample(torch.ones(3, 1)), low=0.0, high=1.0)
    with pytest.raises(MergeError, match="different bins"):
        first.merge(Histogram.measure(Sample(torch.ones(3, 1)), low=0.0, high=2.0))
