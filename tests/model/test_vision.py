"""Networks for images by name: what an import path may do, what is known, what is refused."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from nodelens.errors import InvalidValueError, OutputError, UnknownNameError
from nodelens.model.vision import imported, vision_model

SHAPE = {"shape": (3, 8, 8), "classes": 4}


def network(channels: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.Flatten(), nn.Linear(channels * 36, 4))


@pytest.fixture
def mine(monkeypatch) -> ModuleType:
    module = ModuleType("my_networks")
    module.network, module.made, module.size = network, network(2), 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_networks", module)
    return module


def test_an_import_path_is_called_with_the_options_and_seeded(mine):
    before = torch.random.get_rng_state()
    first, again, other = (
        vision_model("my_networks:network", **SHAPE, seed=seed, channels=5) for seed in (1, 1, 2)
    )
    assert first[0].out_channels == 5
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_that_is_there_is_copied(mine):
    found = vision_model("my_networks:made", **SHAPE)
    assert torch.equal(found[0].weight, mine.made[0].weight)
    with torch.no_grad():
        found[0].weight.zero_()
    assert mine.made[0].weight.any()


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("my_networks:size", InvalidValueError, "gives a int, expected a network"),
        ("my_networks:sizes", UnknownNameError, "nothing can be imported from"),
        ("my_netwrks:size", UnknownNameError, "nothing can be imported from"),
        ("my_networks:__import__('os')", UnknownNameError, "is no import path"),
        ("my networks:size", UnknownNameError, "is no import path"),
        ("smal_cnn", UnknownNameError, "did you mean 'small_cnn'"),
    ],
)
def test_what_leads_to_no_network_is_refused(mine, name, error, said):
    with pytest.raises(error, match=said):
        vision_model(name, **SHAPE)


def test_only_a_plain_name_is_looked_up(mine):
    with pytest.raises(UnknownNameError):
        imported("os:system('true')")


def test_torchvision_and_timm_are_asked_where_they_are_installed(monkeypatch):
    models = ModuleType("torchvision.models")
    models.list_models = lambda: ["resnet18"]  # type: ignore[attr-defined]
    models.resnet18 = lambda num_classes: nn.Linear(2, num_classes)  # type: ignore[attr-defined]
    torchvision = ModuleType("torchvision")
    torchvision.models = models  # type: ignore[attr-defined]
    timm = ModuleType("timm")
    timm.is_model = lambda name: name == "vit"  # type: ignore[attr-defined]
    timm.create_model = lambda name, num_classes: nn.Linear(3, num_classes)  # type: ignore[attr-defined]
    for module in (torchvision, timm):
        module.__spec__ = object()  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert vision_model("resnet18", **SHAPE).out_features == 4
    assert vision_model("resnet18", **SHAPE, num_classes=7).out_features == 7
    assert vision_model("vit", **SHAPE).in_features == 3


def test_a_folder_is_an_image_classifier(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", num_labels=4
    )
    given = ResNetForImageClassification(config).eval()
    given.save_pretrained(tmp_path / "mine")
    found = vision_model(str(tmp_path / "mine"), **SHAPE)
    assert type(found) is type(given)
    assert all(
        torch.equal(a, b) for a, b in zip(found.parameters(), given.parameters(), strict=True)
    )


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OutputError, match="no model"):
        vision_model("nobody/nothing-at-all", **SHAPE)
