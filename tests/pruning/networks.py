"""Networks to prune, and what each layer takes and gives, caught by plain hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

WIDTH, UNITS, CLASSES = 6, 10, 3


class Ffn(nn.Module):
    """Two gated feed-forward blocks with residuals, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, UNITS, bias=False)
        self.up = nn.Linear(WIDTH, UNITS)
        self.down = nn.Linear(UNITS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Maps(nn.Module):
    """A plain convolution, one with a BatchNorm, a grouped one, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(2, 5, 3, padding=1)
        self.normed = nn.Conv2d(5, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 6, 2, groups=2)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.plain(x))
        x = torch.relu(self.norm(self.normed(x)))
        return self.head(torch.relu(self.grouped(x)).mean((2, 3)))


def ffn() -> Ffn:
    torch.manual_seed(3)
    return Ffn().double().eval()


def maps() -> Maps:
    torch.manual_seed(4)
    model = Maps().double()
    for _ in range(3):
        model(torch.randn(8, 2, 9, 9, dtype=torch.float64))
    with torch.no_grad():
        model.norm.weight.copy_(torch.linspace(-1.0, 1.5, 8))
        model.norm.bias.copy_(torch.linspace(0.5, -1.0, 8))
    return model.eval()


def rows() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn((40, WIDTH), generator=generator, dtype=torch.float64) + 0.3
    y = torch.randint(0, CLASSES, (40,), generator=generator)
    return list(zip(x.split([25, 15]), y.split([25, 15]), strict=True))


def images() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(8)
    x = torch.randn((12, 2, 9, 9), generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (12,), generator=generator)
    return list(zip(x.split([7, 5]), y.split([7, 5]), strict=True))


def caught(model: nn.Module, name: str, batches: list[Any]) -> tuple[Tensor, Tensor]:
    """What a layer takes and gives over all batches."""
    seen: list[tuple[Tensor, Tensor]] = []
    module = model.get_submodule(name)
    handle = module.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        for x, _ in batches:
            model(x)
    handle.remove()
    inputs, outputs = zip(*seen, strict=True)
    return torch.cat(inputs), torch.cat(outputs)


def array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().double().numpy()


def weights(model: nn.Module, name: str) -> np.ndarray[Any, Any]:
    return array(model.get_submodule(name).weight)
