"""The order in which a model really runs its modules, learned from one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.errors import InvalidValueError, LayerNotReachedError, NodeLensError
from nodelens.model.convolutions import Convolutions
from nodelens.model.layers import Layer, canonical, describe, first_tensor, named
from nodelens.model.session import alone
from nodelens.statistics import Window
from nodelens.statistics.read import NEXT

__all__ = ["FAILURES", "Event", "Route", "learn_route", "outline"]

FAILURES = (IndexError, RuntimeError, TypeError, ValueError)
"""What torch raises for an input that a layer cannot take."""

Event = tuple[str, int, str]
"""A visit of a module: its name, which visit (from 0), and "input" or "output"."""

_NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass
class _Call:
    """One call of a linear layer, and whether it reads the same tensor as the call before."""

    layer: Layer
    source: Tensor | None
    shared: bool = False


@dataclass
class Route:
    """What one pass showed: the order of events, visits per module, FFNs, norms after layers."""

    modules: tuple[str, ...] = ()
    events: dict[Event, int] = field(default_factory=dict)
    visits: dict[str, int] = field(default_factory=dict)
    norm_after: dict[str, str] = field(default_factory=dict)
    down_projections: list[str] = field(default_factory=list)
    followers: dict[str, str] = field(default_factory=dict)
    """The layer that follows each, of those that read one tensor the same for all."""
    windows: dict[str, Window] = field(default_factory=dict)
    """Those of convolutions that do something else than they declare."""

    def order(self, name: str) -> int:
        """Return the position of a module's first call; unreached modules come last."""
        return self.events.get((name, 0, "input"), len(self.events))

    def reached(self, name: str) -> bool:
        """Return whether the forward pass called the module."""
        return name in self.visits

    def beside(self, name: str, wanted: str) -> str | None:
        """Return the layer `wanted` beside `name`: itself, or for "next" the one that follows."""
        return self.followers.get(name) if wanted == NEXT else wanted

    def check_visits(self, visits: Mapping[str, int]) -> None:
        """Raise LayerNotReachedError where a module was called more or less often than here."""
        for name, seen in visits.items():
            if seen != self.visits[name]:
                raise LayerNotReachedError(
                    f"the forward pass calls {name!r} {seen} times, "
                    f"and {self.visits[name]} times before"
                )

    def follows(self, later: str, name: str, site: str) -> bool:
        """Return whether some call of `later` comes behind the first of `name`."""
        last = self.events.get((later, self.visits.get(later, 0) - 1, site), -1)
        return last > self.events[(name, 0, site)]


