"""A run leaves a directory that tells everything, survives an interrupt, and goes on from there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib import pyplot

from nodelens.configs import load_config
from nodelens.errors import ConfigError, OutputError
from nodelens.experiments import GeneralAlignmentExperiment, RunResults, experiment
from nodelens.experiments.splits import Splits
from nodelens.experiments.stages.data import DataStage
from nodelens.experiments.stages.figures import FigureStage
from nodelens.experiments.stages.measure import MeasureStage
from nodelens.experiments.stages.network import NetworkStage
from nodelens.experiments.stages.sensitivity import SensitivityStage
from nodelens.result import LensResult

# The figures of a finished run take a second: one worker draws them once.
pytestmark = pytest.mark.xdist_group("run")

STAGES = ["data", "network", "measure", "sensitivity", "analysis", "figures", "report"]


def run(config, **options) -> RunResults:
    return GeneralAlignmentExperiment(config).run(progress=False, **options)


def provenance(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text())


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The names of the stages that do work while the test lasts."""
    names: list[str] = []
    for stage in (DataStage, NetworkStage, MeasureStage, SensitivityStage, FigureStage):

        def watched(self, run, original=stage.run):
            names.append(self.name)
            return original(self, run)

        monkeypatch.setattr(stage, "run", watched)
    return names


def test_the_directory_holds_what_the_catalogue_names(finished):
    for name in ("experiment_config.yaml", "provenance.json", "logs/run.log", "report.html"):
        assert (finished / name).stat().st_size > 0, name
    for folder in ("results", "figures", "analysis"):
        assert list((finished / folder).iterdir()), folder
    figures = {file.stem for file in (finished / "figures").glob("*.png")}
    assert figures == {file.stem for file in (finished / "figures").glob("*.svg")}
    assert {"sensitivity_low", "sensitivity_high", "layer_heatmap", "rank_correlation"} <= figures
    assert {"violin_weight_magnitude", "depth_profile"} <= figures


def test_raw_scores_are_saved_for_every_channel(finished):
    scores = LensResult.load(finished / "results/scores")
    assert {layer: len(scores[layer]["weight_magnitude"]) for layer in scores} == {
        "fc1": 6,
        "fc2": 5,
        "fc3": 10,
    }
    channels = RunResults(finished).channels
    assert len(channels) == 21
    saved = channels.loc[channels["layer"] == "fc2", "weight_magnitude"].to_numpy()
    assert torch.equal(torch.tensor(saved), scores["fc2"]["weight_magnitude"])


def test_the_resolved_configuration_runs_the_same_experiment(finished, tiny):
    written = load_config(finished / "experiment_config.yaml")
    assert written == tiny(finished)


def test_provenance_tells_versions_seeds_data_protocol_and_stages(finished):
    told = provenance(finished)
    assert told["status"] == "finished"
    assert told["environment"]["packages"]["torch"] == torch.__version__
    assert (told["seed"], told["data"]["rows"]["test"]) == (0, 450)
    assert list(told["protocol"]) == list(told["stages"]) == STAGES
    assert all(entry["status"] == "finished" for entry in told["stages"].values())
    files = told["stages"]["measure"]["files"]
    assert "results/scores/scores.safetensors" in files


def test_provenance_and_report_name_no_path_of_this_machine(finished):
    names = ("provenance.json", "logs/run.log", "results/scores/result.json", "report.html")
    for name in names:
        text = (finished / name).read_text()
        assert str(Path.home()) not in text and str(finished.parent) not in text, name


def test_the_parts_of_the_data_share_no_row(finished, tiny):
    from nodelens.experiments.splits import load_splits

    splits = load_splits(tiny(finished))
    seen = [
        row.numpy().tobytes()
        for part in (splits.train, splits.validation, splits.test)
        for row in part.tensors[0]
    ]
    assert len(seen) == 1797 and len(set(seen)) == 1797


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(finished, tiny, tmp_path):
    again = run(tiny(tmp_path / "again")).directory
    for name in (
        "checkpoints/trained.safetensors",
        "results/channels.csv",
        "figures/layer_heatmap.svg",
    ):
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name
    assert (again / "results/sensitivity.csv").read_text() == (
        finished / "results/sensitivity.csv"
    ).read_text()


def test_a_run_leaves_random_state_threads_and_figures_as_they_were(tiny, tmp_path):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    figures = pyplot.get_fignums()
    config = tiny(tmp_path / "run", ("sensitivity", None), "lenses=[weight_magnitude]")
    run(config)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert pyplot.get_fignums() == figures


