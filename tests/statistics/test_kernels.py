"""The compiled sums against torch in float64, and what happens where they cannot be compiled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nodelens.statistics import (
    AbsoluteMean,
    Extremes,
    Moments,
    NearZero,
    QuantileSketch,
    Sample,
    kernels,
    reduce,
)
from nodelens.statistics.base import measured
from nodelens.statistics.comoments import add_products
from nodelens.statistics.reduce import gram

SHAPES = [(1, 1), (5, 3), (40, 16), (33, 17), (300, 100), (1100, 20)]
SHAPES += [(2, 3, 5), (9, 4, 16), (3, 2, 49)]
WANTED = [
    (Moments, {"order": 4}),
    (AbsoluteMean, {}),
    (NearZero, {"eps": 0.5}),
    (Extremes, {}),
    (QuantileSketch, {}),
]

pytestmark = pytest.mark.skipif(kernels._library() is None, reason="there is no C compiler")


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library looked for anew, before and after."""
    kernels._library.cache_clear()
    yield
    kernels._library.cache_clear()


def drawn(shape: tuple[int, ...], offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape) + shape[1])
    return torch.randn(shape, generator=generator) + offset


def looked(values: Tensor) -> kernels.Survey | None:
    return kernels.survey(values, kernels.Asked())


