"""A stranger's experiment, in a package of theirs, goes on from the command line."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from typer.testing import CliRunner

from nodelens.cli import app
from nodelens.errors import InvalidValueError, MissingPackageError
from nodelens.experiments import GeneralAlignmentExperiment, RunResults, started_by
from nodelens.experiments.registry import experiment_for

SHORT = (("sensitivity", None), "figures.formats=[svg]", "lenses=[weight_magnitude]")
PACKAGE = """
import pandas as pd

from nodelens.experiments import Drawing, GeneralAlignmentExperiment, Stage, leave_section
from nodelens.figures import plot_depth


class Largest(Stage):
    name = "largest"
    needs = ("measure",)

    def settings(self, run):
        return {}

    def protocol(self, config):
        return "The largest weight of every layer."

    def run(self, run):
        scores = run.folder.read_table("results/channels.csv")
        table = scores.groupby("layer", sort=False)["weight_magnitude"].max()
        run.folder.write_table("results/largest.csv", table.reset_index())
        return "the largest weights"

    def show(self, run):
        table = run.folder.read_table("results/largest.csv")
        lines = {"largest": dict(zip(table["layer"], table["weight_magnitude"]))}
        drawing = Drawing("largest", "The largest weights.", lambda: plot_depth(lines))
        leave_section(run, self.name, [drawing], title="Large weights")


class Own(GeneralAlignmentExperiment):
    def stages(self):
        first = list(super().stages())
        return [*first[:3], Largest(), *first[3:]]
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger/__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "stranger"
    sys.modules.pop("stranger", None)


@pytest.fixture
def stopped(package, tiny, tmp_path):
    """A run of the stranger's experiment, as one that was killed behind `measure` leaves it."""
    from stranger import Own

    config = tiny(tmp_path / "run", *SHORT)
    stages = Own(config).stages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(stages[3]), "run", lambda self, run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Own(config).run(progress=False)
    return tmp_path / "run"


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


GOING_ON = (["resume", "DIR"], ["run", "DIR/experiment_config.yaml", "--resume"])


def go_on(words, folder):
    return call(*(word.replace("DIR", str(folder)) for word in words))


@pytest.mark.slow
@pytest.mark.parametrize("words", GOING_ON, ids=lambda words: words[0])
def test_a_strangers_experiment_goes_on_from_the_command_line(stopped, package, words):
    assert not (stopped / "results/largest.csv").exists()
    done = go_on(words, stopped)
    assert done.exit_code == 0, done.output
    assert "Large weights" in (stopped / "report.html").read_text()
    stages = RunResults(stopped).provenance["stages"]
    assert stages["largest"]["status"] == "finished" and "report" in stages
    # A figure that is gone is drawn again, by the stranger's own stage.
    (stopped / "figures/largest.svg").unlink()
    assert call("report", stopped).exit_code == 0
    assert (stopped / "figures/largest.svg").exists()
    # Without the package the report is made of what lies in the folder.
    shutil.move(package, package.with_name("away"))
    sys.modules.pop("stranger")
    assert call("report", stopped).exit_code == 0
    assert "Large weights" in (stopped / "report.html").read_text()


@pytest.mark.parametrize(
    "words", [*GOING_ON, ["run", "DIR/experiment_config.yaml", "--only=measure"]], ids=" ".join
)
def test_a_package_that_is_gone_is_named_and_nothing_is_forgotten(stopped, package, words):
    shutil.move(package, package.with_name("away"))
    sys.modules.pop("stranger")
    before = (stopped / "provenance.json").read_bytes()
    done = go_on(words, stopped)
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "started by the experiment 'stranger:Own', which cannot be imported" in said
    assert "expected package 'stranger' installed, or on PYTHONPATH" in said
    assert (stopped / "provenance.json").read_bytes() == before


ALONE = """
from nodelens.experiments import Experiment, Stage


class Count(Stage):
    name = "count"

    def settings(self, run):
        return {}

    def protocol(self, config):
        return "Rows, counted."

    def run(self, run):
        run.folder.write_json("results/count.json", len(run.splits.train))
        return "counted"


class Later(Count):
    name = "later"
    needs = ("count",)


class Alone(Experiment):
    type = "general_alignment"
    kinds = (Count,)

    def stages(self):
        return [kind() for kind in self.kinds]
"""


@pytest.fixture
def alone(package):
    (package / "__init__.py").write_text(ALONE)
    import stranger

    return stranger


def test_an_experiment_may_have_stages_of_its_own_alone(alone, tiny, tmp_path):
    config = tiny(tmp_path / "run")
    results = alone.Alone(config).run(progress=False)
    assert results.folder.read_json("results/count.json") == 1077
    done = call("resume", tmp_path / "run")
    assert done.exit_code == 0 and "Done: " in done.stdout and "kept" in done.stdout
    told = json.loads(call("resume", tmp_path / "run", "--json").stdout)
    assert told == {"directory": str(tmp_path / "run")}
    with pytest.raises(InvalidValueError, match="shard 1/2 of Alone: none of its stages can be"):
        alone.Alone(config).run(progress=False, shard="1/2")


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ("", "the experiment has no stages"),
        ("Count Count", "two stages are called 'count'"),
        ("Later Count", "stage 'later' needs 'count', which does not come before it"),
    ],
)
def test_a_list_that_cannot_be_run_is_told(alone, tiny, tmp_path, monkeypatch, kinds, said):
    monkeypatch.setattr(alone.Alone, "kinds", [getattr(alone, name) for name in kinds.split()])
    with pytest.raises(InvalidValueError, match=said):
        alone.Alone(tiny(tmp_path / "run")).run(progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("__main__:Own", r"expected Own\(config\).run\(resume=True\) in the script or notebook"),
        ("stranger:make.<locals>.Own", r"AttributeError: .* expected Own\(config\)"),
        ("json:dumps", "TypeError: it is no Experiment, but <function dumps"),
        ("json:nothing", "AttributeError: .* expected package 'json' installed"),
    ],
)
def test_a_class_that_is_nowhere_is_told_with_what_to_do(package, tiny, tmp_path, path, said):
    with pytest.raises(MissingPackageError, match=said):
        started_by(path, tiny(tmp_path))


def test_our_own_classes_are_found_by_family(tiny, tmp_path):
    config = tiny(tmp_path)
    for path in (None, "nodelens.experiments.moved:GeneralAlignmentExperiment"):
        assert type(started_by(path, config)) is GeneralAlignmentExperiment
    assert type(experiment_for(config)) is GeneralAlignmentExperiment
