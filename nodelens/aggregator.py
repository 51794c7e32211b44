"""Merging statistics: over batches, processes, files and interrupted runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, MergeError, NodeLensError, OutputError
from nodelens.files import intact, load_metadata, load_tensors, save_tensors
from nodelens.registry import LENSES
from nodelens.result import LensResult
from nodelens.statistics.base import Statistic
from nodelens.statistics.distributed import gathered
from nodelens.statistics.read import Read

if TYPE_CHECKING:
    from nodelens.lens import Lens

__all__ = ["Aggregator"]

_FORMAT = 1
_EXPECTED = "expected statistics, as analyse_batched() yields them"


class Aggregator:
    """The merged statistics of a lens: all that is kept of a stream, whatever its length.

    Merging is exact, associative and commutative up to float64 rounding. The state needs no model:
    it can be saved, loaded, merged and scored anywhere.
    """

    def __init__(self, lens: Lens) -> None:
        self.lens = lens
        self.statistics: dict[str, dict[Any, Statistic]] = {}
        self.batches = 0
        self.about: dict[str, Any] = {}
        """Plain facts saved with the state: what it was measured of."""
        self.followed: dict[str, Any] = {}
        """What those who look on while a stream is measured need to go on from here."""
        self.remarks: list[str] = []
        """What a reader of the scores must know of how they were measured."""
        self.whole = True
        """False when taking statistics in was interrupted: some of them count, others do not."""

        self.in_place = True
        """False while states from elsewhere, such as a file, may lie on another device."""

    @property
    def rows(self) -> int:
        """Return the largest number of rows any statistic has seen."""
        return max((n for layer in self.statistics.values() for n in _rows(layer)), default=0)

    def update(self, statistics: Mapping[str, Mapping[Any, Statistic]]) -> None:
        """Take in the statistics of one batch, which stay as they are."""
        self._take(statistics, 1, f"lens {self.lens.name!r}, batch {self.batches}")

    def merge(self, other: Aggregator) -> None:
        """Take in all that another aggregator of the same lens has seen."""
        if not isinstance(other, Aggregator):
            raise MergeError(f"cannot merge {other!r} into {self.lens!r}: expected an Aggregator")
        if self.lens.spec() != other.lens.spec():
            raise MergeError(
                f"cannot merge {other.lens!r} into {self.lens!r}: they measured different things"
            )
        self.in_place = False
        self._take(other.statistics, other.batches, f"lens {self.lens.name!r}")
        self.remark(other.remarks)

    def remark(self, remarks: Sequence[str]) -> None:
        """Add remarks that are not there yet."""
        self.remarks += [remark for remark in remarks if remark not in self.remarks]

    def _take(
        self, statistics: Mapping[str, Mapping[Any, Statistic]], batches: int, context: str
    ) -> None:
        layers = statistics.values() if isinstance(statistics, Mapping) else ()
        for given in (statistics, *layers):
            if not isinstance(given, Mapping):
                raise MergeError(f"{context}: {type(given).__name__} is given, {_EXPECTED}")
        self.whole = False
        for layer, found in statistics.items():
            mine = self.statistics.setdefault(layer, {})
            for key, statistic in found.items():
                if not isinstance(statistic, Statistic):
                    raise MergeError(
                        f"{context}, layer {layer!r}: {key!r} is a {type(statistic).__name__}, "
                        f"{_EXPECTED}"
                    )
                try:
                    if key in mine:
                        if not self.in_place:
                            mine[key] = _beside(mine[key], statistic)
                        mine[key].merge(statistic)
                    else:
                        mine[key] = statistic.widened()
                except NodeLensError as error:
                    error.within(f"{context}, layer {layer!r}")
                    raise
        self.batches += batches
        self.whole = self.in_place = True

    def gather(self) -> Aggregator:
        """Return the merged statistics of all ranks of `torch.distributed`, merged in rank order.

        Every rank gets the same; without a process group this is a copy of the one rank.
        """
        merged = Aggregator(self.lens)
        packed, state = self.packed()
        # One rank's devices may not exist on another.
        for index, tensors in gathered((packed, {k: t.cpu() for k, t in state.items()})):
            if index["lens"] != packed["lens"]:
                raise MergeError(f"another rank measured {index['lens']}, this one {self.lens!r}")
            merged.merge(Aggregator.unpacked(self.lens, index, tensors))
        return merged

    def result(self) -> LensResult:
        """Return the scores that the merged statistics give.

        Raises InvalidValueError when there are none yet.
        """
        if not self.batches:
            raise InvalidValueError(f"lens {self.lens.name!r} has seen no batch yet")
        try:
            scores = self.lens.finish(self.statistics)
        except NodeLensError as error:
            error.within(f"lens {self.lens.name!r}")
            raise
        names = {name for layer in scores.values() for name in layer}
        described = {name: self.lens.score_units(name) for name in sorted(names)}
        return LensResult(
            scores,
            lens=self.lens.name,
            params=self.lens.spec()["params"],
            units={name: unit for name, (unit, _) in described.items()},
            importance={name: keep for name, (_, keep) in described.items()},
            notes=[*self.remarks, *self.lens.notes(self.statistics)],
            rows={name: max(_rows(self.statistics[name]), default=0) for name in scores},
        )

    def save(self, path: str | Path, *, make_folder: bool = True) -> None:
        """Write the state to one safetensors file; an older file is replaced in one step.

        Raises OutputError when it cannot be written; the older file is then as it was.
        """
        index, tensors = self.packed()
        metadata = {"nodelens": json.dumps(index)}
        save_tensors(Path(path), tensors, metadata, make_folder=make_folder)

    @classmethod
    def load(cls, path: str | Path, lens: Lens | None = None) -> Aggregator:
        """Return the aggregator saved at `path`, with its lens, or with the one given.

        Raises OutputError for a file that is not one, MergeError for another lens's.
        """
        with intact(path):
            return cls._loaded(path, lens)

    @classmethod
    def _loaded(cls, path: str | Path, lens: Lens | None) -> Aggregator:
        tensors, metadata = load_tensors(Path(path))
        index = _index(path, metadata)
        saved = index["lens"]
        if lens is None:
            lens = _lens_of(saved)
        elif lens.spec() != saved:
            raise MergeError(f"{os.fspath(path)!r} was measured by {saved}, not by {lens!r}")
        return cls.unpacked(lens, index, tensors)

    @staticmethod
    def facts(path: str | Path) -> dict[str, Any]:
        """Return what the state saved at `path` says it is of, without loading it."""
        about: dict[str, Any] = _index(path, load_metadata(Path(path))).get("about", {})
        return about

    def packed(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the state as an index of plain data and the tensors that it names."""
        entries: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for layer, found in self.statistics.items():
            for key, statistic in found.items():
                number = len(entries)
                state = statistic.state()
                entries.append(
                    {
                        "layer": layer,
                        "key": key.to_json() if isinstance(key, Read) else key,
                        "kind": statistic.kind(),
                        "plain": statistic.plain(),
                        "tensors": list(state),
                    }
                )
                tensors.update({f"{number}.{name}": t for name, t in state.items()})
        index = {
            "format": _FORMAT,
            "lens": self.lens.spec(),
            "about": self.about,
            "followed": self.followed,
            "remarks": self.remarks,
            "batches": self.batches,
            "entries": entries,
        }
        return index, tensors

    @classmethod
    def unpacked(
        cls, lens: Lens, index: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> Aggregator:
        """Return the aggregator that `packed()` wrote down."""
        aggregator = cls(lens)
        aggregator.batches = _counted(index["batches"])
        aggregator.about = index.get("about", {})
        aggregator.followed = index.get("followed", {})
        aggregator.in_place = False
        aggregator.remarks = index.get("remarks", [])
        for number, entry in enumerate(index["entries"]):
            key = Read.from_json(entry["key"]) if isinstance(entry["key"], dict) else entry["key"]
            state = {name: tensors[f"{number}.{name}"] for name in entry["tensors"]}
            statistic = Statistic.of_kind(entry["kind"]).from_state(state, entry["plain"])
            _check_counts(statistic)
            _check_counts(getattr(statistic, "window", None))
            aggregator.statistics.setdefault(entry["layer"], {})[key] = statistic
        return aggregator


def _index(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if "nodelens" not in metadata:
        raise OutputError(f"{os.fspath(path)!r} holds no aggregator")
    index: dict[str, Any] = json.loads(metadata["nodelens"])
    if index["format"] != _FORMAT:
        raise OutputError(f"{os.fspath(path)!r} has format {index['format']}, expected {_FORMAT}")
    return index


def _lens_of(spec: Mapping[str, Any]) -> Lens:
    if not spec.get("complete", True):
        raise InvalidValueError(
            f"lens {spec['name']!r} had options that cannot be saved: pass lens= to load it"
        )
    return LENSES.get(spec["name"]).restored(spec)


def _beside(mine: Statistic, other: Statistic) -> Statistic:
    """Return `mine` where `other` is: a state from a file is on the CPU, a layer on its device."""
    device = _device(other)
    if device is None or _device(mine) == device:
        return mine
    return mine.from_state({k: t.to(device) for k, t in mine.state().items()}, mine.plain())


def _device(statistic: Statistic) -> torch.device | None:
    return next((v.device for v in vars(statistic).values() if isinstance(v, Tensor)), None)


def _check_counts(loaded: Any) -> None:
    """Raise ValueError where a file gives something else for a field that counts."""
    for field in fields(loaded) if is_dataclass(loaded) else ():
        if field.type == "int" and field.name != "seed":
            _counted(getattr(loaded, field.name))


def _counted(value: Any) -> int:
    if isinstance(value, Tensor):
        return 0
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no count")
    return value


def _rows(found: Mapping[Any, Statistic]) -> list[int]:
    return [n for s in found.values() if isinstance(n := getattr(s, "rows", None), int)]
