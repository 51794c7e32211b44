"""Lenses beside what published toolboxes give: recorded, as `published/make.py` says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from nodelens.metrics import get_metric
from tests.lenses.published.make import CHANNELS, VALUES, counts, sample

RECORDED = json.loads(VALUES.read_text())


def score(name: str, outputs: Any, targets: Any = None, **options: Any) -> Any:
    given = {} if targets is None else {"targets": torch.from_numpy(targets)}
    metric = get_metric(name, **options)
    return metric.compute(outputs=torch.from_numpy(outputs).double(), **given).numpy()


def close(found: Any, expected: Any) -> None:
    # Some of hoi's sums are float32 ones.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def over_partners(name: str) -> Any:
    """The mean of a value of pairs over all that a channel is in, `(channels,)`."""
    total = np.zeros(CHANNELS)
    for pair, value in zip(RECORDED["pairs"], RECORDED[name], strict=True):
        total[pair] += value
    return total / (CHANNELS - 1)


@pytest.mark.parametrize("name", ["total_correlation", "dual_total_correlation", "o_information"])
def test_what_a_channel_adds_to_its_layer(name: str):
    whole, *without = RECORDED[name]
    close(score(name, sample()[0], eps=1e-12), whole - np.array(without))


@pytest.mark.parametrize(
    ("name", "recorded", "sign"),
    [
        ("pid_shared", "redundancy_of_pairs", 1),
        ("pid_synergy", "synergy_of_pairs", 1),
        ("gaussian_pid_synergy_mmi", "synergy_of_pairs", 1),
        # Of three variables, O-information is what they share less what only all tell.
        ("interaction_information", "gradient_o_information_of_pairs", -1),
    ],
)
def test_what_pairs_say_of_a_target(name: str, recorded: str, sign: int):
    rows, target, _ = sample()
    close(score(name, rows, target, eps=1e-12), sign * over_partners(recorded))


def test_information_of_two_channels_and_with_a_target():
    rows, target, third = sample()
    close(score("average_redundancy", rows, eps=1e-12), over_partners("information_of_pairs"))
    found = score("mutual_information_gaussian", rows, target, eps=1e-12)
    close(found, RECORDED["information_with_target"])
    both = np.stack([target, third], 1)
    found = score("conditional_mutual_information", rows, both, given=1, eps=1e-12)
    close(found, RECORDED["information_given_third"])


@pytest.mark.parametrize("corrected", [False, True])
def test_information_of_counts(corrected: bool):
    options = {"bins": 4, "strategy": "uniform", "corrected": corrected}
    found = score("mutual_information_binning", *counts(), **options)
    close(found, RECORDED["corrected_of_counts" if corrected else "plain_of_counts"])
