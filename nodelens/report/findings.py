"""What a run found, in sentences computed from its tables. Names stand in backticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from nodelens.report import channels as by_channel
from nodelens.report.orders import Orders

if TYPE_CHECKING:
    import pandas as pd

    from nodelens.report.sections import Section

__all__ = ["QUESTIONS", "Evidence", "Findings", "KeyNumber", "find"]

QUESTIONS = {
    "matter": "Which channels matter?",
    "redundant": "Which are redundant?",
    "without": "What happens without them?",
}
"""What a reader asks of a network first; the keys are those of `Findings.answers`."""
_TELLING = ("taylor_saliency", "scar_loss_proxy", "scar_taylor", "weight_magnitude")
"""Scores to name channels by where none was tested, the most telling first."""


@dataclass(frozen=True)
class Evidence:
    """The tables that findings are read from.

    `channels` has a row a channel: `layer`, `channel`, then a column a score. `correlation` and
    `layer_ranks` are those of the figures; `sensitivity` is None when nothing was silenced. A
    classifier has an accuracy, a language model a perplexity on rows that are blocks of tokens, and
    the `protocol` it was taken by.
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
    protocol: str = ""
    rows_are: str = "rows"
    sensitivity: pd.DataFrame | None = None


@dataclass(frozen=True)
class KeyNumber:
    """A number worth a large font, what it is, how far to trust it, what question it answers."""

    value: str
    label: str
    note: str = ""
    answers: str = ""


@dataclass(frozen=True)
class Findings:
    """A headline, a sentence on what was looked at, key numbers, findings, a reading a figure.

    `answers` holds the sentences among the findings that answer a question of `QUESTIONS`.
    """

    headline: str
    lede: str
    numbers: list[KeyNumber]
    sentences: list[str]
    readings: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=dict)
    curves: bool = False
    """Whether the headline is about channels silenced in order."""

    def with_sections(self, sections: Sequence[Section]) -> Findings:
        """Return the findings with those of the stages in front, and a headline of theirs.

        Those that answer a question stand under it, and not here.
        """
        told = [one.sentence for one in sections if one.sentence and one.answers is None]
        headline = self.headline if self.curves or not told else told.pop(0).removesuffix(".")
        sentences = [*told, *self.sentences]
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
    agreed = by_channel.agreement(evidence.correlation)
    answers: dict[str, list[str]] = {}
    numbers: list[KeyNumber] = []
    for question, (found, said) in _answered(evidence, orders).items():
        numbers += [KeyNumber(*number, answers=question) for number in found if number]
        answers[question] = [sentence for sentence in said if sentence]
    return Findings(
        headline=orders.headline() if orders else f"{size}, measured by {len(scores)} scores",
        lede=lede,
        numbers=numbers,
        sentences=[
            *([orders.best()] if orders else []),
            *chain(*answers.values()),
            *([agreed] if agreed else []),
        ],
        readings=_readings(evidence, orders),
        answers=answers,
        curves=orders is not None,
    )


Number = tuple[str, str, str]


def _answered(
    evidence: Evidence, orders: Orders | None
) -> dict[str, tuple[list[Number | None], list[str]]]:
    """Return key numbers and sentences by the question that they answer."""
    key, kept = _kept(evidence, orders)
    dead_number, dead_sentence = by_channel.dead(evidence.channels)
    shared_number, shared_sentence = by_channel.redundancy(evidence.channels, evidence.units)
    tested = orders.numbers() if orders else []
    return {
        "matter": ([key], [kept, orders.worst_of_all() if orders else ""]),
        "redundant": ([dead_number, shared_number], [shared_sentence, dead_sentence]),
        "without": (
            [*tested, *_whole_network(evidence)],
            [orders.directions()] if orders else [],
        ),
    }


def _kept(evidence: Evidence, orders: Orders | None) -> tuple[Number | None, str]:
    """Return what the best order keeps, or where none was tested the most telling score."""
    channels, importance = evidence.channels, evidence.importance
    if orders and orders.picked[0] in channels:
        return by_channel.matter(channels, orders.picked[0], orders.keeps, picked=True)
    scores = [*_TELLING, *importance]
    known = [name for name in scores if name in channels and importance.get(name)]
    if not known:
        return None, ""
    return by_channel.matter(channels, known[0], importance[known[0]], picked=False)


def _whole_network(evidence: Evidence) -> list[tuple[str, str, str]]:
    if evidence.perplexity is not None:
        number = f"{evidence.perplexity:.4g}"
        return [(number, "perplexity of the whole network", evidence.protocol)]
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
    if orders:
        readings["sensitivity"] = orders.best()
    for mode in orders.modes if orders else []:
        assert orders is not None
        readings[f"sensitivity_{mode}"] = orders.reading(mode)
    return {name: text for name, text in readings.items() if text}
