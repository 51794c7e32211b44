"""The model, the text to score units on, and blocks of other articles to test on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodelens import ModelWrapper, load_model
from nodelens.data.disjoint import Fingerprint, calibration_and_evaluation
from nodelens.data.text import Document, load_text, token_ids
from nodelens.errors import TooFewRowsError
from nodelens.model.packaged import packaged_model, packaged_names
from nodelens.pruning.units import prunable

__all__ = ["Settings", "Study", "article_blocks"]

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """All that decides the numbers of a run but the model's weights and the code."""

    model: str = "smollm2-135m"
    text: str = "encyclopaedia"
    tokens: int = 32_768
    blocks: int = 32
    block_size: int = 256
    core: float = 0.01
    seeds: int = 5
    split_seed: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain data, without the folder that a model was read from."""
        return {**asdict(self), "model": Path(self.model).name}


@dataclass(frozen=True)
class Study:
    """A model, its feed-forward blocks by their down projections, and two parts of a text.

    `calibration` are batches of four blocks, `evaluation` is one batch of blocks of other articles.
    """

    settings: Settings
    model: ModelWrapper
    layers: list[str]
    calibration: list[Batch]
    evaluation: Batch
    articles: tuple[int, int]

    @classmethod
    def of(cls, settings: Settings) -> Study:
        """Return the study of a packaged model, a folder or a hub name."""
        name = settings.model
        source = str(packaged_model(name)) if name in packaged_names() else name
        model = load_model(source, dtype=torch.float32)
        documents = load_text(settings.text)
        parts = calibration_and_evaluation(documents, share=0.6, seed=settings.split_seed)
        return cls.on(settings, model, *parts)

    @classmethod
    def on(
        cls,
        settings: Settings,
        model: ModelWrapper,
        scored: Sequence[Document],
        tested: Sequence[Document],
    ) -> Study:
        """Return the study of a model in memory, on articles to score and articles to test on."""
        size = settings.block_size
        rows = article_blocks(scored, model.tokenizer, size, settings.tokens // size)
        held = article_blocks(tested, model.tokenizer, size, settings.blocks)
        calibration = [_batch(rows[start : start + 4]) for start in range(0, len(rows), 4)]
        model.route(model.prepare_batch(calibration[0]))
        layers = [name for name, unit in prunable(model).items() if unit.site == "input"]
        used = min(len(scored), len(rows)), min(len(tested), len(held))
        return cls(settings, model, layers, calibration, _batch(held), used)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the calibration blocks."""
        return Fingerprint.of(self.calibration)

    def down(self, layer: str) -> Tensor:
        """Return the weight of a down projection, `(hidden, units)`."""
        weight: Tensor = self.model.torch_module(layer).weight.detach()
        return weight


def article_blocks(documents: Sequence[Document], tokenizer: Any, size: int, count: int) -> Tensor:
    """Return blocks of tokens, `(count, size)`: the first of every article, then the second.

    So that as many articles as can be have a say, and blocks to test on are of different ones.
    Raises TooFewRowsError when the articles have no more full blocks.
    """
    blocks = list(_by_turns([token_ids([d], tokenizer) for d in documents], size, count))
    if len(blocks) < count:
        raise TooFewRowsError(
            f"{len(documents)} articles hold {len(blocks)} blocks of {size}, expected {count}"
        )
    return torch.tensor(blocks, dtype=torch.int64)


def _by_turns(tokens: list[list[int]], size: int, count: int) -> Iterator[list[int]]:
    given = 0
    for start in range(0, max(map(len, tokens)), size):
        for ids in tokens:
            if given < count and len(ids) >= start + size:
                given += 1
                yield ids[start : start + size]


def _batch(rows: Tensor) -> Batch:
    return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
