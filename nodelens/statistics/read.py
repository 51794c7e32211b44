"""What a lens asks to have measured: which statistic, of which site of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nodelens.errors import InvalidValueError, nearest
from nodelens.statistics.base import Statistic

__all__ = ["BESIDE_CLASS", "NEXT", "TARGETS", "Read", "joined_reads", "serving"]

_SITES = ("input", "output", "weight")
_OF_OUTPUTS = ("correct_logit", "logit_margin", "logits")
BESIDE_CLASS = "class_and_"
TARGETS = ("targets", *_OF_OUTPUTS, *(BESIDE_CLASS + target for target in _OF_OUTPUTS))
NEXT = "next"


@dataclass(frozen=True, init=False)
class Read:
    """One statistic of one site: `Read("output", Moments, {"order": 4})`.

    `site` is "input", "output" or "weight". `view` says how the tensor there becomes rows (see
    `nodelens.model.views`); "rows" is what every layer has. Equal reads are measured once,
    whichever lens they come from.

    `target` says what a statistic that needs targets is given: "targets" of the batch, or of the
    model's own outputs the "correct_logit", the "logit_margin" (correct minus best other) or all
    "logits"; after "class_and_" with the class number in front. `beside` names another layer, or
    "next" the one that follows in the forward pass, for a statistic of two layers.
    """

    site: str
    statistic: type[Statistic]
    options: tuple[tuple[str, Any], ...]
    view: str
    target: str
    beside: str

    def __init__(
        self,
        site: str,
        statistic: type[Statistic],
        options: Mapping[str, Any] | None = None,
        *,
        view: str = "rows",
        target: str = "targets",
        beside: str = "",
    ) -> None:
        for what, given, valid in (("site", site, _SITES), ("target", target, TARGETS)):
            if given not in valid:
                raise InvalidValueError(
                    f"unknown {what} {given!r}{nearest(given, valid)}, "
                    f"expected one of {', '.join(valid)}"
                )
        needs = statistic.needs
        if bool(beside) != ("beside" in needs) or (beside and needs & {"gradient", "targets"}):
            raise InvalidValueError(
                f"{statistic.__name__} beside {beside!r}: a statistic of two layers, and no other, "
                "is read beside a layer, without targets or gradient"
            )
        object.__setattr__(self, "site", site)
        object.__setattr__(self, "statistic", statistic)
        object.__setattr__(self, "options", tuple(sorted((options or {}).items())))
        object.__setattr__(self, "view", view)
        # What needs no targets is the same read whatever the target would be.
        object.__setattr__(self, "target", target if "targets" in needs else TARGETS[0])
        object.__setattr__(self, "beside", beside)

    def joined(self, other: Read) -> Read | None:
        """Return the read that serves both, None when they have to be measured apart."""
        if self.kind != other.kind:
            return None
        options = self.statistic.joined(dict(self.options), dict(other.options))
        return None if options is None else self.under(options)

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what is read, whatever the options of the statistic."""
        return self.site, self.view, self.statistic, self.target, self.beside

    def under(self, options: Mapping[str, Any]) -> Read:
        """Return the same read with other options of its statistic."""
        return Read(
            self.site,
            self.statistic,
            options,
            view=self.view,
            target=self.target,
            beside=self.beside,
        )

    @property
    def of_outputs(self) -> bool:
        """Return whether it needs a target that only the model's outputs show."""
        return "targets" in self.statistic.needs and self.target != "targets"

    @property
    def pairwise(self) -> bool:
        """Return whether a number is kept for every pair of channels, so that blocks make sense."""
        return bool(getattr(self.statistic, "pairwise", False))

    def block(self, start: int, stop: int) -> Read:
        """Return the read of a block of channels against all; itself where nothing is pairwise."""
        if not self.pairwise:
            return self
        return self.under({**dict(self.options), "start": start, "stop": stop})

    def to_json(self) -> dict[str, Any]:
        """Return the read as plain data."""
        return {
            "site": self.site,
            "statistic": self.statistic.kind(),
            "options": dict(self.options),
            "view": self.view,
            "target": self.target,
            "beside": self.beside,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Read:
        """Return the read that `to_json` wrote."""
        statistic = Statistic.of_kind(data["statistic"])
        # States saved before there were these two have none.
        more = {name: data[name] for name in ("target", "beside") if name in data}
        return cls(data["site"], statistic, data["options"], view=data["view"], **more)


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
