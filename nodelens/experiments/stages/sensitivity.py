"""What the network loses as channels are silenced in the order of a score."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nodelens.configs import Config, SensitivityConfig
from nodelens.experiments.artifacts import SCORES, SENSITIVITY
from nodelens.experiments.lenses import check_score
from nodelens.experiments.stage import Run, Stage
from nodelens.interventions import Evaluation, evaluate
from nodelens.model import ModelWrapper
from nodelens.result import LensResult

__all__ = ["Order", "SensitivityStage", "hidden_layers", "orders", "silenced"]


@dataclass(frozen=True)
class Order:
    """An order of silencing: of each layer, its channels from the first to go to the last."""

    score: str
    mode: str
    seed: int | None
    channels: dict[str, Tensor]


@dataclass(frozen=True)
class Point:
    """Accuracy and mean loss, in nats, of one part of the data with part of the channels silent."""

    split: str
    score: str
    mode: str
    seed: int | None
    amount: float
    silenced: int
    channels: int
    accuracy: float | None
    loss: float
    rows: int


class SensitivityStage(Stage):
    """Writes accuracy and loss by order and amount silenced, on validation and test rows."""

    name = "sensitivity"
    needs = ("data", "network", "measure")
    code = ("data", "model", "interventions", "experiments/stages/sensitivity.py")

    def check(self, run: Run) -> None:
        for number, score in enumerate(_section(run.config).scores):
            check_score(run.config, ("sensitivity", "scores", number), score)

    def settings(self, run: Run) -> Any:
        return _section(run.config).model_dump(mode="json")

    def protocol(self, config: Config) -> str:
        seeds = ", ".join(str(seed) for seed in _section(config).random_seeds)
        return (
            "A silenced channel's output is set to zero where its layer returns it, before the"
            " nonlinearity. The same fraction of every hidden layer is silenced, never the output"
            f" layer. Random orders use the seeds {seeds or '(none)'}. Accuracies are of the test"
            " rows; where the report picks an order, it does so on the validation rows."
        )

    def run(self, run: Run) -> str:
        result = LensResult.load(run.folder.path(SCORES))
        model = ModelWrapper(run.network)
        section = _section(run.config)
        layers = hidden_layers(model, run.splits.test.tensors[0][:1], result)
        chosen = list(orders(run.config, result, layers))
        parts = {"validation": run.splits.validation, "test": run.splits.test}
        total = len(parts) * (1 + len(chosen) * len(section.amounts))
        points: list[Point] = []
        for split, rows in parts.items():
            batches = list(run.splits.batches(rows))
            whole = evaluate(model, batches)
            for order in chosen:
                points.append(_point(split, order, 0.0, whole))
                for amount in section.amounts:
                    found = evaluate(model, batches, silenced(order.channels, amount))
                    points.append(_point(split, order, amount, found))
                    run.advance(len(points), total)
        _write(run, points)
        return f"{len(chosen)} orders at {len(section.amounts)} amounts, {', '.join(layers)}"


def hidden_layers(model: ModelWrapper, inputs: Tensor, names: Collection[str]) -> dict[str, int]:
    """Return those of `names` that run before the last layer, in forward order, with their widths.

    The width is the number of channels.
    """
    route = model.route(model.prepare_batch(inputs))
    reached = sorted((name for name in model.layers if route.reached(name)), key=route.order)
    return {name: model.layers[name].channels for name in reached[:-1] if name in names}


def orders(config: Config, result: LensResult, layers: Mapping[str, int]) -> Iterator[Order]:
    """Yield an order for each score and mode, then one for each random seed."""
    section = _section(config)
    for number, score in enumerate(section.scores):
        values = {k: v for k, v in result.scores(score).items() if v.ndim == 1}
        missing = [layer for layer in layers if layer not in values]
        if missing:
            raise config.error(
                ("sensitivity", "scores", number),
                f"{score!r} has no scores of channels for {', '.join(missing)}; "
                "expected every hidden layer",
            )
        for mode in section.modes:
            down = mode == "high"
            ranked = {n: torch.argsort(values[n], descending=down, stable=True) for n in layers}
            yield Order(score, mode, None, ranked)
    for seed in section.random_seeds:
        generator = torch.Generator().manual_seed(seed)
        shuffled = {n: torch.randperm(width, generator=generator) for n, width in layers.items()}
        yield Order("random", "random", seed, shuffled)


def silenced(channels: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    """Return the first `amount` of each layer's channels, rounded to whole channels.

    >>> silenced({"fc1": torch.tensor([2, 0, 1])}, 0.5)
    {'fc1': tensor([2, 0])}
    """
    return {layer: order[: int(amount * len(order) + 0.5)] for layer, order in channels.items()}


def _point(split: str, order: Order, amount: float, found: Evaluation) -> Point:
    return Point(
        split=split,
        score=order.score,
        mode=order.mode,
        seed=order.seed,
        amount=amount,
        silenced=sum(len(gone) for gone in silenced(order.channels, amount).values()),
        channels=sum(len(channels) for channels in order.channels.values()),
        accuracy=found.accuracy,
        loss=found.loss,
        rows=found.rows,
    )


def _write(run: Run, points: list[Point]) -> None:
    import pandas as pd

    table = pd.DataFrame([asdict(point) for point in points]).astype({"seed": "Int64"})
    run.folder.write_table(SENSITIVITY, table)


def _section(config: Config) -> SensitivityConfig:
    assert config.sensitivity is not None, "the stage is only made for a config with the section"
    return config.sensitivity
