"""The contract of a lens: a question about the channels of a model, in one trace a batch."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from nodelens.aggregator import Aggregator
from nodelens.checkpoint import Checkpoint
from nodelens.data import Batch
from nodelens.described import Described
from nodelens.errors import IncompatibleModelError, InvalidValueError, UnknownOptionError
from nodelens.files import as_saved
from nodelens.followers import Follower, check_one_pass, followers
from nodelens.model.gather import Measured
from nodelens.model.selection import compiled, in_forward_order, listed, select
from nodelens.model.session import drawn_apart
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.options import made
from nodelens.progress import Progress
from nodelens.registry import LENSES
from nodelens.result import LensResult
from nodelens.settled import Settled
from nodelens.statistics.read import Read
from nodelens.stream import Stream, as_one, check_batches, keywords

__all__ = ["Lens"]

if TYPE_CHECKING:
    from nodelens.plan import MemoryPlan

L = TypeVar("L", bound="type[Lens]")


class Lens(Described, ABC):
    """Base of everything that scores, compares or silences channels, found by name.

    A lens holds hyperparameters only; what a run learns is in its statistics, which an aggregator
    merges. Subclasses say what happens inside the trace in `_intervene`, and how merged statistics
    become scores in `finish`. `pattern` is a regex on layer names, matched from the start.
    `layers` are exact names or globs. Without either, every layer the lens can score is meant.
    """

    name: ClassVar[str] = ""
    edits: ClassVar[bool] = False
    """Whether the lens changes activations; such a lens never shares a pass with others."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Checks of `nodelens.testing` that do not apply to the lens, each with the reason."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__  # until it is registered: never its parent's

    def __init__(self, pattern: str | None = None, *, layers: Sequence[str] | str | None = None):
        self.pattern = pattern
        self.layers = listed(layers)

    # Names

    @classmethod
    def register(cls, name: str, *, aliases: Iterable[str] = ()) -> Callable[[L], L]:
        """Return a class decorator that registers a lens; a taken name is a ValueError."""
        LENSES.check(name, aliases)

        def decorate(lens: L) -> L:
            LENSES.add(name, lens, tuple(aliases))
            lens.name = name
            return lens

        return decorate

    @classmethod
    def from_name(cls, name: str, *args: Any, **kwargs: Any) -> Lens:
        """Return a new lens of the class registered as `name`.

        Raises UnknownNameError (a KeyError) with the nearest names and any plugin that failed to
        import, UnknownOptionError (a TypeError) for an option the lens does not have, and
        InvalidValueError (a ValueError) for one of the wrong type.
        """
        return made(name, cls.named(name), args, kwargs)

    @classmethod
    def named(cls, name: str) -> type[Lens]:
        """Return the class registered as `name`, without making a lens of it."""
        return LENSES.get(name)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all lenses, sorted, aliases left out."""
        return LENSES.names()

    @classmethod
    def aliases(cls, name: str) -> list[str]:
        """Return the other names a lens goes by."""
        return LENSES.aliases(name)

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return a lens, and options of a run, for `nodelens.testing`; override it to give some."""
        return cls(), {}

    # Options

    @property
    def pattern(self) -> str | None:
        """Get or set the regex that chooses layers by name, matched from the start."""
        return self._pattern

    @pattern.setter
    def pattern(self, pattern: str | None) -> None:
        self._compiled = compiled(pattern)
        self._pattern = pattern

    @property
    def params(self) -> dict[str, Any]:
        """Return the hyperparameters by name, as the constructor takes them."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.params.items() if v is not None)
        return f"{type(self).__name__}({given})"

    # Which layers

    def scores(self, name: str, model: ModelWrapper) -> bool:
        """Return whether a module can be scored, before any batch is seen."""
        return name in model.layers

    def _get_modules(self, model: ModelWrapper) -> Iterator[tuple[str, Any]]:
        """Yield `(name, module)` of the selected layers in forward order, as nnsight sees them."""
        for name in self._selected(model):
            yield name, model.envoy(name)

    def _selected(self, model: ModelWrapper) -> list[str]:
        can = [name for name in model.names if self.scores(name, model)]
        chosen = select(can, self._compiled, self.layers)
        route = model.known_route()
        if route is None:
            return chosen
        if self._compiled is None and self.layers is None:
            chosen = [name for name in chosen if route.reached(name)]
        return in_forward_order(model, route, chosen)

    def left_out(self, model: ModelWrapper) -> list[str]:
        """Return the layers that could be scored but that the pass never calls."""
        return []

    def said_of(self, model: ModelWrapper, batch: Batch) -> list[str]:
        """Return what a reader of the scores must know of how such batches are measured."""
        return []

    # Compatibility

    def refusal(self, model: ModelWrapper) -> str | None:
        """Return why this lens cannot score the model, None when it can."""
        if any(self.scores(name, model) for name in model.names):
            return None
        return "it has no layer this lens can score (linear or convolution)"

    def is_compatible(self, model: Any) -> bool:
        """Return whether the lens can score something of the model."""
        return self.refusal(wrap(model)) is None

    def _ensure_compatible(self, model: Any) -> None:
        wrapper = wrap(model)
        if (reason := self.refusal(wrapper)) is not None:
            kind = type(wrapper.module).__name__
            raise IncompatibleModelError(f"lens {self.name!r} cannot score {kind}: {reason}")

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the model wrapped for tracing, once it is known that the lens can score it."""
        if kwargs:
            raise UnknownOptionError(
                f"lens {self.name!r} has no option {next(iter(kwargs))!r} to prepare a model with"
            )
        wrapper = wrap(model)
        self._ensure_compatible(wrapper)
        self._selected(wrapper)
        return wrapper

    # The trace

    @abstractmethod
    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> dict[str, Any]:
        """Return `{layer: {name: statistic}}` of one batch; runs inside the trace.

        Gets `batch` (the prepared Batch) and `stream`, and the lens's own options by keyword.
        """

    def wanted(self, model: ModelWrapper) -> dict[str, list[Read]]:
        """Return the reads of every selected layer; none for a lens that reads on its own."""
        return {}

    def constants(self, model: ModelWrapper) -> Measured | None:
        """Return what is read of every layer, where that is weights alone; else None."""
        return None

    def _bodies(
        self, model: ModelWrapper, intervention_kwargs: Mapping[str, Any]
    ) -> list[Callable[[], Any]]:
        return [lambda: self._intervene(model, **intervention_kwargs)]

    def _needs_gradient(self, stream: Stream, batch: Batch) -> bool:
        return False

    def _watched(self, stream: Stream, batch: Batch) -> Iterable[str]:
        """The modules whose every call counts."""
        return ()

    def _trace(
        self,
        model: ModelWrapper,
        *inputs: Any,
        model_kwargs: Mapping[str, Any],
        intervention_kwargs: Mapping[str, Any],
    ) -> list[Any]:
        """Return what each body brought from one traced pass: the only way into a trace."""
        batch = replace(intervention_kwargs["batch"], args=inputs, kwargs=model_kwargs)
        stream: Stream = intervention_kwargs["stream"]
        return model.trace(
            batch,
            self._bodies(model, intervention_kwargs),
            gradients=self._needs_gradient(stream, batch),
            watched=self._watched(stream, batch),
        )

    def _conclude(self, found: list[Any], stream: Stream, batch: Batch) -> Measured:
        """Return the batch's statistics from what the trace brought; runs after it."""
        measured: Measured = found[0]
        return measured

    # Running

    def analyse(self, model: Any, *inputs: Any, **kwargs: Any) -> LensResult:
        """Return the scores of one batch; of weights alone, where a lens reads no more, of none.

        One input is a batch of any kind (tensor, `(inputs, targets)`, tokenizer dict,
        `(inputs, {options})`); several are the model's positional inputs.
        """
        aggregator = self.aggregator()
        stream = Stream.open(self, model, kwargs)
        if inputs or not stream.without_batch(aggregator):
            for statistics in stream.measured(iter([as_one(inputs)])):
                aggregator.update(statistics)
            aggregator.remark(stream.remarks())
        return aggregator.result()

    def analyse_batched(
        self, model: Any, batches: Iterable[Any], **kwargs: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield one dict of mergeable statistics a batch, `{layer: {read: statistic}}`."""
        check_batches(batches)
        return Stream.open(self, model, kwargs).measured(drawn_apart(batches))

    def prepare_options(self) -> set[str]:
        """Return the options of a run that go to `prepare`."""
        return keywords(type(self).prepare)

    def intervene_options(self) -> set[str]:
        """Return the options of a run that go to `_intervene`."""
        return keywords(type(self)._intervene) - {"batch", "stream"}

    def aggregator(self) -> Aggregator:
        """Return an empty aggregator for this lens's statistics."""
        return Aggregator(self)

    def run(
        self,
        model: Any,
        batches: Iterable[Any],
        *,
        until: Settled | None = None,
        standard_errors: bool = False,
        groups: int | None = None,
        memory_budget: int | str | None = None,
        **kwargs: Any,
    ) -> LensResult:
        """Return the scores of a whole stream of batches.

        `until` ends the stream once the top channels are settled. `standard_errors` adds a
        jackknife standard error to every score, from batches dealt to `groups` (20) groups; not
        with `resume`. Where statistics and work exceed `memory_budget` (bytes, or text such as
        "2 GiB") layers are shared out to several passes, and the scores are the same; `resume`
        then names a file a pass. Weights alone need no batch. All else: see `measure`.
        """
        looking_on = followers(self, until, standard_errors, groups, kwargs)
        if memory_budget is not None:
            check_one_pass(looking_on)
            return self._run_within(memory_budget, model, batches, **kwargs)
        aggregator = self.measure(model, batches, looking_on=looking_on, **kwargs)
        Stream.after(aggregator, self, model, kwargs)
        result = aggregator.result()
        for follower in looking_on:
            follower.conclude(result)
        return result

    def measure(
        self,
        model: Any,
        batches: Iterable[Any],
        *,
        progress: bool | Progress = True,
        resume: str | Path | None = None,
        save_every: int = 100,
        save_every_seconds: float = 60.0,
        about: Mapping[str, Any] | None = None,
        looking_on: Sequence[Follower] = (),
        **kwargs: Any,
    ) -> Aggregator:
        """Return the merged statistics of a stream, of which `run` gives the scores.

        Where a stream is shared out, each process measures its share, then `gather`s or saves.

        `progress` is True for a bar, or a function of (batches done, rows seen). With `resume`, a
        path, the statistics are saved there every `save_every` batches or `save_every_seconds`,
        at the end and on an interrupt, and a later call goes on behind the batches they hold. It
        raises MergeError for another lens or model, or where the plain facts in `about` (a digest
        of the data, say) differ.
        """
        check_batches(batches)
        stream = Stream.open(self, model, kwargs)
        checkpoint = Checkpoint.of(resume, save_every, save_every_seconds, stream.model, about)
        aggregator = checkpoint.resume(self.aggregator())
        stream.into(aggregator, batches, checkpoint, progress, looking_on)
        return aggregator

    def plan(
        self,
        model: Any,
        batch: Any = None,
        *,
        memory_budget: int | str | None = None,
        **options: Any,
    ) -> MemoryPlan:
        """Return what a run will read and take: passes, bytes and work, before any of it.

        Nothing is run without a batch; of one it is learned which layers the pass calls, how many
        rows and classes there are. `options` are those of the run. A plan can be printed.

        Raises InvalidValueError for a budget too small for any plan, which says the least.
        """
        raise self._unplanned()

    def _run_within(self, memory_budget: int | str, *args: Any, **options: Any) -> LensResult:
        raise self._unplanned()

    def _unplanned(self) -> InvalidValueError:
        why = "measures by code of its own, so what it takes is not known before it runs"
        return InvalidValueError(f"lens {self.name!r} {why}: leave memory_budget= out")

    # Scoring

    def reads(self, layer: Any) -> dict[str, Read]:
        """Return what is to be measured at a layer, by the names `score` knows it under."""
        return {}

    def finish(self, statistics: Measured) -> dict[str, dict[str, Tensor]]:
        """Return `{layer: {score: (channels,)}}` from merged statistics."""
        scores: dict[str, dict[str, Tensor]] = {}
        for layer, found in statistics.items():
            named = {str(k): s.values() for k, s in found.items() if k != "layer"}
            scores[layer] = {
                (key if name == "value" else f"{key}.{name}"): value
                for key, values in named.items()
                for name, value in values.items()
            }
        return scores

    def notes(self, statistics: Measured) -> list[str]:
        """Return what a reader of the scores must know, such as pairs that were clamped."""
        return []

    def score_units(self, score: str) -> tuple[str, int]:
        """Return the unit of a score, and whether a high one argues for keeping the channel."""
        return self.unit, self.importance

    def spec(self) -> dict[str, Any]:
        """Return the name and hyperparameters as plain data, to make the lens again from."""
        plain = as_saved(self.params)
        return {"name": self.name, "params": plain, "complete": plain.keys() == self.params.keys()}

    @classmethod
    def restored(cls, spec: Mapping[str, Any]) -> Lens:
        """Return the lens that `spec()` wrote down."""
        return cls(**spec["params"])
