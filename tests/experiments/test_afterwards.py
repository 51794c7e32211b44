"""What is done with finished runs: one stage again, an analysis, a report, a comparison."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr, t
from typer.testing import CliRunner

from nodelens.cli import app
from nodelens.errors import InvalidValueError, OutputError, UnknownNameError
from nodelens.experiments import (
    GeneralAlignmentExperiment,
    Run,
    RunResults,
    analyse,
    compare,
    rebuild_report,
)
from nodelens.experiments.paired import interval
from nodelens.experiments.stages import figures as drawing


def files(folder: Path) -> dict[str, bytes]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def outline(run: Run, file: str, draw: object) -> int:
    for kind in ("png", "svg"):
        run.folder.write_bytes(f"{file}.{kind}", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    return 100


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures are empty: drawing takes most of a tiny run's time."""
    monkeypatch.setattr(drawing, "_save", outline)


@pytest.fixture(scope="module")
def other(tiny, tmp_path_factory) -> Path:
    """The same run with another seed."""
    folder = tmp_path_factory.mktemp("others") / "other"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_save", outline)
        GeneralAlignmentExperiment(tiny(folder, "experiment.seed=1")).run(progress=False)
    return folder


pytestmark = pytest.mark.slow


def test_one_stage_is_done_again_and_nothing_else(copy, tiny):
    before = json.loads((copy / "provenance.json").read_text())["stages"]
    log = (copy / "logs/run.log").read_text()
    GeneralAlignmentExperiment(tiny(copy)).run(progress=False, only="measure")
    added = (copy / "logs/run.log").read_text().removeprefix(log)
    assert added.count("started") == 1 and "measure: started" in added
    after = json.loads((copy / "provenance.json").read_text())["stages"]
    assert list(after) == list(before)
    assert after["measure"]["files"] == before["measure"]["files"]
    assert {n: e for n, e in after.items() if n != "measure"} == {
        n: e for n, e in before.items() if n != "measure"
    }


@pytest.mark.parametrize(
    ("overrides", "only", "error", "said"),
    [
        (["training.epochs=2"], "measure", InvalidValueError, "needs 'network', which has not fin"),
        (["lenses=[weight_magnitude]"], "report", InvalidValueError, "needs 'measure', which has"),
        ([], "mesure", UnknownNameError, r"no stage 'mesure' \(did you mean 'measure'\?\); this"),
    ],
)
def test_one_stage_alone_is_refused_on_other_grounds(copy, tiny, overrides, only, error, said):
    before = files(copy)
    with pytest.raises(error, match=said):
        GeneralAlignmentExperiment(tiny(copy, *overrides)).run(progress=False, only=only)
    assert files(copy) == before


def test_one_stage_alone_needs_a_run(tiny, tmp_path):
    with pytest.raises(InvalidValueError, match="needs 'data', which has not finished"):
        GeneralAlignmentExperiment(tiny(tmp_path / "new")).run(progress=False, only="network")
    assert not (tmp_path / "new").exists()


def test_an_analysis_makes_the_same_tables_elsewhere_and_leaves_the_run_alone(
    finished, tmp_path, monkeypatch
):
    before = files(finished)
    results = analyse(finished, tmp_path / "extra")
    assert files(finished) == before
    made = files(tmp_path / "extra")
    for name in before:
        if name.startswith(("results/", "analysis/", "figures/")):
            assert made[name] == before[name], name
    assert results.report.exists() and not (tmp_path / "extra/checkpoints").exists()
    told = results.provenance
    assert (told["status"], told["analysis_of"]["experiment"]) == ("finished", "tiny")
    monkeypatch.setattr(drawing, "_save", outline)
    again = analyse(finished, tmp_path / "extra")
    assert again.findings == results.findings


def test_an_analysis_reads_the_raw_scores_and_not_their_table(copy, undrawn):
    (copy / "results/channels.csv").write_text("layer,channel\n")
    results = analyse(copy, copy / "analysis_extra")
    assert len(results.channels) == 21


