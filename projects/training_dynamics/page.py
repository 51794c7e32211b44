"""The figure, the table and the page of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas
from matplotlib import pyplot
from PIL import Image

from nodelens.analysis.dynamics import Dynamics
from nodelens.figures.style import COLOURS, GREY, MARKERS, TEXT, paper_axes, quiet

__all__ = ["drawn", "written"]

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
Found = Mapping[str, Mapping[str, Dynamics]]

PAGE = """\
# Scores while a network learns

**Question.** When is it decided which channels score high? A score that settles early could prune
early; one that turns round at the end says nothing before.

## Method

`nodelens.analysis.dynamics.dynamics(scores, steps, losses)` takes scores of a layer,
`(checkpoints, channels)`; `score_checkpoints(model, files, score)` makes them from safetensors
files or state dicts of one model, whose own weights are there again afterwards.

| field | what it is |
|---|---|
| `final` | the score at the last checkpoint, of every channel |
| `slope`, `tau` | slope of the line on the step or its logarithm, and Kendall's tau with it |
| `loss` | Spearman correlation of the channel's score with the loss, over checkpoints |
| `neighbours`, `with_last` | Spearman correlation with the checkpoint before, and with the last |
| `top_overlap` | share of the last one's top tenth that is in the top tenth already |

```python
import torch
from nodelens.analysis.dynamics import dynamics

steps = [1, 10, 100, 1000]
scores = torch.tensor(steps).log()[:, None] * torch.tensor([2.0, -1.0]) + 5
found = dynamics(scores, steps, losses=[2.3, 1.1, 0.4, 0.1], log_steps=True)
print([round(v, 3) for v in found.slope.tolist()], found.tau.tolist(), found.loss.tolist())
```
```text
[2.0, -1.0] [1.0, -1.0] [-1.0, 1.0]
```

## Measured: the digits CNN

{steps} checkpoints of one run, from step {first} to step {last} (test loss {start:.2f} to
{end:.2f}), scored on the training images. Means over the three hidden layers; made by
`python -m projects.training_dynamics`.

![Agreement of every checkpoint's scores with the last](images/training-dynamics.png)

{table}
All checkpoints: [training-dynamics.csv](data/training-dynamics.csv).

*Halfway* is step {half}, with a test loss of {half_loss:.2f}. *Rising* is the share of channels
with tau above 0.5, *falling* below -0.5; *with loss* the mean over channels of the size of the
correlation with the test loss.

## Reading

- `with_last` near 1 early on: what the score would prune or protect is decided by then. The overlap
  of the top tenth says so for the channels that matter most, and often settles later.
- A score that falls or rises in all channels may still keep their order: see `neighbours`.
- A `with_last` below 0 early on: the order has turned round since.

## Limits

- One run with one seed: which channels win depends on it, how soon a score settles does less so.
- With few checkpoints tau and the correlation with the loss are coarse; over a run nearly
  everything correlates with the loss, for both move with time. That is no evidence of a cause.
- The top tenth of 16 channels is 2: its overlap moves in steps of a half.
"""


def drawn(found: Found, losses: Sequence[float]) -> None:
    """Draw agreement and overlap with the last checkpoint, and the loss."""
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharex=True)
    names = {
        "with_last": "Spearman correlation with the last",
        "top_overlap": "share of the last top tenth",
    }
    for ax, (field, label) in zip(axes, names.items(), strict=True):
        paper_axes(ax, 4, 3.4)
        for number, (name, by_layer) in enumerate(found.items()):
            steps, height = next(iter(by_layer.values())).steps, _mean(by_layer, field)
            ax.plot(steps, height, MARKERS[number] + "-", color=COLOURS[number], ms=3.5, label=name)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("training step", fontsize=8, color=TEXT)
        ax.set_ylabel(label, fontsize=8, color=TEXT)
        quiet(ax, grid="y")
    loss = axes[0].twinx()
    loss.plot(steps, losses, color=GREY, linestyle=":", label="test loss (right)")
    loss.set_ylim(bottom=0)
    loss.tick_params(labelsize=8, colors=GREY, length=3, width=0.6)
    quiet(loss)
    lines, labels = axes[0].get_legend_handles_labels()
    more, told = loss.get_legend_handles_labels()
    figure.legend(
        lines + more, labels + told, loc="outside upper center", ncols=4, fontsize=7, frameon=False
    )
    path = DOCS / "images" / "training-dynamics.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def written(found: Found, table: pandas.DataFrame) -> Path:
    """Write the page and the table of all checkpoints; return the page."""
    table.to_csv(DOCS / "data" / "training-dynamics.csv", index=False, float_format="%.5g")
    one = table[table["score"] == table["score"].iloc[0]].drop_duplicates("step")
    losses, steps = one["test_loss"].tolist(), one["step"].tolist()
    half = len(steps) // 2
    path = DOCS / "training-dynamics.md"
    path.write_text(
        PAGE.format(
            steps=len(steps), first=int(steps[0]), last=int(steps[-1]),
            start=losses[0], end=losses[-1], half=int(steps[half]), half_loss=losses[half],
            table=_table(found, half),
        )
    )  # fmt: skip
    return path


def _table(found: Found, half: int) -> str:
    lines = [
        "| score | agrees with the last, at the start | halfway | top tenth, halfway "
        "| rising | falling | with loss |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, by_layer in found.items():
        agree, top = _mean(by_layer, "with_last"), _mean(by_layer, "top_overlap")
        tau = np.concatenate([one.tau.numpy() for one in by_layer.values()])
        loss = np.concatenate(
            [one.loss.numpy() for one in by_layer.values() if one.loss is not None]
        )
        lines.append(
            f"| [{name}](lenses/{name}.md) | {agree[0]:.2f} | {agree[half]:.2f} | {top[half]:.2f} "
            f"| {(tau > 0.5).mean():.0%} | {(tau < -0.5).mean():.0%} | {np.abs(loss).mean():.2f} |"
        )
    return "\n".join([*lines, ""])


def _mean(by_layer: Mapping[str, Dynamics], field: str) -> np.ndarray:
    mean: np.ndarray = np.mean([getattr(one, field).numpy() for one in by_layer.values()], 0)
    return mean