def test_sensitivity_silences_the_same_share_of_hidden_layers_only(finished):
    table = pd.read_csv(finished / "results/sensitivity.csv")
    assert set(zip(table["amount"], table["silenced"], strict=True)) == {(0, 0), (0.5, 6), (1, 11)}
    assert set(table["channels"]) == {11}
    assert set(table["split"]) == {"validation", "test"}
    orders = table[["score", "mode", "seed"]].drop_duplicates()
    assert len(orders) == 4


def test_without_channels_all_orders_meet(finished):
    table = pd.read_csv(finished / "results/sensitivity.csv")
    for amount in (0.0, 1.0):
        found = table[(table["amount"] == amount) & (table["split"] == "test")]
        assert found["accuracy"].nunique() == 1
    network = json.loads((finished / "results/network.json").read_text())
    whole = table[(table["amount"] == 0) & (table["split"] == "test")]
    assert whole["accuracy"].iloc[0] == network["test_accuracy"]


def test_resuming_a_finished_run_does_nothing(copy, tiny, ran):
    before = {file: file.read_bytes() for file in copy.rglob("*.csv")}
    run(tiny(copy), resume=True)
    assert ran == []
    assert before == {file: file.read_bytes() for file in copy.rglob("*.csv")}


@pytest.mark.slow
def test_without_resume_everything_but_the_training_is_done_again(copy, tiny, ran):
    run(tiny(copy))
    assert ran == ["data", "measure", "sensitivity", "figures"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        pytest.param(
            "sensitivity.amounts=[0.5]", ["sensitivity", "figures"], marks=pytest.mark.slow
        ),
        ("lenses=[weight_magnitude]", ["measure", "sensitivity", "figures"]),
        pytest.param(
            "training.epochs=2",
            ["network", "measure", "sensitivity", "figures"],
            marks=pytest.mark.slow,
        ),
        ("experiment.device=cpu", []),
    ],
)
def test_a_changed_setting_redoes_the_stages_it_decides(copy, tiny, ran, override, expected):
    run(tiny(copy, override), resume=True)
    assert ran == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (SensitivityStage, ["sensitivity", "figures"]),
        (MeasureStage, ["measure", "sensitivity", "figures"]),
        (Splits, ["data", "network", "measure", "sensitivity", "figures"]),
    ],
)
def test_changed_code_and_inputs_redo_the_stages_they_decide(
    copy, tiny, ran, monkeypatch, change, expected
):
    if change is Splits:
        monkeypatch.setattr(Splits, "fingerprint", "of other data")
    else:
        real = experiment.source_code
        patched = lambda *code: "other" if code == change.code else real(*code)  # noqa: E731
        monkeypatch.setattr(experiment, "source_code", patched)
    run(tiny(copy), resume=True)
    assert ran == expected


@pytest.mark.slow
def test_scores_after_an_epoch_are_those_of_the_weights_then(tiny, tmp_path):
    short = ("sensitivity", None), "figures.formats=[svg]", "lenses=[weight_magnitude, rq]"
    long = run(
        tiny(tmp_path / "long", *short, "training.epochs=3", "training.measured_epochs=[1, 2]")
    )
    table = long.table("results/training_scores.csv")
    assert list(table["epoch"].value_counts()) == [42, 42, 42]
    end = table[table["epoch"] == 3].pivot(index=["layer", "channel"], columns="score")["value"]
    assert end["weight_magnitude"].to_list() == long.channels["weight_magnitude"].to_list()
    weights = long.folder.read_tensors("checkpoints/epoch-2.safetensors")["fc2.weight"].double()
    then = table[(table["epoch"] == 2) & (table["layer"] == "fc2")]
    found = then.loc[then["score"] == "weight_magnitude", "value"]
    assert found.to_list() == pytest.approx(weights.norm(dim=1).tolist())
    changed = long.table("results/training_dynamics.csv").set_index(["score", "layer", "epoch"])
    assert changed.loc[("weight_magnitude", "fc2", 3), "with_last"] == pytest.approx(1)
    expected = found.reset_index(drop=True).corr(
        end.loc["fc2", "weight_magnitude"].reset_index(drop=True), method="spearman"
    )
    assert changed.loc[("weight_magnitude", "fc2", 2), "with_last"] == pytest.approx(expected)
    assert "While it learned" in long.report.read_text()


