"""`docs/supernode-study.md`: every number read from the files of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from projects.supernodes_scar.drawings import draw_all

__all__ = ["write_page"]

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"

_OTHERS = ("Wanda", "activation power")
_MATCHED = ["halo over matched", "power of halo over matched"]

TEXT = """\
# Supernodes and SCAR on {model}

*Question.* "Supernodes and Halos" (arXiv 2604.23475) says of Llama-3.1-8B that few feed-forward
units carry the loss: the top 1% of a block hold a median 58.7% of the loss proxy,
½ E (u g)², and protecting them makes pruning half of the units far better than Wanda by channel.
What of it holds on a model sixty times smaller? One model and one kind of text: an answer for them,
not for the method.

*Method.* {model}, {layers} feed-forward blocks of {units:,} units. Units are scored on {tokens:,}
tokens of {scored} articles; perplexity is taken on {tested} blocks of {size} tokens, one an article
where there are as many, none of which was scored (in float32, every token but the first of a block
predicted). Silenced units give zero; nothing is trained
again and no weight is written. Intervals are 95%, from {draws} draws of the evaluation blocks (and
of seeds, where there are several); two conditions are compared on the same drawn blocks. The rules
for each verdict are in `projects/supernodes_scar/claims.py` and look at the interval alone.

{notes}## What holds, and what does not

| claim | from | found | verdict |
|---|---|---|---|
{claims}

*preprint*: stated there; *asked here*: what a reader would want to know next; *after the first
results*: asked because of them, so no test of them. "A: x times the perplexity of B" has its
interval in brackets.

## How much the top 1% hold

Median {median:.1%} of the loss proxy over {layers} blocks, from {least:.1%} to {most:.1%}; an
equal share would be {equal:.1%}. The largest single unit of a block holds up to {largest:.0%}. The
same share of activation power is {power:.1%} in the median. With parts of the text drawn anew, the
chosen units are the same by a Jaccard of {jaccard:.2f} in the median.

![Share of the loss proxy that the top units hold](images/supernode-concentration.png)
![Top 1% by depth](images/supernode-depth.png)

## Other definitions

Overlap of the top 1% by each score with the top 1% by loss proxy, and rank correlation over all
units; median over blocks, and range.

| score | Jaccard | Spearman |
|---|--:|--:|
{overlap}

![Overlap by depth](images/supernode-overlap.png)

## What removing them costs

1% of every block at once, and the tenth of a block that writes where the core does (write-halo)
against as many others of like loss proxy; the halo's loss proxy is {matched:.2f} times that of its
matches in the median block, up to {worst:.2f}, and its activation power {powered:.2f} times, up to
{strongest:.1f}. *Where alike* leaves out the blocks in which either is above 1.5: {unlike} of
{layers}. *First* is the one unit of a block with the highest loss proxy. Dense: {dense}.

| removed | perplexity | times dense |
|---|--:|--:|
{removed}

![Perplexity without 1% or a halo](images/supernode-removed.png)

## Half of the units gone

The same half of every block, but for *one threshold*, which compares all blocks. *around
activations*: SCAR-Prot with its core by activation power. *kept*: no unit of that set is removed.
By itself, Wanda removes {lost} of the {cores} units of the core, and activation power {lost_power}.

| order | perplexity | times dense |
|---|--:|--:|
{half}

![Perplexity at half of the units](images/supernode-half.png)

## Attention heads against units

On the first eighth of the calibration text, heads by the same proxy, ½ E (x · g)² over a head's
channels. All {heads} heads together hold {of_heads:.1%} of what heads and units hold, though they
are {share_of_heads:.1%} of their number: the mean head holds as much as {per_head:.0f} units. What
that says, and what not, is in [along the depth](depth.md).

![Share of the loss proxy by depth and kind](images/supernode-kinds.png)

## Limits

- One model of 135M parameters, quantised to 4 bits before it was packaged, and one text.
- {tested} blocks: what changes perplexity by a few percent is not decided by them.
- The calibration text is small beside that of the preprint; nothing is said of longer contexts.
- 50% is far beyond what this model bears without training, so orders are compared where all are
  bad; see [other amounts](smollm2-pruning.md).

