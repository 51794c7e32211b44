"""Which channels to prune, by name: strategies and the masks they make; and surgery by masks."""

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
from nodelens.pruning.saving import load_shrunk, save_shrunk
from nodelens.pruning.shrink import Shrunk, shrink
from nodelens.pruning.shrunk_report import Change, ShrinkReport
from nodelens.pruning.strategy import Strategy
from nodelens.pruning.units import Units

__all__ = [
    "Budget",
    "Change",
    "PruningConfig",
    "ShrinkReport",
    "Shrunk",
    "Strategy",
    "Units",
    "get_pruning_strategy",
    "list_distributions",
    "list_pruning_strategies",
    "load_shrunk",
    "register_distribution",
    "register_strategy",
    "save_shrunk",
    "shrink",
]
