"""Violins, scatter matrices, supernodes and histograms of awkward scores, read off the artists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from nodelens import LensResult
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.experiments.stages.analysis import rank_correlation
from nodelens.figures import (
    plot_scatter_matrix,
    plot_score_histogram,
    plot_supernodes,
    plot_violin,
)
from tests.figures.drawn import new_axes, points, texts

RANDOM = np.random.default_rng(0)


def test_a_violin_spans_its_channels_and_marks_middle_and_median():
    scores = {"conv": RANDOM.normal(size=50), "fc": RANDOM.normal(size=50) + 3}
    ax = plot_violin(scores, name="rq", unit="nat")
    outlines = [c.get_paths()[0].vertices for c in ax.collections[:2]]
    for place, (values, outline) in enumerate(zip(scores.values(), outlines, strict=True)):
        assert np.ptp(outline[:, 1]) == pytest.approx(np.ptp(values))
        assert np.abs(outline[:, 0] - place).max() == pytest.approx(0.42)
    medians = [[place, np.median(values)] for place, values in enumerate(scores.values())]
    assert np.allclose(points(ax)["median"], medians)
    halves = [s[:, 1].tolist() for s in ax.collections[2].get_segments()]
    assert np.allclose(halves, [np.percentile(v, [25, 75]) for v in scores.values()])
    assert ax.get_ylabel() == "rq (nat)"


def test_few_channels_are_points_and_none_are_hatched():
    ax = plot_violin({"a": [1.0, 2.0], "b": [np.nan], "c": [2.0] * 9})
    assert [len(line.get_xdata()) for line in ax.get_lines()] == [2, 9, 2]
    assert [bool(patch.get_hatch()) for patch in ax.patches] == [True]
    assert "1 of 12 channels missing or not finite" in ax.get_xlabel()


@pytest.mark.parametrize("plot", [plot_violin, plot_score_histogram])
def test_what_has_no_logarithm_is_missing(plot):
    scores = {"fc": [*np.geomspace(1e-8, 1, 20), 0.0, -1.0]}
    assert "2 of 22 channels not above 0" in plot(scores, log=True).get_xlabel()
    with pytest.raises(InvalidValueError, match="no score is above 0"):
        plot({"fc": [0.0]}, log=True)


def test_bins_of_a_logarithmic_histogram_are_of_like_ratio():
    ax = plot_score_histogram({"fc": np.geomspace(1e-6, 1, 70)}, log=True, bins=6)
    edges = ax.patches[0].get_data().edges
    assert np.allclose(edges[1:] / edges[:-1], 10) and ax.get_xscale() == "log"


def test_a_layer_without_a_finite_score_is_said_to_have_none():
    ax = plot_score_histogram({"conv": [1.0, 2.0], "fc": [np.nan, np.inf]})
    assert texts(ax) == ["no finite score"]
    assert "2 of 4 channels missing or not finite" in ax.get_xlabel()


def channels() -> pd.DataFrame:
    layers = ["conv"] * 6 + ["fc"] * 12
    table = pd.DataFrame(RANDOM.normal(size=(18, 3)), columns=["rq", "mi", "red"])
    table.insert(0, "layer", layers)
    table.insert(1, "channel", [*range(6), *range(12)])
    return table


def test_a_scatter_matrix_has_points_below_and_correlations_above():
    table = channels()
    axes = plot_scatter_matrix(table)
    assert axes.shape == (3, 3)
    drawn = points(axes[2, 0])
    fc = table[table["layer"] == "fc"]
    assert drawn["fc"] == fc[["rq", "red"]].to_numpy().tolist() and len(drawn["conv"]) == 6
    expected = rank_correlation(table)
    assert float(texts(axes[0, 2])[0].replace("−", "-")) == round(expected.loc["rq", "red"], 2)
    assert axes[2, 0].get_xlabel() == "rq" and axes[1, 0].get_ylabel() == "mi"
    heights = [bar.get_height() for bar in axes[1, 1].patches]
    assert sum(heights) == 18


def test_a_scatter_matrix_takes_results_and_draws_ranks():
    table = channels()
    result = LensResult(
        {
            layer: {name: torch.tensor(rows[name].to_numpy()) for name in ("rq", "mi")}
            for layer, rows in table.groupby("layer")
        }
    )
    axes = plot_scatter_matrix(result, ranks=True)
    assert sorted(x for x, _ in points(axes[1, 0])["conv"]) == [n / 6 for n in range(1, 7)]
    assert texts(axes[0, 0]) == ["rq"]


def test_a_scatter_matrix_leaves_missing_points_out_and_says_so():
    table = channels()
    table.loc[0, "mi"] = np.nan
    given = Figure().subplots(2, 2)
    axes = plot_scatter_matrix(table, given, scores=["rq", "mi"])
    assert axes is given and len(points(axes[1, 0])["conv"]) == 5
    assert axes[0, 0].get_title(loc="left") == "1 of 18 channels missing or not finite"


def test_a_scatter_matrix_of_other_shapes_is_refused():
    with pytest.raises(InvalidValueError, match=r"a score is 'rqq' .did you mean 'rq'"):
        plot_scatter_matrix(channels(), scores=["rqq", "mi"])
    with pytest.raises(InvalidValueError, match="there are 1 scores"):
        plot_scatter_matrix(channels(), scores=["rq"])
    with pytest.raises(ShapeError, match=r"axes have shape \(2, 2\), expected \(3, 3\)"):
        plot_scatter_matrix(channels(), Figure().subplots(2, 2))
    with pytest.raises(ShapeError, match=r"a \(2,\), b \(3,\)"):
        plot_scatter_matrix({"a": [1, 2], "b": [1, 2, 3]})


def test_supernodes_are_marked_among_all_units_by_rank():
    scores = {"fc1": [1.0, 8.0, 2.0, 0.0, 4.0], "fc2": [1.0]}
    ax = plot_supernodes(scores, share=0.2, named=2)
    assert points(ax)["supernodes (1)"] == [[1, 8]]
    assert points(ax)["others (3)"] == [[2, 4], [3, 2], [4, 1]]
    assert texts(ax) == ["1", "4"] and "1 of 5 units not above 0" in ax.get_xlabel()
    assert points(plot_supernodes(scores["fc1"], core=[2]))["supernodes (1)"] == [[3, 2]]
    given = new_axes()
    assert plot_supernodes(scores, given, layer="fc2") is given
    with pytest.raises(InvalidValueError, match=r"no layer 'fc3' .did you mean"):
        plot_supernodes(scores, layer="fc3")
    with pytest.raises(InvalidValueError, match="the core holds 9"):
        plot_supernodes(scores, core=[9])
