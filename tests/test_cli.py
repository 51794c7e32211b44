"""The command: what it prints, and what it exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from nodelens import Lens, MetricLens, ModelWrapper
from nodelens.cli import COMMANDS, app
from nodelens.experiments.stages.measure import MeasureStage
from nodelens.registry import LENSES

CONFIG = """\
experiment: {name: tiny}
model: {name: mlp, options: {hidden: [4]}}
dataset: {name: digits}
training: {epochs: 1}
lenses: [weight_magnitude]
output: {directory: nowhere}
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def test_run_writes_a_report_and_says_what_was_found(config, tmp_path):
    folder = tmp_path / "out"
    done = call("run", str(config), "training.epochs=2", "--output-dir", str(folder), "--seed", "3")
    assert done.exit_code == 0, done.output
    assert "14 channels in 2 layers, measured by 1 scores." in done.output
    assert f"Report: {folder / 'report.html'}" in done.output
    written = (folder / "experiment_config.yaml").read_text()
    assert "seed: 3" in written and "epochs: 2" in written
    again = call(
        "run", str(config), "training.epochs=2", f"--output-dir={folder}", "--seed=3", "--resume"
    )
    assert again.output.count("kept") == 6


def test_an_interrupt_says_how_to_go_on_and_exits_with_130(config, tmp_path, monkeypatch):
    def interrupted(self, run):
        raise KeyboardInterrupt

    monkeypatch.setattr(MeasureStage, "run", interrupted)
    folder = tmp_path / "my out"
    done = call("run", str(config), "training.epochs=1", "--output-dir", str(folder))
    assert done.exit_code == 130
    assert "Interrupted. What was finished is whole" in done.stderr
    assert (
        f"nodelens run {config} training.epochs=1 --output-dir '{folder}' --resume" in done.stderr
    )
    assert json.loads((folder / "provenance.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "CONFIG", "training.epoch=2"], "unknown key (value 2) (did you mean 'epochs'?)"),
        (["run", "CONFIG", "--device", "gpu"], "'gpu', expected `auto`, `cpu`, `mps`, `cuda`"),
        (
            ["run", "CONFIG", "lenses.0=rayleigh"],
            "unknown lens 'rayleigh' (did you mean",
        ),
        (["run", "CONFIG", "--output-dir", "CONFIG/out"], "cannot be made: Not a directory"),
        (["run", "missing.yaml"], "missing.yaml: there is no such file"),
        (["describe", "rayleigh_quotien"], "(did you mean 'rayleigh_quotient'?)"),
        (["describe", "rq", "--layer", "512"], "layer shape is '512', expected channels x inputs"),
        (["lenses", "--family", "scarr"], "(did you mean 'scar'?)"),
        (["lenses", "--needs", "target"], "(did you mean 'targets'?)"),
        (["lenses", "--cost", "c^2!"], "says no growth (did you mean 'C^2'?)"),
        (["check", "rayleigh_quotien"], "(did you mean 'rayleigh_quotient'?)"),
    ],
)
def test_our_errors_are_one_message_and_exit_code_2(config, arguments, said):
    done = call(*(argument.replace("CONFIG", str(config)) for argument in arguments))
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ") and said in done.stderr
    assert "Traceback" not in done.output and not done.stdout


def test_lenses_lists_every_lens():
    listed = call("lenses").output
    data = json.loads(call("lenses", "--json").output)
    assert [lens["name"] for lens in data] == Lens.names()
    for lens in data:
        assert lens["name"] in listed and lens["summary"], lens
    rayleigh = next(lens for lens in data if lens["name"] == "rayleigh_quotient")
    relative = rayleigh["options"]["relative"]
    assert "rq" in rayleigh["aliases"] and relative["default"] == "True"
    assert "tr(S)" in relative["meaning"]


def names_listed(*filters: str) -> set[str]:
    done = call("lenses", "--json", *filters)
    assert done.exit_code == 0, done.output
    return {lens["name"] for lens in json.loads(done.output)}


@pytest.mark.parametrize(
    ("filters", "among", "not_among"),
    [
        (("--family", "scar"), "scar_taylor", "taylor_saliency"),
        (("--needs", "targets"), "synergy_gaussian_mmi", "taylor_saliency"),
        (("--needs", "loss"), "taylor_saliency", "activation_mean"),
        (("--needs", "weights"), "weight_magnitude", "rayleigh_quotient"),
        (("--needs", "nothing"), "rayleigh_quotient", "weight_magnitude"),
        (("--needs", "initial_weights"), "delta_alignment", "rayleigh_quotient"),
        (("--cost", "C"), "rayleigh_quotient", "average_redundancy"),
        (("--state", "C^2"), "average_redundancy", "synergy_gaussian_mmi"),
        (("--needs", "loss", "--cost", "C"), "taylor_saliency", "gradient_alignment"),
    ],
)
def test_lenses_can_be_chosen(filters, among, not_among):
    found = names_listed(*filters)
    if filters[0] == "--state":
        # The power of C rules: classes and targets beside it do not.
        assert {among, not_among} <= found and "rayleigh_quotient" in found
    else:
        assert among in found and not_among not in found