Made by `python -m projects.supernodes_scar` in {minutes:.0f} minutes on one or two shared cores.
Tables:
{tables}.
"""


def write_page(folder: Path, docs: Path = DOCS) -> Path:
    """Write the page, its figures and its tables, and return where the page is."""
    names = ("claims", "concentration", "overlap", "perplexity", "kinds")
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in names}
    (docs / "data").mkdir(parents=True, exist_ok=True)
    (docs / "images").mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(folder / f"{name}.csv", docs / "data" / f"supernode-{name}.csv")
    draw_all(folder, docs / "images")
    links = ", ".join(f"[{name}](data/supernode-{name}.csv)" for name in names)
    page = docs / "supernode-study.md"
    facts, lost = _facts(folder), _lost(pd.read_csv(folder / "channels.csv"), tables)
    parts = {**facts, **_parts(tables), **_kinds(tables["kinds"]), **lost}
    page.write_text(TEXT.format(**parts, notes=_notes(facts["model"]), tables=links))
    return page


def _facts(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / "settings.json").read_text())
    about = json.loads((folder / "about.json").read_text())
    return {
        "model": _shown(settings["model"]),
        "layers": about["blocks"],
        "tokens": settings["tokens"],
        "size": settings["block_size"],
        "scored": about["calibration articles"],
        "tested": settings["blocks"],
        "minutes": about["seconds"] / 60,
        "draws": "4,000",
    }


def _notes(model: str) -> str:
    """Return what was written by hand about the results on this model."""
    path = Path(__file__).parent / "notes" / f"{model.lower()}.md"
    return f"{path.read_text().rstrip()}\n\n" if path.exists() else ""


def _kinds(table: pd.DataFrame) -> dict[str, Any]:
    heads, units = (table[table["kind"] == kind] for kind in ("head", "unit"))
    number, others = heads["units"].sum(), units["units"].sum()
    means = heads["total"].sum() / number, units["total"].sum() / others
    return {
        "heads": number,
        "of_heads": heads["of_all"].sum(),
        "share_of_heads": number / (number + others),
        "per_head": means[0] / means[1],
    }


def _lost(channels: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Return how many supernodes are in the lower half of their block by other scores."""
    blocks = channels.groupby("layer", sort=False)
    ranks = {name: blocks[name].rank(ascending=False) for name in ("loss proxy", *_OTHERS)}
    sizes = tables["concentration"].set_index("layer")
    core = ranks["loss proxy"] <= channels["layer"].map(sizes["core"])
    low = {name: ranks[name] > channels["layer"].map(sizes["units"]) / 2 for name in _OTHERS}
    lost, lost_power = (int((core & low[name]).sum()) for name in _OTHERS)
    return {"cores": int(sizes["core"].sum()), "lost": lost, "lost_power": lost_power}


def _parts(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    held, losses = tables["concentration"], tables["perplexity"]
    proxy = held["loss proxy, top 1%"]
    by_group = dict(iter(losses.groupby("group", sort=False)))
    dense = by_group["dense"].iloc[0]
    removed = pd.concat([by_group["removed"], by_group["halo"]])
    return {
        "claims": "\n".join(
            f"| {row['claim']} | {row['source']} | {row['found']} | **{row['verdict']}** |"
            for _, row in tables["claims"].iterrows()
        ),
        "units": int(held["units"].iloc[0]),
        "median": proxy.median(),
        "least": proxy.min(),
        "most": proxy.max(),
        "equal": float((held["core"] / held["units"]).median()),
        "largest": held["largest unit"].max(),
        "power": held["activation power, top 1%"].median(),
        "jaccard": held["drawn anew, Jaccard"].median(),
        "matched": held["halo over matched"].median(),
        "worst": held["halo over matched"].max(),
        "powered": held["power of halo over matched"].median(),
        "strongest": held["power of halo over matched"].max(),
        "unlike": int((held[_MATCHED] > 1.5).any(axis=1).sum()),
        "overlap": "\n".join(_overlaps(tables["overlap"])),
        "dense": f"{dense['perplexity']:.1f} ({dense['low']:.1f} to {dense['high']:.1f})",
        "removed": "\n".join(map(_line, _sorted(removed))),
        "half": "\n".join(map(_line, _sorted(by_group["half"]))),
    }


def _overlaps(table: pd.DataFrame) -> list[str]:
    return [
        f"| {name} | {_spread(rows['jaccard'])} | {_spread(rows['spearman'])} |"
        for name, rows in table.groupby("definition", sort=False)
    ]


def _spread(values: pd.Series[float]) -> str:
    return f"{values.median():.2f} ({values.min():.2f} to {values.max():.2f})"


def _sorted(rows: pd.DataFrame) -> list[Any]:
    return [row for _, row in rows.sort_values("perplexity").iterrows()]


def _line(row: Any) -> str:
    seeds = f", {row['seeds']} seeds" if row["seeds"] > 1 else ""
    found = f"{_short(row['perplexity'])} ({_short(row['low'])} to {_short(row['high'])})"
    times = f"{row['times dense']:.3g} ({row['times dense, low']:.3g} to "
    return f"| {row['condition']}{seeds} | {found} | {times}{row['times dense, high']:.3g}) |"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _shown(name: str) -> str:
    return {"smollm2-135m": "SmolLM2-135M"}.get(name, name)