def rows(values: Tensor) -> Tensor:
    return values if values.ndim == 2 else values.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_sums_are_those_of_float64(shape: tuple[int, ...], offset: float):
    values = drawn(shape, offset)
    exact = rows(values).double()
    look = kernels.survey(values, kernels.Asked(order=4, eps=0.5, binned=True))
    assert look is not None
    torch.testing.assert_close(look.total, exact.sum(0), rtol=1e-14, atol=1e-12)
    torch.testing.assert_close(look.mean, exact.mean(0), rtol=1e-14, atol=1e-15)
    assert torch.equal(look.centre.double() + look.residual, look.mean)
    assert torch.equal(look.low, rows(values).amin(0))
    assert torch.equal(look.high, rows(values).amax(0))
    deviation = exact - look.mean
    for order, found in zip((2, 3, 4), (look.m2, look.m3, look.m4), strict=True):
        scale = (deviation.abs() + look.residual.abs()) ** order
        assert ((found - (deviation**order).sum(0)).abs() <= 2e-6 * scale.sum(0) + 1e-12).all()
    torch.testing.assert_close(look.size, exact.abs().sum(0), rtol=1e-6, atol=0)
    assert torch.equal(look.small, (rows(values).abs() <= 0.5).sum(0))
    assert torch.equal(look.top, (rows(values).abs().amax(0).view(torch.int32) >> 17).long())
    if values.ndim == 2:
        bits = values.abs().view(torch.int32) >> 17
        assert look.bins is not None and torch.equal(look.bins.int(), bits)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics_are_what_torch_makes_them(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    values = drawn(shape, 2.0)
    compiled = [s.widened() for s in measured(Sample(values), WANTED)]
    monkeypatch.setattr(kernels, "_library", lambda: None)
    for mine, plain in zip(compiled, measured(Sample(values), WANTED), strict=True):
        assert mine.plain() == plain.plain()
        for name, tensor in plain.widened().state().items():
            torch.testing.assert_close(mine.state()[name], tensor, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_activation_and_gradient_make_together(shape: tuple[int, ...], whole: bool):
    values, gradient = drawn(shape, 0.5), drawn((shape[0] + 1, *shape[1:]))[1:]
    found = kernels.meet(values, gradient, whole=whole)
    u, g = values.double(), gradient.double()
    product = (u * g).sum(2) if whole and u.ndim == 3 else rows(u * g)
    wanted = torch.stack([product.sum(0), product.abs().sum(0), product.square().sum(0)])
    squares = torch.stack([rows(u).square().sum(0), rows(g).square().sum(0)])
    assert found is not None
    torch.testing.assert_close(found, torch.cat([wanted, squares]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("shape", [(2, 3, 5), (9, 4, 16), (3, 2, 600)], ids=str)
def test_sums_by_position(shape: tuple[int, ...], offset: float):
    values = drawn(shape, offset)
    centre = values.mean((0, 2))
    deviation = values.double() - centre.double()[:, None]
    expected = torch.stack([deviation.sum(0), deviation.square().sum(0)])
    found = kernels.by_position(values, centre)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-12)
    assert kernels.by_position(values[:, :, 0], centre) is None


@pytest.mark.parametrize("shape", [(5, 3), (3, 130), (300, 129), (40, 300), (6, 130, 9)], ids=str)
def test_a_symmetric_product_is_the_product(shape: tuple[int, ...], monkeypatch):
    monkeypatch.setattr(reduce, "_PANEL", 64)
    values = drawn(shape)
    exact = values.double()
    expected = rows(exact).T @ rows(exact)
    compiled = gram(values, values)
    monkeypatch.setattr(kernels, "_library", lambda: None)
    monkeypatch.setattr(reduce, "_BATCHED_GRAM_ELEMENTS", 1)
    for product in (compiled, gram(values, values), gram(exact, exact)):
        assert shape[1] <= 64 or torch.equal(product, product.T)
        torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
def test_products_are_added_to_wide_sums(compiled: bool, monkeypatch: pytest.MonkeyPatch):
    total, left, right = (drawn((33 + k, 20)).double()[k:] for k in range(3))
    products, (left, right) = drawn((33, 20), 1.0), (left[:, 0], right[0])
    expected = total + products + left[:, None] * right
    if not compiled:
        monkeypatch.setattr(kernels, "_library", lambda: None)
    add_products(total, products, left, right)
    torch.testing.assert_close(total, expected, rtol=1e-15, atol=1e-15)


def test_counts_are_the_same_bin_by_bin(monkeypatch: pytest.MonkeyPatch):
    parts = [drawn((700, 20)) * 10**k for k in range(6)]

    def streamed() -> dict[str, Tensor]:
        whole = QuantileSketch.measure(Sample(parts[0])).widened()
        for part in parts[1:]:
            whole.merge(QuantileSketch.measure(Sample(part)))
        return whole.state()

    compiled = streamed()
    monkeypatch.setattr(kernels, "_library", lambda: None)
    plain = streamed()
    assert torch.equal(compiled["counts"], plain["counts"])
    assert torch.equal(compiled["top"], plain["top"])
    assert int(plain["counts"].sum()) == 6 * 700 * 20


def test_a_constant_channel_is_its_own_mean():
    values = torch.full((37, 3), 0.1)
    values[:, 1] = torch.linspace(0, 1, 37)
    look = looked(values)
    assert look is not None
    assert look.centre[0] == values[0, 0] and look.residual[0] == 0
    assert float(Moments.measure(Sample(values)).m2[0]) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_reaches_the_sum_of_its_channel_alone(bad: float):
    values = drawn((50, 20))
    values[31, 7] = bad
    look = looked(values)
    assert look is not None
    assert (~torch.isfinite(look.total)).nonzero().tolist() == [[7]]


def test_every_position_of_a_map_is_summed():
    values = drawn((4, 3, 6, 5))
    look = looked(values)
    assert look is not None
    torch.testing.assert_close(look.total, values.double().sum((0, 2, 3)))


def test_threads_change_nothing():
    values = drawn((4000, 300))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            survey = kernels.survey(values, kernels.Asked(4, 0.1, True))
            assert survey is not None
            found.append(survey[1:])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_tensors_of_another_kind_are_left_to_torch():
    values = drawn((6, 4))
    for other in (values.double(), values.T, values[:0], values.to("meta")):
        assert looked(other) is None


@pytest.mark.usefixtures("fresh")
def test_without_a_compiler_or_when_not_wanted_torch_does_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODELENS_KERNELS", "0")
    assert looked(drawn((6, 4))) is None
    kernels._library.cache_clear()
    monkeypatch.delenv("NODELENS_KERNELS")
    monkeypatch.setenv("PATH", "")
    assert looked(drawn((6, 4))) is None


@pytest.mark.usefixtures("fresh")
def test_a_compiler_that_fails_is_noted_and_torch_does_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    with caplog.at_level("INFO", logger="nodelens"):
        assert looked(drawn((6, 4))) is None
    assert "kernels.c could not be built" in caplog.text
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.usefixtures("fresh")
def test_it_is_built_once_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert looked(drawn((6, 4))) is not None
    built = list(tmp_path.rglob("*.so"))
    stamp = built[0].stat().st_mtime_ns
    kernels._library.cache_clear()
    assert looked(drawn((6, 4))) is not None
    assert [(p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*.so")] == [(built[0], stamp)]


def test_the_defaults_of_the_process_change_no_sum():
    values = drawn((40, 16))
    expected = looked(values)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = looked(values)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert found is not None and expected is not None
    for name in ("low", "high", "centre", "total"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
