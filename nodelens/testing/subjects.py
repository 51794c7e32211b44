"""Small networks that are awkward on purpose, with batches for them: what lenses are tried on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SUBJECTS", "TOKENS", "AwkwardNetwork", "Subject", "TokenNetwork", "padded", "rows_of"]

_CLASSES = 5
_WORDS = 23


@dataclass(frozen=True)
class Subject:
    """A network and a batch it takes, `(inputs, class numbers)`; the same whenever it is made."""

    name: str
    network: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], Any]

    def model(self) -> nn.Module:
        """Return a new network, its weights drawn with seed 0 and nothing global drawn from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.network()
        generator = torch.Generator().manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                _unsettle(module, generator)
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                # torch's own weights shrink what passes: the last layers would hardly vary.
                module.weight.data *= 2.5
        return model

    def batch(self, rows: int = 12) -> tuple[Any, Tensor]:
        """Return inputs and their class numbers, `(rows,)`."""
        generator = torch.Generator().manual_seed(2)
        inputs = self.inputs(rows, generator)
        return inputs, torch.randint(0, _CLASSES, (rows,), generator=generator)


def _unsettle(norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    """Give a norm statistics of its own, so that evaluation mode is not the identity."""
    for tensor, low in ((norm.running_mean, -0.5), (norm.running_var, 0.5)):
        assert tensor is not None
        tensor.copy_(low + torch.rand(tensor.shape, generator=generator))


class _WithState(nn.Linear):
    """A linear layer that returns a tuple, as recurrent cells and attention do."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x.mean()


class AwkwardNetwork(nn.Module):
    """A convolutional network that breaks what is easily taken for granted.

    Layers are registered back to front; one is called twice, one never, one returns a tuple, one is
    a child named `output`; the ReLU works in place; convolutions are grouped, strided, dilated and
    pad in unequal ways; a BatchNorm stands between them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, _CLASSES)
        self.output = nn.Linear(8, 6)
        self.never = nn.Linear(3, 3)
        self.twice = nn.Linear(8, 8)
        self.state = _WithState(32, 8)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(
            6, 8, 3, stride=2, dilation=(1, 2), padding=(1, 0), groups=2, padding_mode="reflect"
        )
        self.stem = nn.Conv2d(2, 6, (3, 1), padding="same")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.norm(self.grouped(x)))
        x, _ = self.state(x.flatten(1))
        x = self.twice(torch.tanh(x))
        x = self.twice(self.relu(x))
        x = self.output(torch.tanh(x))
        logits: Tensor = self.head(self.relu(x))
        return logits


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.output = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = q @ k.mT / q.shape[-1] ** 0.5
        lowest = torch.finfo(weights.dtype).min
        weights = weights.masked_fill(~mask[:, None, None, :], lowest).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2)), weights


class _GatedFeedForward(nn.Module):
    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.down = nn.Linear(units, width)
        self.up = nn.Linear(width, units)
        self.gate = nn.Linear(width, units)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return product


class TokenNetwork(nn.Module):
    """One transformer block with a gated feed-forward part that classifies whole texts.

    Takes `input_ids` and `attention_mask`, `(batch, tokens)`; positions are counted over tokens
    that are not padding, so padding on either side changes nothing.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, width)
        self.places = nn.Embedding(16, width)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = _Attention(width, heads=2)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = _GatedFeedForward(width, units=12)
        self.head = nn.Linear(width, _CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = mask.bool()
        place = (mask.long().cumsum(1) - 1).clamp(min=0)
        x = self.words(input_ids) + self.places(place)
        x = x + self.attention(self.attention_norm(x), mask)[0]
        x = x + self.feed_forward(self.feed_forward_norm(x))
        text = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.head(text)
        return logits


def _images(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randn((rows, 2, 7, 6), generator=generator)


def _texts(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    ids = torch.randint(1, _WORDS, (rows, 6), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


TOKENS = Subject("TokenNetwork", TokenNetwork, _texts)
SUBJECTS = (Subject("AwkwardNetwork", AwkwardNetwork, _images), TOKENS)
"""The networks a lens is tried on: the first that it can score."""


def rows_of(batch: tuple[Any, Tensor], rows: Any) -> tuple[Any, Tensor]:
    """Return some rows of a batch, chosen by a slice or an index tensor."""
    inputs, targets = batch
    if isinstance(inputs, dict):
        return {name: value[rows] for name, value in inputs.items()}, targets[rows]
    return inputs[rows], targets[rows]


def padded(
    batch: tuple[dict[str, Tensor], Tensor], lengths: Sequence[int], side: str
) -> tuple[dict[str, Tensor], Tensor]:
    """Return texts cut to `lengths` and padded on one side with words that would be noticed."""
    inputs, targets = batch
    ids, width = inputs["input_ids"], max(lengths) + 2
    noise = torch.Generator().manual_seed(3)
    padding = torch.randint(1, _WORDS, (len(lengths), width), generator=noise)
    mask = torch.zeros_like(padding)
    for row, length in enumerate(lengths):
        kept = slice(0, length) if side == "right" else slice(width - length, width)
        padding[row, kept] = ids[row, :length]
        mask[row, kept] = 1
    return {"input_ids": padding, "attention_mask": mask}, targets[: len(lengths)]