@pytest.mark.parametrize("asked", ["[2, 1]", "[0]", "[1]"])
def test_epochs_that_cannot_be_measured_are_told(tiny, tmp_path, asked):
    with pytest.raises(ConfigError, match="measured_epochs"):
        tiny(tmp_path, f"training.measured_epochs={asked}")
    with pytest.raises(ConfigError, match=r"training\.measured_epochs: not read by 'cluster_an"):
        given = ("experiment.type=cluster_analysis", "training.epochs=2")
        tiny(tmp_path, *given, "training.measured_epochs=[1]")


@pytest.mark.slow
def test_files_of_lenses_no_longer_asked_for_are_gone(copy, tiny):
    assert (copy / "figures/histogram_average_redundancy.png").exists()
    run(tiny(copy, "lenses=[weight_magnitude]"), resume=True)
    assert not (copy / "figures/histogram_average_redundancy.png").exists()
    assert (copy / "figures/histogram_weight_magnitude.png").exists()


def test_a_damaged_file_is_made_again(copy, tiny, ran):
    (copy / "results/scores.csv").write_text("layer,chan")
    run(tiny(copy), resume=True)
    assert ran == ["measure"]
    assert len(pd.read_csv(copy / "results/scores.csv")) == 84


@pytest.mark.slow
def test_an_interrupt_leaves_a_readable_folder_to_go_on_from(tiny, tmp_path, monkeypatch, ran):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        import nodelens.experiments.stages.sensitivity as module

        calls = iter(range(1000))

        def interrupted(*arguments):
            if next(calls) == 3:
                raise KeyboardInterrupt
            return evaluate(*arguments)

        evaluate = module.evaluate
        patch.setattr(module, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny(folder))
    told = provenance(folder)
    assert told["status"] == "interrupted"
    assert [entry["status"] for entry in told["stages"].values()] == ["finished"] * 3 + [
        "interrupted"
    ]
    assert len(LensResult.load(folder / "results/scores")) == 3
    assert not (folder / "results/sensitivity.csv").exists()
    assert not [file for file in folder.rglob("*") if file.name.startswith(".")]
    assert "run interrupted" in (folder / "logs/run.log").read_text()
    ran.clear()
    run(tiny(folder), resume=True)
    assert ran == ["sensitivity", "figures"]
    assert provenance(folder)["status"] == "finished"


def test_a_failure_is_noted_and_not_swallowed(tiny, tmp_path, monkeypatch):
    def broken(self, run):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(MeasureStage, "run", broken)
    with pytest.raises(ZeroDivisionError, match="planted"):
        run(tiny(tmp_path / "run"))
    assert provenance(tmp_path / "run")["status"] == "failed"


def test_an_output_folder_that_cannot_be_made_is_told_before_any_work(tiny, tmp_path, ran):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be made: .*; expected a path that can be writ"):
        run(tiny(tmp_path / "file" / "run"))
    assert ran == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_told_before_any_work(tiny, tmp_path, ran):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError):
        run(tiny(tmp_path / "closed" / "run"))
    assert ran == []


