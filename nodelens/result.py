"""Scores by layer, with their units and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from nodelens.errors import OutputError, UnknownNameError, nearest
from nodelens.files import intact, load_tensors, save_tensors, write_text
from nodelens.notebook import html_table

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["LensResult"]

_FORMAT = 1
_HEADER = ("layer", "score", "channels", "lowest", "mean", "highest", "unit")


class _Scores(dict[str, Tensor]):
    """The scores of one layer by name; an unknown name is UnknownNameError with the nearest."""

    def __missing__(self, name: str) -> Tensor:
        raise UnknownNameError(
            f"the layer has no score {name!r}{nearest(name, self)}; it has {', '.join(self)}"
        )


class LensResult(dict[str, dict[str, Tensor]]):
    """`result[layer][score]`, each `(channels,)`, or `()` for a number of the whole layer.

    All are float64 on the CPU.

    `units` and `importance` (+1: keep channels with high scores, -1: with low ones, 0: neither) are
    by score, `rows` by layer; `lens` and `params` say what measured them, and `notes` what to know
    when reading them (pairs that were clamped, layers that were left out). `standard_errors` has
    the scores' shape, in their units; it is empty unless a run was asked for them.
    """

    def __init__(
        self,
        scores: Mapping[str, Mapping[str, Tensor]],
        *,
        lens: str = "",
        params: Mapping[str, Any] | None = None,
        units: Mapping[str, str] | None = None,
        importance: Mapping[str, int] | None = None,
        rows: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
        standard_errors: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__({layer: _Scores(named) for layer, named in _plain(scores).items()})
        self.lens = lens
        self.params = dict(params or {})
        self.units = dict(units or {})
        self.importance = dict(importance or {})
        self.rows = dict(rows or {})
        self.notes = list(notes)
        self.standard_errors = _plain(standard_errors or {})

    def __getitem__(self, layer: str) -> dict[str, Tensor]:
        if layer not in self:
            raise UnknownNameError(
                f"the result has no layer {layer!r}{nearest(layer, self)}; it has {', '.join(self)}"
            )
        return super().__getitem__(layer)

    @property
    def unit(self) -> str | dict[str, str]:
        """Return the unit, or the units by score when there are several scores."""
        return next(iter(self.units.values())) if len(self.units) == 1 else self.units

    @property
    def score_names(self) -> list[str]:
        """Return the names of all scores, in the order they appear."""
        return list(dict.fromkeys(name for scores in self.values() for name in scores))

    def scores(self, name: str | None = None) -> dict[str, Tensor]:
        """Return one score of every layer that has it, each `(channels,)`; the first by default."""
        name = self._named(name)
        return {layer: scores[name] for layer, scores in self.items() if name in scores}

    def _named(self, name: str | None) -> str:
        names = self.score_names
        if name is None and names:
            return names[0]
        if name not in names:
            raise UnknownNameError(
                f"the result has no score {name!r}{nearest(str(name), names)}; "
                f"it has {', '.join(names)}"
            )
        return str(name)

    def top(self, k: int = 10, score: str | None = None) -> list[tuple[str, int | None, float]]:
        """Return the k highest channels of all layers as (layer, channel, value).

        Of a score that is a number of the layer it is the highest layers, their channel None.
        """
        found = [
            (layer, channel, float(value))
            for layer, values in self.scores(score).items()
            for channel, value in (enumerate(values) if values.ndim else [(None, values)])
        ]
        return sorted(found, key=lambda entry: -entry[2])[:k]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a tidy table with columns layer, channel, score, value, unit.

        It has a row for every channel, and with standard errors a column standard_error behind the
        value. A number of the whole layer is a row whose channel is missing (`<NA>`). Scores of
        another shape, such as a matrix of channel pairs, are not in the table: they stay in
        `result[layer][score]`.
        """
        import pandas

        frames = [
            pandas.DataFrame(self._columns(layer, name, values))
            for layer, scores in self.items()
            for name, values in scores.items()
            if values.ndim <= 1
        ]
        columns = ["layer", "channel", "score", "value", "unit"]
        return (
            pandas.concat(frames, ignore_index=True)
            if frames
            else pandas.DataFrame(columns=columns)
        )

    def _columns(self, layer: str, name: str, values: Tensor) -> dict[str, Any]:
        import pandas

        errors = self.standard_errors.get(layer, {}).get(name)
        channels = range(len(values)) if values.ndim else pandas.array([None], dtype="Int64")
        return {
            "layer": layer,
            "channel": channels,
            "score": name,
            "value": values.reshape(-1).numpy(),
            **({} if errors is None else {"standard_error": errors.reshape(-1).numpy()}),
            "unit": self.units.get(name, ""),
        }

    def plot(self, ax: Axes | None = None, score: str | None = None) -> Axes:
        """Return axes with the sorted scores of every layer, one line each.

        A score that is a number of the layer is a point a layer.
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots(figsize=(6, 3.5), layout="constrained")[1]
        name = self._named(score)
        for layer, values in self.scores(name).items():
            values = values.reshape(-1).sort(descending=True).values
            share = [i / max(len(values) - 1, 1) for i in range(len(values))]
            ax.plot(share, values.numpy(), "o" if len(values) == 1 else "", label=layer)
        ax.set(xlabel="share of channels, highest first", ylabel=_axis_label(name, self.units))
        if len(self) <= 12:
            ax.legend(frameon=False)
        return ax

    def save(self, directory: str | Path) -> None:
        """Write `scores.safetensors` (raw scores) and `result.json` (units, provenance).

        Standard errors, when there are any, go to `standard_errors.safetensors`.
        """
        folder = Path(directory)
        save_tensors(folder / "scores.safetensors", _flat(self))
        if self.standard_errors:
            save_tensors(folder / "standard_errors.safetensors", _flat(self.standard_errors))
        about = {
            "format": _FORMAT,
            "lens": self.lens,
            "params": self.params,
            "units": self.units,
            "importance": self.importance,
            "rows": self.rows,
            "notes": self.notes,
            "scores": _names(self),
            "standard_errors": _names(self.standard_errors),
        }
        write_text(folder / "result.json", json.dumps(about, indent=2))

    @classmethod
    def load(cls, directory: str | Path) -> LensResult:
        """Return the result saved in a folder; OutputError when there is none, or a damaged one."""
        folder = Path(directory)
        with intact(folder):
            about = _read_about(folder)
            scores, errors = about.pop("scores"), about.pop("standard_errors", None)
            return cls(
                _nested(folder / "scores.safetensors", scores),
                standard_errors=_nested(folder / "standard_errors.safetensors", errors)
                if errors
                else None,
                **about,
            )

    def __repr__(self) -> str:
        lines = [f"LensResult of {self.lens or 'a lens'}: {len(self)} layers"]
        for layer, scores in self.items():
            lines += [f"  {layer}: {_summary(name, v, self.units)}" for name, v in scores.items()]
        return "\n".join(lines[:40] + (["  ..."] if len(lines) > 40 else []))

    def _repr_html_(self) -> str:
        rows = [
            [layer, name, len(v) if v.ndim else "layer", *_spread(v), self.units.get(name, "")]
            for layer, scores in self.items()
            for name, v in scores.items()
        ]
        return html_table(_HEADER, rows)


def _plain(values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {
        layer: {name: t.detach().double().cpu() for name, t in named.items()}
        for layer, named in values.items()
    }


def _names(values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, list[str]]:
    return {layer: list(named) for layer, named in values.items()}


def _flat(values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return all tensors under "layer:name"; OutputError when two would share one."""
    tensors = {f"{layer}:{name}": t for layer, named in values.items() for name, t in named.items()}
    if len(tensors) < sum(map(len, values.values())):
        raise OutputError("two scores would be saved under one name, as names hold colons")
    return tensors


