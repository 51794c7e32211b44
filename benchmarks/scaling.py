"""`python -m benchmarks.scaling`: how time and memory grow, one factor at a time."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.baselines import plain
from benchmarks.cases import O_OF_C
from benchmarks.harness import time_cases
from nodelens import CompositeLens, Lens, ModelWrapper

HERE = Path(__file__).parent
LENSES = (*O_OF_C, "average_redundancy")


@dataclass(frozen=True)
class Setting:
    """A perceptron of `layers` equal layers, and how it is measured."""

    channels: int = 256
    layers: int = 4
    batch: int = 256
    batches: int = 16
    lenses: int = len(LENSES)


LABELS = {
    "lenses": "lenses in the pass",
    "layers": "layers",
    "channels": "channels a layer",
    "batch": "rows a batch",
    "batches": "batches of the stream",
}

SWEEPS: dict[str, list[Setting]] = {
    "lenses": [Setting(lenses=n) for n in (1, 3, 6, 9)],
    "layers": [Setting(layers=n) for n in (1, 4, 16)],
    "channels": [Setting(channels=n) for n in (64, 256, 1024)],
    "batch": [Setting(batch=n) for n in (16, 256, 1024)],
    "batches": [Setting(batches=n) for n in (8, 32, 128)],
}


def main() -> None:
    """Measure every sweep, write `scaling.json` and draw `scaling.png` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peak", type=int, help="print the peak memory of a run of that many batches"
    )
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
        return
    found = {
        name: [measured(s, options.rounds) for s in settings] for name, settings in SWEEPS.items()
    }
    memory = {n: _peak_elsewhere(n) for n in (32, 128)}
    about = {"peak_bytes": memory, "import_seconds": dict(_imports())}
    (HERE / "scaling.json").write_text(json.dumps({**about, "sweeps": found}, indent=2) + "\n")
    draw(found)


def measured(setting: Setting, rounds: int) -> dict[str, object]:
    """Return milliseconds a batch of the plain pass and of the lenses, and what they add."""
    torch.manual_seed(0)
    width = setting.channels
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(setting.layers)))
    batches = [torch.randn(setting.batch, width) for _ in range(setting.batches)]
    wrapper = ModelWrapper(model.eval())
    lens = CompositeLens([Lens.from_name(name) for name in LENSES[: setting.lenses]])
    ready = [{"args": (x,), "kwargs": {}} for x in batches]

    def run() -> None:
        aggregator = lens.aggregator()
        for statistics in lens.analyse_batched(wrapper, batches):
            aggregator.update(statistics)

    cases = {"plain": lambda: plain(model, ready), "lenses": run}
    timings = time_cases(cases, {"lenses": "plain"}, rounds)
    each = {t.case: 1000 * t.seconds / setting.batches for t in timings}
    return {**asdict(setting), "plain_ms": each["plain"], "lenses_ms": each["lenses"]}


def peak(batches: int) -> int:
    """Return the peak resident memory of this process after a run, in bytes."""
    model = ModelWrapper(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)))
    stream = (torch.randn(256, 256) for _ in range(batches))
    CompositeLens([Lens.from_name(n) for n in LENSES]).run(model, stream, progress=False)
    # The rusage of a process starts at its parent's; what /proc says is its own.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _peak_elsewhere(batches: int) -> int:
    command = [sys.executable, "-m", "benchmarks.scaling", "--peak", str(batches)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _imports() -> Iterator[tuple[str, float]]:
    """The best of five fresh processes, so that what the machine does beside counts little."""
    for name in ("torch", "nodelens", "nodelens.lens"):
        code = (
            f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
        )
        command = [sys.executable, "-c", code]
        times = [subprocess.run(command, check=True, capture_output=True).stdout for _ in range(5)]
        yield name, min(map(float, times))


def draw(found: dict[str, list[dict[str, object]]]) -> None:
    """Draw one panel a sweep: milliseconds a batch against what was varied."""
    from matplotlib import pyplot
    from matplotlib.ticker import ScalarFormatter

    figure, axes = pyplot.subplots(1, len(found), figsize=(15, 3), layout="constrained")
    for ax, (name, points) in zip(axes, found.items(), strict=True):
        for key, label in (("plain_ms", "plain forward"), ("lenses_ms", "with lenses")):
            ax.plot([p[name] for p in points], [p[key] for p in points], marker="o", label=label)
        values = [p[name] for p in points]
        ax.set(xlabel=LABELS[name], xscale="log", yscale="log", xticks=values)
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.minorticks_off()
    axes[0].set_ylabel("milliseconds a batch")
    axes[0].legend(frameon=False)
    figure.savefig(HERE / "scaling.png", dpi=120)


if __name__ == "__main__":
    main()
