"""What the weights of a convolution see, without unfolding, against unfolded patches in NumPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nodelens.errors import MergeError
from nodelens.model.layers import describe
from nodelens.statistics import (
    ClassMoments,
    ClassPatchMoments,
    CoMoments,
    GroupCoMoments,
    PatchMoments,
    PositionMoments,
    Sample,
    Window,
)

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
SIZES = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}
GEOMETRY = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 2, "stride": 2},
    {"kernel_size": 2, "padding": 1, "dilation": 2, "groups": 2},
    {"kernel_size": 1, "stride": 3},
    {"kernel_size": 3, "padding": "same", "dilation": 1, "groups": 4},
    {"kernel_size": 2, "padding": "valid", "stride": 2},
]
EVERY_CONVOLUTION = pytest.mark.parametrize(
    ("axes", "mode", "options"),
    list(product(CONVOLUTIONS, MODES, GEOMETRY)),
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)


def unfolded(x: np.ndarray, window: Window) -> np.ndarray:
    """Every window's content, `(batch, channels * taps, positions)`, by NumPy alone."""
    padded = np.pad(x, [(0, 0), (0, 0), *window.padding], mode=MODES[window.padding_mode])
    spans = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilation, strict=True)]
    axes = tuple(range(2, x.ndim))
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
    places = tuple(slice(None, None, stride) for stride in window.stride)
    taps = tuple(slice(None, None, dilation) for dilation in window.dilation)
    views = views[(slice(None), slice(None), *places, *taps)]
    order = [0, 1, *(a + len(axes) for a in axes), *axes]
    return views.transpose(order).reshape(len(x), x.shape[1] * window.taps, -1)


def maps(axes: int, batch: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, 4, *SIZES[axes]), generator=generator, dtype=torch.float64) + shift


def window_of(axes: int, mode: str, options: dict) -> tuple[nn.Module, Window]:
    module = CONVOLUTIONS[axes](4, 8, padding_mode=mode, dtype=torch.float64, **options)
    layer = describe("convolution", module)
    assert layer is not None and layer.window is not None
    return module, layer.window


@EVERY_CONVOLUTION
def test_patches_are_what_the_weights_meet(axes, mode, options):
    module, window = window_of(axes, mode, options)
    x = maps(axes, 3)
    patches = window.patches(x)
    np.testing.assert_array_equal(patches.numpy(), unfolded(x.numpy(), window))
    grouped = patches.unflatten(1, (window.groups, -1))
    weight = module.weight.flatten(1).unflatten(0, (window.groups, -1))
    made = torch.einsum("ngwp,gcw->ngcp", grouped, weight).flatten(1, 2) + module.bias[:, None]
    torch.testing.assert_close(made, module(x).flatten(2), rtol=1e-10, atol=1e-10)


@EVERY_CONVOLUTION
def test_class_patch_moments_are_those_of_unfolded_patches(axes, mode, options):
    _, window = window_of(axes, mode, options)
    labels = torch.tensor([2, 0, 2, 4, 0, 2])
    # Classes far apart, compared with how far their members are.
    x = maps(axes, 6, seed=2, shift=3.0) + 1e3 * labels.view(-1, 1, *[1] * axes)
    total = ClassPatchMoments.measure(Sample(x[:2], targets=labels[:2], window=window)).widened()
    total.merge(ClassPatchMoments.measure(Sample(x[2:], targets=labels[2:], window=window)))
    patches = torch.from_numpy(unfolded(x.numpy(), window).copy())
    expected = ClassMoments.measure(Sample(patches, targets=labels))
    assert total.rows == expected.rows and torch.equal(total.counts, expected.counts)
    torch.testing.assert_close(total.mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(total.m2, expected.m2, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_co_moments_are_the_blocks_of_the_whole_matrix(groups: int):
    x = maps(2, 9).flatten(2)
    whole = CoMoments.measure(Sample(x)).m2
    size = len(whole) // groups
    blocks = [whole[g * size : (g + 1) * size, g * size : (g + 1) * size] for g in range(groups)]
    for values in (x, x.transpose(1, 2).flatten(0, 1)):
        found = GroupCoMoments.measure(Sample(values), groups=groups).m2
        torch.testing.assert_close(found, torch.stack(blocks), rtol=1e-10, atol=1e-9)


@EVERY_CONVOLUTION
def test_patch_moments_are_those_of_unfolded_patches(axes, mode, options):
    _, window = window_of(axes, mode, options)
    x = maps(axes, 5, seed=1, shift=3.0)
    total = PatchMoments.measure(Sample(x[:2], window=window)).widened()
    total.merge(PatchMoments.measure(Sample(x[2:], window=window)))
    patches = unfolded(x.numpy(), window)
    rows = patches.transpose(0, 2, 1).reshape(-1, patches.shape[1])
    assert total.rows == len(rows)
    np.testing.assert_allclose(total.mean, rows.mean(0), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(total.m2, rows.var(0) * len(rows), rtol=1e-10, atol=1e-10)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 6), shift=st.sampled_from([0.0, 1e4]))
def test_patch_moments_far_from_zero(seed, batch, shift):
    for mode in MODES:
        _, window = window_of(2, mode, {"kernel_size": (3, 2), "padding": (0, 1)})
        x = maps(2, batch, seed, shift)
        found = PatchMoments.measure(Sample(x, window=window))
        rows = unfolded(x.numpy(), window).transpose(0, 2, 1).reshape(-1, 24)
        np.testing.assert_allclose(found.m2, rows.var(0) * len(rows), rtol=1e-8, atol=1e-9)


def test_patch_moments_in_float32():
    _, window = window_of(2, "zeros", {"kernel_size": 3, "padding": 1})
    x = maps(2, 64, seed=2, shift=10.0).float()
    found = PatchMoments.measure(Sample(x, window=window))
    rows = unfolded(x.double().numpy(), window).transpose(0, 2, 1).reshape(-1, 36)
    np.testing.assert_allclose(found.m2, rows.var(0) * len(rows), rtol=1e-5)


def test_without_a_window_patches_are_rows():
    x = torch.randn((9, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = PatchMoments.measure(Sample(x))
    np.testing.assert_allclose(found.variance(), x.numpy().var(0, ddof=1), rtol=1e-12)


@EVERY_CONVOLUTION
def test_sums_inside_windows_are_those_of_patches(axes, mode, options):
    _, window = window_of(axes, mode, options)
    x = maps(axes, 1, seed=4)
    padded = window.padded(x)[0]
    patches = unfolded(x.numpy(), window).reshape(4, window.taps, -1)
    np.testing.assert_allclose(window.window_sums(padded), patches.sum(1), rtol=1e-11, atol=1e-11)
    taps = patches.sum(2).reshape(-1)
    np.testing.assert_allclose(window.tap_sums(padded), taps, rtol=1e-11, atol=1e-11)


def test_maps_of_another_size_have_other_positions():
    first = PositionMoments.measure(Sample(maps(2, 3)))
    with pytest.raises(MergeError, match=r"maps of \(6, 7\) after maps of \(7, 6\)"):
        first.merge(PositionMoments.measure(Sample(maps(2, 3).transpose(2, 3))))
