"""Moments between channels, with targets and within classes, against NumPy in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodelens.errors import MergeError, MissingTargetsError, ShapeError
from nodelens.statistics import ClassMoments, CoMoments, CrossMoments, Read, reduce
from tests.statistics.streams import cut, stream
from tests.statistics.test_moments import LAYOUTS, SEEDS, as_rows, close, in_parts

SHIFTS = st.sampled_from([0.0, 1e4])


def spread_targets(sample) -> np.ndarray:
    """One target a row: those of a sample hold for all its positions."""
    positions = 1 if sample.values.ndim == 2 else sample.values.shape[2]
    return np.repeat(sample.targets.numpy(), positions, axis=0)


@LAYOUTS
@settings(max_examples=15)
@given(seed=SEEDS, rows=st.integers(2, 40), shift=SHIFTS)
def test_covariance_is_that_of_numpy(layout, seed, rows, shift):
    sample = stream(layout, rows, seed=seed, shift=shift)
    found = in_parts(CoMoments, sample)
    close(found.covariance(), np.cov(as_rows(sample), rowvar=False), 1e-9)
    close(found.mean, as_rows(sample).mean(0), 1e-12)


@LAYOUTS
def test_precise_products_of_float32_rows_are_those_of_numpy(layout, monkeypatch):
    monkeypatch.setattr(reduce, "_WIDE_ROWS", 7)
    sample = stream(layout, 40, seed=3, dtype=torch.float32)
    whole = CoMoments.measure(sample, precise=True)
    gap = as_rows(replace(sample, values=sample.deviation)).astype(np.float64)
    close(whole.m2, gap.T @ gap, 1e-13)
    close(CoMoments.measure(sample, start=1, precise=True).m2, whole.m2[1:].numpy(), 1e-13)


def test_a_precise_read_is_one_of_its_own():
    # Shared, it would give lenses of plain products other digits in company than alone.
    plain, precise = Read("output", CoMoments), Read("output", CoMoments, {"precise": True})
    assert plain.joined(precise) is precise.joined(plain) is None
    assert precise.joined(precise) == precise


def test_both_ways_of_multiplying_maps_agree(monkeypatch):
    sample = stream("maps", 6, seed=1)
    batched = CoMoments.measure(sample)
    monkeypatch.setattr(reduce, "_BATCHED_GRAM_ELEMENTS", 0)
    wide = replace(sample, values=sample.values[:, :, :1].repeat(1, 40, 1))
    assert len(wide.values) * 120 * 120 > wide.values.numel()
    close(CoMoments.measure(wide).covariance(), np.cov(as_rows(wide), rowvar=False))
    close(batched.covariance(), np.cov(as_rows(sample), rowvar=False))


@LAYOUTS
@settings(max_examples=15)
@given(seed=SEEDS, rows=st.integers(2, 40), shift=SHIFTS)
def test_cross_moments_with_numbers_are_those_of_numpy(layout, seed, rows, shift):
    sample = stream(layout, rows, seed=seed, shift=shift, targets="numeric")
    check_cross_moments(sample, spread_targets(sample))


@LAYOUTS
@settings(max_examples=15)
@given(seed=SEEDS, rows=st.integers(2, 40), shift=SHIFTS)
def test_cross_moments_with_classes_are_those_of_one_hot_rows(layout, seed, rows, shift):
    sample = stream(layout, rows, seed=seed, shift=shift)
    labels = spread_targets(sample)
    check_cross_moments(sample, np.eye(labels.max() + 1)[labels])


def check_cross_moments(sample, targets: np.ndarray) -> None:
    found, x = in_parts(CrossMoments, sample), as_rows(sample)
    deviation, gap = x - x.mean(0), targets - targets.mean(0)
    scale = max(1.0, np.abs(deviation).max() * len(x))
    close(found.cross / scale, deviation.T @ gap / scale, 1e-11)
    close(found.m2, (deviation**2).sum(0), 1e-9)
    close(found.target_m2, gap.T @ gap, 1e-10)
    close(found.target_mean, targets.mean(0), 1e-11)
    assert found.rows == len(x)


@pytest.mark.parametrize("statistic", [CrossMoments, ClassMoments])
def test_a_class_that_comes_late_adds_zeros_to_what_came_before(statistic):
    sample = stream("rows", 12, seed=2)
    sample = replace(sample, targets=torch.tensor([0] * 4 + [1] * 4 + [6, 0, 0, 2]))
    forward, backward = in_parts(statistic, sample, (4, 8)), cut(sample, (4, 8))[::-1]
    total = statistic.measure(backward[0]).widened()
    for part in backward[1:]:
        total.merge(statistic.measure(part))
    for name, value in forward.state().items():
        close(total.state()[name], value.numpy(), 1e-12)
    assert forward.mean.isfinite().all()


@LAYOUTS
@settings(max_examples=15)
@given(seed=SEEDS, rows=st.integers(1, 40), shift=SHIFTS)
def test_class_moments_are_those_of_each_class_alone(layout, seed, rows, shift):
    sample = stream(layout, rows, seed=seed, shift=shift)
    found, x, labels = in_parts(ClassMoments, sample), as_rows(sample), spread_targets(sample)
    assert found.counts.tolist() == np.bincount(labels).tolist()
    for k in np.unique(labels):
        mine = x[labels == k]
        close(found.mean[k], mine.mean(0), 1e-11)
        close(found.m2[k], ((mine - mine.mean(0)) ** 2).sum(0), 1e-8 if shift else 1e-11)


def test_the_moments_of_classes_add_up_to_those_of_the_layer():
    sample = stream("maps", 30, seed=3, shift=5.0)
    classes, whole = in_parts(ClassMoments, sample), in_parts(CoMoments, sample)
    gap = classes.mean - whole.mean
    between = (gap.square() * classes.counts[:, None]).sum(0)
    close(classes.m2.sum(0) + between, whole.m2.diagonal().numpy(), 1e-11)


@pytest.mark.parametrize("statistic", [CrossMoments, ClassMoments])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_numbers_may_be_any_integers(statistic, dtype):
    sample = stream("rows", 9, seed=4)
    expected = statistic.measure(sample)
    found = statistic.measure(replace(sample, targets=sample.targets.to(dtype)))
    for name, value in expected.state().items():
        close(found.state()[name], value.numpy(), 0)


@pytest.mark.parametrize("statistic", [CrossMoments, ClassMoments])
def test_negative_class_numbers_are_refused(statistic):
    sample = stream("rows", 3, seed=5)
    with pytest.raises(MissingTargetsError, match="class numbers start at 0, got -100"):
        statistic.measure(replace(sample, targets=torch.tensor([0, -100, 1])))


@pytest.mark.parametrize("statistic", [CrossMoments, ClassMoments])
def test_missing_targets_are_named(statistic):
    with pytest.raises(MissingTargetsError, match="targets"):
        statistic.measure(replace(stream("rows", 3, seed=6), targets=None))


def test_numbers_are_no_classes():
    sample = stream("rows", 3, seed=7, targets="numeric")
    with pytest.raises(MissingTargetsError, match=r"class numbers are needed.*float64"):
        ClassMoments.measure(sample)


def test_numbers_after_classes_are_refused():
    classes = CrossMoments.measure(stream("rows", 4, seed=8)).widened()
    numbers = CrossMoments.measure(stream("rows", 4, seed=8, targets="numeric"))
    with pytest.raises(MergeError, match="class numbers in one batch and numeric in another"):
        classes.merge(numbers)


def test_numeric_targets_of_another_width_are_refused():
    sample = stream("rows", 4, seed=9, targets="numeric")
    narrow = CrossMoments.measure(replace(sample, targets=sample.targets[:, :1])).widened()
    with pytest.raises(ShapeError, match="targets have 2 dimensions in one batch, 1 in another"):
        narrow.merge(CrossMoments.measure(sample))
