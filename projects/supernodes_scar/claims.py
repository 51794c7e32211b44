"""What was claimed, what came out on this model, and whether the two agree, by rules set before."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from nodelens.analysis.causal.estimates import Estimate
from projects.supernodes_scar.tables import Losses

__all__ = ["claims"]

PREPRINT = "preprint"
RELEASED = "authors' released numbers"
ASKED = "asked here"
AFTERWARDS = "asked after the first results"


@dataclass(frozen=True)
class _Ratio:
    """A claim that perplexity under one condition is lower than, or like, that under another."""

    text: str
    source: str
    first: str
    second: str
    expected: str = "lower"
    far: float | None = None

    def judged(self, losses: Losses) -> dict[str, Any]:
        found = losses.ratio(self.first, self.second)
        said = f"{self.first}: {_times(found)} the perplexity of {self.second}"
        return _row(self.text, self.source, said, self._verdict(found), found)

    def _verdict(self, found: Estimate) -> str:
        if self.expected == "like":
            if found.low > 1 / 1.1 and found.high < 1.1:
                return "holds: within 10%"
            return "does not hold" if found.low > 1.1 or found.high < 1 / 1.1 else "not decided"
        if self.far is not None and found.high < self.far:
            return "holds"
        if found.high < 1:
            return "holds" if self.far is None else "holds in direction, not in size"
        return "does not hold: the opposite" if found.low > 1 else "not decided"


_RATIOS = (
    _Ratio(
        "Removing the top 1% costs more than removing a random 1%",
        PREPRINT,
        "random 1%, without the top",
        "top 1% by loss proxy",
    ),
    _Ratio(
        "Removing the top 1% costs more than removing the next 1%",
        ASKED,
        "next 1% by loss proxy",
        "top 1% by loss proxy",
    ),
    _Ratio(
        "Removing the top 1% by loss proxy costs more than the top 1% by activation power",
        ASKED,
        "top 1% by activation power",
        "top 1% by loss proxy",
    ),
    _Ratio(
        "At 50%, SCAR-Prot is far better than Wanda-channel (less than half its perplexity)",
        PREPRINT,
        "SCAR-Prot",
        "Wanda, channels",
        far=0.5,
    ),
    _Ratio(
        "At 50%, SCAR-Conn is far better than Wanda-channel (less than half its perplexity)",
        PREPRINT,
        "SCAR-Conn",
        "Wanda, channels",
        far=0.5,
    ),
    _Ratio(
        "It is the protection that does it: Wanda-channel with the supernodes kept is better",
        PREPRINT,
        "Wanda, channels, top 1% by loss proxy kept",
        "Wanda, channels",
    ),
    _Ratio(
        "SCAR-Prot is better than the loss proxy alone",
        ASKED,
        "SCAR-Prot",
        "loss proxy",
    ),
    _Ratio(
        "SCAR-Conn is better than the loss proxy alone",
        ASKED,
        "SCAR-Conn",
        "loss proxy",
    ),
    _Ratio(
        "A core by activations protects about as well as one by loss proxy, in SCAR-Prot",
        RELEASED,
        "SCAR-Prot around activations",
        "SCAR-Prot",
        expected="like",
    ),
    _Ratio(
        "Orders that know the loss beat activation power alone, at 50%",
        ASKED,
        "SCAR-Prot",
        "activation power",
    ),
    _Ratio(
        "A write-halo is redundant: it costs less than others of like loss proxy",
        PREPRINT,
        "write-halo, 10%",
        "matched others, 10%",
    ),
    _Ratio(
        "The same in the blocks where halo and others are alike in power too",
        AFTERWARDS,
        "write-halo, 10%, where alike",
        "matched others, 10%, where alike",
    ),
)


def claims(concentration: pd.DataFrame, overlap: pd.DataFrame, losses: Losses) -> pd.DataFrame:
    """Return a row a claim: text, source, what was found, verdict, and a ratio on its interval."""
    tables = [_concentrated(concentration), _apart(overlap)]
    return pd.DataFrame([*tables, *(ratio.judged(losses) for ratio in _RATIOS)])


def _concentrated(table: pd.DataFrame) -> dict[str, Any]:
    held = table["loss proxy, top 1%"]
    median = float(held.median())
    verdict = "holds" if median >= 0.5 else "does not hold: less than half"
    if 0.1 <= median < 0.5:
        verdict = "weaker: at least ten times an equal share, less than half"
    said = f"median {median:.1%}, from {held.min():.1%} to {held.max():.1%} of {len(held)} blocks"
    text = "The top 1% of units hold most of the loss proxy (Llama-3.1-8B: median 58.7%)"
    return _row(text, PREPRINT, said, verdict)


def _apart(table: pd.DataFrame) -> dict[str, Any]:
    power = table[table["definition"] == "activation power"]
    jaccard, spearman = power["jaccard"].median(), power["spearman"].median()
    verdict = "holds" if jaccard < 0.5 else "does not hold: mostly the same units"
    said = f"median Jaccard {jaccard:.2f} and Spearman {spearman:.2f} with activation power"
    return _row("Supernodes are not just the most active units", ASKED, said, verdict)


def _row(
    text: str, source: str, found: str, verdict: str, ratio: Estimate | None = None
) -> dict[str, Any]:
    ends = asdict(ratio) if ratio is not None else dict.fromkeys(("value", "low", "high"))
    return {"claim": text, "source": source, "found": found, "verdict": verdict, **ends}


def _times(found: Estimate) -> str:
    return f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g}) times"