def test_an_analysis_goes_into_no_run_and_comes_from_a_measured_one(copy, finished, tmp_path):
    with pytest.raises(OutputError, match="is the run itself; expected another folder"):
        analyse(copy, copy / "figures" / "..")
    with pytest.raises(OutputError, match="holds a run; expected a new folder"):
        analyse(finished, copy)
    with pytest.raises(OutputError, match="is not the directory of a run: it has no 'experiment_"):
        analyse(tmp_path, tmp_path / "out")
    (copy / "results/scores/scores.safetensors").unlink()
    with pytest.raises(OutputError, match="has no scores: its stage 'measure' has not finished"):
        analyse(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_analysis_is_no_run_that_goes_on(finished, tmp_path, undrawn):
    analyse(finished, tmp_path / "extra")
    done = call("resume", str(tmp_path / "extra"))
    assert done.exit_code == 2 and "is an analysis of the run 'tiny'" in done.stderr


def test_a_report_is_made_again_from_tables(copy, undrawn):
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "figures")
    (copy / "figures").mkdir()
    rebuild_report(copy)
    assert (copy / "report.html").exists() and list((copy / "figures").glob("*.png"))


def test_resume_goes_on_where_the_folder_is_now(copy, tmp_path, undrawn):
    (copy / "results/sensitivity.csv").unlink()
    moved = copy.rename(tmp_path / "moved")
    done = call("resume", str(moved), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["directory"] == str(moved)
    assert (moved / "results/sensitivity.csv").exists()
    log = (moved / "logs/run.log").read_text()
    assert "measure: kept" in log and not (tmp_path / "copy").exists()


def test_a_run_compared_with_itself_agrees_and_with_another_seed_does_not(finished, other, copy):
    found = compare([finished, copy, other])
    table = found.agreement.set_index(["run", "other", "score"])["rank_correlation"]
    table = table.sort_index()
    assert table["tiny", "copy"].dropna().to_numpy() == pytest.approx(1.0)
    assert len(table["tiny", "other"]) == 4 and (table["tiny", "other"].dropna() < 1).all()
    assert found.agreement["same_network"].tolist() == [True] * 4 + [False] * 8
    one, two = (RunResults(folder).channels for folder in (finished, other))
    expected = 0.0
    for layer, rows in one.groupby("layer"):
        theirs = two[two["layer"] == layer]["weight_magnitude"]
        expected += len(rows) * spearmanr(rows["weight_magnitude"], theirs).statistic / 21
    assert table["tiny", "other", "weight_magnitude"] == pytest.approx(expected)
    assert any("networks differ" in note for note in found.notes)


def test_curves_of_runs_are_a_mean_with_an_interval_over_runs(finished, other):
    found = compare([finished, other])
    at_half = found.curves.set_index(["score", "mode", "amount"])
    for score, mode in [("weight_magnitude", "low"), ("random", "random")]:
        means = []
        for folder in (finished, other):
            table = pd.read_csv(folder / "results/sensitivity.csv")
            rows = table[(table["split"] == "test") & (table["amount"] == 0.5)]
            rows = rows[(rows["score"] == score) & (rows["mode"] == mode)]
            means.append(rows["accuracy"].mean())
        row = at_half.loc[(score, mode, 0.5)]
        reach = t.ppf(0.975, 1) * np.std(means, ddof=1) / np.sqrt(2)
        assert (row["runs"], row["mean"]) == (2, pytest.approx(np.mean(means)))
        assert row["high"] - row["mean"] == pytest.approx(reach)


def test_one_run_has_no_interval():
    mean, low, high = interval([0.5])
    assert mean == 0.5 and np.isnan(low) and np.isnan(high)


def test_comparing_takes_two_runs(finished):
    for given in ([finished], [finished, finished]):
        with pytest.raises(InvalidValueError, match="expected two or more, each once"):
            compare(given)


def test_the_commands_on_folders(finished, other, copy, tmp_path, undrawn):
    done = call("analyse", str(finished), "--output-dir", str(tmp_path / "extra"), "--json")
    assert done.exit_code == 0 and "headline" in json.loads(done.stdout)
    assert "Report: " in call("report", str(copy)).stdout
    done = call("compare", str(finished), str(other), "--output-dir", str(tmp_path / "tables"))
    assert done.exit_code == 0, done.output
    assert "Rank agreement" in done.stdout and "Note: networks differ" in done.stdout
    assert len(pd.read_csv(tmp_path / "tables/agreement.csv")) == 4
    told = json.loads(call("compare", str(finished), str(other), "--json").stdout)
    assert [run["seed"] for run in told["runs"]] == [0, 1]
    assert told["networks"][0]["measure"] == "test_accuracy"
