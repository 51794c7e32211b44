"""Profiles along depth, and shares of kinds, of scores whose summaries are known by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nodelens.analysis.depth import compared_kinds, depth_profile
from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError


def test_a_planted_supernode_shows_in_its_layer_alone():
    scores = {f"down.{n}": torch.ones(100) for n in range(5)}
    scores["down.3"][17] = 99
    table = depth_profile(scores)
    assert table["depth"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table["top_share"].tolist() == pytest.approx([0.01, 0.01, 0.01, 0.5, 0.01])
    assert table["median"].tolist() == [1] * 5 and table["mean"][3] == pytest.approx(1.98)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e5])
def test_quantiles_are_those_of_numpy_at_any_scale(scale: float):
    values = scale * np.random.default_rng(0).normal(size=301)
    row = depth_profile({"only": values}, quantiles=(0.1, 0.95)).iloc[0]
    assert row["q10"] == pytest.approx(np.quantile(values, 0.1), abs=0)
    assert row["q95"] == pytest.approx(np.quantile(values, 0.95), abs=0)
    assert row["depth"] == 0 and np.isnan(row["top_share"]), "no share of what is below 0"


def test_kinds_share_what_there_is():
    heads = {"attn.0": [1.0, 3.0], "attn.1": [0.0, 0.0]}
    units = {"ffn.0": [1.0] * 8, "ffn.1": [5.0] + [1.0] * 3}
    table = compared_kinds({"head": heads, "unit": units}).set_index("layer")
    assert table["of_all"].tolist() == pytest.approx([0.2, 0, 0.4, 0.4])
    assert table["of_kind"].tolist() == pytest.approx([1, 0, 0.5, 0.5])
    # Twenty in all on sixteen units: 1.25 each.
    assert table["per_unit"].tolist() == pytest.approx([1.6, 0, 0.8, 1.6])
    assert table["largest"].tolist() == pytest.approx([0.75, 0, 0.125, 0.625])
    assert table["depth"].tolist() == [0, 1, 0, 1]
    assert not compared_kinds({"head": {"a": [0.0]}})[["of_all", "per_unit"]].to_numpy().any()


def test_the_share_asked_for_is_the_share_told():
    layer = {"a": [1.0, 1.0, 2.0, 4.0]}
    assert depth_profile(layer, share=0.5)["top_share"].tolist() == [0.75]
    table = compared_kinds({"head": layer, "unit": {"b": [2.0]}}, share=0.5)
    assert table["top_share"].tolist() == [0.75, 1]
    # Five in all on five units, while the layers' means are 3 and 0.5.
    table = compared_kinds({"head": {"a": [3.0]}, "unit": {"b": [0.5] * 4}})
    assert table["per_unit"].tolist() == [3, 0.5]


@pytest.mark.parametrize(
    ("call", "given", "error", "text"),
    [
        (depth_profile, {}, InvalidValueError, "there are no layers"),
        (depth_profile, {"a": []}, InvalidValueError, "layer 'a' has no channels"),
        (depth_profile, {"a": [[1.0]]}, ShapeError, r"layer 'a' has shape \(1, 1\)"),
        (depth_profile, {"a": [float("nan")]}, NonFiniteError, "layer 'a'"),
        (compared_kinds, {"head": {}}, InvalidValueError, "no layers of 'head'"),
        (
            compared_kinds,
            {"head": {"a": [-1.0]}},
            InvalidValueError,
            "'a' of 'head': a score is -1",
        ),
    ],
)
def test_what_has_no_profile_is_refused(call: Any, given: Any, error: Any, text: str):
    with pytest.raises(error, match=text):
        call(given)
