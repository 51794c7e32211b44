"""Analyse a run again: python scripts/run_analysis.py --results-dir DIR --output-dir FOLDER."""

import argparse

from nodelens.cli import main

parser = argparse.ArgumentParser(
    description=__doc__, epilog="More options: nodelens analyse --help"
)
parser.add_argument("--results-dir", required=True)
arguments, others = parser.parse_known_args()
main(["analyse", arguments.results_dir, *others])
