"""What is known of a lens without running it: declarations, needs, bytes of state, options.

Read off the class, its docstring and what it reads: nothing here is written down twice. Commands,
pages and reports take it from here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from nodelens.errors import InvalidValueError
from nodelens.lens import Lens
from nodelens.memory import shown_bytes
from nodelens.metrics.growth import bare, cases, raised
from nodelens.metrics.lens import MetricLens
from nodelens.model import Layer, ModelWrapper, wrap
from nodelens.model.costs import cost_of
from nodelens.plan import Planned
from nodelens.statistics import Read, Window
from nodelens.statistics.read import joined_reads

__all__ = ["LAYERS", "SYMBOLS", "LensFacts", "Option", "StateSize", "layer_of_shape"]

SYMBOLS = {
    "x": "what a layer takes in, one row",
    "y": "what the layer returns, one row: the value before any activation function",
    "w": "the channel's row of the weight",
    "g": "the gradient of the summed loss at the same place as the value beside it",
    "r": "a row: a sample, an unmasked token, or a sample at one position",
    "n": "the number of rows",
    "C": "channels of the layer",
    "D": "length of a weight row",
    "T": "targets",
    "K": "classes",
    r"\rho_{ij}": "Pearson correlation of channels i and j",
}
"""What letters mean in every formula that does not say otherwise."""

_WINDOW = Window((3, 3), (1, 1), (1, 1), ((0, 0), (0, 0)))
LAYERS = (Layer("fc", 4, 9, 9, in_ffn=True), Layer("conv", 4, 1, 9, _WINDOW))
"""A linear layer and a convolution to ask lenses what they would read of them."""


@dataclass(frozen=True)
class Option:
    """An option of a lens: its default as Python writes it, None where it has to be given."""

    name: str
    default: str | None
    meaning: str


@dataclass(frozen=True)
class StateSize:
    """The bytes a lens keeps of a layer; `unknown` names what they are counted for one of."""

    bytes: int
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        each = " and ".join(f"one of the {name}" for name in self.unknown)
        return shown_bytes(self.bytes) + (f" (for {each})" if each else "")


@dataclass(frozen=True)
class LensFacts:
    """The facts of the lens class `kind`."""

    kind: type[Lens]

    @classmethod
    def of(cls, name: str) -> LensFacts:
        """Return the facts of the lens registered as `name`, or as that alias."""
        return cls(Lens.named(name))

    @property
    def name(self) -> str:
        """Return the name the lens is registered under."""
        return self.kind.name

    @property
    def package(self) -> str:
        """Return the package that the lens comes from."""
        return self.kind.__module__.partition(".")[0]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Return the paragraphs of the docstring, each on one line."""
        text = inspect.cleandoc(self.kind.__doc__ or "")
        return [" ".join(part.split()) for part in text.split("\n\n")]

    @property
    def summary(self) -> str:
        """Return what the lens gives, without the shape and the full stop."""
        return re.sub(r",? `\(\w+,\)`", "", self.paragraphs[0]).rstrip(".")

    @cached_property
    def typical(self) -> Lens:
        """Return the lens with its defaults, or as its `example` where options are required."""
        if all(option.default is not None for option in self.options):
            # One of several options may be required, as of a lens that silences.
            with suppress(InvalidValueError):
                return self.kind()
        return self.kind.example(wrap(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))))[0]

    def covers(self, layer: Layer) -> bool:
        """Return whether the lens scores such a layer."""
        return not isinstance(self.typical, MetricLens) or self.typical.covers(layer)

    def layers_of(self, model: ModelWrapper) -> tuple[list[str], str | None]:
        """Return the layers the lens scores with its defaults, before any pass, or why none."""
        lens = self.typical
        if (refusal := lens.refusal(model)) is not None:
            return [], refusal
        return [name for name in model.names if lens.scores(name, model)], None

    def reads(self, layer: Layer) -> list[Read]:
        """Return what the lens reads of a layer, with its defaults."""
        typical = self.typical
        parts = [part for _, part in typical.parts()] if isinstance(typical, Planned) else [typical]
        return [read for part in parts for read in part.reads(layer).values()]

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """Return what a run needs besides inputs: "loss", "targets", or an option of `prepare`.

        "weights" alone means that no input is looked at, and nothing at all that inputs suffice.
        """
        reads = [read for layer in LAYERS for read in self.reads_if_any(layer)]
        asked = {need for read in reads for need in read.statistic.needs}
        found = [
            word for word, need in (("loss", "gradient"), ("targets", "targets")) if need in asked
        ]
        found += [need for need in self.kind.needs if need not in found]
        found += sorted(self.typical.prepare_options())
        weights = bool(reads) and all(read.site == "weight" for read in reads)
        return tuple(found) or (("weights",) if weights else ())

    def reads_if_any(self, layer: Layer) -> list[Read]:
        """Return what the lens reads of a layer, nothing where it cannot tell."""
        try:
            return self.reads(layer)
        except Exception:  # noqa: BLE001 - a stranger's lens may fail in any way on a made-up layer
            return []

    def state_of(self, layer: Layer) -> StateSize:
        """Return the bytes kept between batches for a layer with float32 weights."""
        where = torch.device("cpu"), torch.float32
        costs = [cost_of(layer, read, where) for read in joined_reads(self.reads(layer))]
        unknown = dict.fromkeys(name for cost in costs for name in cost.unknown)
        return StateSize(sum(cost.state for cost in costs), tuple(unknown))

    @cached_property
    def options(self) -> tuple[Option, ...]:
        """Return the options of the constructor, in order."""
        parameters = inspect.signature(self.kind).parameters.values()
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return tuple(
            Option(p.name, None if p.default is p.empty else repr(p.default), self._meaning(p.name))
            for p in parameters
            if p.kind not in kinds
        )

    def _meaning(self, option: str) -> str:
        """The sentences that name an option, of the nearest docstring that has any."""
        kinds = [kind for kind in self.kind.__mro__ if issubclass(kind, Lens)]
        for named in (rf"`{option}(?:=[^`]*)?`", rf"\b{option}\b"):
            for kind in kinds:
                text = " ".join((vars(kind).get("__doc__") or "").split())
                if found := [s for s in re.split(r"(?<=\.)\s+", text) if re.search(named, s)]:
                    return " ".join(found)
        return ""

    @property
    def growth(self) -> str:
        """Return how the numbers kept of a layer grow, with other options behind a semicolon."""
        shown = bare(self.kind.state)
        if not shown:
            return ""
        return f"{shown} numbers{'' if ' a ' in shown else ' a layer'}{_rest(self.kind.state)}"

    @property
    def work(self) -> str:
        """Return the work beside the forward pass."""
        if self.needs == ("weights",):
            return "no pass"
        shown = bare(self.kind.cost)
        done = f"{shown} multiplications a row" if shown else "comparisons and sums"
        backward = ", and a backward pass" if "loss" in self.needs else ""
        return done + backward + _rest(self.kind.cost)

    def symbols(self) -> Iterator[tuple[str, str]]:
        """Yield the general symbols that the formula uses, and what they mean."""
        bare = re.sub(
            r"\\text\{[^}]*\}|\\operatorname\{[^}]*\}|\\(?!rho)[A-Za-z]+", " ", self.kind.formula
        )
        letters = set(re.findall(r"(?<![A-Za-z])([A-Za-z])(?![A-Za-z])", bare))
        for symbol, meaning in SYMBOLS.items():
            own = re.search(rf"\${re.escape(symbol)}\$ (is|are|the)\b", self.kind.where)
            if not own and (symbol in letters or (symbol[0] == "\\" and symbol in bare)):
                yield symbol, meaning

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        kind, words = self.kind, {1: "high", -1: "low"}
        return {
            "name": self.name,
            "package": self.package,
            "aliases": Lens.aliases(self.name),
            "family": kind.family,
            "unit": kind.unit,
            "importance": kind.importance,
            "keep": words.get(kind.importance, ""),
            "needs": list(self.needs),
            "reads": [read.to_json() for read in self.reads_if_any(LAYERS[0])],
            "state": kind.state,
            "cost": kind.cost,
            "minimum_rows": getattr(kind, "minimum_rows", 1),
            "summary": self.summary,
            "notes": self.paragraphs[1:],
            "formula": kind.formula,
            "where": kind.where,
            "symbols": dict(self.symbols()),
            "degenerate": kind.degenerate,
            "paper": kind.paper,
            "options": {
                o.name: {k: v for k, v in asdict(o).items() if k != "name"} for o in self.options
            },
        }


def _rest(text: str) -> str:
    """What is said of other options than the default, behind a semicolon."""
    return raised("".join(f"; {case}" for case in cases(text)[1:]))


def layer_of_shape(text: str) -> Layer:
    """Return the layer whose weight has a shape: `512x784`, or `64x32x3x3` of a convolution.

    >>> layer_of_shape("512x784").channels, layer_of_shape("64x32x3x3").width
    (512, 288)
    """
    parts = text.lower().replace("×", "x").split("x")
    sizes = [int(part) if part.isdigit() else 0 for part in parts]
    if not 2 <= len(sizes) <= 5 or min(sizes) < 1:
        raise InvalidValueError(
            f"layer shape is {text!r}, expected channels x inputs such as '512x784', "
            "or the weight shape of a convolution such as '64x32x3x3'"
        )
    channels, inputs, *kernel = sizes
    if not kernel:
        return Layer("layer", channels, inputs, inputs, in_ffn=True)
    ones, taps = (1,) * len(kernel), int(torch.Size(kernel).numel())
    window = Window(tuple(kernel), ones, ones, ((0, 0),) * len(kernel))
    return Layer("layer", channels, inputs, inputs * taps, window)
