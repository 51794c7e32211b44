"""Curves of concentration and of sparsity, and profiles over depth: read back from the axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from nodelens import LensResult
from nodelens.analysis.supernodes import concentration, lorenz
from nodelens.errors import InvalidValueError, ShapeError, UnknownNameError
from nodelens.figures import plot_concentration, plot_depth, plot_sparsity
from tests.figures.drawn import heights, new_axes, points, texts

DEEP = {f"model.layers.{n}.mlp.down_proj": np.arange(1.0, 9.0) + n for n in range(30)}


def result(scores: dict[str, list[float]]) -> LensResult:
    given = {layer: {"rq": torch.tensor(values)} for layer, values in scores.items()}
    return LensResult(given, lens="rq", units={"rq": "activation^2"})


def test_a_curve_is_what_the_top_units_hold():
    drawn = points(plot_concentration({"fc1": [1.0, 6.0, 3.0, 0.0], "fc2": [0.0, 0.0, 0.0, 5.0]}))
    assert np.allclose(drawn["fc1"], [[0.25, 0.6], [0.5, 0.9], [0.75, 1], [1, 1]])
    assert np.allclose(np.array(drawn["fc2"])[:, 1], 1)


def test_a_curve_is_the_lorenz_curve_of_the_analysis_also_when_thinned():
    scores = np.random.default_rng(0).lognormal(size=1536)
    drawn = np.array(points(plot_concentration({"fc": scores}))["fc"])
    held = lorenz(scores).numpy()
    assert len(drawn) < 400
    assert np.allclose(drawn[:, 1], held[(drawn[:, 0] * 1536).round().astype(int)])


def test_the_share_is_marked_with_what_it_holds():
    scores = np.random.default_rng(0).lognormal(size=1000)
    ax = plot_concentration({"fc": scores}, share=0.05)
    assert texts(ax) == [f"top 5% hold {concentration(scores, [0.05])[0.05]:.0%}"]
    assert texts(plot_concentration({"fc": scores}, share=None)) == []
    assert texts(plot_concentration({"fc": [1.0, 3.0]})) == ["top 50% hold 75%"], "one at least"


def test_many_layers_are_lines_by_depth_under_their_median():
    ax = plot_concentration(DEEP)
    assert set(points(ax)) == {"median of 30 layers", "all alike"}
    assert len(ax.get_lines()) == 30 + 3
    assert heights(ax)["median of 30 layers"][-1] == pytest.approx(1)


def test_concentration_refuses_what_is_no_mass():
    with pytest.raises(InvalidValueError, match="layer 'fc': a score is -1, expected none below 0"):
        plot_concentration({"fc": [1.0, -1.0]})
    with pytest.raises(InvalidValueError, match="share is 2"):
        plot_concentration({"fc": [1.0]}, share=2)


def test_a_profile_is_the_median_on_the_middle_of_its_channels():
    ax = plot_depth(result({"conv": [0.0, 1.0, 2.0, 3.0, 4.0], "fc": [5.0]}))
    assert points(ax)["median"] == [[0, 2], [1, 5]]
    wide, half = (np.unique(c.get_paths()[0].vertices[:, 1]) for c in ax.collections)
    assert np.allclose(wide, [0.2, 3.8, 5]) and np.allclose(half, [1, 3, 5])
    assert ax.get_ylabel() == "rq (activation²)"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["conv", "fc"]


@pytest.mark.parametrize("of", [dict, pd.DataFrame])
def test_a_profile_of_several_series_has_a_line_each(of):
    table = pd.DataFrame({"conv": [1.0, 2.0], "fc": [3.0, np.nan]}, index=["rq", "mi"])
    given = table if of is pd.DataFrame else {n: dict(row) for n, row in table.iterrows()}
    ax = plot_depth(given, name="mean", unit="nat")
    drawn = heights(ax)
    assert drawn["rq"] == [1, 3] and drawn["mi"][0] == 2 and np.isnan(drawn["mi"][1])
    assert ax.get_xlabel() == "layer\n1 of 4 values missing or not finite"
    assert ax.get_ylabel() == "mean (nat)"


def test_one_number_a_layer_is_one_line_without_a_legend():
    ax = plot_depth({"conv": 1.0, "fc": torch.tensor(2.0)}, name="top share")
    assert ax.get_lines()[0].get_ydata().tolist() == [1, 2] and ax.get_legend() is None


def test_names_of_deep_layers_are_cut_and_thinned():
    ax = plot_depth(DEEP)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels == ["0", "5", "10", "15", "20", "25"]
    assert ax.get_xlabel() == "layer (model.layers.*.mlp.down_proj)"


@pytest.mark.parametrize("plot", [plot_concentration, plot_depth])
def test_scores_that_cannot_be_drawn_are_told(plot):
    with pytest.raises(InvalidValueError, match=r"no layers to draw|no finite value"):
        plot({})
    with pytest.raises(InvalidValueError, match="none of 2 scores is finite"):
        plot({"fc": [np.nan, np.inf]})
    with pytest.raises(ShapeError, match=r"layer 'fc': scores of shape \(1, 2\)"):
        plot({"fc": [[1.0, 2.0]]})
    with pytest.raises(UnknownNameError, match="did you mean 'rq'"):
        plot(result({"fc": [1.0]}), score="rqq")


@pytest.mark.parametrize("plot", [plot_concentration, plot_depth])
def test_missing_scores_are_left_out_and_said(plot):
    ax = plot({"fc": [1.0, np.nan, 3.0], "out": [np.nan]})
    assert "2 of 4 channels missing or not finite" in ax.get_xlabel()


def pruned() -> pd.DataFrame:
    rows = [("mine", None, 0.0, 20.0), ("mine", None, 0.5, 80.0)]
    rows += [("random", s, a, 20 + 1000 * a * s) for s in (1, 2, 3) for a in (0.0, 0.5)]
    table = pd.DataFrame(rows, columns=["strategy", "seed", "amount", "perplexity"])
    return table.assign(low=table.perplexity - 5, high=table.perplexity + 5)


def test_strategies_are_lines_and_seeds_a_band_around_their_mean():
    ax = plot_sparsity(pruned(), metric="perplexity", dense=19.0)
    drawn = points(ax)
    assert drawn["mine"] == [[0, 20], [0.5, 80]]
    assert np.allclose(drawn["random (3 seeds)"], [[0, 20], [0.5, 1020]])
    assert heights(ax)["dense"] == [19, 19]
    bars, band = ax.collections
    assert [s.tolist() for s in bars.get_segments()] == [[[0, 15], [0, 25]], [[0.5, 75], [0.5, 85]]]
    assert {y for x, y in band.get_paths()[0].vertices if x == 0.5} == {520, 1520}
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "perplexity"


def test_rows_of_a_curve_may_be_mappings_in_any_order_with_gaps():
    rows = [
        {"score": "rq", "amount": amount, "accuracy": value}
        for amount, value in [(0.5, 0.7), (0.0, 0.9), (0.25, np.nan)]
    ]
    ax = plot_sparsity(rows, chance=0.1)
    assert points(ax)["rq"] == [[0, 0.9], [0.5, 0.7]]
    assert "1 of 3 values missing" in ax.get_xlabel() and ax.get_ylim() == (0, 1.02)


def test_a_table_without_a_column_is_told_which():
    with pytest.raises(InvalidValueError, match=r"no column 'perplexitty' \(did you mean 'perpl"):
        plot_sparsity(pruned(), metric="perplexitty")
    with pytest.raises(InvalidValueError, match=r"by is 'strateg' .did you mean 'strategy'"):
        plot_sparsity(pruned(), metric="perplexity", by="strateg")
    with pytest.raises(InvalidValueError, match="no rows"):
        plot_sparsity(pruned().head(0))


def test_figures_are_drawn_on_the_axes_given():
    for plot, data in ((plot_concentration, DEEP), (plot_depth, DEEP)):
        ax = new_axes()
        assert plot(data, ax) is ax
    ax = new_axes()
    assert plot_sparsity(pruned(), ax, metric="perplexity") is ax
