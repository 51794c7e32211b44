"""A matrix a class, of the classes that had a row: a thousand numbers may be three classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nodelens import Aggregator, Lens
from nodelens.errors import InvalidValueError
from nodelens.statistics import ClassCoMoments
from nodelens.testing.trial import assert_close
from tests.statistics.streams import stream
from tests.statistics.test_moments import as_rows, close, in_parts

LABELS = torch.tensor([0] * 4 + [7] * 4 + [999, 0, 0, 7])


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("layout", ["rows", "maps"])
def test_classes_have_the_moments_of_numpy_whenever_they_come(layout: str, backward: bool):
    sample = replace(stream(layout, 12, seed=2), targets=LABELS)
    if backward:
        sample = replace(sample, values=sample.values.flip(0), targets=LABELS.flip(0))
    found, x = in_parts(ClassCoMoments, sample, (4, 8)), as_rows(sample)
    labels = sample.targets.numpy().repeat(len(x) // 12)
    assert sorted(found.m2) == [0, 7, 999] and int(found.counts.sum()) == found.rows == len(x)
    for label, m2 in found.m2.items():
        mine = x[labels == label]
        gap = mine - mine.mean(0)
        close(m2, gap.T @ gap, 1e-11)
        close(found.mean[label], mine.mean(0), 1e-11)
    close(found.total() / (len(x) - 1), np.cov(x, rowvar=False), 1e-11)


def network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(6, 5).double(), torch.randn(12, 6, dtype=torch.float64)


def test_a_state_that_knows_few_classes_goes_on_with_others(tmp_path):
    model, x = network()
    lens = Lens.from_name("conditional_mi", corrected=False)
    whole = lens.run(model, [(x, LABELS)], progress=False)
    first, second = (
        lens.measure(model, [(x[rows], LABELS[rows])], progress=False)
        for rows in (slice(0, 4), slice(4, 12))
    )
    first.save(tmp_path / "state.safetensors")
    loaded = Aggregator.load(tmp_path / "state.safetensors")
    loaded.merge(second)
    second.merge(first)
    for merged in (loaded, second):
        assert_close(merged.result(), whole, 1e-10)
    # Numbers of classes are names: others that are as many give the same.
    other = torch.unique(LABELS, return_inverse=True)[1]
    assert_close(lens.run(model, [(x, other)], progress=False), whole, 1e-10)


def test_a_plan_gives_the_bound_which_is_no_reason_to_refuse(monkeypatch):
    model, x = network()
    lens = Lens.from_name("conditional_mi")
    bound = lens.plan(model, (x, LABELS)).bytes["cpu"]
    assert bound > 1000 * 36 * 8
    monkeypatch.setattr("nodelens.model.costs.available", lambda device: bound // 10)
    lens.run(model, [(x, LABELS)], progress=False)
    with pytest.raises(InvalidValueError, match="are left: give run"):
        lens.run(model, [(x.repeat(9, 1), torch.arange(108))], progress=False)
