"""Products of activation and gradient against NumPy, and weight updates against autograd."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nodelens.errors import MissingLossError
from nodelens.model.layers import describe
from nodelens.statistics import ActivationGradient, Sample, WeightFisher, WeightUpdates
from tests.statistics.streams import stream
from tests.statistics.test_moments import LAYOUTS, SEEDS, as_rows, close, in_parts
from tests.statistics.test_patches import EVERY_CONVOLUTION, maps, window_of


def gradient_rows(sample: Sample) -> np.ndarray:
    return as_rows(replace(sample, values=sample.gradient))


@LAYOUTS
@settings(max_examples=12)
@given(seed=SEEDS, rows=st.integers(1, 30))
def test_products_are_those_of_numpy(layout, seed, rows):
    sample = stream(layout, rows, seed=seed, shift=2.0)
    found = in_parts(ActivationGradient, sample)
    u, g = as_rows(sample), gradient_rows(sample)
    expected = {
        "product": u * g,
        "absolute": np.abs(u * g),
        "square": (u * g) ** 2,
        "value_square": u**2,
        "gradient_square": g**2,
    }
    for name, values in expected.items():
        close(found.mean(name), values.mean(0), 1e-11)


def test_a_sample_can_be_a_row():
    sample = stream("maps", 6, seed=1)
    found = in_parts(ActivationGradient, sample, per="sample")
    per_sample = (sample.values * sample.gradient).sum(2).numpy()
    assert found.rows == 6
    close(found.mean("product"), per_sample.mean(0))
    close(found.mean("absolute"), np.abs(per_sample).mean(0))
    close(found.mean("square"), (per_sample**2).mean(0))


@LAYOUTS
def test_a_run_of_channels_is_a_vector(layout):
    sample = stream(layout, 6, seed=1)
    found = in_parts(ActivationGradient, sample, groups=1)
    u, g = as_rows(sample), gradient_rows(sample)
    inner = (u * g).sum(1, keepdims=True)
    assert found.rows == len(u)
    close(found.mean("absolute"), np.abs(inner).mean(0))
    close(found.mean("square"), (inner**2).mean(0))
    close(found.mean("value_square"), (u**2).sum(1, keepdims=True).mean(0))
    close(found.mean("gradient_square"), (g**2).sum(1, keepdims=True).mean(0))


def test_the_mean_loss_divides_the_gradient_by_its_terms():
    sample = stream("rows", 6, seed=2)
    of_sum, of_mean = (
        ActivationGradient.measure(sample, reduction=reduction) for reduction in ("sum", "mean")
    )
    close(of_mean.absolute * 4, of_sum.absolute.numpy())
    close(of_mean.gradient_square * 16, of_sum.gradient_square.numpy())
    close(of_mean.value_square, of_sum.value_square.numpy())


@pytest.mark.parametrize("statistic", [ActivationGradient, WeightFisher, WeightUpdates])
def test_a_missing_gradient_is_named(statistic):
    with pytest.raises(MissingLossError, match="a loss gradient is needed"):
        statistic.measure(replace(stream("rows", 3, seed=3), gradient=None))


def check_updates(module: nn.Module, x: Tensor, seed: int) -> None:
    """The sums over two parts of a batch, against the weight gradients of autograd."""
    layer = describe("layer", module)
    assert layer is not None
    y = module(x)
    generator = torch.Generator().manual_seed(seed)
    slope = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    sample = Sample(_flat(y.detach()), _flat(slope), inputs=x, window=layer.window)
    found = in_parts(WeightUpdates, sample, (1, 3))
    for name, gradient in (("gradient", slope), ("hebbian", y.detach())):
        (expected,) = torch.autograd.grad(y, module.weight, gradient, retain_graph=True)
        close(getattr(found, name), expected.flatten(1).numpy(), 1e-10)
    rows = as_rows(sample)
    close(found.output, rows.sum(0), 1e-10)
    close(found.output_square, (rows**2).sum(0), 1e-10)
    assert found.rows == len(rows)


def _flat(maps: Tensor) -> Tensor:
    return maps.flatten(2) if maps.ndim > 2 else maps


def test_updates_of_a_linear_layer_are_those_of_autograd():
    x = torch.randn((7, 5), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    check_updates(nn.Linear(5, 3, dtype=torch.float64), x, seed=5)


@EVERY_CONVOLUTION
def test_updates_of_a_convolution_are_those_of_autograd(axes, mode, options):
    module, _ = window_of(axes, mode, options)
    check_updates(module, maps(axes, 4, seed=6), seed=7)


@pytest.mark.parametrize("stride", list(product((1, 2), (2, 3))))
def test_updates_where_the_last_pixels_are_never_seen(stride):
    # (7 - 3) is no multiple of the stride: some input pixels lie outside every window.
    module = nn.Conv2d(4, 6, 3, stride=stride, dtype=torch.float64)
    check_updates(module, maps(2, 4, seed=8), seed=9)
