"""Which files a figure of a run is written to."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib import pyplot

from nodelens.errors import ConfigError
from nodelens.experiments.drawing import formats_of, save_figure
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.stages.figures import FigureStage
from nodelens.figures import plot_depth, plot_layer_heatmap


def drawn():
    return plot_depth({"fc1": 1.0, "fc2": 2.0})


@pytest.mark.parametrize(
    ("asked", "written"),
    [("[png]", "png svg"), ("[pdf, png]", "pdf png svg"), ("[svg]", "svg")],
)
def test_figures_are_written_as_asked_and_as_svg_for_the_report(tiny, tmp_path, asked, written):
    run = SimpleNamespace(
        config=tiny(tmp_path, f"figures.formats={asked}"), folder=RunFolder(tmp_path)
    )
    assert save_figure(run, "figures/depth", drawn) == round(3.3 * 96)
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == [f"depth.{kind}" for kind in written.split()]
    assert pyplot.get_fignums() == []
    assert FigureStage().settings(run) == {"formats": formats_of(run.config)}, "drawn again if not"


def test_another_format_is_told_with_its_key(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"figures\.formats\.0.*'jpg'"):
        tiny(tmp_path, "figures.formats=[jpg]")


def test_no_label_is_cut_off_as_letters_grow_with_the_dots(tiny, tmp_path):
    run = SimpleNamespace(config=tiny(tmp_path), folder=RunFolder(tmp_path))
    names = ["a_rather_long_name_of_a_score_that_has_to_fit", "another"]
    table = pd.DataFrame([[0.1, 0.2], [0.3, 0.4]], names, ["fc1", "fc2"])
    save_figure(run, "figures/table", lambda: plot_layer_heatmap(table))
    picture = pyplot.imread(tmp_path / "figures" / "table.png")
    assert (picture[:, 0] == 1).all() and (picture[:, -1] == 1).all()
