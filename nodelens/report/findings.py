"""What a run found, in sentences computed from its tables. Names stand in backticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nodelens.report import channels as by_channel
from nodelens.report.orders import Orders

if TYPE_CHECKING:
    import pandas as pd

    from nodelens.report.chapter import Chapter

__all__ = ["Evidence", "Findings", "KeyNumber", "find"]


@dataclass(frozen=True)
class Evidence:
    """The tables that findings are read from.

    `channels` has a row a channel: `layer`, `channel`, then a column a score. `correlation` and
    `layer_ranks` are those of the figures; `sensitivity` is None when nothing was silenced. A
    classifier has an accuracy, a language model a perplexity on rows that are blocks of tokens.
    """

    channels: pd.DataFrame
    correlation: pd.DataFrame
    layer_ranks: pd.DataFrame
    units: Mapping[str, str]
    importance: Mapping[str, int]
    network: str
    dataset: str
    classes: int
    rows: Mapping[str, int]
    accuracy: float | None = None
    perplexity: float | None = None
    rows_are: str = "rows"
    sensitivity: pd.DataFrame | None = None


@dataclass(frozen=True)
class KeyNumber:
    """A number worth a large font, what it is, and how far to trust it."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Findings:
    """A headline, a sentence on what was looked at, key numbers, findings, a reading a figure."""

    headline: str
    lede: str
    numbers: list[KeyNumber]
    sentences: list[str]
    readings: dict[str, str] = field(default_factory=dict)
    curves: bool = False
    """Whether the headline is about channels silenced in order."""

    def with_chapters(self, chapters: Sequence[Chapter]) -> Findings:
        """Return the findings with those of the stages in front, and a headline of theirs."""
        told = [chapter.headline for chapter in chapters]
        headline = self.headline if self.curves or not told else told.pop(0)
        sentences = [*(f"{sentence}." for sentence in told), *self.sentences]
        return replace(self, headline=headline, sentences=sentences)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Findings:
        """Return the findings that `dataclasses.asdict` wrote down."""
        return cls(**{**data, "numbers": [KeyNumber(**number) for number in data["numbers"]]})


def find(evidence: Evidence) -> Findings:
    """Return what the tables of a run say."""
    table = evidence.sensitivity
    orders = Orders(table, evidence.importance) if table is not None else None
    scores = list(evidence.channels.columns[2:])
    layers = evidence.channels["layer"].nunique()
    size = f"{len(evidence.channels):,} channels in {layers} layers"
    rows = evidence.rows
    lede = (
        f"A `{evidence.network}` on {evidence.dataset}. {size.capitalize()}, measured by"
        f" {len(scores)} scores on {rows['calibration']:,} training {evidence.rows_are} and tested"
        f" on {rows['test']:,} {evidence.rows_are} held out."
    )
    number, sentence = by_channel.redundancy(evidence.channels, evidence.units)
    dead_number, dead_sentence = by_channel.dead(evidence.channels)
    numbers = [*_whole_network(evidence), *(orders.numbers() if orders else [])]
    return Findings(
        headline=orders.headline() if orders else f"{size}, measured by {len(scores)} scores",
        lede=lede,
        numbers=[KeyNumber(*n) for n in [*numbers, number, dead_number] if n],
        sentences=[
            text
            for text in [
                *(orders.sentences() if orders else []),
                sentence,
                dead_sentence,
                by_channel.agreement(evidence.correlation),
            ]
            if text
        ],
        readings=_readings(evidence, orders),
        curves=orders is not None,
    )


def _whole_network(evidence: Evidence) -> list[tuple[str, str, str]]:
    if evidence.perplexity is not None:
        note = f"on {evidence.rows['test']:,} {evidence.rows_are} held out"
        return [(f"{evidence.perplexity:.4g}", "perplexity of the whole network", note)]
    if evidence.accuracy is None:
        return []
    low, high = by_channel.wilson(evidence.accuracy, evidence.rows["test"])
    note = f"95% interval {low:.1%} to {high:.1%}; guessing gives about {1 / evidence.classes:.0%}"
    return [(f"{evidence.accuracy:.1%}", "accuracy of the whole network", note)]


def _readings(evidence: Evidence, orders: Orders | None) -> dict[str, str]:
    readings = {
        "rank_correlation": by_channel.agreement(evidence.correlation),
        "layer_heatmap": by_channel.spread_over_layers(evidence.layer_ranks),
        "histograms": by_channel.concentration(evidence.channels),
    }
    for mode in orders.modes if orders else []:
        assert orders is not None
        readings[f"sensitivity_{mode}"] = orders.reading(mode)
    return {name: text for name, text in readings.items() if text}
