"""The supernode stage of a language model's experiment, against plain sums."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nodelens.configs.config_loader import parse_config
from nodelens.errors import ConfigError
from nodelens.experiments import RunResults, experiment_for
from nodelens.experiments.language import load_language_model, load_text_splits
from nodelens.pruning import get_pruning_strategy
from tests.experiments.tiny_language_model import write_language_model

TEXT = """\
experiment: {name: words, type: llm_supernode}
model: {name: PUT}
dataset: {name: pydoc, tokens: 960, block_size: 32, batch_size: 4, test_fraction: 0.2}
calibration: {rows: 8}
lenses: [scar_loss_proxy, scar_activation_power]
supernode: {core: 0.2, halo: 0.25, redundancy: true}
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
        wanted = get_pruning_strategy(name, core=0.2).scores(network, batches)
        for layer, values in wanted.items():
            found = units.loc[units["layer"] == layer, name].to_numpy()
            np.testing.assert_allclose(found, values.numpy(), rtol=1e-6)


@pytest.mark.slow
def test_the_report_is_told(finished):
    section = json.loads((finished / "analysis/sections/supernodes.json").read_text())
    assert "of 2 blocks" in section["sentence"]
    for figure in section["figures"]:
        assert (finished / f"{figure['file']}.svg").stat().st_size > 1000


def test_a_score_that_no_lens_gives_is_refused_before_work(model, tmp_path):
    config = configure(model, tmp_path / "run", ("supernode.score", "scar_taylor"))
    with pytest.raises(ConfigError, match=r"supernode\.score.*scar_taylor"):
        experiment_for(config).run(progress=False)
    assert not (tmp_path / "run/results").exists()


def test_the_section_is_refused_for_other_experiments():
    wrong = TEXT.replace("llm_supernode", "general_alignment").replace(
        "tokens: 960, block_size: 32, ", ""
    )
    with pytest.raises(ConfigError, match="supernode: not read by 'general_alignment'"):
        parse_config(wrong, [], source="words.yaml")
