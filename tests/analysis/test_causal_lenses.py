"""The causal lenses give what the functions of the same names give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nodelens import Lens
from nodelens.aggregator import Aggregator
from nodelens.analysis.causal import ablation_validation, pair_lesion
from nodelens.errors import InvalidValueError, LayerNotFoundError
from tests.analysis.planted import conjunction, linear


def test_a_lens_over_a_stream_is_the_function(tmp_path: Path):
    model, parts, truth = linear()
    noisy = truth + np.random.default_rng(1).normal(size=24)
    options = {"per_layer": 6, "strata": 3, "resamples": 50}
    wanted = ablation_validation(model, parts, {"units": noisy}, progress=False, **options)
    lens = Lens.from_name("ablation_validation", {"units": noisy.tolist()}, **options)
    assert lens.evaluations == wanted.evaluations == 7
    split = [tuple(side[i : i + 80] for side in parts[0]) for i in (0, 80, 160)]
    found = lens.run(model, split, progress=False, resume=tmp_path / "state")
    for name, estimate in wanted.estimates.items():
        ends = [float(found["model"][name + end]) for end in ("", "_low", "_high")]
        assert ends == pytest.approx([estimate.value, estimate.low, estimate.high])
    rows = lens.concluded(Aggregator.load(tmp_path / "state").statistics).rows
    assert [row["channel"] for row in rows] == [row["channel"] for row in wanted.rows]


def test_a_pair_that_needs_each_other_is_found_by_the_lens():
    model, parts = conjunction()
    synergy = np.zeros((8, 8))
    synergy[2, 5] = synergy[5, 2] = 1
    options = {"pairs": 1, "resamples": 20}
    wanted = pair_lesion(model, parts, {"units": synergy}, progress=False, **options)
    found = Lens.from_name("pair_lesion", {"units": synergy}, **options).run(
        model, parts, progress=False
    )
    assert float(found["model"]["excess"]) == pytest.approx(wanted["excess"].value)
    assert found.units["excess"] == "loss" and found.units["p"] == "1"


def test_channels_and_layers_that_are_none_are_errors_that_name_the_lens():
    model, parts, _ = linear()
    for channels, error in (
        ({"unit": [1]}, LayerNotFoundError),
        ({"units": [77]}, InvalidValueError),
    ):
        lens = Lens.from_name("cascade", {"critical": channels}, counts=[1], draws=1)
        with pytest.raises(error, match="lens 'cascade'"):
            lens.run(model, parts, progress=False)
