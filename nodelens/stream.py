"""One run of a lens over batches: its options checked once, then one traced pass a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nodelens.aggregator import Aggregator
from nodelens.checkpoint import Checkpoint
from nodelens.data import BATCH_OPTIONS, Batch
from nodelens.errors import (
    InvalidValueError,
    LayerNotReachedError,
    NodeLensError,
    ShapeError,
    UnknownOptionError,
    nearest,
)
from nodelens.hosted import measured_elsewhere
from nodelens.model.gather import Measured
from nodelens.model.selection import shortened
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.progress import Progress, watched

if TYPE_CHECKING:
    from nodelens.followers import Follower
    from nodelens.lens import Lens

__all__ = ["Stream", "as_one", "check_batches", "keywords"]


@dataclass
class Stream:
    """One run over batches: the options it was given, and what its first batch settled."""

    lens: Lens
    model: ModelWrapper
    batch_options: Mapping[str, Any] = field(default_factory=dict)
    own_options: Mapping[str, Any] = field(default_factory=dict)
    settled: dict[str, Any] = field(default_factory=dict)
    remote: bool | str = False
    said: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, lens: Lens, model: Any, options: Mapping[str, Any]) -> Stream:
        """Return a stream of `lens` over `model`; every option goes to the one that takes it.

        Raises UnknownOptionError for an option of no one.
        """
        prepared = lens.prepare_options()
        own = lens.intervene_options()
        _check_options(lens, options, [*sorted(prepared | own), *BATCH_OPTIONS, "remote"])
        remote = options.get("remote", False)
        try:
            model = wrap(model, hosted=bool(remote))
            wrapper = lens.prepare(model, **{k: v for k, v in options.items() if k in prepared})
        except NodeLensError as error:
            error.within(f"lens {lens.name!r}")
            raise
        return cls(
            lens,
            wrapper,
            {k: v for k, v in options.items() if k in BATCH_OPTIONS},
            {k: v for k, v in options.items() if k in own},
            remote=remote,
        )

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make` made the first time it was asked for."""
        if key not in self.settled:
            self.settled[key] = make()
        return self.settled[key]

    def without_batch(self, aggregator: Aggregator) -> bool:
        """Take in what the lens reads, where that is weights alone; return whether it is.

        Without a pass it is not known which layers are called, so all count.
        """
        try:
            found = self.lens.constants(self.model)
        except NodeLensError as error:
            error.within(f"lens {self.lens.name!r}")
            raise
        if found is not None:
            aggregator.update(found)
        return found is not None

    @classmethod
    def after(cls, aggregator: Aggregator, lens: Lens, model: Any, options: Any) -> None:
        """Read weights behind a run in which there was no batch, where the lens reads no more."""
        if not aggregator.batches:
            run = keywords(type(lens).measure)
            own = {name: value for name, value in options.items() if name not in run}
            cls.open(lens, model, own).without_batch(aggregator)

    def remarks(self) -> list[str]:
        """Return what a reader of the scores must know of this run."""
        missed = self.lens.left_out(self.model)
        never = [f"the forward pass never calls {shortened(missed)}: not scored"] if missed else []
        return [*never, *self.said]

    def into(
        self,
        aggregator: Aggregator,
        batches: Iterable[Any],
        checkpoint: Checkpoint,
        progress: bool | Progress,
        looking_on: Sequence[Follower],
    ) -> None:
        """Measure all batches behind those that `aggregator` holds already."""
        for follower in looking_on:
            follower.begin(aggregator)
        with torch.random.fork_rng(devices=[]), checkpoint.saving(aggregator):
            remaining = watched(
                batches,
                aggregator.batches,
                progress,
                lambda: aggregator.rows,
                lambda: any(follower.ended for follower in looking_on),
            )
            for statistics in self.measured(remaining, aggregator.batches):
                aggregator.update(statistics)
                for follower in looking_on:
                    follower.update(aggregator, statistics)
                del statistics  # or they would be there while the next batch is measured
                checkpoint.after_batch(aggregator)
        aggregator.remark(self.remarks())

    def measured(self, batches: Iterator[Any], first: int = 0) -> Iterator[Measured]:
        """Yield the statistics of every batch; the first is called number `first` in errors."""
        for number, given in enumerate(batches, first):
            try:
                yield self._one(given)
            except NodeLensError as error:
                error.within(f"lens {self.lens.name!r}, batch {number}")
                raise

    def _one(self, given: Any) -> Measured:
        batch = self.model.prepare_batch(given, options=self.batch_options)
        self.model.route(batch)
        try:
            return self._pass(batch)
        except (LayerNotReachedError, ShapeError):
            # The model may take another way with this batch, or pad its maps otherwise: learn it,
            # and try once more.
            before = self.model.known_route()
            if self.model.route(batch, again=True) == before:
                raise
            self.settled.clear()
            return self._pass(batch)

    def _pass(self, batch: Batch) -> Measured:
        said = self.once(
            f"said {batch.token_classes}", lambda: self.lens.said_of(self.model, batch)
        )
        self.said += [note for note in said if note not in self.said]
        if self.remote:
            return measured_elsewhere(self, batch)
        options = {"batch": batch, "stream": self, **self.own_options}
        found = self.lens._trace(
            self.model, *batch.args, model_kwargs=batch.kwargs, intervention_kwargs=options
        )
        return self.lens._conclude(found, self, batch)


def check_batches(batches: Any) -> None:
    """Raise InvalidValueError for one batch where a stream of them is expected."""
    if isinstance(batches, (Tensor, Mapping, str)):
        raise InvalidValueError(
            f"one batch (a {type(batches).__name__}) was given where a stream of batches is "
            "expected: use analyse(model, batch), or give [batch]"
        )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise InvalidValueError(f"batches is {batches!r}, expected something to iterate over")


def as_one(inputs: tuple[Any, ...]) -> Any:
    """Return the batch that positional inputs make together."""
    if not inputs:
        raise InvalidValueError("no batch was given, expected inputs for the model")
    return inputs[0] if len(inputs) == 1 else (inputs, {})


def keywords(function: Callable[..., Any]) -> set[str]:
    """Return the names of a function's keyword-only parameters."""
    kinds = (inspect.Parameter.KEYWORD_ONLY,)
    return {n for n, p in inspect.signature(function).parameters.items() if p.kind in kinds}


def _check_options(lens: Lens, options: Mapping[str, Any], valid: list[str]) -> None:
    for name in options:
        if name not in valid:
            others = keywords(type(lens).run) | keywords(type(lens).measure)
            near = nearest(name, [*valid, *(others - {name})])
            raise UnknownOptionError(
                f"lens {lens.name!r} has no option {name!r} for a run{near}; "
                f"expected {', '.join(valid)}"
            )
