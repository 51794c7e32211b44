"""`python -m projects.all_metrics digits efficientnet smollm2`: cost and agreement of all metrics.

Every metric lens that fits a network is measured in one composite without gradients and one with
them. Written to `outputs/all_metrics`: one JSON file a network, and `docs/all-metrics.md` with the
tables and the figure of rank correlations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from projects.all_metrics.measure import measured
from projects.all_metrics.networks import NETWORKS
from projects.all_metrics.page import written


def main() -> None:
    """Measure the networks that were named, and write the page from all that are known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []])
    parser.add_argument("--tokens", type=int, default=100_352, help="of text, for smollm2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/all_metrics"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        given = {"tokens": options.tokens} if name == "smollm2" else {}
        measured(NETWORKS[name](**given), options.output_dir / f"{name}.json")
    print(written(options.output_dir))


if __name__ == "__main__":
    main()
