"""What goes wrong in the tests of errors, and the small network it is tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nodelens import Lens

Attempt = Callable[[nn.Module], object]
Wrong = list[tuple[Attempt, str]]
"""Attempts, and what the error of each says."""


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def x(rows: int = 20) -> Tensor:
    return torch.randn((rows, 4), generator=torch.Generator().manual_seed(3))


def y(rows: int = 20) -> Tensor:
    return torch.arange(rows) % 3


def broken() -> Tensor:
    values = x()
    values[3, 1] = torch.nan
    values[4, 0] = torch.inf
    return values


def analyse(name: str, batch: Any, **options: Any) -> Attempt:
    return lambda model: Lens.from_name(name).analyse(model, batch, **options)


def run(name: str, *batches: Any, **options: Any) -> Attempt:
    return lambda model: Lens.from_name(name).run(model, [*batches], progress=False, **options)


def make(name: str, **options: Any) -> Attempt:
    return lambda _: Lens.from_name(name, **options)


def select(**options: Any) -> Attempt:
    return lambda model: Lens.from_name("activation_mean", **options).analyse(model, x())