def _nested(path: Path, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Tensor]]:
    tensors, _ = load_tensors(path)
    return {layer: {n: tensors[f"{layer}:{n}"] for n in own} for layer, own in names.items()}


class _About(TypedDict):
    """What `result.json` says besides its format."""

    lens: str
    params: dict[str, Any]
    units: dict[str, str]
    importance: dict[str, int]
    rows: dict[str, int]
    notes: list[str]
    scores: dict[str, list[str]]
    standard_errors: NotRequired[dict[str, list[str]] | None]


def _read_about(folder: Path) -> dict[str, Any]:
    from pydantic import TypeAdapter

    try:
        about = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as failure:
        raise OutputError(f"no result in {str(folder)!r}: {failure}") from failure
    if about.get("format") != _FORMAT:
        raise OutputError(f"{str(folder)!r} has format {about.get('format')}, not {_FORMAT}")
    return dict(TypeAdapter(_About).validate_python(about, strict=True))


def _summary(name: str, values: Tensor, units: Mapping[str, str]) -> str:
    unit = f" {units[name]}" if units.get(name, "1") != "1" else ""
    if values.numel() == 1:
        return f"{name} {values.item():.4g}{unit}"
    low, mean, high = _spread(values)
    return f"{name} of {len(values)} channels, {low} to {high}, mean {mean}{unit}"


def _spread(values: Tensor) -> list[str]:
    """Return lowest, mean and highest value as text; dashes where there are none."""
    if not values.numel():
        return ["-"] * 3
    return [f"{x:.4g}" for x in (values.min(), values.mean(), values.max())]


def _axis_label(name: str, units: Mapping[str, str]) -> str:
    unit = f" ({units[name]})" if units.get(name, "1") != "1" else ""
    return name.replace("_", " ") + unit
