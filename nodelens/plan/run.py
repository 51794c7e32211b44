"""Planning a run, and keeping it to a memory budget: in several passes where one is too large."""

from __future__ import annotations

from collections.abc import Iterable
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
from nodelens.plan.passes import Ledger, OnePass, collected
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
        self, stream: Stream, first: list[Any], budget: int | None
    ) -> tuple[list[list[Share]], Prices]:
        """The shares of every pass, and what they cost, as far as a first batch tells."""
        prices = Prices(stream.model, _facts(stream, first))
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
        own = {k: v for k, v in options.items() if k not in keywords(Lens.measure)}
        stream, source = Stream.open(self, model, own), Again(batches)
        first, budget = source.first(), as_bytes(memory_budget)
        if not first:
            return self.run(stream.model, source, resume=resume, **options)
        passes, prices = self._passes(stream, first, budget)
        if len(passes) < 2:
            return self.run(stream.model, source, resume=resume, **options)
        if source.once:
            whole = prices.needed(share for shares in passes for share in shares)
            raise InvalidValueError(
                f"a memory budget of {shown_bytes(budget)} takes {len(passes)} passes over the "
                f"batches, and a {type(batches).__name__} can be read once: give a list or a "
                f"DataLoader, or memory_budget={whole} ({shown_bytes(whole)}) for one pass"
            )
        return self._run_passes(passes, stream.model, source, resume, options)

    def _run_passes(
        self,
        passes: list[list[Share]],
        model: ModelWrapper,
        source: Again,
        resume: str | Path | None,
        options: dict[str, Any],
    ) -> LensResult:
        ledger, others, number = Ledger(), dict[int, LensResult](), len(passes)
        for at, shares in enumerate(passes, 1):
            path = _file(resume, f"pass-{at}-of-{number}")
            one = OnePass(self, shares, ledger)
            ledger.close(one.run(model, source, resume=path, **options))
        for at, (_, part) in enumerate(self.parts()):
            if not _plannable(part):
                path = _file(resume, f"lens-{at}")
                others[at] = part.run(model, source, resume=path, **_own(part, self, options))
                ledger.close(others[at])
        layers = [shares[0].layer.name for shares in self._shares(model)]
        return collected(self, self.parts(), others, layers, ledger, self._label)


def _plannable(part: Lens) -> bool:
    return isinstance(part, Planned) and part.by_layer


def _facts(stream: Stream, first: list[Any]) -> Facts | None:
    if not first:
        return None
    batch = stream.model.prepare_batch(first[0], options=stream.batch_options)
    stream.model.route(batch)
    return learn_facts(stream.model, batch)


def _file(resume: str | Path | None, part: str) -> Path | None:
    """Where a part of a run is saved: beside the file of the whole."""
    if resume is None:
        return None
    path = Path(resume)
    return path.with_name(f"{path.stem}.{part}{path.suffix}")


def _own(part: Lens, whole: Lens, options: dict[str, Any]) -> dict[str, Any]:
    """Those of a run's options that are not another part's."""
    others = whole.prepare_options() | whole.intervene_options()
    mine = part.prepare_options() | part.intervene_options()
    return {name: value for name, value in options.items() if name in mine or name not in others}
