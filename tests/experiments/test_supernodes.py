"""The supernode stage of a language model's experiment, against plain sums."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from nodelens.analysis.causal import damage
from nodelens.analysis.supernodes import write_halo
from nodelens.configs.config_loader import parse_config
from nodelens.errors import ConfigError
from nodelens.experiments import Run, RunResults, experiment_for
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.language import load_language_model, load_text_splits
from nodelens.experiments.stages.supernodes import SupernodeStage
from nodelens.pruning import get_pruning_strategy
from tests.experiments.tiny_language_model import write_language_model

TEXT = """\
experiment: {name: words, type: llm_supernode}
model: {name: PUT}
dataset: {name: pydoc, tokens: 960, block_size: 32, batch_size: 4, test_fraction: 0.2}
calibration: {rows: 8}
lenses: [scar_loss_proxy, scar_activation_power]
supernode:
  {core: 0.2, halo: 0.25, dimensions: 0.3, floor: 0.4, redundancy: true, causal: {halo_draws: 3}}
output: {directory: PUT}
"""


def configure(model: Path, folder: Path, *overrides: str):
    given = [("model.name", str(model)), ("output.directory", str(folder)), *overrides]
    return parse_config(TEXT, given, source="words.yaml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "words"
    experiment_for(configure(model, folder)).run(progress=False)
    return folder


@pytest.mark.slow
def test_the_core_holds_what_its_scores_sum_to(finished):
    scores = RunResults(finished).scores.scores("scar_loss_proxy")
    units = pd.read_csv(finished / "results/supernode_units.csv")
    layers = pd.read_csv(finished / "results/supernodes.csv").set_index("layer")
    assert list(layers.index) == list(scores) and len(scores) == 2
    for layer, found in scores.items():
        core = units[(units["layer"] == layer) & (units["role"] == "core")]["channel"]
        assert set(core) == set(np.argsort(-found.numpy())[:2])
        assert (units[units["layer"] == layer]["role"] == "halo").sum() == 2
        assert layers.loc[layer, "top 10%"] == pytest.approx(float(found.max() / found.sum()))


@pytest.mark.slow
def test_protected_scores_are_those_of_the_strategies(finished, model):
    config = configure(model, finished)
    network, splits = load_language_model(config), load_text_splits(config)
    batches = list(splits.batches(splits.calibration))
    units = pd.read_csv(finished / "results/supernode_units.csv")
    for name in ("scar_prot", "scar_conn"):
        options = {"write_fraction": 0.3} if name == "scar_conn" else {}
        strategy = get_pruning_strategy(name, core=0.2, floor=0.4, **options)
        wanted = strategy.scores(network, batches)
        for layer, values in wanted.items():
            found = units.loc[units["layer"] == layer, name].to_numpy()
            np.testing.assert_allclose(found, values.numpy(), rtol=1e-6)


@pytest.mark.slow
def test_connections_and_overlaps_are_those_of_weights_and_scores(finished, model):
    network, results = load_language_model(configure(model, finished)), RunResults(finished)
    units = pd.read_csv(finished / "results/supernode_units.csv")
    table = pd.read_csv(finished / "results/supernode_overlap.csv")
    for layer, rows in units.groupby("layer"):
        core = rows.index[rows["role"] == "core"] - rows.index[0]
        weight = network.get_submodule(layer).weight
        halo, expected = write_halo(weight, list(core), 0.25, dimensions=0.3)
        np.testing.assert_allclose(rows["write_connection"], expected.numpy(), rtol=1e-9)
        assert set(rows["channel"][rows["role"] == "halo"]) == set(halo.tolist())
        mine, power = (
            results.scores.scores(name)[layer]
            for name in ("scar_loss_proxy", "scar_activation_power")
        )
        (row,) = table[(table["layer"] == layer)].itertuples()
        assert row.score == "scar_activation_power"
        assert row.spearman == pytest.approx(spearmanr(mine, power).statistic)


def loss_without(network, blocks, gone) -> float:
    """The mean loss of every next token, the weights that read these units set to zero."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for layer, rows in gone.groupby("layer"):
            network.get_submodule(layer).weight[:, rows["channel"].to_list()] = 0
        logits = network(input_ids=blocks).logits[:, :-1].flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(logits, blocks[:, 1:].flatten()))


