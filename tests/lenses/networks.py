"""Networks that are awkward in one way each, with the batches they are measured on.

Every case says the same thing twice: as the batches a user gives to a lens, and as what a plain
torch loop does with them (`Plain`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from tests.oracles.capture import Plain

SPLITS = {"one batch": [48], "ragged": [17, 5, 26]}
"""How 48 samples are cut."""

CLASSES = 3


@dataclass(frozen=True)
class Case:
    """A network, and what makes its batches from a split and a precision."""

    name: str
    model: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], Tensor]
    kind: str = "classes"
    padded: bool = False

    def __str__(self) -> str:
        return self.name

    def make(self, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(11)
        return self.model().to(dtype).eval()

    def batches(self, sizes: Sequence[int], dtype: torch.dtype) -> list[tuple[Any, Plain]]:
        generator = torch.Generator().manual_seed(5)
        x = self.inputs(generator).to(dtype)
        y = _targets(self.kind, len(x), generator).to(
            torch.int64 if self.kind == "classes" else dtype
        )
        mask = _mask(x, generator) if self.padded else None
        cut = [None] * len(sizes) if mask is None else mask.split(list(sizes))
        parts = zip(x.split(list(sizes)), y.split(list(sizes)), cut, strict=True)
        return [(_given(*part), _plain(*part)) for part in parts]


def _given(x: Tensor, y: Tensor, mask: Tensor | None) -> Any:
    return (x, y) if mask is None else (x, {"targets": y, "mask": mask})


def _plain(x: Tensor, y: Tensor, mask: Tensor | None) -> Plain:
    return Plain((x,), loss=lambda output: summed_loss(output, y), targets=y, mask=mask)


def summed_loss(output: Tensor, targets: Tensor) -> Tensor:
    output = output[0] if isinstance(output, tuple) else output
    if targets.is_floating_point():
        return mse_loss(output.reshape(targets.shape), targets, reduction="sum")
    return cross_entropy(output, targets, reduction="sum")


def _targets(kind: str, samples: int, generator: torch.Generator) -> Tensor:
    if kind == "classes":
        return torch.randint(0, CLASSES, (samples,), generator=generator)
    shape = (samples,) if kind == "numbers" else (samples, 2)
    return torch.randn(shape, generator=generator)


def _mask(x: Tensor, generator: torch.Generator) -> Tensor:
    lengths = torch.randint(2, x.shape[1] + 1, (len(x), 1), generator=generator)
    return torch.arange(x.shape[1]) < lengths


class Tokens(nn.Module):
    """Two layers on `(batch, tokens, width)`, averaged over the tokens in between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 7)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.embed(x)).mean(1))


class Twice(nn.Module):
    """One layer called twice in a pass, and a tuple for an output."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, CLASSES)
        self.shared = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        once = torch.tanh(self.shared(x))
        again = torch.tanh(self.shared(once + 1))
        return self.last(again), once


def _mlp(outputs: int = CLASSES) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, outputs)
    )


def _convolution(kind: type[nn.Module], **options: Any) -> nn.Module:
    """One convolution, an activation in place, and a linear head on the pooled maps."""
    layer = kind(4, 6, **options)
    return nn.Sequential(layer, nn.ReLU(inplace=True), Pooled(), nn.Linear(6, CLASSES))


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


def _normal(*shape: int) -> Callable[[torch.Generator], Tensor]:
    """Inputs whose channels differ in mean and spread, and vary in space."""

    def draw(generator: torch.Generator) -> Tensor:
        x = torch.randn((48, *shape), generator=generator)
        axis = 1 if len(shape) > 2 else -1
        view = [1] * x.ndim
        view[axis] = x.shape[axis]
        scale = torch.linspace(0.5, 2, x.shape[axis]).view(view)
        return x * scale + scale - 1

    return draw


def _maps(*space: int) -> Callable[[torch.Generator], Tensor]:
    def draw(generator: torch.Generator) -> Tensor:
        x = torch.randn((48, 4, *space), generator=generator)
        offset = torch.randn((48, 4, *[1] * len(space)), generator=generator)
        return x + offset + torch.linspace(-1, 1, space[-1])

    return draw


def _planes(**options: Any) -> Callable[[], nn.Module]:
    return lambda: _convolution(nn.Conv2d, **options)


_UNEVEN = {"kernel_size": (3, 2), "stride": (2, 1), "dilation": (1, 2), "padding": (2, 1)}

CASES = [
    Case("mlp", _mlp, _normal(6)),
    Case("mlp, one number", lambda: _mlp(1), _normal(6), kind="numbers"),
    Case("mlp, two numbers", lambda: _mlp(2), _normal(6), kind="vectors"),
    Case("called twice", Twice, _normal(6)),
    Case("tokens", Tokens, _normal(6, 5), padded=True),
    Case("one linear layer", lambda: nn.Linear(6, CLASSES), _normal(6)),
    *(
        Case(f"conv2d, {mode}", _planes(**_UNEVEN, padding_mode=mode), _maps(6, 5))
        for mode in ("zeros", "reflect", "replicate", "circular")
    ),
    Case("conv2d, two groups", _planes(kernel_size=3, groups=2, padding=1), _maps(5, 5)),
    Case(
        "conv2d, depthwise",
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, groups=4, stride=2),
            nn.Conv2d(8, 6, 1),
            Pooled(),
            nn.Linear(6, CLASSES),
        ),
        _maps(6, 6),
    ),
    Case("conv2d, same", _planes(kernel_size=(2, 4), padding="same"), _maps(5, 4)),
    Case("conv2d, valid", _planes(kernel_size=2, padding="valid", bias=False), _maps(5, 4)),
    Case("conv1d", lambda: _convolution(nn.Conv1d, kernel_size=3, dilation=2), _maps(9)),
    Case(
        "conv3d",
        lambda: _convolution(nn.Conv3d, kernel_size=(1, 2, 3), padding=(0, 1, 1)),
        _maps(3, 3, 4),
    ),
]
