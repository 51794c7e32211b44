"""Which channels to prune, by name: strategies, and the masks they make. No weight is written."""

from nodelens.pruning.config import PruningConfig
from nodelens.pruning.distributions import (
    Budget,
    list_distributions,
    register_distribution,
)
from nodelens.pruning.registry import (
    get_pruning_strategy,
    list_pruning_strategies,
    register_strategy,
)
from nodelens.pruning.strategy import Strategy
from nodelens.pruning.units import Units

__all__ = [
    "Budget",
    "PruningConfig",
    "Strategy",
    "Units",
    "get_pruning_strategy",
    "list_distributions",
    "list_pruning_strategies",
    "register_distribution",
    "register_strategy",
]
"""Removing channels: groups of channels that go together, and surgery that takes them out."""
from nodelens.pruning.saving import load_shrunk, save_shrunk
from nodelens.pruning.shrink import Shrunk, shrink
from nodelens.pruning.shrunk_report import Change, ShrinkReport
__all__ = ["Change", "ShrinkReport", "Shrunk", "load_shrunk", "save_shrunk", "shrink"]
