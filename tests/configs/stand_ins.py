"""Small networks with the layer names of large ones, for configurations that are given."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions with BatchNorm, added to what came in, as in a ResNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inside = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(inside)))


class Widening(nn.Module):
    """A widening, a depthwise and a narrowing convolution, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, size: int, groups: int = 1) -> nn.Sequential:
            layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6())

        self.conv = nn.Sequential(
            convolution(width, 16, 1),
            convolution(16, 16, 3, 16),
            nn.Conv2d(16, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def resnet18() -> nn.Module:
    """Return two blocks named as in torchvision's ResNet."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, padding=1),
            layer1=nn.Sequential(Block(8)),
            layer2=nn.Sequential(Block(8)),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(8, 2),
        )
    )


def mobilenet_v2() -> nn.Module:
    """Return two blocks named as in torchvision's MobileNetV2."""
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Widening(8), Widening(8)),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            classifier=nn.Linear(8, 2),
        )
    )


def vgg16_bn() -> nn.Module:
    """Return two convolutions with BatchNorm, named as in torchvision's VGG."""
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            ),
            pool=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(),
            classifier=nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2)),
        )
    )  # fmt: skip
