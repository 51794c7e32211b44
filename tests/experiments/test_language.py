"""The experiment on a language model: its text, its perplexity, its scores, and what is refused."""

from __future__ import annotations

import json
import sys
from html import unescape
from math import exp
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from nodelens import Lens
from nodelens.configs import Config, load_config
from nodelens.configs.config_loader import parse_config
from nodelens.errors import ConfigError
from nodelens.experiments import LLMAlignmentExperiment, RunResults, experiment_for
from nodelens.experiments.artifacts import FIGURES
from nodelens.experiments.language import load_language_model, load_text_splits
from nodelens.experiments.planning import plan_of
from nodelens.experiments.stages.figures import FigureStage
from tests.experiments.tiny_language_model import write_language_model

# One worker, so that what is made for all tests is made once.
pytestmark = pytest.mark.xdist_group("language")

TEXT = """\
experiment: {name: words, type: llm}
model: {name: PUT}
dataset: {name: pydoc, tokens: 960, block_size: 32, batch_size: 4, test_fraction: 0.2}
calibration: {rows: 8}
lenses:
  - scar_taylor
  - {name: rayleigh_quotient, layers: ["*.down_proj"]}
output: {directory: PUT}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("models") / "tiny-llama")


def configure(model: Path, folder: Path, *overrides: str) -> Config:
    given = [("model.name", str(model)), ("output.directory", str(folder)), *overrides]
    return parse_config(TEXT, given, source="words.yaml")


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "words"
    experiment = experiment_for(configure(model, folder))
    assert type(experiment) is LLMAlignmentExperiment
    experiment.run(progress=False)
    return folder


def test_scores_are_those_of_a_plain_loop_over_the_training_blocks(finished, model):
    config = configure(model, finished)
    network, splits = load_language_model(config), load_text_splits(config)
    ids = splits.train.tensors[0][:8]
    result = Lens.from_name("scar_taylor").run(network, [{"input_ids": ids}], progress=False)
    found = RunResults(finished).scores
    assert found.rows["model.layers.1.mlp.down_proj"] == 8 * 32
    for layer in result:
        torch.testing.assert_close(
            found[layer]["scar_taylor"], result[layer]["scar_taylor"], rtol=1e-4, atol=0
        )


def test_perplexity_is_that_of_the_next_tokens_of_the_test_blocks(finished, model):
    config = configure(model, finished)
    network, splits = load_language_model(config), load_text_splits(config)
    (ids,) = splits.test.tensors
    with torch.no_grad():
        logits = network(ids).logits[:, :-1]
    loss = float(cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))
    told = RunResults(finished).network
    assert told["test_perplexity"] == pytest.approx(exp(loss), rel=1e-5)
    assert told["test_tokens"] == len(ids) * 31
    protocol = (
        f"split 'test' given as blocks; blocks of 32 tokens, stride 32; {len(ids) * 31} tokens "
        "predicted; float32; nothing silenced"
    )
    report = unescape((finished / "report.html").read_text())
    assert told["test_protocol"] == protocol
    assert "perplexity of the whole network" in report and protocol in report


def test_the_parts_of_a_text_are_stretches_of_it_that_share_no_block(finished, model):
    splits = load_text_splits(configure(model, finished))
    assert splits.rows == {"train": 20, "validation": 4, "test": 6, "calibration": 8}
    whole = torch.cat([p.tensors[0] for p in (splits.train, splits.validation, splits.test)])
    assert whole.shape == (30, 32) and whole.unique(dim=0).shape == whole.shape


def test_a_resumed_run_keeps_its_stages_until_the_weights_change(model, tmp_path, monkeypatch):

    def undrawn(self, run) -> str:
        run.folder.write_json(FIGURES, [])
        return "no figures"

    monkeypatch.setattr(FigureStage, "run", undrawn)
    own = write_language_model(tmp_path / "model")
    config = configure(own, tmp_path / "run")
    LLMAlignmentExperiment(config).run(progress=False)

    def began() -> list[str]:
        LLMAlignmentExperiment(config).run(progress=False, resume=True)
        log = (tmp_path / "run/logs/run.log").read_text().rpartition("data: kept")[2]
        return [stage for stage in ("network", "measure") if f"{stage}: started" in log]

    assert began() == []
    network = load_language_model(config)
    with torch.no_grad():
        network.lm_head.weight[0, 0] += 1  # type: ignore[union-attr, operator, index]
    network.save_pretrained(own)  # type: ignore[operator]
    assert began() == ["network", "measure"]


def test_nothing_told_names_a_folder_of_this_machine(finished, model):
    for name in ("provenance.json", "logs/run.log", "report.html", "results/network.json"):
        text = (finished / name).read_text()
        assert str(model.parent) not in text, name
    assert json.loads((finished / "results/network.json").read_text())["name"] == "tiny-llama"


def test_a_text_file_is_read_too(model, tmp_path):
    (tmp_path / "mine.txt").write_text("To be or not to be. " * 60)
    config = configure(model, tmp_path / "run", f"dataset.name={tmp_path / 'mine.txt'}")
    splits = load_text_splits(config)
    assert (splits.name, sum(splits.rows[p] for p in ("train", "validation", "test"))) == (
        "mine.txt",
        30,
    )


def test_a_plan_is_made_without_reading_a_token(model, tmp_path):
    assert plan_of(configure(model, tmp_path)).to_json()["passes"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.name=tiny-lama", "model.name: there is no model 'tiny-lama' on this machine"),
        ("dataset.name=pydok", r"^override: dataset.name: no text 'pydok' .*'pydoc'"),
        ("dataset.tokens=64", "dataset.tokens: 2 blocks, expected at least three"),
        ("dataset.tokens=16", "dataset.tokens: block_size is 32 and count 0"),
        ("calibration.rows=21", "calibration.rows: 21 blocks, but the training part of 'pydoc'"),
        ("evaluation={tasks: [piqa]}", "evaluation.tasks: the tasks .* need the package lm-eval"),
        ("training.epochs=2", "training: not read by 'llm_alignment' experiments, expected"),
        ("sensitivity={scores: [scar_taylor]}", "sensitivity: not read by 'llm_alignment'"),
        ("dataset.folder=x", "dataset.folder: not read by 'llm_alignment' experiments"),
        ("lenses=[delta_alignment]", "lenses.0: .*compares with the weights before training"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(
    model, tmp_path, monkeypatch, override, said
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=said) as caught:
        experiment_for(configure(model, tmp_path / "run", override)).run(progress=False)
    assert str(caught.value).startswith(("override", "words.yaml"))
    assert not (tmp_path / "run").exists()


def test_only_the_command_line_may_trust_remote_code(model, tmp_path):
    text = TEXT.replace("{name: PUT}", "{name: PUT, options: {trust_remote_code: true}}")
    config = parse_config(text, [("model.name", str(model))], source="words.yaml")
    with pytest.raises(
        ConfigError, match=r"line 2: model.options.trust_remote_code: a file cannot"
    ):
        load_language_model(config)
    given = [("model.name", str(model)), "model.options.trust_remote_code=true"]
    assert load_language_model(parse_config(TEXT, given)) is not None


@pytest.mark.slow
def test_the_smollm2_example_runs_on_a_stand_in(pytestconfig, tmp_path):
    stand_in = write_language_model(tmp_path / "model", layers=16)
    example = pytestconfig.rootpath / "configs/examples/smollm2_fast.yaml"
    given = [("model.name", str(stand_in)), ("output.directory", str(tmp_path / "run"))]
    short = ["dataset.block_size=64", "dataset.tokens=3200"]
    results = experiment_for(load_config(example, [*given, *short])).run(progress=False)
    assert len(results.scores) == 4 and len(results.scores.score_names) == 6
    assert results.report.exists()


@pytest.mark.models
@pytest.mark.slow
def test_the_smollm2_example_runs(pytestconfig, tmp_path):
    example = pytestconfig.rootpath / "configs/examples/smollm2_fast.yaml"
    results = experiment_for(
        load_config(example, [("output.directory", str(tmp_path / "run"))])
    ).run(progress=False)
    assert 5 < results.network["test_perplexity"] < 40
    assert len(results.scores) == 4
