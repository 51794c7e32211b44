"""`python -m projects.smollm2_pruning`: perplexity of SmolLM2-135M without its feed-forward units.

Writes `outputs/smollm2_pruning/points.json` as it goes, then `docs/smollm2-pruning.md` with its
figure and CSV file. Needs `make models`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from projects.smollm2_pruning.measure import Study, points
from projects.smollm2_pruning.page import written


def main() -> None:
    """Measure every condition at every amount, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration-tokens", type=int, default=8_192)
    parser.add_argument("--evaluation-tokens", type=int, default=8_192)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/smollm2_pruning"))
    parser.add_argument("--page-only", action="store_true", help="from the points of the last run")
    options = parser.parse_args()
    torch.set_num_threads(2)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    path = options.output_dir / "points.json"
    if not options.page_only:
        found = []
        for point in points(Study.of(options.calibration_tokens, options.evaluation_tokens)):
            found.append(point)
            path.write_text(json.dumps(found, indent=1))
    written(json.loads(path.read_text()), options.calibration_tokens)


if __name__ == "__main__":
    main()
