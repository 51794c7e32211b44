"""The configurations of the reference's models: valid, complete, and run on tiny stand-ins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from nodelens.configs import Config, load_config
from nodelens.experiments import experiment_for
from nodelens.experiments.lenses import build_lens
from nodelens.experiments.orders import orders
from tests.experiments.tiny_language_model import write_language_model

CONFIGS = Path(__file__).parents[2] / "configs"
VISION = sorted((CONFIGS / "vision_prune").glob("*.yaml"))
EXAMPLES = sorted((CONFIGS / "examples").glob("*.yaml"))
LANGUAGE = sorted((CONFIGS / "prune_llm").glob("*.yaml"))


@pytest.mark.parametrize("path", [*VISION, *LANGUAGE], ids=lambda path: path.stem)
def test_every_configuration_is_valid_and_its_names_are_known(path, monkeypatch):
    monkeypatch.delenv("NODELENS_OUTPUT", raising=False)
    config = load_config(path)
    assert config.experiment.name == path.stem
    assert config.output.directory == f"outputs/{path.stem}"
    assert len(orders(config)) >= 8 and build_lens(config).lenses
    head = path.read_text().partition("\nexperiment:")[0]
    assert f"nodelens run configs/{path.parent.name}/{path.name}" in head
    assert "Needs: " in head and "Not run here" in head


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_its_command_and_time_and_makes_its_lenses(path):
    head = path.read_text().partition("\nexperiment:")[0]
    assert f"nodelens run configs/examples/{path.name}\n" in f"{head}\n"
    assert re.search(r"(seconds|minutes?)\s(#\s)?on\stwo\s(#\s)?cores", head)
    assert build_lens(load_config(path)).lenses


def test_the_examples_are_all_there():
    assert {path.stem for path in EXAMPLES} == {
        "digits_basic", "digits_cluster", "mnist_basic", "mnist_cluster",
        "efficientnet_lite", "smollm2_fast", "smollm2_scar", "template",
    }  # fmt: skip


def test_the_models_and_data_sets_of_the_reference_are_all_there():
    named = {(c.model.name, c.dataset.name) for c in map(load_config, [*VISION, *LANGUAGE])}
    models, sets = ({pair[place] for pair in named} for place in (0, 1))
    assert {"resnet18", "vgg16_bn", "mobilenet_v2", "small_cnn"} <= models
    assert {
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-2-7b-hf",
        "mistralai/Mistral-7B-v0.1",
        "Qwen/Qwen2.5-7B",
    } <= models
    assert {"mnist", "uoft-cs/cifar10", "uoft-cs/cifar100", "clane9/imagenet-100"} <= sets
    assert {"Salesforce/wikitext", "allenai/c4"} <= sets


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of 16 x 16 in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for kind in range(2):
        (folder / str(kind)).mkdir()
        for number in range(20):
            pixels = torch.randint(0, 128, (16, 16, 3), generator=generator) + 100 * kind
            image = Image.fromarray(pixels.to(torch.uint8).numpy())
            image.save(folder / str(kind) / f"{number}.png")
    return folder


def stand_in(name: str) -> dict[str, object]:
    """A network whose layers have the names of the real one's, as far as the file names them."""
    if name in ("mlp", "small_cnn"):
        return {"name": "small_cnn", "options": {"channels": [8, 8], "hidden": [8]}}
    return {"name": f"tests.configs.stand_ins:{name}", "options": {}}


@pytest.mark.slow
@pytest.mark.parametrize("path", VISION, ids=lambda path: path.stem)
def test_a_vision_configuration_runs_on_a_stand_in(path, pictures, tmp_path):
    given = yaml.safe_load(path.read_text())
    given["model"] = stand_in(given["model"]["name"])
    given["dataset"] = {"name": "images", "folder": str(pictures), "batch_size": 8}
    given["dataset"]["options"] = {"image_size": 16}
    given["training"] = {"epochs": 2, "batch_size": 8}
    given["calibration"] = {"rows": 16}
    given["pruning"] |= {"amounts": [0.5], "random_seeds": [0], "fine_tuning": {"epochs": 1}}
    given["output"] = {"directory": str(tmp_path / "run")}
    ran(given, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", LANGUAGE, ids=lambda path: path.stem)
def test_a_language_configuration_runs_on_a_stand_in(path, tmp_path):
    given = yaml.safe_load(path.read_text())
    given["model"] = {"name": str(write_language_model(tmp_path / "model"))}
    given["dataset"] = {"name": "pydoc", "tokens": 960, "block_size": 32, "batch_size": 4}
    given["calibration"] = {"rows": 4}
    given["pruning"] |= {"amounts": [0.5], "random_seeds": [0]}
    given["evaluation"] = {"block_size": 32}
    given["output"] = {"directory": str(tmp_path / "run")}
    ran(given, tmp_path)


def ran(given: dict[str, object], folder: Path) -> None:
    """Run what is left of the file, and look at what it leaves."""
    (folder / "short.yaml").write_text(yaml.safe_dump(given))
    config: Config = load_config(folder / "short.yaml")
    assert config.pruning is not None
    results = experiment_for(config).run(progress=False)
    table = results.pruning
    assert table is not None
    assert {entry.name for entry in config.pruning.strategies} <= {
        label.partition(" ")[0] for label in table["strategy"]
    }
    assert (results.directory / "shrunk/report.json").exists() == config.pruning.shrink
    assert results.report.exists()
