"""`python -m projects.leaderboard digits mnist efficientnet smollm2`: which lens foretells damage?

Every metric lens that fits a network, against the measured damage of silencing single channels.
Written to `outputs/leaderboard`: the damage as it comes (a later call goes on from it), a CSV, a
JSON and an HTML page a network; and `docs/leaderboard.md` with figures, from all that are known.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

import torch

from nodelens.analysis.causal import lens_leaderboard
from projects.leaderboard.networks import NETWORKS
from projects.leaderboard.page import drawn, written


def measured(name: str, folder: Path, resamples: int) -> None:
    """Measure one network and write its table, figure and page."""
    network = NETWORKS[name]()
    start = perf_counter()
    board = lens_leaderboard(
        network.model,
        network.scoring,
        network.testing,
        layers=network.layers,
        resamples=resamples,
        path=folder / f"{name}.jsonl",
        planned=lambda check: print(f"{name}: {check.evaluations} evaluations"),
        **network.options,
    )
    board.to_csv(folder / f"{name}.csv")
    board.to_html(folder / f"{name}.html")
    drawn(board, name)
    about = {
        "title": network.title,
        "rows": network.rows,
        "facts": dict(board.facts),
        "refused": dict(board.refused),
        "threads": torch.get_num_threads(),
        "seconds": perf_counter() - start,
    }
    (folder / f"{name}.json").write_text(json.dumps(about, indent=1))


def main() -> None:
    """Measure the networks that were named, and write the page from all that are known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/leaderboard"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        measured(name, options.output_dir, options.resamples)
    print(written(options.output_dir))


if __name__ == "__main__":
    main()
