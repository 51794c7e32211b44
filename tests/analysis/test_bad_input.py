"""What no analysis can work on is refused by name; nothing is silently read as something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nodelens import Lens
from nodelens.analysis import causal
from nodelens.analysis import supernodes as sn
from nodelens.analysis.causal import HitRateSweep, LeaderboardCheck, lesion
from nodelens.analysis.clustering import (
    CrossLayerHaloAnalysis,
    MetricSpaceClustering,
    flow_test,
    gap_statistic,
    stability,
    structure_test,
)
from nodelens.analysis.depth import depth_profile
from nodelens.analysis.dynamics import dynamics
from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError
from tests.analysis.planted import linear

CORE, REST = {"units": [0, 1]}, {"units": [2, 3, 4]}
SCORES = {"units": np.arange(24.0)}
EYE = {"units": np.eye(24)}
POINTS = np.random.default_rng(0).random((12, 3))


def on_model(check: str, *given: Any, **options: Any) -> Any:
    model, parts, _ = linear()
    return getattr(causal, check)(model, parts, *given, progress=False, **options)


@pytest.mark.parametrize(
    ("check", "given", "options", "text"),
    [
        ("ablation_validation", [SCORES], {"per_layer": 0}, "per_layer is 0"),
        ("ablation_validation", [SCORES], {"per_layer": 2.5}, r"per_layer is 2\.5"),
        ("ablation_validation", [SCORES], {"strata": 0}, "strata is 0"),
        ("ablation_validation", [SCORES], {"top": 2}, "top is 2"),
        ("ablation_validation", [SCORES], {"resamples": -1}, "resamples is -1"),
        ("ablation_validation", [SCORES], {"seed": -1}, "seed is -1"),
        ("ablation_validation", [{"units": range(9)}], {}, "score of 9 channels, expected 24"),
        ("ablation_validation", [{"units": ["a"]}], {}, "'units': expected real numbers"),
        ("ablation_validation", [{"units": []}], {}, "has no channel"),
        ("ablation_validation", [[1.0]], {}, "no layer has scores"),
        ("hit_rate_sweep", [CORE, REST], {"fractions": [1.5]}, "fractions are"),
        ("hit_rate_sweep", [CORE, REST], {"fractions": [-0.5]}, "fractions are"),
        ("hit_rate_sweep", [CORE, REST], {"fractions": []}, "fractions are"),
        ("hit_rate_sweep", [CORE, REST], {"draws": 0}, "draws is 0"),
        ("hit_rate_sweep", [{}, {}], {}, "core has no channel"),
        ("hit_rate_sweep", [{"units": [0.7]}, REST], {}, r"'units' holds 0\.7"),
        ("hit_rate_sweep", [{"units": [-1]}, REST], {}, "'units' holds -1"),
        ("hit_rate_sweep", [[0], REST], {}, "expected {layer: channels}"),
        ("halo_ablation", [{"units": [5]}, CORE, REST], {"draws": 0}, "draws is 0"),
        (
            "halo_ablation",
            [{"units": [5]}, CORE, REST],
            {"scores": {"units": [1.0, 2.0]}},
            "channel 5 has no score",
        ),
        ("cascade", [{"a": CORE}], {"counts": [9]}, "largest type has 2"),
        ("cascade", [{"a": CORE}], {"counts": [1.5]}, r"counts is 1\.5"),
        ("cascade", [{"any": CORE}], {}, "a type is named 'any'"),
        ("matched_cascade", [{"a": CORE}], {"draws": 0}, "draws is 0"),
        ("pair_lesion", [{"units": np.triu(np.ones((24, 24)))}], {}, "not symmetric"),
        ("pair_lesion", [{"units": np.full((24, 24), np.nan)}], {}, "576 of 576 values"),
        ("pair_lesion", [EYE], {"scores": {"out": [1.0]}}, "channel 23 has no score"),
        ("halo_receivers", [{"readout": [0]}, "units", range(24)], {}, "not called before 'units'"),
        ("class_selectivity_profile", [CORE], {"draws": 0}, "draws is 0"),
    ],
)
def test_a_check_refuses_what_it_cannot_measure(
    check: str, given: list[Any], options: dict[str, Any], text: str
):
    with pytest.raises(InvalidValueError, match=text):
        on_model(check, *given, **options)


def test_a_score_may_not_take_the_name_of_the_control():
    with pytest.raises(InvalidValueError, match="named 'random'"):
        LeaderboardCheck({"random": SCORES})


def test_a_mask_is_a_mask_and_not_the_numbers_0_and_1():
    mask = torch.zeros(24, dtype=torch.bool)
    mask[[3, 7]] = True
    assert HitRateSweep({"units": mask}, {"units": ~mask}).core == {"units": [3, 7]}
    assert lesion({"units": mask.tolist()}) == (("units", (3, 7)),)


def test_the_gap_of_a_halo_is_in_the_unit_of_the_loss_and_that_of_receivers_in_none():
    halo = Lens.from_name("halo_ablation", {"a": [1]}, {"a": [2]}, {"a": [3]}, draws=1)
    receivers = Lens.from_name("halo_receivers", {"a": [1]}, "b", [1.0, 2.0])
    assert [halo.score_units(name)[0] for name in ("gap", "control", "p")] == ["loss", "loss", "1"]
    assert receivers.score_units("gap_low")[0] == "1"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: MetricSpaceClustering(2.5), InvalidValueError, r"n_clusters is 2\.5"),
        (lambda: MetricSpaceClustering("4"), InvalidValueError, "n_clusters is '4'"),
        (lambda: MetricSpaceClustering(4, -1), InvalidValueError, "seed is -1"),
        (lambda: MetricSpaceClustering(type_mapping=["x"]), InvalidValueError, "type_mapping"),
        (lambda: fitted(features=["rq"]), InvalidValueError, r"features is \['rq'\]"),
        (lambda: fitted(rq=POINTS[:, 0] + 1j), InvalidValueError, "rq: expected real numbers"),
        (lambda: fitted(rq=["a"] * 12), InvalidValueError, "rq: expected real numbers"),
        (
            lambda: stability(fitted(importance=POINTS[:, 0], mode="quantile")),
            InvalidValueError,
            "has no clusters",
        ),
        (lambda: structure_test(POINTS * np.nan, 2), NonFiniteError, "36 of 36"),
        (lambda: structure_test(POINTS[:, 0], 2), ShapeError, "expected \\(channels, features"),
        (lambda: gap_statistic(POINTS * np.nan), NonFiniteError, "36 of 36"),
        (lambda: gap_statistic(POINTS, samples=0), InvalidValueError, "samples is 0"),
        (lambda: CrossLayerHaloAnalysis("x"), InvalidValueError, "percentile"),
        (lambda: halo("compute_influence", POINTS * np.nan), NonFiniteError, "of weights"),
        (lambda: halo("find_halo", POINTS, [0.5]), InvalidValueError, r"cluster holds 0\.5"),
        (lambda: halo("find_halo", POINTS, ["a"]), InvalidValueError, "the cluster: expected"),
        (lambda: halo("cluster_flow", POINTS, [0.5] * 3, [0] * 12), InvalidValueError, "0.5"),
        (lambda: halo("analyse_halo", [1], [1, 2], [1, 2, 3]), ShapeError, r"\[2, 3\] channels"),
        (lambda: flow_test(-POINTS, "abc", "d" * 12), InvalidValueError, "none below 0"),
        (lambda: depth_profile({"a": [1.0]}, quantiles=[2]), InvalidValueError, "quantiles are"),
        (lambda: dynamics(POINTS, top="a"), InvalidValueError, "top is 'a'"),
        (lambda: sn.robustness(POINTS, samples=2.5), InvalidValueError, r"samples is 2\.5"),
        (lambda: sn.write_halo(POINTS * np.nan, [0]), NonFiniteError, "of down_weight"),
        (lambda: sn.write_halo(POINTS[0], [0]), ShapeError, "expected a matrix"),
        (lambda: sn.halo_contrast([1.0, 2.0], [0], [-1]), InvalidValueError, "others holds -1"),
        (lambda: sn.select_supernodes({"a": [1.0]}, "1"), InvalidValueError, "share is '1'"),
    ],
)
def test_an_analysis_refuses_what_it_cannot_read(call: Any, error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        call()


def test_a_halo_is_contrasted_pair_by_pair_in_the_order_given():
    values = [0.0, 10.0, 9.0, 1.0]
    # Each stands beside one that is 9 away on the same side: the mean can only be 0 or +-9.
    found = sn.halo_contrast(values, [1, 0], [3, 2], permutations=400)
    assert found.observed == 0 and found.null_std == pytest.approx(9 / 2**0.5, rel=0.2)


def fitted(**changed: Any) -> Any:
    given = {"rq": POINTS[:, 0], "redundancy": POINTS[:, 1], "synergy": POINTS[:, 2], **changed}
    return MetricSpaceClustering(shuffles=0).fit(**given)


def halo(name: str, *given: Any) -> Any:
    return getattr(CrossLayerHaloAnalysis(), name)(*given)
