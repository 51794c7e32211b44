"""Accuracy as channels are silenced in the order of each strategy, and of five random ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from nodelens import ModelWrapper
from nodelens.errors import NodeLensError
from nodelens.interventions import evaluate
from nodelens.pruning import get_pruning_strategy, list_pruning_strategies
from projects.pruning_curves.networks import Network

__all__ = ["AMOUNTS", "SEEDS", "curves"]

AMOUNTS = (0.1, 0.25, 0.5, 0.75, 0.9)
SEEDS = (0, 1, 2, 3, 4)


def curves(network: Network) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return a row for every strategy and amount, and why some strategies gave none.

    The same share of every hidden layer is silenced; the output layer never is. Columns: `score`,
    `mode`, `seed`, `amount`, `silenced`, `accuracy`, `loss` (nats) and `seconds` (of scoring).
    """
    model = ModelWrapper(network.model)
    hidden = _hidden(model, network)
    dense = evaluate(model, network.test)
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for name in list_pruning_strategies():
        try:
            for seed, scores, seconds in _scored(name, model, network, hidden):
                rows.append(_row(name, seed, 0.0, 0, dense, seconds))
                rows += _curve(name, seed, model, network, scores, seconds)
        except NodeLensError as error:
            refused[name] = str(error).splitlines()[0]
    return pd.DataFrame(rows).astype({"seed": "Int64"}), refused


def _hidden(model: ModelWrapper, network: Network) -> list[str]:
    route = model.route(model.prepare_batch(network.test[0]))
    return sorted((name for name in model.layers if route.reached(name)), key=route.order)[:-1]


def _scored(
    name: str, model: ModelWrapper, network: Network, hidden: Sequence[str]
) -> Iterator[tuple[int | None, dict[str, Tensor], float]]:
    """Yield a seed (None where nothing is drawn), the scores, and the seconds they took."""
    for seed in SEEDS if name == "random" else (None,):
        strategy = get_pruning_strategy(name, **({} if seed is None else {"seed": seed}))
        start = time.perf_counter()
        scores = strategy.scores(model, network.calibration, layers=list(hidden))
        yield seed, scores, time.perf_counter() - start


def _curve(
    name: str,
    seed: int | None,
    model: ModelWrapper,
    network: Network,
    scores: dict[str, Tensor],
    seconds: float,
) -> Iterator[dict[str, Any]]:
    strategy = get_pruning_strategy(name)
    budget = strategy.budget_options(model, scores, network.calibration)
    for amount in AMOUNTS:
        masks = strategy.masks(model, scores, amount, **budget)
        silent = {layer: ~mask for layer, mask in masks.items() if not bool(mask.all())}
        found = evaluate(model, network.test, silent)
        gone = sum(int(mask.sum()) for mask in silent.values())
        yield _row(name, seed, amount, gone, found, seconds)


def _row(
    name: str, seed: int | None, amount: float, silenced: int, found: Any, seconds: float
) -> dict[str, Any]:
    return {
        "score": name,
        "mode": "low" if name != "random" else "random",
        "seed": seed,
        "amount": amount,
        "silenced": silenced,
        "accuracy": found.accuracy,
        "loss": found.loss,
        "seconds": seconds,
    }
