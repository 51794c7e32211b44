"""The page and the figures made from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot
from PIL import Image
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

__all__ = ["written"]

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "all-metrics.md"
NETWORKS = ("digits", "efficientnet", "smollm2", "smollm2_whole")

HEAD = """\
# All metrics, measured

Every metric lens on three real networks: one composite of all that need no gradient, one of all
that do, each a single pass. Made by `python -m projects.all_metrics digits efficientnet
smollm2 smollm2_whole`; two cores, two threads but where it says otherwise.

*Seconds a batch* are of the lens alone, its forward (and backward) pass included, median of three
(on SmolLM2 one batch, of an earlier run); *scoring* is once a run, *planned* is what `lens.plan`
said before it. *Agreement* is the median over all other scores of the absolute Spearman correlation
over the units of a layer (on SmolLM2: of a feed-forward block, whose units are rows of the up
projection and inputs of the down projection), and *closest* the score it ranks units most like,
with the median correlation over layers. Only scores of equally many units are set side by side.
EfficientNet-Lite0 was measured with one thread, one round, beside other work, SmolLM2's pass with
gradients beside other work too: their seconds are more than they need. On both, memory grew by more
than was planned, by 16% and 28%; SmolLM2's is of an earlier version. A plan counts what is alive,
not what the system's allocator keeps of what was freed: given back at once
(`MALLOC_MMAP_THRESHOLD_=65536`), two blocks of SmolLM2 take 1,744 MB, 1,707 MB planned
(`tests/plan/test_smollm2_peak.py`). Whether that explains all of it here has not been shown.
"""


def written(folder: Path) -> Path:
    """Write the page from the JSON files in `folder` and return where it is."""
    parts = [HEAD]
    for name in NETWORKS:
        if (path := folder / f"{name}.json").exists():
            found = json.loads(path.read_text())
            parts.append(_passes(found))
            if found["lenses"]:
                parts += [_table(found), _figure(name, found)]
    PAGE.write_text("\n".join(parts))
    return PAGE


def _passes(found: dict[str, Any]) -> str:
    lines = [
        f"## {found['title']}, {found['rows']}",
        "",
        "| pass | lenses | seconds | scoring, s | planned state | planned peak | memory grew by |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in ("forward", "gradient"):
        one = found[name]
        sizes = (one[key] for key in ("planned_bytes", "planned_peak", "peak_grew_by"))
        shown = " | ".join(f"{size / 1e6:,.0f} MB" for size in sizes)
        lines.append(
            f"| {name} | {len(one['lenses'])} | {one['seconds']:,.1f} "
            f"| {one['scoring_seconds']:,.1f} | {shown} |"
        )
    lines.append("")
    if found["refused"]:
        lines += ["", "Not for this network:", ""]
        by_reason: dict[str, list[str]] = {}
        for lens, reason in found["refused"].items():
            by_reason.setdefault(reason, []).append(f"`{lens}`")
        lines += [f"- {', '.join(lenses)}: {reason}" for reason, lenses in by_reason.items()]
    return "\n".join([*lines, ""])


def _table(found: dict[str, Any]) -> str:
    close = _closest(found["agreement"])
    lines = [
        "| lens | family | needs | s a batch | scoring, s | state | agreement | closest |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    for lens in found["lenses"]:
        agreement, closest = close.get(lens["lens"], ("", ""))
        lines.append(
            f"| [{lens['lens']}](lenses/{lens['lens']}.md) | {lens['family']} "
            f"| {', '.join(lens['needs'])} | {lens['seconds_a_batch']:.3f} "
            f"| {lens['scoring_seconds']:.2f} | {_bytes(lens['bytes'])} | {agreement} | {closest} |"
        )
    return "\n".join([*lines, ""])


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _matrix(agreement: dict[str, Any]) -> np.ndarray:
    return np.array(agreement["spearman"], dtype=float)


def _closest(agreement: dict[str, Any]) -> dict[str, tuple[str, str]]:
    names, rho = agreement["names"], _matrix(agreement)
    np.fill_diagonal(rho, np.nan)
    found = {}
    for name, row in zip(names, rho, strict=True):
        if np.isnan(row).all():
            continue
        best = int(np.nanargmax(np.abs(row)))
        found[name] = f"{np.nanmedian(np.abs(row)):.2f}", f"{names[best]} ({row[best]:+.2f})"
    return found


def _figure(name: str, found: dict[str, Any]) -> str:
    """The matrix of rank correlations, scores that rank alike side by side."""
    rho = _matrix(found["agreement"])
    kept = [i for i in range(len(rho)) if (~np.isnan(rho[i])).sum() > 1]
    rho = rho[np.ix_(kept, kept)]
    distance = 1 - np.abs(np.nan_to_num(rho))
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average")
    order = leaves_list(tree)
    names = [found["agreement"]["names"][kept[i]] for i in order]
    size = 1.6 + 0.15 * len(names)
    figure, ax = pyplot.subplots(figsize=(size + 1, size), layout="constrained")
    image = ax.imshow(rho[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    ax.set_yticks(range(len(names)), names, fontsize=6)
    figure.colorbar(image, shrink=0.5, label="Spearman correlation, median over layers")
    path = PAGE.parent / "images" / f"all-metrics-{name}.png"
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    # 256 colours that cover the map evenly are as good to the eye, and a third of the size.
    few = Image.open(path).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    few.save(path, optimize=True)
    return f"![Rank correlations of all scores on {found['title']}](images/{path.name})\n"
