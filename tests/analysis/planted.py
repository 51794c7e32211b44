"""Networks in which it is known what every channel costs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

Batches = list[tuple[Tensor, Tensor]]


class Sum(nn.Module):
    """Units of unit variance, independent, added up with known weights."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        n = len(weights)
        self.units = nn.Linear(n, n, bias=False)
        self.readout = nn.Linear(n, 1, bias=False)
        with torch.no_grad():
            self.units.weight.copy_(torch.eye(n))
            self.readout.weight.copy_(weights[None])

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.units(x))


def linear(n: int = 24) -> tuple[Sum, Batches, np.ndarray]:
    """The model, whose targets are its own answers, and what silencing each unit costs.

    Without unit i the error is w_i x_i, so the loss rises from 0 by w_i^2 E[x_i^2].
    """
    generator = torch.Generator().manual_seed(4)
    weights = torch.linspace(0.1, 2, n)[torch.randperm(n, generator=generator)]
    model = Sum(weights).eval()
    x = torch.randn((240, n), generator=generator)
    y = x @ weights[:, None]
    truth = (weights**2 * x.square().mean(0)).numpy().astype(float)
    return model, list(zip(x.split(240), y.split(240), strict=True)), truth


class Conjunction(nn.Module):
    """Two units are multiplied, six others added: neither of the two does a thing alone."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Linear(8, 8, bias=False)
        with torch.no_grad():
            self.units.weight.copy_(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.units(x)
        return (2 * h[:, 2] * h[:, 5] + h[:, [0, 1, 3, 4, 6, 7]].sum(1))[:, None]


def conjunction() -> tuple[Conjunction, Batches]:
    generator = torch.Generator().manual_seed(5)
    model, x = Conjunction(), torch.randn((4000, 8), generator=generator)
    with torch.no_grad():
        y = model(x)
    return model, [(x, y)]
