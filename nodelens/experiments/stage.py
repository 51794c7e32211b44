"""A stage: one step of an experiment, known by the files it writes into the run directory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from nodelens.configs import Config
from nodelens.data import Share
from nodelens.experiments.folder import RunFolder
from nodelens.experiments.language import load_text_splits
from nodelens.experiments.networks import load_network, stored_weights
from nodelens.experiments.splits import Splits, load_splits
from nodelens.statistics.distributed import Ranks

if TYPE_CHECKING:
    from nodelens.experiments.shards import Shard

__all__ = ["Run", "Stage", "device_of"]

Advance = Callable[[int, int], None]


class Run:
    """What every stage of a run shares: configuration, folder, device, data and network.

    `advance(done, total)` moves the progress bar of the stage under way. `ranks` are the processes
    of the run, `shard` the share of the stream when it measures only that, `shards` those that it
    merges, and `only` the one stage that is done again.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        *,
        ranks: Ranks | None = None,
        resume: bool = False,
        shard: Share | None = None,
        shards: Sequence[Shard] = (),
        only: str | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.ranks = ranks or Ranks()
        self.resume = resume
        self.shard = shard
        self.shards = shards
        self.only = only
        self.advance: Advance = lambda done, total: None

    @property
    def share(self) -> Share:
        """Return the share of the stream that this process measures."""
        return self.shard or Share(self.ranks.index, self.ranks.count)

    @cached_property
    def device(self) -> torch.device:
        """Return what the network runs on; ConfigError when this machine has no such device."""
        return device_of(self.config, self.ranks.device)

    @cached_property
    def splits(self) -> Splits:
        """Return the data in its parts."""
        load = load_text_splits if self.config.is_language_model else load_splits
        return load(self.config)

    @cached_property
    def weights(self) -> dict[str, dict[str, Tensor] | None]:
        """Return the `trained` and `initial` weights of the run."""
        return stored_weights(self.folder)

    @cached_property
    def network(self) -> nn.Module:
        """Return the trained network on the device of the run."""
        return load_network(self.config, self.splits, self.weights["trained"]).to(self.device)


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
    shared: ClassVar[bool] = False
    """Whether all ranks work on it; the others only `assist` rank 0, which writes."""
    derived: ClassVar[bool] = False
    """Whether it reads nothing but files of the run: no data, no network."""
    collects: ClassVar[bool] = False
    """Whether it needs every stage before it, such as one that shows what they found."""

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

    def show(self, run: Run) -> None:
        """Write the stage's part of the report: from files of the run alone, so also on its own.

        It follows `run`, and is called again where figures are gone or other formats are wanted.
        """
        return None

    def assist(self, run: Run) -> None:
        """Do another rank's part of a `shared` stage: everything but writing."""
        return None

    def tidy(self, run: Run) -> None:
        """Remove what only an unfinished stage needs; called once its outcome is on record."""
        return None


def device_of(config: Config, number: int = 0) -> torch.device:
    """Return the device of a configuration; `auto` is the first of CUDA, MPS and CPU there is.

    Of several GPUs it is that of process `number` of the machine, unless one is named.
    """
    wanted = config.experiment.device
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next((kind for kind, there in available.items() if there), "cpu")
    kind, _, index = wanted.partition(":")
    if not available.get(kind, True) or int(index or 0) >= max(torch.cuda.device_count(), 1):
        raise config.error(
            ("experiment", "device"), f"{wanted!r}, but this machine has no such device"
        )
    if wanted == "cuda":
        return torch.device("cuda", number % torch.cuda.device_count())
    return torch.device(wanted)
