"""What a lens asks to have measured: which statistic, of which site of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nodelens.errors import InvalidValueError, nearest
from nodelens.statistics.base import Statistic

__all__ = ["Read", "joined_reads", "serving"]

_SITES = ("input", "output", "weight")


@dataclass(frozen=True, init=False)
class Read:
    """One statistic of one site: `Read("output", Moments, {"order": 4})`.

    `site` is "input", "output" or "weight". `view` says how the tensor there becomes rows (see
    `nodelens.model.views`); "rows" is what every layer has. Equal reads are measured once,
    whichever lens they come from.
    """

    site: str
    statistic: type[Statistic]
    options: tuple[tuple[str, Any], ...]
    view: str

    def __init__(
        self,
        site: str,
        statistic: type[Statistic],
        options: Mapping[str, Any] | None = None,
        *,
        view: str = "rows",
    ) -> None:
        if site not in _SITES:
            raise InvalidValueError(
                f"unknown site {site!r}{nearest(site, _SITES)}, expected one of {', '.join(_SITES)}"
            )
        object.__setattr__(self, "site", site)
        object.__setattr__(self, "statistic", statistic)
        object.__setattr__(self, "options", tuple(sorted((options or {}).items())))
        object.__setattr__(self, "view", view)

    def joined(self, other: Read) -> Read | None:
        """Return the read that serves both, None when they have to be measured apart."""
        here = (self.site, self.view, self.statistic)
        if here != (other.site, other.view, other.statistic):
            return None
        options = self.statistic.joined(dict(self.options), dict(other.options))
        return None if options is None else Read(self.site, self.statistic, options, view=self.view)

    @property
    def pairwise(self) -> bool:
        """Return whether a number is kept for every pair of channels, so that blocks make sense."""
        return bool(getattr(self.statistic, "pairwise", False))

    def block(self, start: int, stop: int) -> Read:
        """Return the read of a block of channels against all; itself where nothing is pairwise."""
        if not self.pairwise:
            return self
        options = {**dict(self.options), "start": start, "stop": stop}
        return Read(self.site, self.statistic, options, view=self.view)

    def to_json(self) -> dict[str, Any]:
        """Return the read as plain data."""
        return {
            "site": self.site,
            "statistic": self.statistic.kind(),
            "options": dict(self.options),
            "view": self.view,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Read:
        """Return the read that `to_json` wrote."""
        statistic = Statistic.of_kind(data["statistic"])
        return cls(data["site"], statistic, data["options"], view=data["view"])


def joined_reads(reads: Iterable[Read]) -> list[Read]:
    """Return the fewest reads that serve all of `reads`."""
    kept: list[Read] = []
    for read in reads:
        for i, known in enumerate(kept):
            if (both := known.joined(read)) is not None:
                kept[i] = both
                break
        else:
            kept.append(read)
    return kept


def serving(read: Read, measured: Mapping[Any, Statistic]) -> Statistic | None:
    """Return the measured statistic that serves `read`, None when there is none."""
    if read in measured:
        return measured[read]
    for known, statistic in measured.items():
        if isinstance(known, Read) and known.joined(read) == known:
            return statistic
    return None
