"""Figures of causal checks, shrinking and the leaderboard, read off the artists."""

from __future__ import annotations

import numpy as np
import pytest

from nodelens.analysis.causal import Estimate, Leaderboard
from nodelens.analysis.causal.check import CausalResult
from nodelens.errors import InvalidValueError, ShapeError
from nodelens.figures import plot_damage, plot_doses, plot_latency, plot_leaderboard
from nodelens.pruning.shrunk_report import Change, ShrinkReport
from tests.figures.drawn import heights, new_axes, points, texts


def validation() -> CausalResult:
    rows = [
        {"layer": layer, "channel": n, "score": score, "loss_change": change}
        for layer, n, score, change in [
            ("conv", 0, 1.0, 0.5), ("conv", 1, 2.0, 0.25),
            ("fc", 0, 0.0, 0.125), ("fc", 1, 4.0, np.nan),
        ]
    ]  # fmt: skip
    return CausalResult("ablation_validation", {"spearman": Estimate(-0.5, -0.75, 0.25)}, rows, 5)


def test_damage_is_a_mark_a_channel_under_its_correlation():
    ax = plot_damage(validation(), name="rq", unit="activation^2")
    assert points(ax) == {"conv": [[1, 0.5], [2, 0.25]], "fc": [[0, 0.125]]}
    assert texts(ax) == ["Spearman −0.50 [−0.75, 0.25]"]
    assert ax.get_xlabel() == "rq (activation²)\n1 of 4 channels missing or not finite"
    assert ax.get_ylabel() == "rise in loss (nats)"
    assert "2 of 4 channels not above 0" in plot_damage(validation(), log=True).get_xlabel()


def test_damage_of_many_layers_is_coloured_by_depth():
    rows = [{"layer": f"l.{n}", "score": n, "loss_change": n} for n in range(30)]
    ax = plot_damage(rows)
    assert ax.get_legend() is None and len(ax.figure.axes) == 2
    with pytest.raises(InvalidValueError, match=r"no column 'los_change' .did you mean 'loss_ch"):
        plot_damage(rows, response="los_change")


def sweep() -> CausalResult:
    changes = {0.0: [1.0, 3.0], 1.0: [4.0, 6.0]}
    rows = [
        {"fraction": dose, "draw": n, "loss_change": change, "perplexity": np.exp(change)}
        for dose, found in changes.items()
        for n, change in enumerate(found)
    ]
    estimates = {"loss_change.0": Estimate(2.0, 1.5, 2.5), "loss_change.1": Estimate(5.0, 4.0, 6.0)}
    return CausalResult("hit_rate_sweep", estimates, rows, 5)


def test_doses_are_means_on_their_draws_with_intervals():
    ax = plot_doses(sweep())
    assert points(ax)["core"] == [[0, 2], [1, 5]]
    assert [0.0, 3.0] in ax.get_lines()[1].get_xydata().tolist()
    bars = [c.get_segments()[0][:, 1].tolist() for c in ax.collections]
    assert bars == [[1.5, 2.5], [4, 6]]
    assert ax.get_xlabel() == "fraction of the core removed"
    assert plot_doses(sweep(), response="perplexity").get_yscale() == "log"


def test_a_cascade_has_a_line_a_type_and_its_control():
    rows = [
        {"type": name, "n": n, "loss_change": value * n}
        for name, value in (("critical", 3.0), ("any", 1.0))
        for n in (1, 2)
    ]
    estimates = {"loss_change.critical.2": Estimate(6.0, 5.0, 7.0)}
    ax = plot_doses(CausalResult("cascade", estimates, rows, 5))
    assert heights(ax) == {"critical": [3, 6], "any": [1, 2]}
    assert [c.get_segments()[0].tolist() for c in ax.collections] == [[[2, 5], [2, 7]]]
    with pytest.raises(InvalidValueError, match="expected a dose: fraction or n"):
        plot_doses([{"loss_change": 1.0}])


def report(before: float, after: float) -> ShrinkReport:
    kept = Change(4e6, 1e6)
    return ShrinkReport(kept, kept, kept, Change(before, after), 0.0, 0.0)


def test_latency_stands_before_and_after_with_its_ratio():
    reports = {"half": report(0.02, 0.01), "untimed": report(np.nan, np.nan)}
    ax = plot_latency(reports)
    assert points(ax) == {"before": [[20, 0]], "after": [[10, 0]]}
    assert texts(ax) == ["×0.50", "not measured"] and "(ms)" in ax.get_xlabel()
    assert points(plot_latency(reports, quantity="parameters"))["after"] == [[1, 0], [1, 1]]
    assert points(plot_latency({"a": (0.003, 0.001)}))["before"] == [[3, 0]]
    with pytest.raises(InvalidValueError, match="did you mean 'seconds'"):
        plot_latency(reports, quantity="second")
    with pytest.raises(ShapeError, match=r"'a' has values of shape \(3,\)"):
        plot_latency({"a": (1.0, 2.0, 3.0)})


def board() -> Leaderboard:
    rows = [
        {
            "score": name, "family": family, "importance": importance,
            "spearman": rho, "spearman_low": rho - 0.1, "spearman_high": rho + 0.1,
            "curve_loss": loss, "curve_loss_low": loss, "curve_loss_high": loss,
        }
        for name, family, importance, rho, loss in [
            ("rq", "alignment", 1, 0.5, 2.0), ("mi", "information", 0, 0.75, np.nan),
            ("mag", "weights", 1, 0.25, 1.0), ("random", "control", 1, 0.0, 3.0),
        ]
    ]  # fmt: skip
    return Leaderboard(CausalResult("lens_leaderboard", {}, rows, 5))


def test_the_best_scores_stand_on_top_and_the_control_below():
    ax = plot_leaderboard(board(), new_axes(6.9), most=2)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["mi", "rq", "random"]
    drawn = points(ax)
    assert [drawn[name][0] for name in names] == [[0.75, 0], [0.5, 1], [0, 2]]
    spans = [list(line.get_xdata()) for line in ax.get_lines()]
    assert [0.4, 0.6] in spans and texts(ax) == ["information", "alignment", "control"]
    assert ax.get_xlabel() == "Spearman with damage\nbest 2 of 3"


def test_a_low_rise_in_loss_is_the_best():
    ax = plot_leaderboard(board(), measure="curve_loss")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["mag", "rq", "random"]
    assert "1 without this measure" in ax.get_xlabel()
    with pytest.raises(InvalidValueError, match="no column 'sperman'"):
        plot_leaderboard(board(), measure="sperman")
