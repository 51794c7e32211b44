"""What measuring a configuration will take, before anything is trained or read."""

from __future__ import annotations

from typing import Any

import torch

from nodelens.configs import Config
from nodelens.errors import NodeLensError
from nodelens.experiments.language import load_text_splits
from nodelens.experiments.lenses import build_lens, wants_initial_weights
from nodelens.experiments.networks import build_network
from nodelens.experiments.splits import Splits, load_splits
from nodelens.experiments.stage import device_of
from nodelens.plan import MemoryPlan

__all__ = ["plan_of"]


def plan_of(config: Config) -> MemoryPlan:
    """Return the plan of a configuration's lenses on its network, for batches of its data's shape.

    The network has the weights it starts from, and sees one batch of zeros: the shape of the data
    and the number of its classes are all that counts.

    Raises ConfigError for a memory budget no plan keeps to.
    """
    load = load_text_splits if config.is_language_model else load_splits
    splits, lens = load(config), build_lens(config)
    network = build_network(config, splits).eval()
    options: dict[str, Any] = {}
    if wants_initial_weights(lens):
        options["initial_weights"] = network.state_dict()
    rows = min(splits.batch_size, len(splits.calibration))
    batch = _batch(config, rows, splits)
    network, budget = network.to(device_of(config)), config.calibration.memory_budget
    try:
        return lens.plan(network, batch, memory_budget=budget, **options)
    except NodeLensError as error:
        where = ("lenses",) if budget is None else ("calibration", "memory_budget")
        raise config.error(where, str(error)) from error


def _batch(config: Config, rows: int, splits: Splits) -> Any:
    """Return a batch of zeros like those of the data."""
    if config.is_language_model:
        tokens = torch.zeros(rows, *splits.shape, dtype=torch.int64)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return torch.zeros(rows, *splits.shape), torch.full((rows,), splits.classes - 1)
