"""The networks, an example batch of each, and masks of the channels to remove."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from nodelens import Lens, ModelWrapper, load_model

__all__ = ["Subject", "resnet", "smollm2"]

Masks = Callable[[float], dict[str, Tensor]]


@dataclass(frozen=True)
class Subject:
    """A trained model, the batch it is timed on, how many `unit`s that has, and masks by amount."""

    title: str
    model: ModelWrapper
    batch: Tensor
    rows: int
    unit: str
    masks: Masks


def smollm2(score: str, tokens: int, context: int, blocks: int | None = None) -> Subject:
    """SmolLM2-135M, or its first blocks; units of FFNs by `score` on encyclopaedia articles."""
    import transformers

    from nodelens.data.text import text_batches
    from nodelens.model.packaged import packaged_model

    transformers.logging.disable_progress_bar()
    options = {} if blocks is None else {"num_hidden_layers": blocks}
    model = load_model(str(packaged_model("smollm2-135m")), dtype=torch.float32, **options)
    scores = _magnitudes(model) if score == "magnitude" else None
    if scores is None:
        stream = text_batches("encyclopaedia", model.tokenizer, 4, context, tokens)
        result = Lens.from_name(score).run(model, stream, progress=False)
        scores = {name: layer[score] for name, layer in result.items()}
    batch = next(iter(text_batches("news", model.tokenizer, 1, context, context)))
    ids = batch["input_ids"]
    title = "SmolLM2-135M" if blocks is None else f"SmolLM2-135M, first {blocks} blocks"
    return Subject(
        f"{title}, FFN units by {score}", model, ids, ids.numel(), "tokens/s", _lowest(scores)
    )


def _magnitudes(model: ModelWrapper) -> dict[str, Tensor]:
    """The norm of what every unit adds to the residual stream at an activation of one."""
    names = [name for name in model.layers if name.endswith("mlp.down_proj")]
    return {n: w.norm(dim=0) for n, w in model.get_layer_weights(names).items()}


def _lowest(scores: dict[str, Tensor]) -> Masks:
    """Masks without the share of every layer's channels that scores least."""

    def masks(amount: float) -> dict[str, Tensor]:
        found = {}
        for name, values in scores.items():
            mask = torch.ones(len(values), dtype=torch.bool)
            mask[values.argsort(stable=True)[: int(amount * len(values))]] = False
            found[name] = mask
        return found

    return masks


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if inputs == outputs else shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.shortcut(x))


def resnet(epochs: int = 4, width: int = 32) -> Subject:
    """A residual network of four blocks trained on digits; channels by weight norm."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels)
    widths = [width, width, width, 2 * width, 2 * width]
    model = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        *(_Block(a, b) for a, b in pairwise(widths)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(1500).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    wrapper = ModelWrapper(model.eval())
    # One layer of each residual stream, and what is inside of every block.
    names = ["0", "5.conv2", *(f"{block}.conv1" for block in range(3, 7))]
    scores = {n: w.flatten(1).norm(dim=1) for n, w in wrapper.get_layer_weights(names).items()}
    batch = x[1500:1756]
    title = "Residual network on digits, channels by magnitude"
    return Subject(title, wrapper, batch, len(batch), "images/s", _lowest(scores))
