"""Run an experiment: python scripts/run_experiment.py --config CONFIG [key.sub=value ...]."""

import argparse

from nodelens.cli import main

parser = argparse.ArgumentParser(description=__doc__, epilog="More options: nodelens run --help")
parser.add_argument("--config", required=True)
arguments, others = parser.parse_known_args()
main(["run", arguments.config, *others])
