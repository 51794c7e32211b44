"""Figures draw what the data say: read off the artists, not off pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle, StepPatch

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures import (
    plot_layer_heatmap,
    plot_rank_correlation,
    plot_score_histogram,
    plot_sensitivity,
)
from tests.figures.drawn import new_axes


def curves() -> pd.DataFrame:
    rows = [
        (score, mode, None, amount, accuracy)
        for score, mode, at_half in [("rq", "low", 0.9), ("rq", "high", 0.2), ("mag", "low", 0.7)]
        for amount, accuracy in [(0.0, 1.0), (0.5, at_half)]
    ]
    rows += [
        ("random", "random", seed, amount, accuracy)
        for seed, at_half in enumerate([0.3, 0.5, 0.7])
        for amount, accuracy in [(0.0, 1.0), (0.5, at_half)]
    ]
    return pd.DataFrame(rows, columns=["score", "mode", "seed", "amount", "accuracy"])


def lines(ax) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}


def test_sensitivity_draws_a_line_an_order_and_the_mean_of_random_seeds():
    drawn = lines(plot_sensitivity(curves()))
    assert drawn["rq, low first"] == [1.0, 0.9]
    assert drawn["rq, high first"] == [1.0, 0.2]
    assert drawn["mag, low first"] == [1.0, 0.7]
    assert drawn["random (3 seeds)"] == pytest.approx([1.0, 0.5])


def test_the_random_band_runs_from_the_worst_to_the_best_seed():
    ax = plot_sensitivity(curves())
    (band,) = (c for c in ax.collections if isinstance(c, PolyCollection))
    at_half = [y for x, y in band.get_paths()[0].vertices if x == 0.5]
    assert (min(at_half), max(at_half)) == pytest.approx((0.3, 0.7))


def test_one_mode_is_labelled_by_the_score_alone_and_chance_is_a_line():
    table = curves()
    ax = plot_sensitivity(table[table["mode"] != "high"], chance=0.1)
    assert set(lines(ax)) == {"rq", "mag", "random (3 seeds)", "guessing"}
    assert lines(ax)["guessing"] == [0.1, 0.1]
    assert ax.get_ylim() == (0, 1)


def test_rows_of_a_curve_may_come_in_any_order():
    table = curves().iloc[::-1]
    assert lines(plot_sensitivity(table))["rq, low first"] == [1.0, 0.9]


def test_a_table_without_a_column_is_told_which():
    with pytest.raises(InvalidValueError, match="no column 'accuracy', expected score, mode"):
        plot_sensitivity(curves().drop(columns="accuracy"))


def test_histogram_rows_are_layers_scaled_to_their_highest_bar():
    scores = {"first": [0.0, 0.0, 0.0, 1.0], "second": [1.0]}
    ax = plot_score_histogram(scores, name="rq", unit="activation^2", bins=2)
    steps = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
    heights = [(data.baseline - data.values) / 0.86 for data in steps]
    assert np.allclose(heights[0], [1, 1 / 3]) and np.allclose(heights[1], [0, 1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first layer is on top"
    assert ax.get_xlabel() == "rq (activation²)"


def test_a_score_that_is_the_same_everywhere_has_one_tick():
    ax = plot_score_histogram({"fc": [2.0, 2.0]})
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2"]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({}, "there are no layers"),
        ({"fc1": []}, "layer 'fc1': there are no scores"),
        ({"fc1": [float("inf"), float("nan")]}, "none of 2 scores is finite"),
    ],
)
def test_scores_that_cannot_be_drawn_are_told(scores, said):
    with pytest.raises(InvalidValueError, match=said):
        plot_score_histogram(scores)


def test_the_heatmap_shows_ranks_as_colour_and_values_as_text():
    ranks = pd.DataFrame({"conv1": [0.1, np.nan], "fc1": [0.9, np.nan]}, index=["rq", "sparsity"])
    values = pd.DataFrame({"conv1": [-12.3, 0], "fc1": [1.5e-5, 0]}, index=["rq", "sparsity"])
    ax = plot_layer_heatmap(ranks, values=values)
    shown = ax.images[0].get_array()
    assert np.allclose(shown[0], [0.1, 0.9]) and shown.mask[1].all()
    assert ax.images[0].get_clim() == (0, 1)
    assert [text.get_text() for text in ax.texts] == ["−12", "2e-5", "0", "0"]
    hatched = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert len(hatched) == 2
    assert [label.get_text() for label in ax.get_yticklabels()] == ["rq", "sparsity"]


def test_values_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(1, 2\), expected \(2, 2\)"):
        plot_layer_heatmap(pd.DataFrame(np.eye(2)), values=pd.DataFrame(np.eye(2)[:1]))


def test_rank_correlation_shows_every_pair_once():
    names = ["a", "b", "c"]
    table = pd.DataFrame(
        [[1, 0.5, -0.25], [0.5, 1, np.nan], [-0.25, np.nan, 1]], index=names, columns=names
    )
    ax = plot_rank_correlation(table)
    assert [text.get_text() for text in ax.texts if text.get_text()] == [".50", "−.25"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c"]
    assert ax.images[0].get_clim() == (-1, 1)


def test_a_correlation_that_is_not_square_is_refused():
    with pytest.raises(ShapeError, match=r"shape \(1, 3\)"):
        plot_rank_correlation(pd.DataFrame(np.ones((1, 3))))


def test_a_figure_is_drawn_on_the_axes_given():
    ax = new_axes()
    assert plot_score_histogram({"fc": [1.0, 2.0]}, ax) is ax
    assert plot_sensitivity(curves(), ax) is ax


def test_importing_figures_does_not_import_matplotlib():
    import subprocess
    import sys

    program = "import sys, nodelens.figures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
