"""The window that a convolution with a `forward` of its own really slides over its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nodelens.model.layers import CONVOLUTIONS, Layer
from nodelens.statistics import Window

__all__ = ["Convolutions"]

_CALLS = (torch.conv1d, torch.conv2d, torch.conv3d)
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Convolutions(TorchFunctionMode):
    """Watches one pass for what convolutions do that have a `forward` of their own.

    They may pad by the size of their input, as TensorFlow's "same" does, or convolve something
    else altogether. `windows` are those that differ from what the module declares.
    """

    def __init__(self, modules: Mapping[str, nn.Module], layers: Mapping[str, Layer | None]):
        super().__init__()
        self.modules = {name: m for name, m in modules.items() if _has_own_forward(m)}
        self.layers = layers
        self.windows: dict[str, Window] = {}
        self._forget()

    def _forget(self) -> None:
        self._name = ""
        self._source: Tensor | None = None
        self._calls: list[dict[str, Any]] = []
        self._pads: list[tuple[Tensor, dict[str, Any]]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is called within; models without such a convolution are left alone."""
        if not self.modules:
            yield
            return
        try:
            with self:
                yield
        finally:
            self._forget()

    def enter(self, name: str, source: Tensor | None) -> None:
        """Take note that a module begins, with this input."""
        if name in self.modules:
            self._forget()
            self._name, self._source = name, source

    def leave(self, name: str) -> None:
        """Take note that a module ends, and of its window."""
        if name != self._name or not name:
            return
        layer, module = self.layers[name], self.modules[name]
        assert layer is not None and layer.window is not None
        found = self._window(module, layer.window)
        if isinstance(found, str):
            found = replace(
                layer.window,
                obscured=f"layer {name!r} ({type(module).__name__}) {found} in a forward of its "
                "own, so what its windows see cannot be told: leave it out with layers= or "
                "pattern=, or give that work to a module in front of it",
            )
        if found != layer.window:
            self.windows[name] = found
        self._forget()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if self._name and function in _CALLS:
            self._calls.append({**dict(zip(_ARGUMENTS, args, strict=False)), **(kwargs or {})})
        elif self._name and function is torch.nn.functional.pad:
            names = ("input", "pad", "mode", "value")
            self._pads.append((result, {**dict(zip(names, args, strict=False)), **(kwargs or {})}))
        return result

    def _window(self, module: nn.Module, declared: Window) -> Window | str:
        """The window that was seen, or what hides it."""
        if len(self._calls) != 1:
            return f"calls {len(self._calls)} convolutions of torch"
        call, axes, weight = self._calls[0], len(declared.kernel), module.weight
        if not isinstance(weight, Tensor) or not _same(call["weight"], weight):
            return "convolves with other weights than it shows"
        window = replace(
            declared,
            stride=_each(call.get("stride", 1), axes),
            dilation=_each(call.get("dilation", 1), axes),
            groups=call.get("groups", 1),
        )
        mode, pads, source = self._padded(call["input"], axes)
        pads.append(_of_call(call.get("padding", 0), window))
        # One after the other, only zeros add up; less than none cuts the maps.
        if (
            mode == "constant"
            or (mode != "zeros" and sum(any(map(any, pad)) for pad in pads) > 1)
            or any(width < 0 for pad in pads for pair in pad for width in pair)
        ):
            return "pads its input by more than zeros around its maps"
        if self._source is None or not _same(source, self._source):
            return "changes its input"
        ends = [(sum(p[a][0] for p in pads), sum(p[a][1] for p in pads)) for a in range(axes)]
        found = replace(window, padding=tuple(ends), padding_mode=mode)
        # Its padding may follow the size of the maps, so it is known for maps of this size alone.
        return found if found == declared else replace(found, space=tuple(source.shape[-axes:]))

    def _padded(self, given: Tensor, axes: int) -> tuple[str, list[list[tuple[int, int]]], Tensor]:
        """How what was convolved had been padded: the mode, the widths, and what was padded.

        The mode is torch's "constant" for a constant that is not zero.
        """
        mode, pads = "zeros", []
        while (pad := next((p for out, p in self._pads if out is given), None)) is not None:
            kind = pad.get("mode", "constant")
            mode = mode if kind == "constant" and not pad.get("value") else kind
            pads.append(_pairs(pad["pad"], axes))
            given = pad["input"]
        return mode, pads, given


def _has_own_forward(module: nn.Module) -> bool:
    base = next((kind for kind in CONVOLUTIONS if isinstance(module, kind)), None)
    if base is None:
        return False
    kind: Any = type(module)
    torchs = kind.forward is base.forward and kind._conv_forward is base._conv_forward
    return not torchs or "forward" in vars(module)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, Sequence) else (value,)
    return given * axes if len(given) == 1 else given


def _of_call(padding: Any, window: Window) -> list[tuple[int, int]]:
    """The zeros that torch's convolution itself puts around its input, by axis."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    widths = _each(0 if padding == "valid" else padding, len(window.kernel))
    return [(width, width) for width in widths]


def _pairs(flat: Sequence[int], axes: int) -> list[tuple[int, int]]:
    """What `torch.nn.functional.pad` was given, last axis first, by axis; -1 for other axes."""
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    if any(map(any, pairs[axes:])):
        return [(-1, -1)] * axes
    return [*pairs[:axes], *[(0, 0)] * (axes - len(pairs))][::-1]


def _same(given: Tensor, shown: Tensor) -> bool:
    """Whether two tensors have the same values, up to half precision; shapes alone without any."""
    if given is shown or given.shape != shown.shape:
        return given is shown
    if given.is_meta or shown.is_meta or hasattr(given, "fake_mode") or not given.numel():
        return True
    least = 1e-3 * float(shown.abs().nan_to_num().max())
    return bool(torch.isclose(given.to(shown), shown, 1e-2, least, equal_nan=True).all())
