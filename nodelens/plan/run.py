"""Planning a run, and keeping it to a memory budget: in several passes where one is too large."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nodelens.errors import InvalidValueError
from nodelens.lens import Lens
from nodelens.memory import as_bytes, shown_bytes
from nodelens.model.facts import Facts, learn_facts
from nodelens.model.gather import Measured, plan_reads
from nodelens.model.route import Route
from nodelens.model.session import untouched
from nodelens.model.wrapper import ModelWrapper
from nodelens.plan.again import Again
from nodelens.plan.packing import Prices, Share, packed
from nodelens.plan.passes import Ledger, OnePass, Passes, Step
from nodelens.plan.plan import MemoryPlan
from nodelens.reading import ReadingLens, located
from nodelens.result import LensResult
from nodelens.stream import Stream, check_batches, keywords

__all__ = ["Planned"]


class Planned(ReadingLens):
    """A lens of which it is known before a run what it will read, so that it can be split."""

    @property
    def by_layer(self) -> bool:
        """Return whether every layer is scored by itself, so that layers may part."""
        return False

    def parts(self) -> list[tuple[str, Lens]]:
        """Return the lenses it is made of, with their labels in a result."""
        return [(self.name, self)]

    def constants(self, model: ModelWrapper) -> Measured | None:
        wanted = self.wanted(model)
        if any(read.site != "weight" for reads in wanted.values() for read in reads):
            return None
        layers = [located(model, name) for name in wanted]
        with untouched(model.module):
            found = plan_reads(model, Route(), wanted, layers).constants
        return {name: dict(statistics) for name, statistics in found.items()}

    @staticmethod
    def _label(label: str, lens: Lens, score: str) -> str:
        return score

    def plan(
        self,
        model: Any,
        batch: Any = None,
        *,
        memory_budget: int | str | None = None,
        **options: Any,
    ) -> MemoryPlan:
        stream = Stream.open(self, model, options)
        budget = None if memory_budget is None else as_bytes(memory_budget)
        passes, prices = self._passes(stream, [] if batch is None else [batch], budget)
        return self._described(passes, prices, budget)

    def _described(
        self, passes: list[list[Share]], prices: Prices, budget: int | None
    ) -> MemoryPlan:
        planned = tuple(prices.planned(shares) for shares in passes)
        others = tuple(label for label, part in self.parts() if not _plannable(part))
        return MemoryPlan(self.name, planned, budget, others)

    def _passes(
        self, stream: Stream, first: list[Any], budget: int | None, merged: bool = False
    ) -> tuple[list[list[Share]], Prices]:
        """The shares of every pass, and what they cost, as far as a first batch tells."""
        prices = Prices(stream.model, _facts(stream, first), merged)
        # Only a pass shows where FFNs end, so a lens may find out here that there are none.
        self._ensure_compatible(stream.model)
        return packed(self._shares(stream.model), prices, budget), prices

    def _shares(self, model: ModelWrapper) -> list[list[Share]]:
        """What there is to read, layer by layer in forward order."""
        shares: dict[str, list[Share]] = {}
        for number, (_, part) in enumerate(self.parts()):
            if not _plannable(part):
                continue
            for name in part.wanted(model):
                share = Share(number, part, located(model, name))  # type: ignore[arg-type]
                shares.setdefault(name, []).append(share)
        route = model.known_route()
        order = model.names.index if route is None else route.order
        return [shares[name] for name in sorted(shares, key=order)]

    def passes(
        self,
        model: Any,
        first: Sequence[Any],
        memory_budget: int | str,
        *,
        merged: bool = False,
        **options: Any,
    ) -> Passes:
        """Return the steps that keep a run to a budget; one, the lens itself, where that will do.

        `first` holds the first batch of the whole stream, whoever measures it, or none. `merged`
        leaves room for merging the states of several processes. `options` are those of the run.
        """
        own = {k: v for k, v in options.items() if k not in keywords(Lens.measure)}
        stream, budget = Stream.open(self, model, own), as_bytes(memory_budget)
        shares = self._passes(stream, list(first), budget, merged)[0] if first else []
        if len(shares) < 2:
            return Passes(self, stream.model, [Step("", self, options)])
        ledger, number = Ledger(), len(shares)
        steps = [
            Step(f"pass-{at}-of-{number}", OnePass(self, each, ledger), options)
            for at, each in enumerate(shares, 1)
        ]
        for at, (_, part) in enumerate(self.parts()):
            if not _plannable(part):
                steps.append(Step(f"lens-{at}", part, _own(part, self, options), at))
        layers = [found[0].layer.name for found in self._shares(stream.model)]
        return Passes(self, stream.model, steps, ledger, self.parts(), layers, self._label)

    def _run_within(
        self,
        memory_budget: int | str,
        model: Any,
        batches: Iterable[Any],
        *,
        resume: str | Path | None = None,
        **options: Any,
    ) -> LensResult:
        check_batches(batches)
        source = Again(batches)
        passes = self.passes(model, first := source.first(), memory_budget, **options)
        if source.once and len(passes.steps) > 1:
            own = {k: v for k, v in options.items() if k not in keywords(Lens.measure)}
            whole = max(self.plan(passes.model, first[0], **own).peak.values())
            raise InvalidValueError(
                f"a memory budget of {shown_bytes(as_bytes(memory_budget))} takes "
                f"{len(passes.steps)} passes over the batches, and a {type(batches).__name__} can "
                f"be read once: give a list or a DataLoader, or memory_budget={whole} "
                f"({shown_bytes(whole)}) for one pass"
            )
        for step in passes.steps:
            path = None if resume is None else step.file(resume)
            passes.take(step, step.lens.run(passes.model, source, resume=path, **step.options))
        return passes.result()


def _plannable(part: Lens) -> bool:
    return isinstance(part, Planned) and part.by_layer


def _facts(stream: Stream, first: list[Any]) -> Facts | None:
    if not first:
        return None
    batch = stream.model.prepare_batch(first[0], options=stream.batch_options)
    stream.model.route(batch)
    return learn_facts(stream.model, batch)


def _own(part: Lens, whole: Lens, options: dict[str, Any]) -> dict[str, Any]:
    """Those of a run's options that are not another part's."""
    others = whole.prepare_options() | whole.intervene_options()
    mine = part.prepare_options() | part.intervene_options()
    return {name: value for name, value in options.items() if name in mine or name not in others}
