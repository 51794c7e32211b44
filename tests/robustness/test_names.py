"""Names from models, plugins and configurations: whatever they are, no file lands elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nodelens import Aggregator, CompositeLens, Lens, LensResult, MetricLens
from nodelens.configs.config_loader import parse_config
from nodelens.errors import NodeLensError, OutputError
from nodelens.experiments import experiment_for
from nodelens.experiments.folder import RunFolder
from nodelens.interventions import evaluate
from nodelens.registry import LENSES
from nodelens.statistics import Mean, Read
from nodelens.testing.trial import assert_equal

NAMES = [
    "a/b", "a:b", "/etc/x", "//up/", "a\0b", "x" * 5000, "a b", "é", "a\nb", "<b>", "*",
    "[a]", "C:\\x", "output", "input", "con",
]  # fmt: skip


class Odd(nn.Module):
    """A network whose first layer has any name but one with a dot, which torch forbids."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Linear(4, 5))
        self.add_module("last", nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.get_submodule(self.name), self.get_submodule("last")
        return last(torch.relu(first(x)))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """A folder three deep, and the working directory; nothing may be written around it."""
    folder = tmp_path / "outer" / "middle" / "run"
    folder.mkdir(parents=True)
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    assert {name for name in files(tmp_path) if not name.startswith("outer/middle/run/")} == set()


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_layers_of_any_name_are_measured_saved_and_silenced(name: str, inside: Path):
    torch.manual_seed(0)
    model, batch = Odd(name), (torch.randn(12, 4), torch.arange(12) % 3)
    lens = CompositeLens([Lens.from_name(n) for n in ("rayleigh_quotient", "taylor_saliency")])
    result = lens.run(model, [batch], progress=False, resume=inside / "state")
    assert list(result) == [name, "last"]
    result.save(inside / "result")
    assert_equal(LensResult.load(inside / "result"), result)
    assert_equal(Aggregator.load(inside / "state").result(), result)
    assert files(inside) == {"state", "result/result.json", "result/scores.safetensors"}
    assert repr(result) and result._repr_html_().count("<td>") == 28
    assert list(result.to_pandas().layer.unique()) == [name, "last"]
    assert evaluate(model, [batch], {name: [0]}).rows == 12


@pytest.mark.parametrize("name", ["a/b", "a:b", "x" * 5000, "a\0b", "é"], ids=range(5))
def test_a_layer_can_be_chosen_by_its_name(name: str):
    lens = Lens.from_name("activation_mean", layers=[name])
    assert list(lens.analyse(Odd(name), torch.randn(5, 4))) == [name]


@pytest.mark.parametrize(
    "name", ["../up", "../../up", "/tmp/up", "a/../../up", "..", ".", "", "a\0b", "x" * 5000]
)
def test_a_run_folder_has_no_file_outside(name: str, inside: Path):
    folder = RunFolder(inside)
    for attempt in (
        lambda: folder.write_text(name, "x"),
        lambda: folder.write_bytes(name, b"x"),
        lambda: folder.write_tensors(name, {"x": torch.ones(1)}),
        lambda: folder.read_json(name),
        lambda: folder.read_tensors(name),
        lambda: folder.remove([name]) if len(name) < 5000 else folder.read_json(name),
    ):
        with pytest.raises(OutputError):
            attempt()
    assert files(inside) == set()


def test_a_link_out_of_the_run_folder_is_not_followed(inside: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (inside / "figures").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(OutputError, match="not inside the output folder"):
        RunFolder(inside).write_text("figures/x", "x")


@pytest.mark.parametrize("directory", ["~nobody-of-this-name/x", "a\0b", "x" * 5000, "\udcff"])
def test_an_output_directory_that_cannot_be_is_an_error_of_ours(directory: str, inside: Path):
    with pytest.raises(OutputError):
        RunFolder(directory).prepare()
        RunFolder(directory).write_text("x", "\udcff")


CONFIG = """\
experiment: {name: odd}
model: {name: mlp, options: {hidden: [4]}}
dataset: {name: digits}
training: {epochs: 1}
lenses: [test.odd]
output: {directory: PUT}
"""
SCORES = ["../../up", "a/b", "a:b", "<script>", "y" * 400]


class OddScores(MetricLens):
    """Means under names that are no file's, `(channels,)`, in activation units."""

    def reads(self, layer):
        return {"mean": Read("output", Mean)}

    def score(self, statistics, layer):
        return {name: statistics["mean"].mean() + n for n, name in enumerate(SCORES)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_scores_of_any_name_stay_inside_the_run_folder_and_apart(inside: Path, monkeypatch):
    monkeypatch.setattr(LENSES, "_classes", {**LENSES._classes, "test.odd": OddScores})
    monkeypatch.setattr(OddScores, "name", "test.odd")
    config = parse_config(CONFIG, [("output.directory", str(inside))])
    results = experiment_for(config).run(progress=False)
    assert len(results.scores.score_names) == len(SCORES)
    pictures = [name for name in files(inside) if name.startswith("figures/histogram_")]
    assert len(pictures) == 2 * len(SCORES) and max(map(len, pictures)) < 200
    page = results.report.read_text("utf-8")
    assert "odd.&lt;script&gt;" in page and "odd.<script>" not in page


def test_a_name_of_a_lens_is_looked_up_and_nothing_else():
    for name in ("os.system", "../x", "a\0b", "x" * 100_000, ""):
        with pytest.raises(NodeLensError, match="unknown lens"):
            Lens.from_name(name)
