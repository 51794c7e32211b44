"""Values of the reference system where it is right: the same tensors give the same scores."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nodelens.metrics import get_metric, list_metrics

DATA = Path(__file__).parent / "data"

RENAMED = {
    "target_outputs": "targets",
    "sampling_strategy": "partners",
    "next_layer_activations": "next_outputs",
}
"""The reference's names for what is called otherwise here."""

# The reference takes quantiles of all samples; ours are those of a sketch, within a hundredth.
RELATIVE = {"activation_outlier_index": 0.01}
# It works in float32: the information of channels that tell next to nothing is rounding there.
ABSOLUTE = {
    "mutual_information_gaussian": 2e-8,
    # A difference of two numbers of up to 500.
    "delta_rq": 5e-5,
    # The cosine of a unit that is orthogonal to the leading directions.
    "weight_activation_alignment": 1e-6,
}


@cache
def arrays(file: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(DATA / file, allow_pickle=False) as loaded:
        return dict(loaded)


def entries() -> list[dict[str, Any]]:
    """The entries of the index whose lens exists."""
    index = json.loads((DATA / "index.json").read_text())
    return [entry for entry in index if lens_of(entry) in list_metrics()]


def lens_of(entry: dict[str, Any]) -> str:
    return entry["key"].partition("/")[2].partition("__")[0]


def renamed(options: dict[str, Any]) -> dict[str, Any]:
    # The reference can give the redundancy within the layer besides; here it is a lens of its own.
    return {RENAMED.get(k, k): value for k, value in options.items() if k != "compute_within"}


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry["key"])
def test_the_same_tensors_give_the_references_scores(entry: dict[str, Any]):
    name = lens_of(entry)
    source = arrays("inputs_conv.npz" if entry["key"].startswith("conv") else "inputs_linear.npz")
    call = {name: torch.from_numpy(source[array]) for name, array in renamed(entry["call"]).items()}
    if "targets" in call:
        # The reference repeats a sample's label for every row of its unfolded maps.
        call["targets"] = call["targets"].repeat_interleave(
            len(call["outputs"]) // len(call["targets"]), dim=0
        )
    scores = get_metric(name, **renamed(entry["params"])).compute(**call)
    expected = arrays("reference_values.npz")[entry["key"]]
    np.testing.assert_allclose(
        scores, expected, rtol=RELATIVE.get(name, 1e-4), atol=ABSOLUTE.get(name, 0)
    )


def test_every_lens_that_both_systems_have_is_compared():
    assert {lens_of(entry) for entry in entries()} >= {
        "activation_mean",
        "activation_outlier_index",
        "activation_variance",
        "conditional_rayleigh_quotient",
        "cross_layer_redundancy",
        "delta_alignment",
        "delta_rq",
        "gaussian_mi_analytic",
        "mutual_information_gaussian",
        "pairwise_redundancy_gaussian",
        "rayleigh_quotient",
        "spectral_gap",
        "spectral_norm_ratio",
        "weight_activation_alignment",
        "weight_cosine_similarity",
        "taylor_saliency",
    }


def test_a_convolution_given_whole_equals_its_unfolded_patches():
    source = {k: torch.from_numpy(v) for k, v in arrays("inputs_conv.npz").items()}
    metric = get_metric("rayleigh_quotient")
    maps = metric.compute(
        inputs=source["inputs"], weights=source["weights"], outputs=source["outputs"]
    )
    rows = metric.compute(
        inputs=source["patches_flat"],
        weights=source["weights_flat"],
        outputs=source["outputs_flat"],
    )
    torch.testing.assert_close(maps, rows, rtol=1e-5, atol=0)