@pytest.mark.slow
def test_what_supernodes_and_halos_cost_is_that_of_a_plain_network_without_them(finished, model):
    config = configure(model, finished)
    network = load_language_model(config)
    blocks = load_text_splits(config).validation.tensors[0]
    units = pd.read_csv(finished / "results/supernode_units.csv")
    core, halo = (units[units["role"] == role] for role in ("core", "halo"))
    whole = loss_without(network, blocks, units[:0])
    doses = pd.read_csv(finished / "results/supernode_doses.csv").groupby("fraction")["loss_change"]
    every = loss_without(network, blocks, core) - whole
    assert doses.get_group(1.0).tolist() == pytest.approx([every] * 5, rel=1e-3, abs=5e-7)
    assert doses.get_group(0.0).nunique() > 1, "units are drawn"
    row = pd.read_csv(finished / "results/halo_ablation.csv").set_index("set").loc["halo"]
    alone, both = (
        loss_without(network, blocks, gone) - whole for gone in (halo, pd.concat([core, halo]))
    )
    assert row["loss_change"] == pytest.approx(alone, rel=1e-3, abs=5e-7)
    assert row["with_core"] == pytest.approx(both, rel=1e-3, abs=5e-7)
    section = json.loads((finished / "analysis/sections/causal.json").read_text())
    assert f"rises by {doses.get_group(1.0).iloc[0]:.3g} [" in section["sentence"]
    assert not list(finished.glob("checkpoints/causal-*"))


@pytest.mark.slow
def test_interrupted_checks_go_on_behind_what_was_measured(finished, model, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    (folder / "results/supernode_doses.csv").unlink()
    cost, measured = damage._cost, []

    def measuring(wrapper, parts, which, options):
        if len(measured) == 7:
            measured.append("stopped")
            raise KeyboardInterrupt
        measured.append(which)
        return cost(wrapper, parts, which, options)

    monkeypatch.setattr(damage, "_cost", measuring)
    with pytest.raises(KeyboardInterrupt):
        experiment_for(configure(model, folder)).run(progress=False, resume=True)
    experiment_for(configure(model, folder)).run(progress=False, resume=True)
    assert not {*measured[1:7]} & {*measured[8:]}, "the intact model alone is measured again"
    for name in ("causal", "supernode_doses", "halo_ablation"):
        table = f"results/{name}.csv"
        assert (folder / table).read_bytes() == (finished / table).read_bytes()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("supernode.causal.rows=99", r"supernode\.causal\.rows: 99 rows, but the validation part"),
        ("supernode.causal.draw=3", r"supernode\.causal\.draw: unknown key .*'draws'"),
    ],
)
def test_checks_that_cannot_be_are_refused_before_work(model, tmp_path, override, said):
    with pytest.raises(ConfigError, match=said):
        experiment_for(configure(model, tmp_path / "run", override)).run(progress=False)
    assert not (tmp_path / "run").exists()


def test_every_option_of_the_section_is_among_the_settings(model, tmp_path):
    def settings(*overrides):
        config = configure(model, tmp_path / "run", *overrides)
        return SupernodeStage().settings(Run(config, RunFolder(tmp_path / "run")))

    for option in ("core", "halo", "dimensions", "floor"):
        assert settings((f"supernode.{option}", 0.6)) != settings()
    assert settings("supernode.causal.draws=9") == settings(), "scores stay, checks are done again"


@pytest.mark.slow
def test_the_report_is_told(finished):
    section = json.loads((finished / "analysis/sections/supernodes.json").read_text())
    assert "of 2 blocks" in section["sentence"]
    for figure in section["figures"]:
        assert (finished / f"{figure['file']}.svg").stat().st_size > 1000


@pytest.mark.slow
def test_figures_that_are_gone_are_drawn_again_and_nothing_is_computed(
    finished, model, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    shown = RunResults(finished).provenance["stages"]["supernodes"]["shown"]
    assert len([name for name in shown if name.endswith(".svg")]) >= 2
    for name in shown:
        (folder / name).unlink()
    monkeypatch.setattr(SupernodeStage, "run", lambda self, run: 1 / 0)
    experiment_for(configure(model, folder)).run(progress=False, resume=True)
    for name in shown:
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_score_that_no_lens_gives_is_refused_before_work(model, tmp_path):
    config = configure(model, tmp_path / "run", ("supernode.score", "scar_taylor"))
    with pytest.raises(ConfigError, match=r"supernode\.score: 'scar_taylor' is not a score of"):
        experiment_for(config).run(progress=False)
    assert not (tmp_path / "run/results").exists()


def test_the_section_is_refused_for_other_experiments():
    wrong = TEXT.replace("llm_supernode", "general_alignment").replace(
        "tokens: 960, block_size: 32, ", ""
    )
    with pytest.raises(ConfigError, match="supernode: not read by 'general_alignment'"):
        parse_config(wrong, [], source="words.yaml")