def outline(modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Return what a model is known by to be still built as it was: names, kinds and sizes."""

    def line(name: str, module: nn.Module) -> str:
        layer = describe(name, module)
        size = "" if layer is None else f" {layer.inputs} to {layer.channels}"
        return f"{name}: {type(module).__qualname__}{size}"

    return tuple(line(name, module) for name, module in modules.items())


def learn_route(module: nn.Module, forward: Callable[[], Any]) -> Route:
    """Return the route that `forward()` takes through `module`.

    Raises ShapeError or InvalidValueError that names the layer when its input is what the pass
    fails on.
    """
    recorder = _Recorder(named(module))
    with alone(), recorder.watching(), recorder.convolutions.watching():
        try:
            forward()
        except (NodeLensError, torch.OutOfMemoryError):
            raise
        except FAILURES as failure:
            recorder.explain(failure)
            raise
    recorder.route.down_projections = find_down_projections(recorder.calls, recorder.siblings())
    recorder.route.followers = find_followers(recorder.groups)
    recorder.route.windows = recorder.convolutions.windows
    return recorder.route


class _Recorder:
    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self.layers = {name: describe(name, m) for name, m in modules.items()}
        self.convolutions = Convolutions(modules, self.layers)
        self.route = Route(outline(modules))
        self.calls: list[_Call] = []
        self.groups: list[list[str]] = []
        self._last_source: tuple[Tensor | None, int] = (None, 0)
        self._last_output: tuple[str, Tensor | None] = ("", None)
        self._inside: tuple[str, Tensor] | None = None

    def explain(self, failure: Exception) -> None:
        """Raise an error with the layer's name when one of torch's own layers is what fails."""
        if self._inside is None:
            return
        name, source = self._inside
        if (layer := self.layers[name]) is not None:
            canonical(source, layer, "input")
        if not _is_of_torch(failure):
            return
        module = self.modules[name]
        _check_dtype(name, module, source)
        raise InvalidValueError(
            f"layer {name!r} ({type(module).__name__}) cannot take an input of shape "
            f"{tuple(source.shape)} and {source.dtype}: {str(failure).partition(chr(10))[0]}"
        ) from failure

    def siblings(self) -> dict[str, set[str]]:
        """Every parent's own linear layers."""
        found: dict[str, set[str]] = {}
        for name, layer in self.layers.items():
            if layer is not None and not layer.is_convolution:
                found.setdefault(name.rpartition(".")[0], set()).add(name)
        return found

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []
        try:
            for name, module in self.modules.items():
                enter, leave = self._enter(name), self._leave(name)
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for call in self.calls:
                call.source = None
            self._last_output = ("", None)
            self._last_source = (None, 0)
            self._inside = None

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            visit = self.route.visits.get(name, 0)
            self.route.visits[name] = visit + 1
            self.route.events[(name, visit, "input")] = len(self.route.events)
            source = first_tensor(args) if args else first_tensor(kwargs)
            self._note_norm(name, module, source)
            self._note_linear(name, source)
            self._note_group(name, source)
            self.convolutions.enter(name, source)
            explicable = self.layers[name] is not None or _is_torch(module)
            self._inside = (name, source) if explicable and source is not None else None

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            visit = self.route.visits[name] - 1
            self.route.events[(name, visit, "output")] = len(self.route.events)
            self._inside = None
            self.convolutions.leave(name)
            if self.layers[name] is not None:
                self._last_output = (name, first_tensor(output))

        return hook

    def _note_norm(self, name: str, module: nn.Module, source: Tensor | None) -> None:
        last, output = self._last_output
        if isinstance(module, _NORMS) and source is not None and source is output:
            self.route.norm_after[last] = name

    def _note_group(self, name: str, source: Tensor | None) -> None:
        if self.layers[name] is None:
            return
        before, version = self._last_source
        now = 0 if source is None or source.is_inference() else source._version
        # What was added to in place is the same tensor and no longer the same values.
        if source is None or source is not before or now != version:
            self.groups.append([])
        self.groups[-1].append(name)
        self._last_source = (source, now)

    def _note_linear(self, name: str, source: Tensor | None) -> None:
        layer = self.layers[name]
        if layer is None or layer.is_convolution:
            return
        previous = self.calls[-1] if self.calls else None
        shared = previous is not None and source is not None and previous.source is source
        if previous is not None and not shared:
            previous.source = None
        self.calls.append(_Call(layer, source, shared))


def _is_of_torch(failure: Exception) -> bool:
    """Whether torch's own code raised it, not a hook that someone put on the layer."""
    trace = failure.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    home = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return home.startswith(("torch.", "transformers."))


def _is_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def _check_dtype(name: str, module: nn.Module, source: Tensor) -> None:
    # Under autocast the two may differ, and something else is wrong.
    if torch.is_autocast_enabled(source.device.type) or isinstance(module, nn.Embedding):
        return
    weight = next((p for p in module.parameters(recurse=False) if p.is_floating_point()), None)
    if weight is not None and weight.dtype != source.dtype:
        raise InvalidValueError(
            f"the input of layer {name!r} is {source.dtype}, expected {weight.dtype} as its "
            f"weights are: convert the batch, as in x.to({weight.dtype}), or the model"
        )


def find_followers(groups: list[list[str]]) -> dict[str, str]:
    """Return the layer called next behind each, beside those that read the same tensor.

    Behind query, key and value projections comes what reads them, not one another.
    """
    found: dict[str, str] = {}
    for number, group in enumerate(groups):
        for name in group:
            later = next((g[0] for g in groups[number + 1 :] if name not in g), None)
            if later is not None:
                found.setdefault(name, later)
    return found


def find_down_projections(calls: list[_Call], siblings: Mapping[str, set[str]]) -> list[str]:
    """Return the names of FFN down projections, told by structure alone.

    A down projection is called right after one or two layers that read one tensor, widen it to
    what the projection takes (or to twice that, gate and up in one), and it brings it back to the
    width they read. The modules that hold them hold no other linear layer: attention has three or
    four, or one three times as wide.
    """
    found = []
    for i, call in enumerate(calls):
        ups = _group_before(calls, i)
        down = call.layer
        if not ups or len(ups) > 2 or down.name in found:
            continue
        fused = len(ups) == 1 and ups[0].channels == 2 * down.inputs and down.inputs > down.channels
        fits = all(up.inputs == down.channels for up in ups)
        widths = fused or all(up.channels == down.inputs for up in ups)
        group = {down.name, *(up.name for up in ups)}
        parents = {name.rpartition(".")[0] for name in group}
        alone = set().union(*(siblings[p] for p in parents)) == group
        if fits and widths and alone and len(group) == len(ups) + 1:
            found.append(down.name)
    return found


def _group_before(calls: list[_Call], i: int) -> list[Layer]:
    """The layers called just before call i that read one and the same tensor."""
    group = []
    j = i - 1
    while j >= 0 and not calls[i].shared:
        group.append(calls[j].layer)
        if not calls[j].shared:
            break
        j -= 1
    return group
