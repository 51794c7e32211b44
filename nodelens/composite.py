"""Many lenses in one forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from nodelens.data import Batch
from nodelens.errors import IncompatibleModelError, InvalidValueError, UnknownNameError
from nodelens.lens import Lens
from nodelens.model.gather import Measured
from nodelens.model.wrapper import ModelWrapper
from nodelens.plan import Planned
from nodelens.reading import ReadingLens
from nodelens.registry import LENSES
from nodelens.statistics.read import Read
from nodelens.stream import Stream

__all__ = ["CompositeLens"]


class CompositeLens(Planned):
    """A lens made of lenses: one forward pass a batch, and what several read is measured once.

    Scores keep their lens's name; where one lens comes twice, the options that differ are added in
    brackets. Lenses that edit activations are refused: the others would measure the edited model.
    """

    name = "composite_lens"

    def __init__(self, lenses: Sequence[Lens]) -> None:
        super().__init__()
        self.lenses = [part for lens in lenses for part in _parts(lens)]
        if not self.lenses:
            raise InvalidValueError("a composite of no lenses measures nothing")
        for lens in self.lenses:
            if lens.edits:
                raise InvalidValueError(
                    f"lens {lens.name!r} edits activations, so it cannot share a pass: "
                    "the other lenses would measure the edited model; run it on its own"
                )
        self.labels = _labels(self.lenses)

    @property
    def params(self) -> dict[str, Any]:
        return {label: lens.params for label, lens in zip(self.labels, self.lenses, strict=True)}

    def spec(self) -> dict[str, Any]:
        parts = [lens.spec() for lens in self.lenses]
        complete = all(part["complete"] for part in parts)
        params = {k: p["params"] for k, p in zip(self.labels, parts, strict=True)}
        return {"name": self.name, "params": params, "parts": parts, "complete": complete}

    @classmethod
    def restored(cls, spec: Mapping[str, Any]) -> Lens:
        return cls([Lens.named(part["name"]).restored(part) for part in spec["parts"]])

    def prepare(self, model: Any, **kwargs: Any) -> ModelWrapper:
        """Return the wrapped model once every part can score it, each given its own options."""
        for lens in self.lenses:
            own = {k: v for k, v in kwargs.items() if k in lens.prepare_options()}
            model = lens.prepare(model, **own)
        assert isinstance(model, ModelWrapper)
        return model

    def prepare_options(self) -> set[str]:
        return {name for lens in self.lenses for name in lens.prepare_options()}

    def parts(self) -> list[tuple[str, Lens]]:
        return list(zip(self.labels, self.lenses, strict=True))

    def intervene_options(self) -> set[str]:
        return {name for _, lens in self._others for name in lens.intervene_options()}

    def refusal(self, model: ModelWrapper) -> str | None:
        for lens in self.lenses:
            if (reason := lens.refusal(model)) is not None:
                return f"lens {lens.name!r}: {reason}"
        return None

    def left_out(self, model: ModelWrapper) -> list[str]:
        return list(dict.fromkeys(n for lens in self.lenses for n in lens.left_out(model)))

    def wanted(self, model: ModelWrapper) -> dict[str, list[Read]]:
        wanted: dict[str, list[Read]] = {}
        for lens in self._readers:
            for layer, reads in lens.wanted(model).items():
                wanted.setdefault(layer, []).extend(reads)
        route = model.known_route()
        order = wanted if route is None else sorted(wanted, key=route.order)
        return {layer: wanted[layer] for layer in order}

    def constants(self, model: ModelWrapper) -> Measured | None:
        found: Measured = {}
        for lens in self.lenses:
            theirs = lens.constants(model)
            if theirs is None:
                return None
            for layer, statistics in theirs.items():
                found.setdefault(layer, {}).update(statistics)
        return found

    @property
    def _readers(self) -> list[ReadingLens]:
        return [lens for lens in self.lenses if isinstance(lens, ReadingLens)]

    @property
    def _others(self) -> list[tuple[str, Lens]]:
        pairs = zip(self.labels, self.lenses, strict=True)
        return [(label, lens) for label, lens in pairs if not isinstance(lens, ReadingLens)]

    def _bodies(
        self, model: ModelWrapper, intervention_kwargs: Mapping[str, Any]
    ) -> list[Callable[[], Any]]:
        def body(lens: Lens) -> Callable[[], Any]:
            known = {"batch", "stream", *lens.intervene_options()}
            own = {k: v for k, v in intervention_kwargs.items() if k in known}
            return lambda: lens._intervene(model, **own)

        return [*super()._bodies(model, intervention_kwargs), *(body(o) for _, o in self._others)]

    def _conclude(self, found: list[Any], stream: Stream, batch: Batch) -> Measured:
        measured = super()._conclude(found[:1], stream, batch)
        for (label, lens), brought in zip(self._others, found[1:], strict=True):
            for layer, statistics in lens._conclude([brought], stream, batch).items():
                own = {f"{label}:{key}": s for key, s in statistics.items()}
                measured.setdefault(layer, {}).update(own)
        return measured

    def finish(self, statistics: Measured) -> dict[str, dict[str, Tensor]]:
        scores: dict[str, dict[str, Tensor]] = {layer: {} for layer in statistics}
        read = _read(statistics)
        for label, lens in zip(self.labels, self.lenses, strict=True):
            theirs = read if isinstance(lens, ReadingLens) else _unlabelled(label, statistics)
            for layer, named in lens.finish(theirs).items():
                mine = {self._label(label, lens, name): v for name, v in named.items()}
                scores[layer].update(mine)
        return {layer: named for layer, named in scores.items() if named}

    def notes(self, statistics: Measured) -> list[str]:
        read = _read(statistics)
        return [note for lens in self._readers for note in lens.notes(read)]

    @staticmethod
    def _label(label: str, lens: Lens, score: str) -> str:
        if score == lens.name or score.startswith(f"{lens.name}."):
            return label + score[len(lens.name) :]
        return f"{label}.{score}"

    def score_units(self, score: str) -> tuple[str, int]:
        owners = [i for i, label in enumerate(self.labels) if score.startswith(label)]
        if not owners:
            raise UnknownNameError(f"no part of the composite gives the score {score!r}")
        best = max(owners, key=lambda i: len(self.labels[i]))
        return self.lenses[best].score_units(score)


def _parts(lens: Any) -> list[Lens]:
    if isinstance(lens, CompositeLens):
        return lens.lenses
    if not isinstance(lens, Lens):
        raise IncompatibleModelError(
            f"a composite is made of lenses, got {type(lens).__name__}; "
            "make one with Lens.from_name(name)"
        )
    return [lens]


def _labels(lenses: Sequence[Lens]) -> list[str]:
    often = Counter(lens.name for lens in lenses)
    labels = [
        lens.name if often[lens.name] == 1 else lens.name + _difference(lens, lenses)
        for lens in lenses
    ]
    repeated = [label for label, n in Counter(labels).items() if n > 1]
    if repeated:
        raise InvalidValueError(f"the composite has {repeated[0]!r} twice with the same options")
    return labels


def _difference(lens: Lens, lenses: Sequence[Lens]) -> str:
    mine = lens.params
    twins = [other.params for other in lenses if other.name == lens.name]
    keys = [k for k in mine if any(theirs.get(k) != mine[k] for theirs in twins)]
    return "[" + ",".join(f"{k}={mine[k]}" for k in keys) + "]" if keys else ""


def _read(statistics: Measured) -> Measured:
    """What declared reads brought: other lenses may report under names that are no layer's."""
    return {layer: found for layer, found in statistics.items() if "layer" in found}


def _unlabelled(label: str, statistics: Measured) -> Measured:
    start = f"{label}:"
    own = {
        layer: {k[len(start) :]: s for k, s in found.items() if str(k).startswith(start)}
        for layer, found in statistics.items()
    }
    return {layer: found for layer, found in own.items() if found}


# Saved aggregators name it; it is no lens to ask for by name, as it says nothing of its own.
LENSES.add(CompositeLens.name, CompositeLens, listed=False)
