"""Draw the scores of every metric lens on real data: docs/lenses/figures/NAME.svg.

python scripts/lens_figures.py            # all of them, about a minute
python scripts/lens_figures.py NAME ...   # some
python scripts/lens_figures.py --check    # exit code 1 when one is missing, too large or of no lens

Lenses of any network are drawn for a small convolutional network trained on scikit-learn's digits,
those of feed-forward blocks and attention for three blocks of SmolLM2-135M (`make models`). A lens
that scores neither has no figure, and its page says so.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator
from torch import Tensor, nn

from nodelens import Lens, LensResult, load_model
from nodelens.configs.schema import TrainingConfig
from nodelens.data.datasets import load_dataset
from nodelens.data.text import text_batches
from nodelens.errors import NodeLensError
from nodelens.experiments.training import train
from nodelens.figures.style import COLOURS, GREY, MARKERS, TEXT, quiet, shown_unit
from nodelens.model import wrap
from nodelens.model.architectures import build_model
from nodelens.model.packaged import packaged_model

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "lenses" / "figures"
LARGEST = 8_000
POINTS = 40
MARKS = 4
BLOCKS = (0, 14, 29)
SPREAD = 50
"""A layer whose highest score is this many times its median is shown on a logarithmic axis."""


OPTIONS = {"activation_sparsity": {"site": "input"}}
"""Where the default shows nothing: only what a layer takes in is ever exactly zero."""
SMALLER = (
    (r"<metadata>.*?</metadata>|<clipPath.*?</clipPath>| clip-path=\"[^\"]*\"", ""),
    (r" id=\"(?:figure|axes|patch|line2d|text|xtick|ytick|legend|matplotlib)[^\"]*\"", ""),
    (r"font-family: [^;\"]*", "font-family: sans-serif"),
    (r"font: ([\d.]+px)[^;\"]*", r"font: \1 sans-serif"),
    (r" transform=\"rotate\(-0[^\"]*\"", ""),
    (r"; stroke-line(?:join: miter|cap: square)|", ""),
    (r"\s+", " "),
    (r"> <", "><"),
    (r"<defs></defs>|<g></g>", ""),
)
"""What is taken out of a figure, and what is put there instead."""


def main(arguments: list[str] | None = None) -> int:
    """Draw the figures, or check that they are there; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="lenses; by default all metric lenses")
    parser.add_argument("--check", action="store_true", help="draw nothing")
    parser.add_argument("--png", type=Path, help="a folder for PNGs to look at")
    options = parser.parse_args(arguments)
    if options.check:
        return int(bool(wrong := list(faults())) and print("\n".join(wrong)) is None)
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name in options.names or metrics():
        print(f"{name}: {draw(name, options.png)}", flush=True)
    return 0


def metrics() -> list[str]:
    """Return the names of the built-in lenses that score every channel."""
    return [
        name
        for name in Lens.names()
        if Lens.named(name).__module__.startswith("nodelens_lenses.")
        and Lens.named(name).family != "intervention"
    ]


def faults() -> Iterator[str]:
    """Yield what is wrong with the figures that are there."""
    known = set(metrics())
    for path in sorted(FOLDER.glob("*")):
        if path.suffix != ".svg" or path.stem not in known:
            yield f"{path.name} is the figure of no lens"
        elif path.stat().st_size > LARGEST:
            yield f"{path.name} has {path.stat().st_size} bytes, at most {LARGEST} are wanted"


def draw(name: str, png: Path | None) -> str:
    """Draw one lens on the first network that it scores, and return what was done."""
    reasons = []
    for scored in (of_digits, of_language):
        try:
            result = scored(name)
        except (NodeLensError, FileNotFoundError) as error:
            reasons.append(str(error).splitlines()[0])
            continue
        plot(name, result)
        (FOLDER / f"{name}.svg").write_text(_svg())
        if png is not None:
            png.mkdir(parents=True, exist_ok=True)
            pyplot.savefig(png / f"{name}.png", dpi=200)
        pyplot.close()
        return scored.__name__.replace("_", " ")
    return f"no figure ({'; '.join(reasons)})"


def _svg() -> str:
    """The figure as SVG, without what only an editor of drawings would want."""
    whole = io.StringIO()
    pyplot.savefig(whole, format="svg", metadata={"Date": None, "Creator": None})
    text = whole.getvalue()
    text = text[text.index("<svg") :]
    for pattern, instead in SMALLER:
        text = re.sub(pattern, instead, text, flags=re.DOTALL)
    # Coordinates stand in tags; what is between them is text, such as the numbers at an axis.
    return re.sub(r"<[^>]*>", lambda tag: _rounded(tag[0]), text).strip() + "\n"


