"""Small convolutional networks whose channels hang together, and masking by plain hooks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """As in ResNet: two convolutions with norms, added to what came in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.shortcut(x))


class ResNet(nn.Module):
    """A stem of 6 channels, a block of 6, one of 8, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.block1, self.block2 = BasicBlock(6, 6), BasicBlock(6, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(torch.relu(self.norm(self.stem(x)))))
        return self.fc(x.mean((2, 3)))


class Concatenated(nn.Module):
    """Two convolutions side by side, put together before a third."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 6, 3)
        self.after = nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        return self.after(both).mean((2, 3))


class Mixing(nn.Module):
    """A convolution with a norm, and a feed-forward block added to what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)
        self.ffn = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.head(h + self.ffn(h))


def separable() -> nn.Module:
    """A convolution, a depthwise one and one of a single position."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 1), nn.Flatten(), nn.Linear(8 * 9, 5),
    )  # fmt: skip


def grouped() -> nn.Module:
    """A convolution of two groups between two plain ones."""
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(),
        nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(4 * 9, 5),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


def images() -> Tensor:
    return torch.randn((5, 2, 7, 7), generator=torch.Generator().manual_seed(3))


def trained(model: nn.Module, x: Tensor) -> nn.Module:
    """Norms with statistics, scales and biases of their own, so that silence shows."""
    torch.manual_seed(1)
    for _ in range(3):
        model(x + 0.5)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    return model.eval()


def keeping(width: int, removed: Sequence[int]) -> Tensor:
    mask = torch.ones(width, dtype=torch.bool)
    mask[list(removed)] = False
    return mask


@contextmanager
def silent(
    model: nn.Module, channels: Mapping[str, Sequence[int]], axis: int = 1
) -> Iterator[None]:
    """Within, what the named modules return is zero in some channels: by hooks of torch's own."""

    def hook(removed: Sequence[int]) -> object:
        def silence(module: nn.Module, args: object, output: Tensor) -> Tensor:
            return output.index_fill(axis, torch.tensor(removed), 0)

        return silence

    modules = dict(model.named_modules())
    handles = [modules[n].register_forward_hook(hook(r)) for n, r in channels.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def snapshot(model: nn.Module) -> dict[str, object]:
    """All of a model that shrinking could touch."""
    return {
        "state": copy.deepcopy(dict(model.state_dict())),
        "identity": [id(p) for p in model.parameters()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "random": torch.get_rng_state().tolist(),
    }


def assert_untouched(model: nn.Module, before: dict[str, object]) -> None:
    after = snapshot(model)
    state, old = after.pop("state"), {**before}
    assert state.keys() == old["state"].keys()
    assert all(torch.equal(state[name], old["state"][name]) for name in state)
    del old["state"]
    assert after == old
