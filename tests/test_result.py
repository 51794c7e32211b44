"""Results: what they hold, how they are saved, listed, drawn and shown."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from matplotlib.figure import Figure

from nodelens import LensResult
from nodelens.errors import OutputError, UnknownNameError

EVIL = '<script>alert("x")</script>'


@pytest.fixture
def result() -> LensResult:
    return LensResult(
        {
            "conv.1": {
                "variance": torch.tensor([1.0, 3.0, 2.0]),
                "redundancy": torch.tensor([0.5, 0.25, 0.0]),
            },
            "fc": {"variance": torch.tensor([4.0, 0.5])},
        },
        lens="composite",
        params={"layers": ["conv*"], "relative": True},
        units={"variance": "activation^2", "redundancy": "nat"},
        importance={"variance": 1, "redundancy": -1},
        rows={"conv.1": 640, "fc": 10},
        notes=["3 pairs were clamped"],
    )


def test_scores_are_float64_on_the_cpu_and_own_their_memory():
    given = torch.ones(3, requires_grad=True)
    result = LensResult({"fc": {"x": given * 2}})
    assert result["fc"]["x"].dtype == torch.float64 and not result["fc"]["x"].requires_grad


def test_a_result_is_a_dict_of_layers(result):
    assert list(result) == ["conv.1", "fc"] and len(result) == 2
    assert {layer: list(scores) for layer, scores in result.items()} == {
        "conv.1": ["variance", "redundancy"],
        "fc": ["variance"],
    }
    assert result.score_names == ["variance", "redundancy"]


def test_one_score_of_all_layers(result):
    assert list(result.scores("redundancy")) == ["conv.1"]
    assert list(result.scores()) == list(result.scores("variance")) == ["conv.1", "fc"]
    assert LensResult({}).score_names == []


def test_unknown_layers_and_scores_are_key_errors_with_the_nearest_name(result):
    with pytest.raises(KeyError, match=r"no layer 'conv1' \(did you mean 'conv\.1'\?\); it has"):
        result["conv1"]
    with pytest.raises(UnknownNameError, match=r"no score 'varianc' \(did you mean 'variance'\?\)"):
        result.scores("varianc")
    with pytest.raises(UnknownNameError, match="no score 'x'"):
        result.top(score="x")
    with pytest.raises(UnknownNameError):
        LensResult({}).scores()


def test_the_unit_is_one_word_when_there_is_one(result):
    assert result.unit == {"variance": "activation^2", "redundancy": "nat"}
    assert LensResult({}, units={"variance": "nat"}).unit == "nat"
    assert LensResult({}).unit == {}


def test_the_top_channels_of_all_layers(result):
    assert result.top(3) == [("fc", 0, 4.0), ("conv.1", 1, 3.0), ("conv.1", 2, 2.0)]
    assert result.top(1, "redundancy") == [("conv.1", 0, 0.5)]
    assert len(result.top(100)) == 5 and result.top(0) == []


def test_ties_keep_the_order_of_layers_and_channels():
    result = LensResult({"b": {"x": torch.zeros(2)}, "a": {"x": torch.zeros(1)}})
    assert result.top(3) == [("b", 0, 0.0), ("b", 1, 0.0), ("a", 0, 0.0)]


def test_a_matrix_beside_the_scores_is_no_channel(result):
    matrix = LensResult({"fc": {"x": torch.tensor([1.0, 2.0]), "matrix": torch.eye(2)}})
    assert matrix.top(1) == [("fc", 1, 2.0)]
    assert "matrix" in (LensResult.to_pandas.__doc__ or "")
    assert list(matrix.to_pandas().score) == ["x", "x"]
    assert "matrix" in repr(matrix) and "matrix" in matrix._repr_html_()


def test_the_table_is_tidy(result):
    frame = result.to_pandas()
    assert list(frame.columns) == ["layer", "channel", "score", "value", "unit"]
    assert len(frame) == 8 and frame.index.tolist() == list(range(8))
    row = frame[(frame.layer == "conv.1") & (frame.score == "redundancy") & (frame.channel == 1)]
    assert row.value.item() == 0.25 and row.unit.item() == "nat"
    assert frame.value.dtype == float and pandas.api.types.is_integer_dtype(frame.channel)


def test_an_empty_table_has_its_columns():
    frame = LensResult({}).to_pandas()
    assert list(frame.columns) == ["layer", "channel", "score", "value", "unit"] and frame.empty


def test_saving_and_loading_keeps_everything(result, tmp_path: Path):
    folder = tmp_path / "deep" / "run"
    result.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["result.json", "scores.safetensors"]
    loaded = LensResult.load(folder)
    assert list(loaded) == list(result) and loaded.score_names == result.score_names
    for layer, scores in result.items():
        for name, values in scores.items():
            assert torch.equal(loaded[layer][name], values)
    for name in ("lens", "params", "units", "importance", "rows", "notes", "unit"):
        assert getattr(loaded, name) == getattr(result, name), name
    loaded.save(folder)
    assert LensResult.load(folder).rows == result.rows


def test_names_with_colons_survive_or_are_refused(tmp_path: Path):
    LensResult({"a:b": {"x:y": torch.ones(1)}, "a": {"z": torch.zeros(1)}}).save(tmp_path)
    assert LensResult.load(tmp_path)["a:b"]["x:y"].item() == 1
    clash = LensResult({"a:b": {"x": torch.ones(1)}, "a": {"b:x": torch.zeros(1)}})
    with pytest.raises(OutputError, match="two scores would be saved under one name"):
        clash.save(tmp_path)


def test_nothing_to_load_is_an_os_error(result, tmp_path: Path):
    with pytest.raises(OSError, match="no result in") as failure:
        LensResult.load(tmp_path)
    assert isinstance(failure.value, OutputError)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(OutputError, match="no result in"):
        LensResult.load(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(OutputError, match="has format 7, not 1"):
        LensResult.load(tmp_path)
    result.save(tmp_path)
    (tmp_path / "scores.safetensors").unlink()
    with pytest.raises(OutputError, match="cannot read"):
        LensResult.load(tmp_path)


def test_an_unwritable_folder_is_an_os_error(result, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        result.save(tmp_path / "file")


@pytest.mark.parametrize("missing", ["result.json", "scores.safetensors"])
def test_a_reader_never_sees_half_a_result(result, tmp_path: Path, missing: str):
    result.save(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (tmp_path / missing).unlink()
    result.save(tmp_path)
    assert LensResult.load(tmp_path).rows == result.rows


def test_the_text_says_what_where_and_in_which_unit(result):
    assert repr(result).splitlines() == [
        "LensResult of composite: 2 layers",
        "  conv.1: variance of 3 channels, 1 to 3, mean 2 activation^2",
        "  conv.1: redundancy of 3 channels, 0 to 0.5, mean 0.25 nat",
        "  fc: variance of 2 channels, 0.5 to 4, mean 2.25 activation^2",
    ]


def test_a_single_number_is_shown_as_one():
    result = LensResult({"model": {"loss": torch.tensor([0.5])}}, units={"loss": "loss"})
    assert repr(result).splitlines()[1] == "  model: loss 0.5 loss"


def test_a_layers_scores_are_a_dict_that_knows_its_names(result):
    assert result["fc"].get("x") is None and "x" not in result["fc"]
    with pytest.raises(UnknownNameError, match=r"no score 'varience' \(did you mean 'variance'"):
        result["fc"]["varience"]


def test_a_long_text_is_cut():
    result = LensResult({f"layer{i}": {"x": torch.ones(2)} for i in range(60)})
    lines = repr(result).splitlines()
    assert len(lines) == 41 and lines[-1] == "  ..."


@pytest.mark.parametrize("values", [torch.zeros(0), torch.tensor([math.nan])])
def test_empty_and_undefined_scores_can_still_be_shown(values):
    result = LensResult({"fc": {"x": values}})
    assert "fc" in repr(result) and "fc" in result._repr_html_()


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_escapes_names_and_units():
    result = LensResult({EVIL: {EVIL: torch.ones(2)}}, units={EVIL: EVIL}, lens=EVIL)
    page = Cells()
    page.feed(result._repr_html_())
    assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.text.count(EVIL) == 3


def test_the_page_holds_every_score(result):
    page = Cells()
    page.feed(result._repr_html_())
    assert page.tags.count("tr") == 4
    assert page.text[-7:] == ["fc", "variance", "2", "0.5", "2.25", "4", "activation^2"]


def test_a_plot_has_a_line_a_layer_on_the_axes_given(result):
    axes = Figure().subplots()
    assert result.plot(ax=axes, score="variance") is axes
    assert [line.get_label() for line in axes.get_lines()] == ["conv.1", "fc"]
    assert axes.get_lines()[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert axes.get_ylabel() == "variance (activation^2)"


def test_a_plot_makes_its_own_axes(result):
    from matplotlib import pyplot

    axes = result.plot()
    assert len(axes.get_lines()) == 2
    pyplot.close(axes.figure)
