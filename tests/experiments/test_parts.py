"""The pieces that runs are made of."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch.utils.data import TensorDataset

import nodelens
from nodelens.configs import TrainingConfig
from nodelens.errors import (
    InvalidValueError,
    NonFiniteError,
    OutputError,
    UnknownNameError,
    UnknownOptionError,
)
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.provenance import fingerprint, git_state, package_code, source_code
from nodelens.experiments.stage import Stage
from nodelens.experiments.stages.analysis import layer_ranks, rank_correlation
from nodelens.experiments.stages.sensitivity import silenced
from nodelens.experiments.training import accuracy, train
from nodelens.lens import Lens
from nodelens.model.architectures import architecture_names, build_model


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "results/../../out", "."])
def test_no_path_leaves_the_folder(tmp_path, name):
    with pytest.raises(OutputError, match="is not inside the output folder"):
        RunFolder(tmp_path / "run").path(name)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    (tmp_path / "run/results/link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="is not inside"):
        folder.write_text("results/link/out.txt", "x")
    assert not (tmp_path / "out.txt").exists()


def test_tables_come_back_as_they_were(tmp_path):
    folder = RunFolder(tmp_path)
    table = pd.DataFrame({"layer": ["0", "NA", "a,b"], "channel": [0, 1, 2], "x": [0.1, None, 3]})
    folder.write_table("t.csv", table)
    assert folder.read_table("t.csv").equals(table)


def test_numbers_that_json_cannot_hold_become_null(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("x.json", {"a": [float("nan"), 1.5], 3: float("inf")})
    assert folder.read_json("x.json") == {"a": [None, 1.5], "3": None}


def test_a_broken_file_of_a_run_is_told(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(OutputError, match=r"cannot read 'x.json' of the run"):
        RunFolder(tmp_path).read_json("x.json")


def test_a_fingerprint_follows_values_shape_and_type():
    x = torch.arange(6)
    digests = {fingerprint([t]) for t in (x, x.view(2, 3), x.float(), x + 1)}
    assert len(digests) == 4
    assert fingerprint([x]) == fingerprint([x.clone()])


BUILT_IN = [s for s in Stage.__subclasses__() if s.__module__.startswith("nodelens.")]


@pytest.mark.parametrize("stage", BUILT_IN, ids=lambda stage: stage.name)
def test_the_sources_that_a_stage_depends_on_exist(stage):
    package = Path(nodelens.__file__).parent
    assert stage.code
    for name in stage.code:
        assert (package / name).exists(), name


def test_source_code_is_told_apart_by_what_it_covers():
    assert source_code("errors.py") != source_code("configs")
    assert source_code("configs") == source_code("configs")


def test_the_code_of_a_plugin_is_told_apart_from_another_s():
    lenses = {Lens.named("weight_magnitude"), Lens.named("rayleigh_quotient")}
    assert package_code(lenses) == package_code([Lens.named("weight_magnitude")])
    assert package_code(lenses) != package_code([Lens])


def test_the_git_state_has_no_path():
    state = git_state()
    assert state is None or set(state) == {"commit", "changed"}


@pytest.mark.parametrize("name", architecture_names())
def test_a_seed_decides_the_weights_and_the_global_generator_is_left_alone(name):
    before = torch.get_rng_state()
    one, same, other = (build_model(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", architecture_names())
def test_networks_give_a_logit_a_class(name):
    model = build_model(name, shape=(3, 6, 10), classes=4)
    assert model(torch.zeros(2, 3, 6, 10)).shape == (2, 4)


def test_the_small_cnn_has_the_layers_asked_for():
    model = build_model("small_cnn", channels=[4, 5, 6], hidden=[7])
    widths = {n: len(m.weight) for n, m in model.named_children() if hasattr(m, "weight")}
    assert widths == {"conv1": 4, "conv2": 5, "conv3": 6, "fc1": 7, "fc2": 10}


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("small_cn", {}, UnknownNameError, r"'small_cn' \(did you mean 'small_cnn'\?\); there are"),
        ("mlp", {"hiden": [3]}, UnknownOptionError, r"'hiden' \(did you mean 'hidden'\?\); it has"),
        ("mlp", {"hidden": 3}, InvalidValueError, "hidden is 3, expected a list of widths"),
        ("mlp", {"hidden": [2, -1]}, InvalidValueError, r"hidden is \[2, -1\]"),
        ("small_cnn", {"shape": (1, 1, 8)}, InvalidValueError, r"at least 2 x 2, not \(1, 1, 8\)"),
        ("small_cnn", {"shape": (64,)}, InvalidValueError, r"not \(64,\)"),
    ],
)
def test_what_cannot_be_built_is_told(name, options, error, said):
    with pytest.raises(error, match=said):
        build_model(name, **options)


def blobs(rows: int = 60) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(rows) % 2
    inputs = torch.randn(rows, 3, generator=generator) + 8.0 * classes[:, None] - 4.0
    return TensorDataset(inputs, classes)


def test_training_learns_and_repeats_itself():
    rows = blobs()
    weights = []
    for _ in range(2):
        model = build_model("mlp", shape=(3,), classes=2, hidden=[4])
        history = train(model, rows, rows, TrainingConfig(epochs=30, batch_size=16), seed=3)
        weights.append(model.state_dict())
    assert history[-1].loss < history[0].loss
    assert accuracy(model, rows) == history[-1].validation_accuracy >= 0.95
    assert not model.training
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_training_that_diverges_is_told():
    rows = blobs()
    rows.tensors[0][0] = float("inf")
    model = build_model("mlp", shape=(3,), classes=2, hidden=[4])
    with pytest.raises(NonFiniteError, match="in epoch 1; expected a finite number"):
        train(model, rows, rows, TrainingConfig(epochs=2), seed=0)


def test_amounts_are_rounded_to_whole_channels():
    order = {"a": torch.arange(5), "b": torch.arange(16)}
    counts = [
        tuple(len(c) for c in silenced(order, amount).values()) for amount in (0.05, 0.1, 0.5, 1)
    ]
    assert counts == [(0, 1), (1, 2), (3, 8), (5, 16)]


def channels() -> pd.DataFrame:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 30, generator=generator)
    layer = ["a"] * 10 + ["b"] * 20
    shift = [0.0] * 10 + [100.0] * 20
    return pd.DataFrame(
        {
            "layer": layer,
            "channel": range(30),
            "x": x.numpy() + shift,
            "y": y.numpy() + shift,
            "still": 1.0,
        }
    )


def test_rank_correlation_is_within_layers_and_weighted_by_their_width():
    table = channels()
    found = rank_correlation(table)
    parts = [table[table["layer"] == name] for name in "ab"]
    expected = sum(len(p) * spearmanr(p["x"], p["y"]).statistic for p in parts) / 30
    assert found.loc["x", "y"] == pytest.approx(expected)
    assert abs(found.loc["x", "y"]) < 0.5 < spearmanr(table["x"], table["y"]).statistic
    assert found.loc["x", "x"] == 1
    assert found["still"].isna().all()


def test_layer_ranks_run_from_nought_to_one():
    table = channels()
    found = layer_ranks(table)
    ranks = (rankdata(table["x"]) - 1) / 29
    assert found.loc["x", "a"] == pytest.approx(ranks[:10].mean())
    assert found.loc["x", "b"] == pytest.approx(ranks[10:].mean())
    assert found.loc["still"].isna().all()
    assert list(found.columns) == ["a", "b"]
