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

TEXT = """\
# Supernodes and SCAR on {model}

*Question.* "Supernodes and Halos" (arXiv 2604.23475) says of Llama-3.1-8B that few feed-forward
units carry the loss: the top 1% of a block hold a median 58.7% of the loss proxy,
½ E (u g)², and protecting them makes pruning half of the units far better than Wanda by channel.
What of it holds on a model sixty times smaller? One model and one kind of text: an answer for them,
not for the method.

*Method.* {model}, {layers} feed-forward blocks of {units:,} units. Units are scored on {tokens:,}
tokens of {scored} articles; perplexity is taken on {tested} blocks of {size} tokens, one an article
where there are as many, none of which was scored. Silenced units give zero; nothing is trained
again and no weight is written. Intervals are 95%, from {draws} draws of the evaluation blocks (and
of seeds, where there are several); two conditions are compared on the same drawn blocks. The rules
for each verdict are in `projects/supernodes_scar/claims.py` and look at the interval alone.

## What holds, and what does not

| claim | from | found | verdict |
|---|---|---|---|
{claims}

*preprint*: stated there; *asked here*: what a reader would want to know next. "A times B" is the
ratio of perplexities, with its interval.

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
matches in the median block, up to {worst:.2f}. Dense: {dense}.

| removed | perplexity | times dense |
|---|--:|--:|
{removed}

![Perplexity without 1% or a halo](images/supernode-removed.png)

## Half of the units gone

The same half of every block, but for *one threshold*, which compares all blocks. *around
activations*: SCAR-Prot with its core by activation power. *kept*: no unit of that set is removed.

| order | perplexity | times dense |
|---|--:|--:|
{half}

![Perplexity at half of the units](images/supernode-half.png)

## Limits

- One model of 135M parameters, quantised to 4 bits before it was packaged, and one text.
- {tested} blocks: what changes perplexity by a few percent is not decided by them.
- The calibration text is small beside that of the preprint; nothing is said of longer contexts.
- 50% is far beyond what this model bears without training, so orders are compared where all are
  bad; see [other amounts](smollm2-pruning.md).

Made by `python -m projects.supernodes_scar` in {minutes:.0f} minutes on two shared cores. Tables:
{tables}.
"""


def write_page(folder: Path, docs: Path = DOCS) -> Path:
    """Write the page, its figures and its tables, and return where the page is."""
    names = ("claims", "concentration", "overlap", "perplexity")
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in names}
    (docs / "data").mkdir(parents=True, exist_ok=True)
    (docs / "images").mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(folder / f"{name}.csv", docs / "data" / f"supernode-{name}.csv")
    draw_all(folder, docs / "images")
    links = ", ".join(f"[{name}](data/supernode-{name}.csv)" for name in names)
    page = docs / "supernode-study.md"
    page.write_text(TEXT.format(**_facts(folder), **_parts(tables), tables=links))
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
