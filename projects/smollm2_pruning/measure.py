"""Scores of SmolLM2's feed-forward units on some articles, perplexity without them on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelens import ModelWrapper, load_model
from nodelens.data.disjoint import calibration_and_evaluation
from nodelens.data.text import Document, load_text, token_blocks
from nodelens.interventions import means, perplexity
from nodelens.model.packaged import packaged_model
from nodelens.pruning import get_pruning_strategy

__all__ = ["AMOUNTS", "Study", "conditions", "points"]

AMOUNTS = (0.1, 0.2, 0.3, 0.5)
UNITS = "model.layers.*.mlp.down_proj"


@dataclass(frozen=True)
class Study:
    """A language model, blocks of tokens to score units on, and blocks of other articles."""

    model: ModelWrapper
    calibration: list[dict[str, Tensor]]
    evaluation: dict[str, Tensor]

    @classmethod
    def of(cls, calibration_tokens: int, evaluation_tokens: int, block: int = 256) -> Study:
        """Return SmolLM2 with encyclopaedia articles, half of them for either purpose."""
        model = load_model(str(packaged_model("smollm2-135m")), dtype=torch.float32)
        parts = calibration_and_evaluation(load_text("encyclopaedia"), share=0.5, seed=0)

        def blocks(documents: list[Document], tokens: int) -> dict[str, Tensor]:
            return token_blocks(documents, model.tokenizer, block, tokens // block)

        measured, tested = blocks(parts[0], calibration_tokens), blocks(parts[1], evaluation_tokens)
        batches = [
            {key: value[start : start + 4] for key, value in measured.items()}
            for start in range(0, len(measured["input_ids"]), 4)
        ]
        return cls(model, batches, tested)


@dataclass(frozen=True)
class Condition:
    """An order of units: the strategy, the options that make it, and what stands in for a unit."""

    label: str
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    mean: bool = False


def conditions() -> list[Condition]:
    """Return chance with three seeds, weights alone, and what is measured on data."""
    chance = [Condition("random", "random", {"seed": seed}, seed=seed) for seed in range(3)]
    uniform = [
        Condition("magnitude", "magnitude"),
        Condition("activation power", "scar_activation_power"),
        Condition("Wanda, channels", "wanda"),
        Condition("LLM-Pruner, Taylor", "llm_pruner"),
        Condition("SCAR loss proxy", "scar_loss_proxy"),
        Condition("FLAP, one threshold, mean", "flap", mean=True),
        Condition("FLAP, uniform, mean", "flap", {"distribution": "size_proportional"}, mean=True),
        Condition("FLAP, uniform, zero", "flap", {"distribution": "size_proportional"}),
    ]
    return [*chance, *uniform]


def points(study: Study, progress: Callable[[str], None] = print) -> Iterator[dict[str, Any]]:
    """Yield what was measured: the dense model first, then each condition at each amount."""
    dense = _perplexity(study, {})
    progress(f"dense: {dense}")
    yield {"label": "dense", "amount": 0.0, **_numbers(dense), "protocol": str(dense)}
    stand_in: dict[str, Tensor] = {}
    known: dict[str, tuple[dict[str, Tensor], float]] = {}
    for condition in conditions():
        strategy = get_pruning_strategy(condition.strategy, **condition.options)
        key = f"{condition.strategy} {condition.seed}"
        if key not in known:
            start = time.perf_counter()
            scores = strategy.scores(study.model, study.calibration, layers=UNITS)
            known[key] = scores, time.perf_counter() - start
        scores, seconds = known[key]
        if condition.mean and not stand_in:
            stand_in = means(study.model, study.calibration, scores, site="input")
        for amount in AMOUNTS:
            masks = strategy.masks(study.model, scores, amount)
            found = _perplexity(study, masks, stand_in if condition.mean else "zero")
            progress(f"{condition.label} {amount}: {found}")
            yield {
                "label": condition.label,
                "seed": condition.seed,
                "amount": amount,
                "silenced": sum(int((~mask).sum()) for mask in masks.values()),
                "scoring_seconds": seconds,
                **_numbers(found),
            }


def _perplexity(study: Study, masks: Mapping[str, Tensor], value: Any = "zero") -> Any:
    silent = {name: ~mask for name, mask in masks.items() if not bool(mask.all())}
    return perplexity(
        study.model,
        study.evaluation,
        split="articles without a share in the scores",
        channels=silent or None,
        site="input",
        value=value,
        calibration=study.calibration,
    )


def _numbers(found: Any) -> dict[str, float]:
    """Perplexity, and the interval that holds 95% of it on the scale of the loss."""
    error = np.nan if found.standard_error is None else found.standard_error / found.value
    low, high = np.exp(found.loss - 1.96 * error), np.exp(found.loss + 1.96 * error)
    return {"perplexity": found.value, "low": float(low), "high": float(high), "loss": found.loss}
