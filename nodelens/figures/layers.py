"""Layers along an axis: names without what they all share, and no more of them than can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nodelens.figures.style import depth_colours, label_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MANY", "depth_bar", "layer_ticks", "short_names"]

MANY = 12
"""More layers than these are told apart by their place, not by a colour and a name each."""


def short_names(layers: Sequence[str]) -> tuple[list[str], str]:
    """Return names without the parts that all share, and what they share, `*` where they differ.

    >>> short_names(["model.layers.0.mlp.up", "model.layers.1.mlp.up"])
    (['0', '1'], 'model.layers.*.mlp.up')
    >>> short_names(["conv1", "fc1"])
    (['conv1', 'fc1'], '')
    """
    parts = [layer.split(".") for layer in layers]
    least = min(map(len, parts))
    # A single layer, or all of one name, keeps its last part.
    start = _shared(parts, least - 1)
    end = _shared([p[start:][::-1] for p in parts], least - start - 1)
    if start + end == 0:
        return list(layers), ""
    kept = [".".join(p[start : len(p) - end]) for p in parts]
    pattern = ".".join([*parts[0][:start], "*", *parts[0][len(parts[0]) - end :]])
    return kept, pattern


def _shared(parts: Sequence[Sequence[str]], most: int) -> int:
    shared = 0
    while shared < most and len({p[shared] for p in parts}) == 1:
        shared += 1
    return shared


def depth_bar(ax: Axes, layers: int) -> None:
    """Put a bar beside the axes that says which colour is which layer, first to last."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    scale = ScalarMappable(Normalize(1, layers), ListedColormap(depth_colours(layers)))
    bar = ax.figure.colorbar(scale, ax=ax, ticks=[1, layers], aspect=24, pad=0.02)
    label_bar(bar, "layer, first to last", labelpad=-4)


def layer_ticks(ax: Axes, layers: Sequence[str], axis: str = "x") -> str:
    """Put the layers at 0, 1, 2, ... of an axis and return what to call the axis.

    Labels that would overlap are turned, and thinned where there are too many.
    """
    names, pattern = short_names(layers)
    figure = ax.get_figure(root=True)
    assert figure is not None
    box = ax.get_position()
    across = axis == "x"
    inches = figure.get_size_inches()[0 if across else 1]
    length = 72 * inches * (box.width if across else box.height)
    longest = max(map(len, names)) * 4.2 + 5
    turned = across and longest * len(names) > length and longest > 24
    room = longest if across and not turned else 10.0
    step = _step(len(names), max(1, int(length / room)))
    places = list(range(0, len(names), step))
    shown = [names[place] for place in places]
    if across:
        ax.set_xticks(places, shown)
        if turned:
            for label in ax.get_xticklabels():
                label.set(rotation=40, ha="right", rotation_mode="anchor")
    else:
        ax.set_yticks(places, shown)
    return f"layer ({pattern})" if pattern else "layer"


def _step(count: int, room: int) -> int:
    """Return 1, 2, 5, 10, ... so that at most `room` of `count` are left."""
    for step in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        if -(-count // step) <= room:
            return step
    return count