def test_a_lens_of_another_package_is_listed_with_it(monkeypatch):
    class Swing(MetricLens):
        """Largest minus smallest value, `(channels,)`."""

        def reads(self, layer):
            raise RuntimeError("of no use before a run")

        def score(self, statistics, layer):
            return torch.zeros(layer.channels)

    Swing.__module__ = "acme_lens"
    monkeypatch.setattr(Swing, "name", "acme.swing")
    monkeypatch.setattr(LENSES, "_classes", {**LENSES._classes, "acme.swing": Swing})
    line = next(line for line in call("lenses").output.splitlines() if "acme.swing" in line)
    assert "acme_lens" in line and "Largest minus smallest value" in line


def test_describe_tells_all_a_user_must_know_and_takes_other_names():
    text = call("describe", "rq", "--layer", "512x784").output
    assert "\\" not in text
    for part in (
        "rayleigh_quotient",
        "aliases  RQ, rq",
        "Variance of a unit",
        "wᵀ S w = Var(y)",
        "y      what the layer returns",
        "where  S is the covariance",
        "reads    output (Moments)",
        "needs    nothing but inputs",
        "state    C + D numbers a layer",
        "28.2 KiB for a layer of 512x784",
        "cost     C + D multiplications a row",
        "cases    A unit without weights scores 0.",
        "relative        True",
        "says what an input is",
    ):
        assert part in text, part


def test_describe_as_json_counts_bytes():
    told = json.loads(call("describe", "average_redundancy", "--layer", "8x4", "--json").output)
    # Half of an 8 x 8 matrix would do; what is kept is all of it, with means and squares.
    assert told["state_bytes"] == 8 * (8 * 8 + 8) and told["needs"] == []


