"""The leaderboard ranks the score that knows first, lots as lots, and takes plugins."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nodelens import Lens, MetricLens
from nodelens.analysis.causal import BoardEntry, LeaderboardCheck, lens_leaderboard, measured_damage
from nodelens.errors import InvalidValueError, LayerNotFoundError, ShapeError
from nodelens.registry import LENSES
from nodelens.statistics import Read, RowNorms
from projects.leaderboard.page import _warning
from tests.analysis.planted import linear


@pytest.fixture(scope="module")
def ranked():
    """Boards of the truth, its reverse, a half-truth and a constant, where damage is known."""
    model, parts, truth = linear()
    half = truth + np.random.default_rng(2).normal(size=24) * truth.std()
    board = {
        "constant": {"units": np.ones(24)},
        "half": {"units": half},
        "reverse": BoardEntry({"units": truth}, importance=-1),
        "truth": {"units": truth},
    }
    check = LeaderboardCheck(board, fractions=(0.25, 0.5), resamples=300)
    halves = list(zip(parts[0][0].split(120), parts[0][1].split(120), strict=True))
    damage = measured_damage(model, halves, check.lesions, progress=False)
    return check, check.conclude(damage), truth


def test_the_score_that_knows_is_first_and_its_reverse_last(ranked):
    check, result, _ = ranked
    names = [row["score"] for row in result.rows]
    assert names[:2] == ["truth", "half"] and names[-1] == "reverse"
    assert result["truth"].value == pytest.approx(1) and result["reverse"].value == pytest.approx(
        -1
    )
    assert result.rows[0]["first_in"] > 0.95
    assert 0 in result["constant"] and 0 in result["random"]
    # Independent units of even noise: halves of the rows rank them almost alike.
    told = re.search(r"correlates by (-?[0-9.]+) with", result.notes[0])
    assert told is not None and float(told[1]) > 0.9
    assert result.evaluations == check.evaluations <= 1 + 24 + 5 * 2


def test_curves_are_areas_of_known_damage(ranked):
    _, result, truth = ranked
    by = {row["score"]: row for row in result.rows}
    # Damage adds up: independent units, squared error; up to their sample correlations.
    low = np.cumsum(np.sort(truth))[[5, 11]]
    area = (low[0] / 2 * 0.25 + (low[0] + low[1]) / 2 * 0.25) / 0.5
    assert by["truth"]["curve_loss"] == pytest.approx(area, rel=0.25)
    assert by["truth"]["curve_loss"] < by["half"]["curve_loss"] < by["reverse"]["curve_loss"]
    for row in result.rows:
        assert row["curve_loss_low"] <= row["curve_loss"] <= row["curve_loss_high"]


def test_boards_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="'b' has 3 channels in layer 'x', and others have 2"):
        LeaderboardCheck({"a": {"x": [1, 2]}, "b": {"x": [1, 2, 3]}})
    with pytest.raises(InvalidValueError, match="the board holds no score"):
        LeaderboardCheck({})
    with pytest.raises(InvalidValueError, match=r"fractions are \(0\.5, 0\.2\)"):
        LeaderboardCheck({"a": {"x": [1, 2]}}, fractions=(0.5, 0.2))


class Backwards(MetricLens):
    """A stranger's lens: minus the squared weight norm, a high one against the channel."""

    formula, degenerate = "-w^2", "None."
    unit, importance, family = "weight^2", -1, "weights"

    def reads(self, layer):
        return {"weights": Read("weight", RowNorms)}

    def score(self, statistics, layer):
        return -statistics["weights"].squared


@pytest.fixture
def plugin():
    Lens.register("acme.backwards")(Backwards)
    yield "acme.backwards"
    del LENSES._classes["acme.backwards"]


@pytest.fixture(scope="module")
def scaled():
    """Units whose weights have known norms, then an even sum: damage is the squared norm."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 12, bias=False), torch.nn.Linear(12, 1, bias=False)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(torch.linspace(0.2, 2, 12)[torch.randperm(12)]))
        model[1].weight.fill_(1)
        x = torch.randn(90, 12)
        return model.eval(), [(x, model(x))]


def test_lenses_are_measured_ranked_and_timed_and_a_plugin_among_them(
    scaled, plugin, tmp_path: Path
):
    model, parts = scaled
    told: list[int] = []
    board = lens_leaderboard(
        model, parts, lenses=["activation_variance", "weight_magnitude", plugin, "scar_loss_proxy"],
        fractions=(0.5,), resamples=100, progress=False, path=tmp_path / "damage.jsonl",
        planned=lambda check: told.append(check.evaluations),
    )  # fmt: skip
    rows = {row["score"]: row for row in board.result.rows}
    assert rows["activation_variance"]["spearman"] > 0.9 and rows[plugin]["spearman"] > 0.9
    assert rows[plugin]["importance"] == -1 and rows[plugin]["bytes"] > 0
    assert rows["weight_magnitude"]["seconds"] > 0
    assert "scar_loss_proxy" in board.refused
    assert told == [board.evaluations]
    assert len((tmp_path / "damage.jsonl").read_text().splitlines()) == board.evaluations
    _check_written(board, tmp_path)


def _check_written(board, folder: Path) -> None:
    import pandas

    board.to_csv(folder / "board.csv")
    table = pandas.read_csv(folder / "board.csv")
    assert list(table["score"]) == [row["score"] for row in board.result.rows]
    board.to_html(folder / "board.html")
    page = (folder / "board.html").read_text()
    assert all(name in page for name in table["score"]) and "scar_loss_proxy" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page), "the page asks for something"
    ax = board.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["score"])[::-1]


def test_a_name_in_the_table_is_text_and_no_markup(scaled):
    from nodelens.analysis.causal import Leaderboard
    from nodelens.analysis.causal.page import leaderboard_page

    model, parts = scaled
    check = LeaderboardCheck({"<script>": {"0": range(12)}}, fractions=(), resamples=10)
    page = leaderboard_page(Leaderboard(check.run(model, parts, progress=False)))
    assert "&lt;script&gt;" in page and page.count("<script>") == 1


def test_a_layer_that_is_none_is_an_error(scaled):
    model, parts = scaled
    with pytest.raises(LayerNotFoundError, match="no layer '2'"):
        lens_leaderboard(model, parts, layers=["2"], progress=False)


@pytest.mark.parametrize(
    ("agreement", "warned"), [("-0.06", True), ("0.02", True), ("0.55", False)]
)
def test_the_page_warns_where_damage_does_not_agree_with_itself(agreement: str, warned: bool):
    told = f"the damage measured on one half of the batches correlates by {agreement} with that on"
    assert bool(_warning(told)) == warned and not _warning("")
