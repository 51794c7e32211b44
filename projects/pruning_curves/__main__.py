"""`python -m projects.pruning_curves`: every strategy against chance, on digits and on MNIST.

Writes `docs/pruning-curves.md`, its figures and its CSV files. Needs `make models`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from projects.pruning_curves.curves import curves
from projects.pruning_curves.networks import NETWORKS
from projects.pruning_curves.page import section

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
HEAD = """\
# What is left when channels go

Accuracy on rows that no score has seen, against the share of every hidden layer's channels that is
silenced, lowest score first; no weight is written and nothing is trained again. Every strategy of
`list_pruning_strategies()` that fits the network is here, whatever came out. Made by `python -m
projects.pruning_curves`, two threads.
"""


def main() -> None:
    """Measure the networks that were named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=[*NETWORKS])
    options = parser.parse_args()
    torch.set_num_threads(2)
    parts = [HEAD]
    (DOCS / "data").mkdir(exist_ok=True)
    for name in options.networks:
        network = NETWORKS[name]()
        table, refused = curves(network)
        parts.append(section(name, network.title, table, refused, DOCS))
    (DOCS / "pruning-curves.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
