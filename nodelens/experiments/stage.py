"""A stage: one step of an experiment, known by the files it writes into the run directory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import nn

from nodelens.configs import Config
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.networks import load_network
from nodelens.experiments.splits import Splits, load_splits

__all__ = ["Run", "Stage", "device_of"]

Advance = Callable[[int, int], None]


class Run:
    """What every stage of a run shares: configuration, folder, device, data and network.

    `advance(done, total)` moves the progress bar of the stage under way.
    """

    def __init__(self, config: Config, folder: RunFolder) -> None:
        self.config = config
        self.folder = folder
        self.device = device_of(config)
        self.advance: Advance = lambda done, total: None

    @cached_property
    def splits(self) -> Splits:
        """Return the data in its parts."""
        return load_splits(self.config)

    @cached_property
    def network(self) -> nn.Module:
        """Return the trained network, from its checkpoint, on the device of the run."""
        return load_network(self.config, self.splits, self.folder).to(self.device)


class Stage(ABC):
    """A step of an experiment that reads and writes named files of the run directory.

    It is skipped when it finished before with the same key: the same settings, the same code and
    the same keys of the stages in `needs`.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    code: ClassVar[tuple[str, ...]] = ()
    """Files and folders of nodelens's sources that decide the outcome; all of them when empty."""
    reusable: ClassVar[bool] = False
    """Whether an earlier outcome is taken up even when the run is not resumed."""

    def check(self, run: Run) -> None:
        """Raise ConfigError for settings that cannot work; called before any stage runs."""
        return None

    @abstractmethod
    def settings(self, run: Run) -> Any:
        """Return the plain data that decide the outcome."""

    @abstractmethod
    def protocol(self, config: Config) -> str:
        """Return in a sentence or two how the stage's numbers come about."""

    @abstractmethod
    def run(self, run: Run) -> str:
        """Do the work and return what came out, in one line."""


def device_of(config: Config) -> torch.device:
    """Return the device of a configuration; `auto` is the first of CUDA, MPS and CPU there is."""
    wanted = config.experiment.device
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next((kind for kind, there in available.items() if there), "cpu")
    kind, _, index = wanted.partition(":")
    if not available.get(kind, True) or int(index or 0) >= max(torch.cuda.device_count(), 1):
        raise config.error(
            ("experiment", "device"), f"{wanted!r}, but this machine has no such device"
        )
    return torch.device(wanted)