def _rounded(tag: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}", tag)


def of_digits(name: str) -> LensResult:
    """Return the scores of the digits network on the images it was not trained on."""
    model, initial, test = _digits()
    kind = Lens.named(name)
    lens, options = kind.example(wrap(model))
    if name in OPTIONS:
        lens = kind(**OPTIONS[name])
    if "initial_weights" in lens.prepare_options():
        options["initial_weights"] = initial
    return lens.run(model, [test], progress=False, **options)


def of_language(name: str) -> LensResult:
    """Return the scores of three blocks of a language model on English text."""
    model, batches = _language()
    lens, options = Lens.named(name).example(model)
    lens.layers = [f"*layers.{block}.*" for block in BLOCKS]
    return lens.run(model, batches, progress=False, **options)


@cache
def _digits() -> tuple[nn.Module, dict[str, Tensor], Any]:
    data = load_dataset("digits")
    model = build_model("small_cnn", channels=(8, 16), hidden=(32,), seed=0)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, data.train, data.test, TrainingConfig(epochs=10), seed=0)
    return model.eval(), initial, data.test.tensors


@cache
def _language() -> tuple[Any, list[Any]]:
    model = load_model(str(packaged_model("smollm2-135m")), dtype=torch.float32)
    return model, list(text_batches("pydoc", model.tokenizer, 2, 128, 512))


def plot(name: str, result: LensResult) -> None:
    """Draw the scores of each layer from high to low, over the share of its channels."""
    pyplot.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "nodelens", "font.family": "sans-serif"}
    )
    figure, axes = pyplot.subplots(figsize=(320 / 72, 120 / 72), layout="constrained")
    chosen = {layer: _main(name, scores) for layer, scores in result.items()}
    whole = all(len(scores) == 1 for scores in chosen.values())
    for number, (layer, scores) in enumerate(chosen.items()):
        _line(axes, number, layer, scores, float(number) if whole else 0.0)
    if _heavy(list(chosen.values())):
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(pyplot.NullLocator())
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        # Powers set as mathematics would be drawn in an SVG by scaling, which rounding spoils.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelsize=7, colors=TEXT, length=2, width=0.5)
    axes.set_xticks([] if whole else [0, 1], [] if whole else ["highest", "lowest"])
    unit = shown_unit(Lens.named(name).unit)
    title = ", ".join([name, *(f"{key}={value!r}" for key, value in OPTIONS.get(name, {}).items())])
    axes.set_title(f"{title} ({unit})" if unit else title, fontsize=7.5, color=TEXT, loc="left")
    kinds = {"attention": "heads", "scar": "units"}
    kind = kinds.get(Lens.named(name).family, "channels")
    about = "one number a layer" if whole else f"{kind} of each layer"
    axes.set_xlabel(about, fontsize=7, color=GREY, labelpad=2 if whole else -7)
    quiet(axes)
    figure.legend(loc="outside right center", fontsize=7, frameon=False, handlelength=1.2)


def _main(name: str, scores: Any) -> Tensor:
    """The score that bears the lens's name, or the first one, from high to low."""
    values: Tensor = scores[name] if name in scores else next(iter(scores.values()))
    return values.flatten().sort(descending=True).values


def _line(axes: Any, number: int, layer: str, scores: Tensor, start: float) -> None:
    count = len(scores)
    kept = torch.linspace(0, count - 1, min(count, POINTS)).round().long()
    places = (start + kept / max(count - 1, 1)).tolist()
    axes.plot(
        places,
        scores[kept].tolist(),
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        markevery=max(len(kept) // MARKS, 1),
        markersize=2.2,
        linewidth=1,
        label=_short(layer),
    )


def _short(layer: str) -> str:
    """A layer's name short enough for the margin: block 14 for `model.layers.14.mlp.down_proj`."""
    numbers = [part for part in layer.split(".") if part.isdigit()]
    return f"block {numbers[0]}" if numbers else layer


def _heavy(found: list[Tensor]) -> bool:
    return all(float(s.min()) > 0 for s in found) and any(
        float(s.max()) > SPREAD * float(s.median()) for s in found
    )


if __name__ == "__main__":
    sys.exit(main())
