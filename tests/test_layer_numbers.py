"""Scores that are one number of a whole layer, of shape `()`: wherever scores of channels go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from nodelens import LensResult, MetricLens, Settled
from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError
from nodelens.model import Layer
from nodelens.statistics import CoMoments, Read
from nodelens.testing.trial import assert_finite


class Spread(MetricLens):
    """The variance of every channel, and of the whole layer."""

    name = "spread"
    unit = "activation^2"
    minimum_rows = 2
    by_block = True

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"values": Read("output", CoMoments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, Tensor]:
        seen = statistics["values"]
        start, size = seen.start, len(seen.m2)
        variance = seen.diagonal()[start : start + size] / (seen.rows - 1)
        return {self.name: variance, "total": variance.sum()}


MODEL = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 3))
BATCHES = list(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).split(10))


def result(**options: Any) -> LensResult:
    return Spread().run(MODEL, BATCHES, progress=False, **options)


def test_a_number_of_the_layer_is_a_score():
    found = result()
    for layer in ("0", "2"):
        assert found[layer]["spread.total"].shape == ()
        torch.testing.assert_close(found[layer]["spread.total"], found[layer]["spread"].sum())
    assert Spread().compute(outputs=torch.randn(9, 4)).shape == (4,)


def test_blocks_of_channels_have_shares_that_add_up():
    budget = 64 << 10
    assert len(Spread().plan(MODEL, BATCHES[0], memory_budget=budget).passes) > 2
    whole, blocks = result(), result(memory_budget=budget)
    for layer, scores in whole.items():
        for name, values in scores.items():
            torch.testing.assert_close(blocks[layer][name], values)


def test_the_table_has_a_row_of_the_layer_without_a_channel():
    frame = result(standard_errors=True).to_pandas()
    layers = frame[frame.score == "spread.total"]
    assert layers.layer.tolist() == ["0", "2"] and layers.channel.isna().all()
    assert (layers.standard_error > 0).all() and len(frame) == 64 + 3 + 2
    assert pandas.api.types.is_integer_dtype(frame.channel)


def test_it_has_a_standard_error_and_survives_saving(tmp_path: Path):
    found = result(standard_errors=True)
    found.save(tmp_path)
    loaded = LensResult.load(tmp_path)
    for layer, scores in found.items():
        error = found.standard_errors[layer]["spread.total"]
        assert error.shape == () and 0 < error < scores["spread.total"]
        assert torch.equal(loaded[layer]["spread.total"], scores["spread.total"])
        assert torch.equal(loaded.standard_errors[layer]["spread.total"], error)


def test_it_is_listed_shown_and_drawn():
    found = result()
    (first, channel, high), (_, _, low) = found.top(5, "spread.total")
    assert channel is None and high >= low and high == found[first]["spread.total"]
    assert "spread.total" in repr(found)
    assert "<td>spread.total</td><td>layer</td>" in found._repr_html_()
    axes = found.plot(Figure().subplots(), "spread.total")
    assert [len(line.get_xdata()) for line in axes.lines] == [1, 1]


def test_a_stream_settles_on_channels_alone():
    assert "settled" in result(until=Settled(patience=1, top=0.5, tolerance=0.9)).notes[-1]
    alone = LensOfLayers()
    with pytest.raises(InvalidValueError, match="no score with channels to rank"):
        alone.run(MODEL, BATCHES, progress=False, until=Settled())


class LensOfLayers(Spread):
    """The variance of the layer, or whatever a test plants."""

    name = "planted"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Any:
        return vars(self).get("planted", super().score(statistics, layer)["total"])


@pytest.mark.parametrize(
    ("planted", "error"), [(torch.tensor(torch.nan), NonFiniteError), (1.5, ShapeError)]
)
def test_what_is_no_number_is_refused(planted: Any, error: type[Exception]):
    lens = LensOfLayers()
    vars(lens)["planted"] = planted
    with pytest.raises(error, match="score 'planted'"):
        lens.run(MODEL, BATCHES, progress=False)
    with pytest.raises(AssertionError):
        assert_finite(LensResult({"0": {"x": torch.tensor(torch.nan)}}))


def test_compute_gives_the_number():
    found = LensOfLayers().compute(outputs=torch.eye(3).double())
    torch.testing.assert_close(found, torch.tensor(1.0).double())
