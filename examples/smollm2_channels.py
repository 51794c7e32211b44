"""Which feed-forward channels of a real language model hold its loss: SmolLM2-135M on real text.

One forward and backward pass a batch measures the five scar_ scores, the Rayleigh quotient and the
average redundancy of all 30 feed-forward blocks. Prints, and plots, the share of the loss proxy
that the top 1% of each block's channels hold.

    make models                                   # fetches the model and the text, once
    python examples/smollm2_channels.py           # 16,384 tokens; --tokens for fewer
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib import pyplot
from torch import Tensor

from nodelens import CompositeLens, Lens, LensResult, load_model
from nodelens.data.text import text_batches
from nodelens.model.packaged import packaged_model

SCAR = ("activation_power", "taylor", "curvature", "loss_proxy", "loss_proxy_factored")


def main() -> None:
    """Measure, print the table, save the figure and the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument(
        "--text", default="encyclopaedia", choices=("pydoc", "encyclopaedia", "news")
    )
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/smollm2_channels"))
    options = parser.parse_args()

    model = load_model(str(packaged_model("smollm2-135m")), dtype=torch.float32)
    batches = text_batches(options.text, model.tokenizer, 4, 256, options.tokens)
    lens = CompositeLens(
        [
            *(Lens.from_name(f"scar_{score}") for score in SCAR),
            # The weights that write a channel: how far they follow what the block reads.
            Lens.from_name("rayleigh_quotient", layers="*.mlp.up_proj"),
            # The channels themselves are what the down projection takes in.
            Lens.from_name("average_redundancy", layers="*.mlp.down_proj", site="input"),
        ]
    )
    result = lens.run(model, list(batches))
    result.save(options.output_dir)

    shares = {name: top_share(v) for name, v in result.scores("scar_loss_proxy").items()}
    print_table(result, shares)
    path = plot_shares(shares, options.output_dir)
    rows = max(result.rows.values())
    print(f"\n{rows:,} tokens of {options.text}; scores in {options.output_dir}, figure in {path}")


def top_share(scores: Tensor, fraction: float = 0.01) -> float:
    """Return the share of the sum that the highest `fraction` of channels hold."""
    k = max(int(fraction * len(scores)), 1)
    return float(scores.topk(k).values.sum() / scores.sum())


def print_table(result: LensResult, shares: dict[str, float]) -> None:
    """Print one row a block: the top share, the strongest channel, mean quotient and redundancy."""
    print(
        f"{'block':24}{'top 1% of loss proxy':>22}{'channel':>9}{'mean RQ':>10}{'redundancy':>12}"
    )
    for name, share in shares.items():
        up = name.replace("down_proj", "up_proj")
        strongest = int(result[name]["scar_loss_proxy"].argmax())
        quotient = float(result[up]["rayleigh_quotient"].mean())
        redundancy = float(result[name]["average_redundancy"].mean())
        block = name.removesuffix(".down_proj")
        print(f"{block:24}{share:>21.1%}{strongest:>10}{quotient:>10.2g}{redundancy:>8.3f} nat")
    ordered = sorted(shares.values())
    middle = ordered[len(ordered) // 2]
    print(f"\ntop 1% of channels: median {middle:.1%}, from {ordered[0]:.1%} to {ordered[-1]:.1%}")


def plot_shares(shares: dict[str, float], folder: Path) -> Path:
    """Return the file of a bar chart of the shares by depth."""
    _, ax = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    ax.bar(range(len(shares)), [100 * share for share in shares.values()], color="#0072B2")
    ax.axhline(1, color="#D55E00", linewidth=1, linestyle="--", label="all channels alike")
    ax.legend(frameon=False, loc="upper center")
    ax.set(xlabel="block", ylabel="share of the loss proxy (%)")
    ax.set_title("What the top 1% of channels hold, SmolLM2-135M", loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    path = folder / "top_share.png"
    ax.figure.savefig(path, dpi=200)
    return path


if __name__ == "__main__":
    main()
