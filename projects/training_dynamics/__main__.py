"""`python -m projects.training_dynamics`: scores along the checkpoints of a training run.

The digits CNN is trained, its weights saved as safetensors after about every doubling of steps, and
every checkpoint scored by several lenses in one pass. Writes `docs/training-dynamics.md`, its
figure and its table. Under a minute.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, ModelWrapper
from nodelens.analysis.dynamics import Dynamics, dynamics, score_checkpoints
from nodelens.data.datasets import load_dataset
from nodelens.interventions import evaluate
from projects.pruning_curves.networks import batched
from projects.training_dynamics.page import drawn, written

LENSES = (
    "weight_magnitude",
    "activation_l2_norm",
    "rq_fast",
    "mi_about_class",
    "fisher",
    "taylor_saliency",
)
STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 348)


def network() -> nn.Sequential:
    """Return the CNN with random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def saved(model: nn.Module, x: Tensor, y: Tensor, folder: Path) -> list[Path]:
    """Train the model and return the files of its checkpoints, one for each of `STEPS`."""
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    files, batches = [], _endless(len(x), 50)
    for step in range(1, STEPS[-1] + 1):
        rows = next(batches)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
        if step in STEPS:
            files.append(folder / f"step-{step}.safetensors")
            save_file(model.state_dict(), files[-1])
    return files


def _endless(rows: int, size: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(rows).split(size)


def scored(
    model: nn.Module, files: Sequence[Path], batches: Any, test: Any
) -> tuple[dict[str, dict[str, Tensor]], list[float]]:
    """Return `{score: {layer: (checkpoints, channels)}}`, and the test loss of every checkpoint."""
    wrapper = ModelWrapper(model.eval())
    lens = CompositeLens([Lens.from_name(name) for name in LENSES])
    losses: list[float] = []

    def score(given: Any) -> dict[str, Any]:
        losses.append(evaluate(given, test).loss)
        result = lens.run(given, batches, progress=False)
        layers = [layer for layer in given.layers if layer != list(given.layers)[-1]]
        return {
            f"{name}|{layer}": result.scores(name)[layer] for name in LENSES for layer in layers
        }

    found: dict[str, dict[str, Tensor]] = {name: {} for name in LENSES}
    for key, values in score_checkpoints(wrapper, files, score).items():
        name, layer = key.split("|")
        found[name][layer] = values
    return found, losses


def table(found: dict[str, dict[str, Dynamics]], losses: Sequence[float]) -> pandas.DataFrame:
    """Return one row a score, layer and checkpoint."""
    parts = [
        one.to_pandas().assign(score=name, layer=layer, test_loss=losses)
        for name, by_layer in found.items()
        for layer, one in by_layer.items()
    ]
    whole = pandas.concat(parts)
    first = ["score", "layer", "step", "test_loss"]
    return whole[first + [column for column in whole.columns if column not in first]]


def main() -> None:
    """Train, score every checkpoint and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/training_dynamics"))
    folder = parser.parse_args().output_dir
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = load_dataset("digits")
    model, (x, y) = network(), data.train.tensors
    files = saved(model, x, y, folder)
    scores, losses = scored(
        copy.deepcopy(model), files, batched(x, y, 256), batched(*data.test.tensors, 360)
    )
    found = {
        name: {layer: dynamics(v, STEPS, losses, log_steps=True) for layer, v in by_layer.items()}
        for name, by_layer in scores.items()
    }
    drawn(found, losses)
    print(written(found, table(found, losses)))


if __name__ == "__main__":
    main()
