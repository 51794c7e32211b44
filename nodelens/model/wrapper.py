"""A model made ready for tracing, with torch's own layer names."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nodelens.data import Batch, as_batch, as_mask
from nodelens.errors import (
    IncompatibleModelError,
    InvalidValueError,
    LayerNotFoundError,
    NodeLensError,
    nearest,
)
from nodelens.model.attention import with_heads
from nodelens.model.importing import bars_of_text
from nodelens.model.instruments import Instruments, tracing_of
from nodelens.model.layers import Layer, describe, named
from nodelens.model.norms import note_norm
from nodelens.model.route import FAILURES, Route, learn_route, outline
from nodelens.model.selection import in_forward_order, listing
from nodelens.model.session import alone, shapes_alone, untouched
from nodelens.model.tracing import traced, traced_hosted
from nodelens.notebook import html_table

__all__ = ["ModelWrapper", "wrap"]

_OF_NNSIGHT = {"interleave", "interleaver", "path", "trace"}
"""What nnsight looks up on its view of the whole model, where a child of that name hides it."""

_ROUTES: WeakKeyDictionary[nn.Module, Route] = WeakKeyDictionary()


class ModelWrapper:
    """An nnsight view of a torch module: named layers, forward order, one trace a batch.

    Takes any `torch.nn.Module` (a Hugging Face model too), an nnsight model or another wrapper.
    Attributes it does not have itself are those of the nnsight model, so
    `wrapper.encoder.layers[0].output` reads what that module returns, inside a lens.
    """

    def __init__(
        self, model: Any, tracked_layers: Sequence[str] | None = None, *, hosted: bool = False
    ) -> None:
        self.module, self.nnsight, self.instruments = _unwrap(model, hosted)
        self.tokenizer = getattr(model, "tokenizer", None)
        self._modules = named(self.module)
        _check_initialised(self._modules)
        self._outline = outline(self._modules)
        self._envoys: dict[str, Any] | None = None
        self._tracer: Any = None
        self.references: dict[str, Any] = {}
        described = [describe(name, m) for name, m in self._modules.items()]
        layers = {layer.name: layer for layer in described if layer}
        self.layers: dict[str, Layer] = with_heads(layers, self._modules, self.module)
        self.tracked_layers = self._check_names(tracked_layers or list(self.layers))
        self._tracks_all = not tracked_layers
        self._noted: Route | None = None
        self.known_route()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "nnsight" not in vars(self):
            raise AttributeError(name)
        return getattr(self.nnsight, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as the model it wraps: nnsight's views belong to this one."""
        tracked = None if self._tracks_all else self.tracked_layers
        state = {"tokenizer": self.tokenizer, "references": self.references}
        return ModelWrapper, (self.module, tracked), state

    def __repr__(self) -> str:
        return f"ModelWrapper({type(self.module).__name__}, {len(self.layers)} layers)"

    def _repr_html_(self) -> str:
        header = ("layer", "kind", "inputs", "channels", "heads")
        rows = [
            (name, type(self._modules[name]).__name__, x.inputs, x.channels, x.heads or "")
            for name, x in self.layers.items()
        ]
        caption = f"{type(self.module).__name__}: {len(rows)} layers with channels, {self.device}"
        return html_table(header, rows, caption)

    def _check_names(self, names: Sequence[str]) -> list[str]:
        for name in names:
            if name not in self._modules:
                raise LayerNotFoundError(
                    f"the model has no layer {name!r}{nearest(name, self._modules)}; "
                    f"it has {listing(list(self.layers))}"
                )
        return list(names)

    @property
    def device(self) -> torch.device:
        """Return the device of the first parameter, the CPU for a model without any, or hosted."""
        first = next(self.module.parameters(), None)
        return torch.device("cpu") if first is None or first.is_meta else first.device

    def torch_module(self, name: str) -> nn.Module:
        """Return the torch module of a layer."""
        return self._modules[name]

    def reference_weight(self, layer: Layer) -> Tensor | None:
        """Return the initial weight given for a layer, None when there is none."""
        given = self.references.get("initial_weights", {})
        found = given.get(f"{layer.name}.weight", given.get(layer.name))
        if found is None and layer.name == "model":
            found = given.get("weight")
        return found if isinstance(found, Tensor) else None

    def envoy(self, name: str) -> Any:
        """Return nnsight's view of a module, by torch's name: its `.input` and `.output`."""
        if self._envoys is None:
            # By module, not by path: a child called "output" is mounted elsewhere by nnsight.
            views = {id(e._module): e for e in self.nnsight.modules()}
            self._envoys = {name: views[id(m)] for name, m in self._modules.items()}
        return self._envoys[name]

    @property
    def names(self) -> list[str]:
        """Return every module's name as torch has it; a model that is one layer is "model"."""
        return list(self._modules)

    def prepare_batch(self, *inputs: Any, options: Mapping[str, Any] | None = None) -> Batch:
        """Return the batch in its one form, on the model's device; strings are tokenized."""
        if len(inputs) == 1 and _is_text(inputs[0]):
            inputs = (self._tokenized(inputs[0]),)
        batch = as_batch(*inputs, options=options).to(self.device)
        if batch.mask is None:
            given = dict(zip(self._forward_names[1:], batch.args, strict=False))
            batch = replace(batch, mask=as_mask(given.get("attention_mask")))
        if "use_cache" in self._forward_names and "use_cache" not in batch.kwargs:
            batch.kwargs["use_cache"] = False  # type: ignore[index]
        return batch

    @cached_property
    def _forward_names(self) -> list[str]:
        return list(inspect.signature(type(self.module).forward).parameters)

    def _tokenized(self, texts: Any) -> Any:
        if self.tokenizer is None:
            raise InvalidValueError("a batch of text needs a tokenizer, and this model has none")
        texts = [texts] if isinstance(texts, str) else list(texts)
        padding = self.tokenizer.pad_token
        try:
            if padding is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token
            return self.tokenizer(texts, return_tensors="pt", padding=True)
        finally:
            self.tokenizer.pad_token = padding

    def forward(self, batch: Batch) -> Any:
        """Return the model's plain output for a batch; nothing of the model changes."""
        with self._explained(batch):
            return self._plain(batch)

    def _plain(self, batch: Batch) -> Any:
        if any(p.is_meta for p in self.module.parameters()):
            # The weights are elsewhere; shapes are enough to learn the route from.
            with untouched(self.module), shapes_alone():
                batch = batch.to(torch.device("meta"))
                return self.module(*batch.args, **batch.kwargs)
        try:
            with untouched(self.module):
                return self.module(*batch.args, **batch.kwargs)
        except TypeError:
            _check_arguments(self.module, batch)
            raise

    @contextmanager
    def _explained(self, batch: Batch) -> Iterator[None]:
        try:
            yield
        except (NodeLensError, torch.OutOfMemoryError):
            raise
        except FAILURES:
            # Of a wrong input torch does not say in which layer it is; a watched pass does.
            learn_route(self.module, lambda: self._plain(batch))
            raise

    def route(self, batch: Batch, *, again: bool = False) -> Route:
        """Return the route through the model, learned once from `batch`."""
        known = self.known_route()
        if known is None or again:
            known = learn_route(self.module, lambda: self._plain(batch))
            _ROUTES[self.module] = known
            self.known_route()
        return known

    def known_route(self) -> Route | None:
        """Return the route if a pass has shown it already, and the model is still built so."""
        known = _ROUTES.get(self.module)
        if known is None or known.modules != self._outline:
            return None
        if known is not self._noted:
            self._note(known)
        return known

    def _note(self, route: Route) -> None:
        """Take over what a pass showed of layers: their true windows, and norms behind them."""
        self._noted = route
        for name, window in route.windows.items():
            self.layers[name] = replace(self.layers[name], window=window)
        for name, norm in route.norm_after.items():
            layer = self.layers[name]
            if note_norm(self._modules[name], self._modules[norm], layer):
                self.layers[name] = replace(layer, scaled=True)

    def trace(
        self,
        batch: Batch,
        bodies: Sequence[Callable[[], Any]],
        *,
        gradients: bool = False,
        watched: Iterable[str] = (),
    ) -> list[Any]:
        """Return what each body returns, run inside one traced forward pass of `batch`.

        Raises LayerNotReachedError when the pass calls a `watched` module more or less often than
        the route says: its rows would be lost in silence.
        """
        with alone():
            before = dict(self.nnsight.interleaver.counts)
            with (
                self._explained(batch),
                untouched(self.module, gradients=gradients),
                self.instruments.put_on(),
            ):
                found = traced(self, batch, bodies)
            if visits := self.visits_since(before, watched):
                self.route(batch).check_visits(visits)
        return found

    def visits_since(self, before: Mapping[str, int], watched: Iterable[str]) -> dict[str, int]:
        """Return how often each module was called since nnsight's counts were `before`."""
        calls = self.nnsight.interleaver.counts
        sites = {name: f"{self.envoy(name).path}.output" for name in watched}
        return {name: calls[site] - before.get(site, 0) for name, site in sites.items()}

    def trace_hosted(self, batch: Batch, remote: bool | str, code: bytes, payload: bytes) -> Any:
        """Return what the function in `payload` brings from a pass where the model is hosted.

        Raises IncompatibleModelError for a model that nnsight does not host.
        """
        from nnsight.modeling.mixins.remotable import Remotable

        if not isinstance(self.nnsight, Remotable):
            kind = type(self.module).__name__
            raise IncompatibleModelError(
                f"remote={remote!r} needs a model that nnsight hosts, such as "
                f"nnsight.TransformersModel(name), and got {kind}"
            )
        with self._explained(batch), untouched(self.module):
            return traced_hosted(self, batch, remote, code, payload)

    def follow(self, route: Route, tracer: Any) -> None:
        """Take part in a trace that is open already, on a route that is known."""
        _ROUTES[self.module] = route
        self.known_route()
        self._tracer = tracer

    @contextmanager
    def visit(self, number: int) -> Iterator[None]:
        """Within a trace, let reads mean a module's visit `number`, counted from 0."""
        if number == 0:
            yield
            return
        for _ in self._tracer.iter[number]:
            yield

    def forward_with_activations(self, *inputs: Any) -> tuple[Any, dict[str, Any]]:
        """Return the model's output and, for every tracked layer, what it returned.

        A layer called several times gives its first call's output. Layers asked for by name that
        the pass does not reach raise LayerNotReachedError; of all layers, they are left out.
        """
        from torch.utils._pytree import tree_map_only

        batch = self.prepare_batch(*inputs)
        route, tracked = self.route(batch), self.tracked_layers
        if self._tracks_all:
            tracked = [name for name in tracked if route.reached(name)]
        names = in_forward_order(self, route, tracked)

        def read() -> tuple[dict[str, Any], Any]:
            # Copies: what comes behind a layer may work in place.
            found = {
                name: tree_map_only(Tensor, Tensor.clone, self.envoy(name).output) for name in names
            }
            return found, self.nnsight.output

        activations, outputs = self.trace(batch, [read])[0]
        return outputs, {name: activations[name] for name in tracked}

    def get_layer_weights(self, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the weights of the tracked or named layers, as they are, sharing their memory."""
        names = self._check_names(layers if layers is not None else self.tracked_layers)
        with untouched(self.module):
            weights = {name: getattr(self.torch_module(name), "weight", None) for name in names}
        for name, weight in weights.items():
            if not isinstance(weight, Tensor):
                raise LayerNotFoundError(f"layer {name!r} has no weight")
        return {name: w.detach() for name, w in weights.items() if isinstance(w, Tensor)}


def wrap(model: Any, *, hosted: bool = False) -> ModelWrapper:
    """Return `model` itself when it is wrapped already, else a wrapper of it.

    The weights of a `hosted` model are not loaded, where nnsight has not done so already.
    """
    return model if isinstance(model, ModelWrapper) else ModelWrapper(model, hosted=hosted)


def _unwrap(model: Any, hosted: bool) -> tuple[nn.Module, Any, Instruments]:
    if isinstance(model, ModelWrapper):
        return model.module, model.nnsight, model.instruments
    with bars_of_text():
        import nnsight

    if isinstance(model, torch.jit.ScriptModule):
        raise IncompatibleModelError(
            "a TorchScript model has no layers that can be read: give the module it was made from"
        )
    if isinstance(model, nn.Module):
        if taken := _OF_NNSIGHT & model._modules.keys():
            raise IncompatibleModelError(
                f"nnsight has a use of its own for the name of the child {taken.pop()!r}: rename it"
            )
        with alone(), warnings.catch_warnings():
            # Modules are found by identity here, so a child called "output" is no trouble.
            warnings.filterwarnings("ignore", message=".*has a submodule named.*")
            plain = {m: vars(m).get("forward") for m in model.modules() if not tracing_of(m)}
            return model, nnsight.NNsight(model), Instruments.taken_off(plain)
    if isinstance(model, nnsight.Envoy):
        if not hosted and any(p.is_meta for p in model._module.parameters()):
            model.dispatch()
        return model._module, model, Instruments()
    raise IncompatibleModelError(
        f"a {type(model).__name__} is not a model; expected a torch.nn.Module, an nnsight model, "
        "a Hugging Face model or a ModelWrapper"
    )


def _check_initialised(modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        if (
            isinstance(module, nn.modules.lazy.LazyModuleMixin)
            and module.has_uninitialized_params()
        ):
            raise IncompatibleModelError(
                f"layer {name!r} has no weights yet: run the model once on a batch first"
            )


def _check_arguments(module: nn.Module, batch: Batch) -> None:
    """Raise InvalidValueError when the batch's inputs are not those that `forward` takes."""
    # The class's: a forward of the module's own may be nnsight's, which takes anything.
    forward = inspect.signature(type(module).forward)
    try:
        forward.bind(module, *batch.args, **batch.kwargs)
    except TypeError as mismatch:
        hint = "; several arguments are all inputs of the model, targets go with it as (x, y)"
        raise InvalidValueError(
            f"{type(module).__name__} takes ({listing(list(forward.parameters)[1:])}), and the "
            f"batch does not fit: {mismatch}{hint if len(batch.args) > 1 else ''}"
        ) from mismatch


def _is_text(batch: Any) -> bool:
    if isinstance(batch, str):
        return True
    return (
        isinstance(batch, (list, tuple)) and bool(batch) and all(isinstance(b, str) for b in batch)
    )
