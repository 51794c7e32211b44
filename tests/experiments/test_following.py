"""Configurations that end measuring early, or ask for standard errors."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from nodelens import CompositeLens, Lens, LensResult, Settled
from nodelens.errors import ConfigError
from nodelens.experiments import GeneralAlignmentExperiment
from nodelens.experiments.networks import build_network
from nodelens.experiments.splits import load_splits
from nodelens.files import load_tensors
from nodelens.testing.trial import assert_equal

NAMES = ["activation_sparsity", "weight_magnitude"]
SMALL = (("lenses", NAMES), "dataset.batch_size=50", ("sensitivity", None))
EARLY = ("calibration.until", {"top": 0.3, "tolerance": 0.4, "patience": 2})
ERRORS = "calibration.standard_errors=true"


class Short(GeneralAlignmentExperiment):
    """Only what comes up to the scores."""

    def stages(self):
        return list(super().stages())[:3]


def scores(config, **options) -> LensResult:
    folder = Short(config).run(progress=False, **options).directory
    return LensResult.load(folder / "results/scores")


def by_hand(config, folder: Path, **options) -> LensResult:
    """The scores of the lenses themselves, on the network that the run has trained."""
    splits = load_splits(config)
    network = build_network(config, splits)
    network.load_state_dict(load_tensors(folder / "checkpoints/trained.safetensors")[0])
    lens = CompositeLens([Lens.from_name(name) for name in NAMES])
    return lens.run(network, splits.batches(splits.calibration), progress=False, **options)


def test_measuring_ends_where_the_lenses_themselves_would(tiny, tmp_path):
    config = tiny(tmp_path / "run", *SMALL, EARLY)
    found = scores(config)
    rule = Settled(top=0.3, tolerance=0.4, patience=2)
    expected = by_hand(config, tmp_path / "run", until=rule)
    assert_equal(found, expected)
    assert found.rows == expected.rows and found.rows["fc1"] < 1077
    told = json.loads((tmp_path / "run/provenance.json").read_text())
    assert "Measuring ends where the top 30% of every layer" in told["protocol"]["measure"]


def test_standard_errors_are_those_of_the_lenses_themselves(tiny, tmp_path):
    config = tiny(tmp_path / "run", *SMALL, ERRORS)
    found = scores(config)
    expected = by_hand(config, tmp_path / "run", standard_errors=True)
    assert_equal(found, expected)
    for layer, errors in expected.standard_errors.items():
        for name, values in errors.items():
            assert torch.equal(found.standard_errors[layer][name], values)
    assert "standard_error" in pd.read_csv(tmp_path / "run/results/scores.csv")


def test_both_are_resumed_where_they_are_the_same_and_done_again_where_not(tiny, tmp_path):
    folder = tmp_path / "run"
    scores(tiny(folder, *SMALL))
    table = folder / "results/scores.csv"
    assert "standard_error" not in pd.read_csv(table)
    assert scores(tiny(folder, *SMALL, ERRORS), resume=True).standard_errors
    before = table.stat().st_mtime_ns
    scores(tiny(folder, *SMALL, ERRORS), resume=True)
    assert table.stat().st_mtime_ns == before
    again = scores(tiny(folder, *SMALL, EARLY), resume=True)
    assert again.rows["fc1"] < 1077 and not again.standard_errors


@pytest.mark.parametrize(
    ("override", "said"),
    [(EARLY, r"calibration\.until: whether"), (ERRORS, r"calibration\.standard_errors: standard")],
)
def test_a_shard_is_refused_before_anything_is_written(tiny, tmp_path, override, said):
    with pytest.raises(ConfigError, match=f"{said}.* and this run shares them out"):
        scores(tiny(tmp_path / "run", *SMALL, override), shard="1/2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([ERRORS, "calibration.memory_budget=1 GiB"], "one pass over the batches"),
        (["calibration.until={topp: 0.1}"], r"until\.topp: .*did you mean 'top'"),
        (["calibration.until={top: 1.5}"], r"calibration\.until\.top"),
        (["calibration.until={patience: 0}"], r"calibration\.until\.patience"),
        (["calibration.standard_errors=maybe"], r"calibration\.standard_errors"),
    ],
)
def test_what_cannot_be_followed_is_told_with_its_key(tiny, tmp_path, overrides, said):
    with pytest.raises(ConfigError, match=said):
        tiny(tmp_path / "run", *SMALL, *overrides)