def test_a_folder_with_other_files_is_refused_and_left_alone(tiny, tmp_path, ran):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="has files in it and is not a run of nodelens"):
        run(tiny(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    assert ran == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.name=mpl", r"model.name: no architecture 'mpl' \(did you mean 'mlp'\?\)"),
        (
            "model.options.hiden=[3]",
            r"model.options: mlp has no option 'hiden' \(did you mean",
        ),
        ("model.options.hidden=[0]", r"model.options: hidden is \[0\], expected a list of widths"),
        ("dataset.name=digit", r"dataset.name: no data set 'digit' \(did you mean 'digits'\?\)"),
        ("calibration.rows=9999", "calibration.rows: 9999 rows, but the training part .* has 1077"),
        (
            "lenses.2=weight_magnitud",
            r"lenses.2.name: unknown lens 'weight_magnitud' \(did",
        ),
        (
            "lenses.2={name: weight_magnitude, norn: 1}",
            r"lenses.2: lens 'weight_magnitude' has no option 'norn' \(did you mean 'norm'\?\)",
        ),
        (
            "lenses.2={name: weight_magnitude, layers: [conv1]}",
            r"lenses.2: .*layer 'conv1' matches nothing",
        ),
        (
            "lenses.2={name: rayleigh_quotient, relative: maybe}",
            "lenses.2: lens 'rayleigh_quotient': relative is 'maybe', expected True or False",
        ),
        (
            "pruning={strategies: [magnitude], layers: [conv1]}",
            r"pruning.layers: layer 'conv1' matches nothing .*; the layers are 'fc1', 'fc2', 'fc3'",
        ),
        ("lenses.1=scar_taylor", "lenses.1: "),
        ("lenses=[{name: ablation, channels: {fc1: [0]}}]", "lenses: lens 'ablation' edits activ"),
        (
            "sensitivity.scores=[weight_magnitud]",
            r"sensitivity.scores.0: 'weight_magnitud' is not a score of this file's lenses \(did",
        ),
        ("model.checkpoint=nowhere.safetensors", "model.checkpoint: cannot read"),
        ("experiment.device=cuda:7", "'cuda:7', but this machine has no such device"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(tiny, tmp_path, override, said):
    with pytest.raises(ConfigError, match=said) as caught:
        run(tiny(tmp_path / "run", override))
    assert re.match(r"(override|tiny\.yaml)", str(caught.value))
    assert not (tmp_path / "run").exists()


def test_another_network_s_checkpoint_is_refused(finished, tiny, tmp_path):
    weights = finished / "checkpoints/trained.safetensors"
    config = tiny(tmp_path / "run", ("model.checkpoint", str(weights)), "model.options.hidden=[4]")
    with pytest.raises(ConfigError, match=r"fc1.weight is \(6, 64\), expected \(4, 64\)"):
        run(config)


@pytest.mark.slow
def test_a_checkpoint_takes_the_place_of_training(finished, tiny, tmp_path):
    given = {
        f"model.{key}": str(finished / f"checkpoints/{name}.safetensors")
        for key, name in [("checkpoint", "trained"), ("initial_checkpoint", "initial")]
    }
    results = run(tiny(tmp_path / "run", *given.items()))
    assert results.channels.equals(RunResults(finished).channels)
    assert not (tmp_path / "run/results/training.csv").exists()


def test_a_checkpoint_without_its_beginning_cannot_be_compared_with_it(finished, tiny, tmp_path):
    weights = str(finished / "checkpoints/trained.safetensors")
    with pytest.raises(ConfigError, match="delta_alignment compares with the weights before train"):
        run(tiny(tmp_path / "run", ("model.checkpoint", weights)))


def test_a_run_without_sensitivity_reports_scores_alone(tiny, tmp_path):
    results = run(tiny(tmp_path / "run", ("sensitivity", None), "lenses=[weight_magnitude]"))
    assert results.sensitivity is None
    assert results.findings["headline"] == "21 channels in 3 layers, measured by 1 scores"
    assert results.report.exists()


def test_an_experiment_refuses_another_family(tiny, tmp_path):
    class Other(GeneralAlignmentExperiment):
        type = "cluster_analysis"

    with pytest.raises(ConfigError, match="runs 'cluster_analysis' configurations, not 'general_"):
        Other(tiny(tmp_path))


@pytest.mark.slow
def test_the_digits_example_learns_and_finds_what_its_report_says(pytestconfig, tmp_path):
    example = pytestconfig.rootpath / "configs/examples/digits_basic.yaml"
    results = run(load_config(example, [("output.directory", str(tmp_path / "run"))]))
    assert results.network["test_accuracy"] >= 0.97
    assert len(results.scores.score_names) == 17
    table = results.sensitivity
    assert table is not None
    half = table[(table["amount"] == 0.5) & (table["split"] == "test")]
    by_order = half.groupby(["score", "mode"])["accuracy"].mean()
    assert by_order[("taylor_saliency", "low")] > by_order[("random", "random")] + 0.2
    assert by_order[("taylor_saliency", "low")] > by_order[("taylor_saliency", "high")]


@pytest.mark.slow
def test_numbers_of_layers_are_in_the_tables_of_layers_alone(tiny, tmp_path):
    lenses = ["weight_magnitude", "layer_redundancy"]
    results = GeneralAlignmentExperiment(tiny(tmp_path, ("lenses", lenses))).run()
    number = results.scores["fc1"]["layer_redundancy"].item()
    assert results.layer_means.loc["layer_redundancy", "fc1"] == pytest.approx(number)
    assert (
        "layer_redundancy" not in results.channels
        and "layer_redundancy" in results.report.read_text()
    )


def test_numbers_of_layers_alone_make_a_report(tiny, tmp_path):
    config = tiny(tmp_path, ("lenses", ["layer_redundancy"]), ("sensitivity", None))
    results = GeneralAlignmentExperiment(config).run()
    assert list(results.layer_means.index) == ["layer_redundancy"] and results.report.exists()
