"""A network to silence channels of, and the same done by hooks and a loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nodelens.interventions import Evaluation


class Net(nn.Module):
    """A convolution, one followed by BatchNorm, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(2, 6, 3, padding=1)
        self.normed = nn.Conv2d(6, 8, 3, stride=2, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(8, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.plain(x))
        x = torch.relu_(self.norm(self.normed(x)))
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


def network() -> nn.Module:
    torch.manual_seed(6)
    model = Net()
    for _ in range(3):
        model(torch.randn(16, 2, 7, 7) + 1)
    with torch.no_grad():
        # Away from its start, where the norm of a silent channel is silent too.
        model.norm.bias += torch.randn(8)
    return model.eval()


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(9)
    x = torch.randn((30, 2, 7, 7), generator=generator)
    y = torch.randint(0, 3, (30,), generator=generator)
    return list(zip(x.split([17, 13]), y.split([17, 13]), strict=True))


Hook = Callable[..., Any]


def zero_outputs(indices: list[int], axis: int) -> Hook:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.index_fill(axis, torch.tensor(indices), 0)

    return hook


def zero_inputs(indices: list[int], axis: int) -> Hook:
    def hook(module: nn.Module, args: Any) -> Any:
        return (args[0].index_fill(axis, torch.tensor(indices), 0), *args[1:])

    return hook


@contextmanager
def hooked(model: nn.Module, hooks: Mapping[str, Hook], site: str = "output") -> Iterator[None]:
    modules = dict(model.named_modules())
    register = "register_forward_hook" if site == "output" else "register_forward_pre_hook"
    handles = [getattr(modules[name], register)(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def plainly(model: nn.Module, given: list[tuple[Tensor, Tensor]]) -> Evaluation:
    """Loss and accuracy by a loop of one's own."""
    with torch.no_grad():
        outputs = torch.cat([model(x) for x, _ in given])
    targets = torch.cat([y for _, y in given])
    right = (outputs.argmax(1) == targets).double().mean()
    return Evaluation(float(cross_entropy(outputs, targets)), float(right), len(targets))


def assert_close(found: Evaluation, wanted: Evaluation) -> None:
    assert found.rows == wanted.rows
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert found.accuracy == pytest.approx(wanted.accuracy)