def test_describe_names_the_layers_of_a_model_or_says_why_it_has_none(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    monkeypatch.setattr("nodelens.model.load_model", lambda name: ModelWrapper(model))
    told = json.loads(call("describe", "rq", "--model", "tiny", "--json").output)
    assert (told["layers"], told["refused"]) == (["0", "2"], None)
    assert call("describe", "rq", "--model", "tiny").output.endswith("tiny\n0\n2\n")
    assert (
        "tiny\ncannot score it: no BatchNorm"
        in call("describe", "bn_scale", "--model", "tiny").output
    )


def test_check_passes_a_lens_that_keeps_its_promises():
    done = call("check", "weight_magnitude")
    assert done.exit_code == 0, done.output
    assert "passed" in done.output and "failed" not in done.output


def test_check_names_the_promise_that_a_lens_breaks(monkeypatch):
    class Broken(MetricLens):
        """Random numbers, `(channels,)`."""

        def reads(self, layer):
            return {}

        def score(self, statistics, layer):
            return torch.rand(layer.channels)

    monkeypatch.setattr(LENSES, "_classes", {**LENSES._classes, "test.broken": Broken})
    monkeypatch.setattr(Broken, "name", "test.broken")
    done = call("check", "test.broken")
    assert done.exit_code == 1
    assert "failed: " in done.output
    done = call("check", "test.broken", "--json")
    (told,) = json.loads(done.stdout)
    assert done.exit_code == 1 and told["lens"] == "test.broken" and told["failed"]


def test_every_command_explains_itself_and_tells_scripts_in_json():
    listed = call("--help").output
    for command in COMMANDS:
        name = command.__name__.replace("_", "-")
        done = call(name, "--help")
        assert done.exit_code == 0 and f"  {name} " in listed
        assert str(command.__doc__).partition(".")[0] in " ".join(done.stdout.split())
        # What `schema` prints is JSON itself.
        assert "--json" in done.stdout or name == "schema"


@pytest.mark.slow
@pytest.mark.parametrize(
    "front",
    [["-m", "nodelens", "run"], ["scripts/run_experiment.py", "--config"]],
    ids=["module", "script"],
)
def test_the_module_and_the_script_are_the_command(config, pytestconfig, front):
    command = [sys.executable, *front, str(config), "training.epoch=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert done.returncode == 2
    assert "did you mean 'epochs'?" in done.stderr


def test_plan_says_what_measuring_takes_and_trains_nothing(config, tmp_path):
    done = call("plan", str(config), "lenses=[average_redundancy,mutual_information_gaussian]")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("composite_lens: 1 pass, 4 reads of 2 layers, ")
    assert "for one of" not in done.output, "the data set says how many classes there are"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_plan_as_json_keeps_to_a_budget(config):
    lenses = "lenses=[activation_outlier_index]"
    whole = json.loads(call("plan", str(config), lenses, "--json").output)
    budget = str(whole["peak"]["cpu"] - 1)
    split = json.loads(
        call("plan", str(config), lenses, "--json", "--memory-budget", budget).output
    )
    assert [len(whole["passes"]), len(split["passes"])] == [1, 2]
    assert split["memory_budget"] == int(budget) and split["peak"]["cpu"] < int(budget)


def test_plan_names_the_line_of_a_budget_that_no_plan_keeps_to(config):
    config.write_text(CONFIG + "calibration: {memory_budget: 64 B}\n")
    done = call("plan", str(config))
    assert done.exit_code == 2
    assert f"{config}, line 7: " in done.stderr and "takes at least" in done.stderr
    config.write_text(CONFIG + "calibration: {memory_budget: plenty}\n")
    assert "'plenty' is no amount of memory" in call("plan", str(config)).stderr


def test_set_is_an_override_and_findings_come_as_json(config, tmp_path):
    folder = str(tmp_path / "out")
    done = call("run", str(config), "--set", "training.epochs=2", "--output-dir", folder, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["headline"].startswith("14 channels")
    assert "epochs: 2" in (tmp_path / "out/experiment_config.yaml").read_text()
    done = call("run", str(config), "--set", "training.epoch=2")
    assert done.exit_code == 2 and "override: training.epoch: unknown key" in done.stderr
    again = ["run", str(config), "training.epochs=2", "--output-dir", folder]
    assert "Stage report: " in call(*again, "--only", "report").stdout
    told = json.loads(call(*again, "--only", "report", "--json").stdout)
    assert told == {"directory": folder, "stage": "report"}
    assert "Into the report with: nodelens report " in call(*again, "--only", "figures").stdout
    assert "no stage 'reprt' (did you mean" in call(*again, "--only", "reprt").stderr


def test_schema_is_printed_or_written(tmp_path):
    printed = call("schema").stdout
    assert "training" in json.loads(printed)["properties"]
    assert call("schema", "-o", str(tmp_path / "schema.json")).stdout == ""
    assert (tmp_path / "schema.json").read_text() == printed


def test_import_config_writes_ours_and_lists_the_rest(tmp_path):
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(
        "experiment: {name: old, type: alignment_analysis}\nmodel: {name: mlp}\n"
        "dataset: {name: digits}\nmetrics:\n  magnitude: {enabled: true}\npruning: {ratios: [0.5]}"
    )
    done = call("import-config", str(theirs), "-o", str(ours))
    assert done.exit_code == 0, done.output
    assert (
        "5 keys taken over, 1 left out" in done.stderr and "line 6: pruning.ratios" in done.stderr
    )
    assert "Passes" in call("plan", str(ours)).output or call("plan", str(ours)).exit_code == 0


def test_the_shell_completes_commands(monkeypatch):
    monkeypatch.setenv("COMP_WORDS", "nodelens res")
    monkeypatch.setenv("COMP_CWORD", "1")
    done = CliRunner().invoke(
        app, [], prog_name="nodelens", env={"_NODELENS_COMPLETE": "complete_bash"}
    )
    assert done.stdout.split() == ["resume"]
    assert "--install-completion" in call("--help").stdout


@pytest.mark.slow
def test_the_scripts_run_an_experiment_and_analyse_it(config, pytestconfig, tmp_path):
    folder, scripts = tmp_path / "outputs/my_run", pytestconfig.rootpath / "scripts"
    config.write_text(CONFIG.replace("nowhere", str(folder)))
    extra = ["--results-dir", folder, "--output-dir", folder / "analysis_extra"]
    for words in (["run_experiment.py", "--config", config], ["run_analysis.py", *extra]):
        command = [sys.executable, scripts / words[0], *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for name in ("experiment_config.yaml", "logs", "results", "figures", "analysis"):
        assert (folder / name).exists() and (folder / "analysis_extra" / name).exists()
    wrong = [sys.executable, scripts / "run_analysis.py", "--results-dir", tmp_path, *extra[2:]]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "is not the directory of a run" in done.stderr
