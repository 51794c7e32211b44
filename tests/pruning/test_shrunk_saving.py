"""A shrunk model on disk: rebuilt from its original's architecture, or refused with a reason."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from nodelens.errors import IncompatibleModelError, InvalidValueError, OutputError
from nodelens.pruning import load_shrunk, save_shrunk, shrink
from nodelens.pruning.saving import MANIFEST, WEIGHTS
from tests.pruning.shrinkable import (
    Concatenated,
    ResNet,
    assert_untouched,
    grouped,
    images,
    keeping,
    mlp,
    separable,
    snapshot,
    trained,
)

MASKS = {
    ResNet: {"stem": keeping(6, [2]), "block2.conv1": keeping(8, [0, 1])},
    separable: {"0": keeping(6, [1, 4])},
    Concatenated: {"left": keeping(4, [3]), "right": keeping(6, [0, 2])},
    grouped: {"0": keeping(8, [0, 1, 2, 3]), "2": keeping(6, [0, 1, 2])},
}


@pytest.mark.parametrize("make", MASKS)
def test_a_model_comes_back_from_a_fresh_one(make, tmp_path):
    found = shrink(trained(make(), images()), MASKS[make], images(), rounds=0)
    folder = save_shrunk(found, tmp_path / "small")
    fresh = make()
    before = snapshot(fresh)
    again = load_shrunk(folder, fresh)
    assert_untouched(fresh, before)
    with torch.no_grad():
        assert torch.equal(again(images()), found.model(images()))


def test_the_manifest_says_what_is_left(tmp_path):
    found = shrink(mlp(), {"0": keeping(10, [0, 9])}, torch.randn(3, 4), rounds=0)
    manifest = json.loads((save_shrunk(found, tmp_path) / MANIFEST).read_text())
    assert manifest["kept"] == {"0": [1, 2, 3, 4, 5, 6, 7, 8]}
    assert manifest["kept_inputs"] == {"2": [1, 2, 3, 4, 5, 6, 7, 8]}
    assert manifest["resized"] == {"0": {"out_features": [10, 8]}, "2": {"in_features": [10, 8]}}


@pytest.fixture
def saved(tmp_path):
    return save_shrunk(
        shrink(mlp(), {"0": keeping(10, [0])}, torch.zeros(3, 4), rounds=0), tmp_path
    )


def test_another_architecture_is_refused(saved):
    with pytest.raises(IncompatibleModelError, match="was a Sequential, and got a ResNet"):
        load_shrunk(saved, ResNet())
    with pytest.raises(IncompatibleModelError, match="'0': out_features is 12, and was 10"):
        load_shrunk(saved, nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)))
    with pytest.raises(IncompatibleModelError, match="differ in"):
        load_shrunk(saved, nn.Sequential(*mlp(), nn.Linear(3, 3)))
    with pytest.raises(InvalidValueError, match="needs a Sequential or its configuration"):
        load_shrunk(saved, "mlp")


def test_a_folder_without_a_model_and_a_damaged_one_are_told(saved, tmp_path):
    with pytest.raises(OutputError, match="no shrunk model"):
        load_shrunk(tmp_path / "nowhere", mlp())
    (saved / MANIFEST).write_text('{"format": 2}')
    with pytest.raises(OutputError, match="has format 2, expected 1"):
        load_shrunk(saved, mlp())
    (saved / MANIFEST).write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        load_shrunk(saved, mlp())


def test_cut_off_weights_are_told(saved):
    path = saved / WEIGHTS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OutputError):
        load_shrunk(saved, mlp())


def test_a_manifest_may_not_set_what_is_no_width(saved):
    manifest = json.loads((saved / MANIFEST).read_text())
    manifest["resized"]["0"]["forward"] = [1, 2]
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IncompatibleModelError, match="forward"):
        load_shrunk(saved, mlp())
